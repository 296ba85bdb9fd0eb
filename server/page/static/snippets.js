// A request as others would send it.

import { key, root } from "./api.js";

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export function curl(body) {
  const head = [`curl ${root}/v1/chat/completions`, "-H 'content-type: application/json'"];
  if (key.get()) head.push('-H "authorization: Bearer $REASOND_KEY"');
  return `${[...head, `-d ${quoted(JSON.stringify(body, null, 2))}`].join(" \\\n  ")}\n`;
}

/** For OpenAI's client; what it has no name for goes into `extra_body`. */
export function python(body) {
  const { reasond, ...known } = body;
  const fields = Object.entries(known).map(([name, value]) => `    ${name}=${literal(value)},`);
  if (reasond) fields.push(`    extra_body={"reasond": ${literal(reasond)}},`);
  return [
    ...(key.get() ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(`${root}/v1`)}, api_key=${key.get() ? 'os.environ["REASOND_KEY"]' : '"none"'})`,
    "reply = client.chat.completions.create(",
    ...fields,
    ")",
    "print(reply.choices[0].message.content, reply.model_extra[\"reasond\"])",
    "",
  ].join("\n");
}

function literal(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "number") return String(value);
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  return `{${Object.entries(value).map(([name, inside]) => `${JSON.stringify(name)}: ${literal(inside)}`).join(", ")}}`;
}

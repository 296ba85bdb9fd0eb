// The server's HTTP API: requests with the key, streams of events, errors in words.

const KEY = "reasond.key";

const WORDS = {
  invalid_api_key: "This server asks for an API key, and the one given is not valid. Enter one under Settings.",
  engine_dead: "The model's engine is down. Other routes may still answer.",
  overloaded: "The model's queue is full. Try again in a moment.",
  server_stopping: "The server is being stopped.",
};

/** An error that can be shown as it is. */
export class Refusal extends Error {
  constructor(message, code = null) {
    super(message);
    this.code = code;
  }

  static of(error, status) {
    const said = error?.message ?? `The server answered with status ${status}.`;
    return new Refusal(WORDS[error?.code] ?? said[0].toUpperCase() + said.slice(1), error?.code);
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value.trim()),
};

/** What stands between the page and the server's root: the page may be behind a proxy, in a folder. */
export const root = new URL(".", document.baseURI).href.replace(/\/$/, "");

async function request(path, { body, id, signal, method } = {}) {
  const headers = {};
  if (key.get()) headers.authorization = `Bearer ${key.get()}`;
  if (body) headers["content-type"] = "application/json";
  if (id) headers["x-request-id"] = id;
  const sent = { method: method ?? (body ? "POST" : "GET"), headers, body: body && JSON.stringify(body), signal };
  let answer;
  try {
    answer = await fetch(`${root}${path}`, sent);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refusal("The server cannot be reached.", "unreachable");
  }
  if (answer.ok) return answer;
  const text = await answer.text();
  let error = null;
  try {
    error = JSON.parse(text).error;
  } catch {
    // a proxy in between answers in its own way
  }
  throw Refusal.of(error, answer.status);
}

export async function models() {
  return (await (await request("/v1/models")).json()).data;
}

export async function metrics() {
  return (await request("/metrics")).text();
}

/** Whether the server takes requests: its status in its own words, also where that is a 503. */
export async function ready() {
  return (await fetch(`${root}/ready`)).json();
}

/** Asks of a reply that runs to answer now ("answer"), or to end ("cancel"). */
export function interrupt(id, wish) {
  return request(`/v1/reasoning/${id}/${wish}`, { method: "POST" });
}

/** The events of a chat completion. Throws a `Refusal` where the stream tells of an error or breaks off. */
export async function* chat(body, id, signal) {
  const answer = await request("/v1/chat/completions", { body, id, signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data: ")) continue;
        if (line === "data: [DONE]") return;
        const event = JSON.parse(line.slice(6));
        if (event.error) throw Refusal.of(event.error);
        yield event;
      }
    }
  } catch (error) {
    if (error instanceof Refusal || signal?.aborted) throw error;
  } finally {
    reader.cancel().catch(() => {});
  }
  throw new Refusal("The connection ended before the reply was complete.", "broken");
}

export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return `page-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

// The server's state, live: everything here is read from /metrics, and what engines and routes there are with it.

import { key, metrics, ready } from "./api.js";
import { $, h, number, percent } from "./dom.js";

const EVERY = 2000; // milliseconds between two readings
const WINDOW = 5; // readings that a rate looks back
const KEPT = 60;

/** Prometheus' text format as a list of `{name, labels, value}`. */
export function parse(text) {
  const label = /(\w+)="((?:\\.|[^"\\])*)"/g;
  return text
    .split("\n")
    .map((line) => /^([\w:]+)(?:\{(.*)\})? (\S+)/.exec(line))
    .filter(Boolean)
    .map(([, name, labels, value]) => ({
      name,
      labels: Object.fromEntries([...(labels ?? "").matchAll(label)].map(([, key, text]) => [key, text.replace(/\\(.)/g, "$1")])),
      value: Number(value),
    }));
}

const readings = []; // newest last: {at, samples}

/** The sum of the samples of a metric that have these labels, in the newest reading or `back` before it. */
function sum(name, labels = {}, back = 0) {
  const { samples } = readings[Math.max(0, readings.length - 1 - back)];
  const fits = (sample) => sample.name === `reasond:${name}` && Object.entries(labels).every(([key, value]) => sample.labels[key] === value);
  return samples.filter(fits).reduce((total, sample) => total + sample.value, 0);
}

/** How much a counter grows in a second. */
function rate(name, labels, back = WINDOW, until = 0) {
  const last = readings.length - 1 - until;
  const first = Math.max(0, last - back);
  const elapsed = (readings[last].at - readings[first].at) / 1000;
  const grown = sum(name, labels, until) - sum(name, labels, readings.length - 1 - first);
  return elapsed > 0 ? Math.max(0, grown) / elapsed : 0;
}

const values = (name, label) => [...new Set(readings.at(-1).samples.filter((each) => each.name === `reasond:${name}`).map((each) => each.labels[label]))];
const tenth = (value) => (value < 10 ? value.toFixed(1) : number(value));
const mean = (name, labels) => sum(`${name}_sum`, labels) / sum(`${name}_count`, labels);
const shown = (value, write = number) => (Number.isFinite(value) ? write(value) : "–");

function table(element, head, rows) {
  const cells = (row) => row.map((cell, index) => h(index ? "td" : "th", index ? {} : { scope: "row" }, cell));
  element.replaceChildren(h("thead", {}, h("tr", {}, head.map((text) => h("th", { scope: "col" }, text)))), h("tbody", {}, rows.map((row) => h("tr", {}, cells(row)))));
}

function sparkline(points) {
  const top = Math.max(...points, 1);
  const svg = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const line = points.map((point, index) => `${120 - (points.length - 1 - index) * (120 / (KEPT - 1))},${27 - 24 * (point / top)}`).join(" ");
  const picture = svg("svg", { viewBox: "0 0 120 30", width: 120, height: 30, "aria-hidden": "true" });
  picture.append(svg("polyline", { points: line }));
  return picture;
}

function show(state) {
  const all = {};
  const tile = (value, text, kind = "") => h("div", { class: "tile" }, h("b", { class: kind }, value), h("span", {}, text));
  $("#tiles").replaceChildren(
    tile(state.status, state.degraded ? `without target: ${state.degraded.join(", ")}` : "server", state.status === "ready" ? "good" : "bad"),
    tile(number(sum("num_requests_waiting")), "waiting for a first token"),
    tile(number(sum("replies_running", { mode: "think" })), "thinking replies in flight"),
    tile(number(sum("replies_running", { mode: "no_think" })), "direct replies in flight"),
    tile(number(sum("budgets_running")), "budgets held"),
    tile(tenth(rate("generated_tokens_total", all)), "tokens a second"),
    tile(tenth(60 * rate("takeovers_total", all)), "takeovers a minute"),
  );
  const routes = values("num_requests_running", "route");
  table(
    $("#routes"),
    ["route", "waiting", "running", "thinking", "direct", "budgets held", "tokens a second", "", "replies", "thought", "thinking tokens, mean", "failed"],
    routes.map((route) => {
      const at = { route };
      const decided = sum("mode_decisions_total", at);
      const failed = sum("requests_total", { route, outcome: "error" }) + sum("requests_total", { route, outcome: "overloaded" });
      const speeds = readings.map((_, index) => rate("generated_tokens_total", at, WINDOW, readings.length - 1 - index));
      return [
        route,
        number(sum("num_requests_waiting", at)),
        number(sum("num_requests_running", at)),
        number(sum("replies_running", { route, mode: "think" })),
        number(sum("replies_running", { route, mode: "no_think" })),
        number(sum("budgets_running", at)),
        tenth(speeds.at(-1)),
        sparkline(speeds),
        number(sum("requests_total", { route, outcome: "ok" })),
        shown(sum("mode_decisions_total", { route, mode: "think" }) / decided, percent),
        shown(mean("request_reasoning_tokens", at)),
        h("span", { class: failed ? "bad" : "" }, number(failed)),
      ];
    }),
  );
  table($("#engines"), ["engine", "requests held"], values("engine_requests", "engine").map((engine) => [engine, number(sum("engine_requests", { engine }))]));
  const cuts = values("cuts_total", "cut");
  const kinds = values("takeovers_total", "kind");
  const words = { line_end: "cut at a line's end", wrap_up: "cut with a phrase", hard: "cut on the spot" };
  table(
    $("#control"),
    ["route", "budget used, mean", ...cuts.map((cut) => words[cut] ?? cut), ...kinds, "target's share, mean"],
    routes.map((route) => [
      route,
      shown(mean("budget_used_ratio", { route }), percent),
      ...cuts.map((cut) => number(sum("cuts_total", { route, cut }))),
      ...kinds.map((kind) => number(sum("takeovers_total", { route, kind }))),
      shown(mean("target_token_share", { route }), percent),
    ]),
  );
}

async function read() {
  try {
    const [text, now] = await Promise.all([metrics(), ready()]);
    readings.push({ at: performance.now(), samples: parse(text).filter(({ name }) => name.startsWith("reasond:") && !name.endsWith("_bucket")) });
    readings.splice(0, readings.length - KEPT);
    show(now);
    $("#problem").textContent = "";
    $("#keys").hidden = true;
  } catch (error) {
    $("#problem").textContent = error.message;
    $("#keys").hidden = error.code !== "invalid_api_key";
    if (error.code === "invalid_api_key") return;
  }
  setTimeout(read, document.hidden ? 5 * EVERY : EVERY);
}

$("#keys").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set($("#key").value);
  read();
});
read();

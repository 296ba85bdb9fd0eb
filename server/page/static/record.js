// The decision record in words: who decided what, what it cost, what was cut and why.

import { count, h, number, percent, seconds } from "./dom.js";

const CHOSEN_BY = {
  client: "chosen by your settings",
  key: "the API key's default",
  route: "the route's default",
  cap: "a cap forbids it",
  model: "chosen by the model itself",
  threshold: "by the model's probability",
  reserve: "the answer's reserve leaves no room to think",
  ask: "the model was asked whether it needs to",
  hint: "the model was told to think as far as it has to",
  always: "the route always thinks",
  never: "the route never thinks",
  random: "drawn at random",
  draft: "by the model's doubt in its direct reply",
  agree: "by how far its direct replies agree",
  classifier: "by a classifier of the question",
  chain: "by the route's deciders in turn",
  deadline: "the deadline leaves no time to think",
  load: "the server is too busy to think",
};
const CUT = { line_end: "at a line's end", wrap_up: "with a wrap-up phrase", hard: "on the spot" };
const CUT_BY = {
  budget: "the budget was used up",
  reserve: "to leave room for the answer",
  client: "you asked for the answer",
  loop: "the thought went in circles",
  settled: "the thought was settled",
  deadline: "the answer was due",
};
const FAILURE = {
  dead: "its engine is down",
  down: "it failed a moment ago",
  busy: "its queue was full",
  slow: "it was silent for too long",
  full: "its context was full",
  error: "it failed",
};

export const thought = (record) => record.mode === "think";

/** Chips for the line under a reply. */
export function summary({ record, running, budget }) {
  const { cut, best_of: best, judge } = record;
  return [
    thought(record) ? (running ? "Thinks" : "Thought") : running ? "Answers at once" : "Answered at once",
    CHOSEN_BY[record.chosen_by] ?? `chosen by ${record.chosen_by}`,
    budget && !running && `budget ${number(budget.used)} of ${number(budget.limit)}`,
    cut && `cut ${CUT[cut] ?? cut}`,
    record.target_share !== undefined && `target ${percent(record.target_share)}`,
    best && `best of ${best.n}`,
    judge && verdictWords(judge),
    record.cancelled && "stopped",
  ].filter(Boolean);
}

const verdictWords = ({ winner, votes }) => (winner === null ? "no verdict" : `reply ${"AB"[winner] ?? winner} by ${votes.first} to ${votes.second}`);

/** Rows of the whole record: label and what stands there. */
export function rows(record, threshold) {
  const { budget } = record;
  const found = [];
  const row = (label, ...content) => found.push(h("div", {}, h("dt", {}, label), h("dd", {}, content)));
  row("Mode", `${thought(record) ? "thinking" : "no thinking"}: ${CHOSEN_BY[record.chosen_by] ?? `chosen by ${record.chosen_by}`}`);
  const from = record.threshold ?? threshold;
  if (record.p_think !== undefined && record.p_think !== null) row("P(think)", scale(record.p_think, from));
  if (record.decision_tokens !== undefined) row("The decision cost", count(record.decision_tokens, "token"));
  if (budget) row("Budget", budgetWords(budget));
  if (record.cut) row("Cut", `${CUT[record.cut] ?? record.cut}: ${CUT_BY[record.cut_by] ?? record.cut_by}`);
  if (record.exit) row("Early exit", exitWords(record.exit));
  if (record.takeovers) {
    const kinds = Object.entries(record.takeovers).filter(([, times]) => times);
    const spoken = kinds.length ? kinds.map(([kind, times]) => `${times} × ${kind}`).join(", ") : "none";
    row("Takeovers", spoken);
    row("Target", `${count(record.target_tokens, "token")}, ${percent(record.target_share)} of the reply`);
    const { held_seconds: held, seconds: spent } = record.speculative ?? {};
    if (spent) row("Time in models", Object.entries(spent).map(([name, value]) => `${name} ${seconds(value)}`).join(", "), `; held back ${seconds(held)}`);
    if (record.target_failure) row("Target missing", FAILURE[record.target_failure] ?? record.target_failure);
  }
  if (record.best_of) row("Bracket", bracket(record.best_of));
  if (record.judge) row("Votes", votes(record.judge));
  const thrown = (record.discarded_tokens ?? 0) + (record.best_of?.discarded_tokens ?? 0);
  if (thrown) row("Thrown away", count(thrown, "token"));
  if (record.best_of) row("The judge wrote", count(record.best_of.judge_tokens, "token"));
  if (record.segments > 1) row("Engine requests", number(record.segments));
  for (const note of record.notes ?? []) row("Note", note);
  return found;
}

function scale(probability, threshold) {
  const known = typeof threshold === "number";
  const bar = h("span", { class: "scale", "aria-hidden": "true" }, h("i"), known && h("b"));
  bar.firstChild.style.width = `${100 * probability}%`;
  if (known) bar.lastChild.style.left = `${100 * threshold}%`;
  const sign = known ? ` ${probability >= threshold ? "≥" : "<"} ${threshold}, the threshold` : "";
  return [bar, `${probability.toFixed(3)}${sign}`];
}

function exitWords({ rule, looks, best, probe_tokens: tokens }) {
  const found = best === null ? "" : `, at best ${best.toFixed(3)}`;
  return rule === "trial" ? `${count(looks, "trial")}${found}, ${count(tokens, "token")}` : `${rule}, ${count(looks, "look")}${found}`;
}

function budgetWords({ scope, requested, declared, enforced, used }) {
  const say = (label, value) => value !== null && value !== undefined && `${label} ${value < 0 ? "no limit" : number(value)}`;
  const parts = [say("asked for", requested), say("declared by the model", declared), say("enforced", enforced), say("used", used)];
  return `${parts.filter(Boolean).join(", ")} (tokens of ${scope === "reply" ? "the whole reply" : "thinking"})`;
}

/** The knockout, one list a round. Replies are numbered from 1; the winner of a match stands out. */
function bracket({ bracket: rounds, winner, judge }) {
  const side = (reply, wins) => h(wins ? "b" : "span", {}, `reply ${reply + 1}`);
  const match = ({ replies: [a, b], votes: [first, second], by_lot: lot }, index, all) => {
    const won = first === second ? null : first > second ? a : b;
    return h("li", {}, side(a, won === a), ` ${first} : ${second} `, side(b, won === b), lot && " (by lot)", all.length === 1 && won === null && " (a draw)");
  };
  const columns = rounds.map((played) => h("ol", {}, played.map(match)));
  return h("div", { class: "bracket" }, columns, h("p", {}, `Reply ${winner + 1} won; ${judge} judged.`));
}

function votes({ winner, votes: { first, second, abstained, of } }) {
  const bar = h("span", { class: "votes", "aria-hidden": "true" }, h("i"), h("b"));
  bar.firstChild.style.flexGrow = first;
  bar.lastChild.style.flexGrow = second;
  const rest = abstained ? `, ${abstained} without a verdict` : "";
  return [bar, `${verdictWords({ winner, votes: { first, second } })}, of ${count(of, "vote")}${rest}`];
}

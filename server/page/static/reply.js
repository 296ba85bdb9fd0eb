// One reply: what is known of it while it comes, and how an event changes that. A reply is plain data that can be stored.

import { Refusal, chat, interrupt, newId } from "./api.js";
import { addText } from "./runs.js";
import { able, bodyOf, inWords } from "./settings.js";

/** `status` is running, done, stopped or failed. `thought` and `answer` are runs of text; seconds count from the question. */
export function newReply(settings, card, messages) {
  const { think_threshold, budgets } = able(card);
  const threshold = settings.threshold === "" ? think_threshold : Number(settings.threshold);
  return {
    status: "running",
    words: inWords(settings, card),
    body: bodyOf(settings, card, messages),
    threshold,
    limited: Boolean(budgets && (budgets.default ?? budgets.cap) !== null), // else only the answer's reserve may limit it
    thought: [],
    answer: [],
    record: {},
    progress: null,
    tokens: { thinking: 0, all: 0, target: 0 },
    seconds: 0,
    firstAnswer: null,
    note: "",
    error: "",
  };
}

export const textOf = (runs) => runs.map((run) => run.text).join("");

/** What a reply needs while it runs and nobody stores. */
const running = new WeakMap();

/** Asks for the reply and takes what comes, until it is complete. Never throws. */
export async function run(reply, changed) {
  const began = performance.now();
  const now = () => (performance.now() - began) / 1000;
  const state = { id: newId(), abort: new AbortController(), now, estimate: null };
  running.set(reply, state);
  const streamed = { ...reply.body, stream: true, stream_options: { include_usage: true, continuous_usage_stats: true } };
  try {
    for await (const event of chat(streamed, state.id, state.abort.signal)) {
      take(reply, event, state);
      changed();
    }
    reply.status = reply.record.cancelled ? "stopped" : "done";
  } catch (error) {
    if (state.abort.signal.aborted) reply.status = "stopped";
    else fail(reply, error);
  }
  reply.seconds = now();
  reply.progress = null;
  running.delete(reply);
  changed();
}

function fail(reply, error) {
  reply.status = "failed";
  reply.code = error.code ?? null;
  reply.error = error instanceof Refusal ? error.message : `The page failed on this reply: ${error.message}`;
}

function take(reply, event, state) {
  const choice = event.choices?.[0];
  const tokens = reply.tokens;
  if (event.usage) {
    const grown = event.usage.completion_tokens - tokens.all;
    if (choice?.target) tokens.target += grown;
    tokens.all = event.usage.completion_tokens;
    tokens.thinking = event.usage.completion_tokens_details.reasoning_tokens;
  }
  if (event.reasond) recorded(reply, event.reasond, state);
  const { reasoning, content } = choice?.delta ?? {};
  if (reasoning) addText(reply.thought, reasoning, choice.target === true, choice.forced === true);
  if (content) {
    reply.firstAnswer ??= state.now();
    addText(reply.answer, content, choice.target === true, choice.forced === true);
  }
  if (choice?.finish_reason === "length") reply.note = "The reply reached its greatest length.";
}

function recorded(reply, record, state) {
  if (record.progress) reply.progress = record.progress;
  else reply.record = { ...reply.record, ...record };
  const { requested, declared } = record.budget ?? {};
  reply.limited ||= typeof (requested ?? declared ?? record.seconds_to_answer) === "number";
  state.estimate = record.seconds_to_answer === undefined ? null : state.now() + record.seconds_to_answer;
}

/** Seconds until the answer begins, by the server's last estimate; null where there is none. */
export function secondsToAnswer(reply) {
  const state = running.get(reply);
  return state?.estimate ? Math.max(0, state.estimate - state.now()) : null;
}

export const secondsSoFar = (reply) => running.get(reply)?.now() ?? reply.seconds;

export async function answerNow(reply) {
  try {
    await interrupt(running.get(reply)?.id, "answer");
  } catch (error) {
    if (error.code !== "not_found") reply.note = error.message;
  }
}

/** Ends the reply with what it has said; where the server does not hear, by leaving it. */
export async function stop(reply) {
  const state = running.get(reply);
  try {
    await interrupt(state?.id, "cancel");
  } catch {
    state?.abort.abort();
  }
}

/** How much of its budget a reply has used: `{used, limit}`, or null where nothing limits it. */
export function budgetOf({ record: { budget }, tokens, status, limited }) {
  const limit = budget?.enforced ?? budget?.declared;
  if (!limited || typeof limit !== "number" || limit <= 0) return null;
  const counted = budget.scope === "reply" ? tokens.all : tokens.thinking;
  return { used: status === "done" ? budget.used : Math.min(Math.max(counted, budget.used), limit), limit };
}

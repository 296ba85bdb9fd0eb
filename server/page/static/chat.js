// The chat: one question, one to four settings, their replies side by side. What is on the page survives a reload.

import { key, models } from "./api.js";
import { $, h, onceAFrame } from "./dom.js";
import { newReply, run, stop, textOf } from "./reply.js";
import { able, comparisons, controls, fresh, inWords } from "./settings.js";
import { load, save } from "./store.js";
import { ReplyView } from "./view.js";

const MOST = 4;
const LETTERS = "ABCD";
const EXAMPLES = ["Hello! Who are you?", "A crate holds 36 apples and 5 are bad. How many good ones are in 12 crates?"];

let cards = [];
let chat = load(); // {columns: [settings], turns: [{question, shown, replies}]}
let before = null; // the one setting that several took the place of
const views = new Set();

const cardOf = (settings) => cards.find((card) => card.id === settings.route);
const isRunning = () => chat.turns.some((turn) => turn.replies.some((reply) => reply.status === "running"));

const draw = onceAFrame(() => {
  const log = $("#turns");
  const stays = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  for (const view of views) view.update();
  for (const view of views) if (view.ended) views.delete(view);
  if (stays) log.scrollTop = log.scrollHeight;
  const running = isRunning();
  $("#send").hidden = running;
  $("#stop").hidden = !running;
});

// ---- settings

function showSettings() {
  const several = chat.columns.length > 1;
  const open = [...document.querySelectorAll("#columns > details")].map((each) => each.open);
  $("#columns").replaceChildren(
    ...chat.columns.map((settings, index) => {
      const words = h("span", { class: "words" }, several ? inWords(settings, cardOf(settings)) : "Settings");
      const changed = (anew) => {
        if (several) words.textContent = inWords(settings, cardOf(settings));
        store();
        if (anew) redraw(index);
      };
      const remove = h("button", { type: "button", class: "link", click: () => setColumns(chat.columns.filter((each) => each !== settings)) }, "Remove");
      return h(
        "details",
        { class: "card", open: open[index] ?? (!several || index === 0) },
        h("summary", {}, several && h("b", { class: `tag ${LETTERS[index]}` }, LETTERS[index]), words),
        controls(settings, cards, changed),
        several && remove,
      );
    }),
  );
  $("#add").disabled = chat.columns.length >= MOST;
  const presets = cardOf(chat.columns[0]) ? comparisons(chat.columns[0], cards) : [];
  $("#presets").replaceChildren(
    ...presets.map(([name, columns]) => h("button", { type: "button", click: () => compare(columns) }, name)),
    several ? h("button", { type: "button", click: () => setColumns([before ?? chat.columns[0]]) }, "One only") : "",
  );
  $("#pair").hidden = !able(cardOf(chat.columns[0])).judge;
}

/** Controls made anew keep the focus where it was. */
function redraw() {
  const focused = document.activeElement;
  const name = (element) => element.id?.replace(/^c\d+-/, "") || (element.name ? `${element.name.replace(/^c\d+-/, "")}=${element.value}` : "");
  const index = [...document.querySelectorAll("#columns > details")].findIndex((each) => each.contains(focused));
  const wanted = index >= 0 ? name(focused) : "";
  showSettings();
  if (!wanted) return;
  const inside = document.querySelectorAll("#columns > details")[index]?.querySelectorAll("input, select") ?? [];
  [...inside].find((element) => name(element) === wanted)?.focus();
}

function setColumns(columns) {
  chat.columns = columns;
  store();
  showSettings();
}

function compare(columns) {
  if (chat.columns.length === 1) before = chat.columns[0];
  setColumns(columns);
}

// ---- conversation

function showTurns() {
  views.clear();
  $("#turns").replaceChildren(...chat.turns.map(turnElement));
  if (!chat.turns.length) $("#turns").append(welcome());
  draw();
  $("#turns").scrollTop = $("#turns").scrollHeight;
}

function turnElement(turn) {
  const replies = h("div", { class: `replies of${turn.replies.length}` }, turn.replies.map((reply, index) => replyElement(turn, reply, index)));
  return h("section", { class: "turn", "aria-label": "Turn" }, h("p", { class: "question" }, turn.shown), replies);
}

function replyElement(turn, reply, index) {
  const view = new ReplyView(reply, {
    label: turn.replies.length > 1 ? LETTERS[index] : "",
    copy: showSnippet,
    changed: draw,
    again: () => {
      const { words, body, threshold } = reply;
      const anew = { ...newReply(chat.columns[0], cardOf(chat.columns[0]), []), words, body, threshold };
      turn.replies[index] = anew;
      view.element.replaceWith(replyElement(turn, anew, index));
      start(anew);
    },
  });
  views.add(view);
  return view.element;
}

function welcome() {
  const ask = (text) => h("button", { type: "button", class: "example", click: () => send(text) }, text);
  return h("div", { class: "welcome" }, h("h2", {}, "Watch a model decide how much to think"), h("p", {}, "Ask a question. What the model thinks, how long, and who decided it, stands beside its answer."), EXAMPLES.map(ask));
}

/** What a column has heard and said so far. A turn that it was not asked counts with the first column's reply. */
function messagesFor(index) {
  const told = (turn) => textOf((turn.replies[index] ?? turn.replies[0]).answer);
  const earlier = chat.turns.filter((turn) => told(turn));
  return earlier.flatMap((turn) => [
    { role: "user", content: turn.question },
    { role: "assistant", content: told(turn) },
  ]);
}

function send(question, shown = question) {
  if (isRunning() || !question.trim() || !cards.length) return;
  const asked = { role: "user", content: question };
  const replies = chat.columns.map((settings, index) => {
    const earlier = able(cardOf(settings)).judge ? [] : messagesFor(index);
    return newReply(settings, cardOf(settings), [...earlier, asked]);
  });
  const turn = { question, shown, replies };
  if (!chat.turns.length) $("#turns").replaceChildren();
  chat.turns.push(turn);
  $("#turns").append(turnElement(turn));
  $("#turns").scrollTop = $("#turns").scrollHeight;
  replies.forEach(start);
}

async function start(reply) {
  const ticking = setInterval(draw, 250);
  const storing = setInterval(store, 2000);
  draw();
  await run(reply, draw);
  clearInterval(ticking);
  clearInterval(storing);
  if (reply.code === "invalid_api_key") askForKey();
  store();
}

/** The question in the form that judges are asked in (MT-Bench's), where two replies stand beside it. */
function sendWritten() {
  const question = $("#question").value;
  const [first, second] = [$("#first").value, $("#second").value];
  if ($("#pair").hidden || !first.trim() || !second.trim()) return send(question);
  const reply = (letter, text) => `[The Start of Assistant ${letter}'s Answer]\n${text}\n[The End of Assistant ${letter}'s Answer]`;
  return send(`[User Question]\n${question}\n\n${reply("A", first)}\n\n${reply("B", second)}`, `${question}\n\nReply A: ${first}\n\nReply B: ${second}`);
}

// ---- the rest of the page

let left = false; // a page that is being left loses its streams, and must not store that

function store() {
  if (!left) save(chat);
}

function showSnippet(what, text) {
  $("#snippet h2").textContent = `This request in ${what}`;
  $("#snippet pre").textContent = text;
  $("#copied").textContent = "";
  $("#snippet").showModal();
}

async function copySnippet() {
  const text = $("#snippet pre").textContent;
  try {
    await navigator.clipboard.writeText(text);
    $("#copied").textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren($("#snippet pre")); // no clipboard without HTTPS: the keyboard still has one
    $("#copied").textContent = "Selected: copy it with the keyboard.";
  }
}

function askForKey() {
  $("#side").classList.add("open");
  $("#key").focus();
}

async function begin() {
  $("#problem").textContent = "";
  try {
    cards = await models();
  } catch (error) {
    $("#problem").textContent = error.message;
    if (error.code === "invalid_api_key") askForKey();
    return;
  }
  const known = chat.columns.filter(cardOf);
  chat.columns = known.length ? known : [fresh(cards[0].id)];
  showSettings();
}

function toggleSettings(open = !$("#side").classList.contains("open")) {
  $("#side").classList.toggle("open", open);
  $("#toggle").setAttribute("aria-expanded", open);
}

$("#composer").addEventListener("submit", (event) => {
  event.preventDefault();
  if (isRunning()) return;
  sendWritten();
  $("#composer").reset();
});
$("#composer").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.target.id !== "question") return;
  event.preventDefault();
  $("#composer").requestSubmit();
});
$("#stop").addEventListener("click", () => chat.turns.at(-1).replies.filter((reply) => reply.status === "running").forEach(stop));
$("#new").addEventListener("click", () => {
  chat.turns.flatMap((turn) => turn.replies).filter((reply) => reply.status === "running").forEach(stop);
  chat = { columns: chat.columns, turns: [] };
  store();
  showTurns();
  $("#question").focus();
});
$("#add").addEventListener("click", () => compare([...chat.columns, { ...chat.columns.at(-1) }]));
$("#toggle").addEventListener("click", () => toggleSettings());
$("#keys").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set($("#key").value);
  begin();
});
$("#copy").addEventListener("click", copySnippet);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") toggleSettings(false);
});
addEventListener("pagehide", () => {
  store();
  left = true;
});
addEventListener("pageshow", () => {
  left = false;
});

$("#key").value = key.get();
if (matchMedia("(pointer: fine)").matches) $("#question").focus();
showTurns();
begin();

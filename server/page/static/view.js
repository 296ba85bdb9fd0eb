// A reply on the page. An element is made once; `update` changes what has changed.

import { count, h, number, percent, seconds } from "./dom.js";
import { MarkdownView } from "./markdown.js";
import { rows, summary } from "./record.js";
import { answerNow, budgetOf, secondsSoFar, secondsToAnswer, stop, textOf } from "./reply.js";
import { RunsView } from "./runs.js";
import { curl, python } from "./snippets.js";

export class ReplyView {
  /** `label` is the letter of its column, where there are several; `again` asks the question anew. */
  constructor(reply, { label, again, copy, changed }) {
    this.reply = reply;
    const act = (work) => (event) => {
      event.currentTarget.disabled = true;
      work(reply).finally(changed);
    };
    this.phase = h("span", { class: "phase", role: "status" });
    this.clock = h("span", { class: "clock" });
    this.now = h("button", { type: "button", click: act(answerNow) }, "Answer now");
    this.stop = h("button", { type: "button", click: act(stop) }, "Stop");
    this.bar = h("div", { class: "bar", role: "meter", "aria-label": "Budget used", "aria-valuemin": 0 }, h("i"));
    this.spent = h("span");
    this.thoughtText = h("div", { class: "text", tabindex: 0, role: "region", "aria-label": "Thinking" });
    this.thoughtHead = h("span");
    this.thought = h("details", { class: "thought", hidden: true }, h("summary", {}, this.thoughtHead, this.spent), this.bar, this.thoughtText);
    this.legend = h("p", { class: "legend", hidden: true }, h("span", { class: "target" }, "by the target model"), h("span"));
    this.answer = h("div", { class: "answer" });
    this.note = h("p", { class: "note", role: "status" });
    this.error = h("p", { class: "error", role: "alert" });
    this.again = h("button", { type: "button", hidden: true, click: again }, "Try again");
    this.chips = h("summary");
    this.rows = h("dl");
    this.decision = h("details", { class: "decision", hidden: true }, this.chips, this.rows);
    this.figures = h("span", { class: "figures" });
    const copies = [
      h("button", { type: "button", class: "link", click: () => copy("curl", curl(reply.body)) }, "as curl"),
      h("button", { type: "button", class: "link", click: () => copy("Python", python(reply.body)) }, "as Python"),
    ];
    this.element = h(
      "article",
      { class: "reply", "aria-label": label ? `Reply ${label}` : "Reply" },
      h("header", {}, label && h("b", { class: `tag ${label}` }, label), h("span", { class: "words" }, reply.words), this.phase, this.clock),
      h("div", { class: "actions" }, this.now, this.stop),
      this.thought,
      this.legend,
      this.answer,
      this.note,
      this.error,
      this.again,
      this.decision,
      h("footer", {}, this.figures, h("span", { class: "copies" }, "Copy ", copies)),
    );
    this.thoughtView = new RunsView(this.thoughtText);
    this.update();
  }

  update() {
    const { reply } = this;
    const running = reply.status === "running";
    const answering = reply.answer.length > 0;
    this.element.classList.toggle("running", running);
    this.phase.classList.toggle("bad", reply.status === "failed");
    this.phase.textContent = running ? this.doing(answering) : { done: "", stopped: "stopped", failed: "failed" }[reply.status];
    this.clock.textContent = running ? seconds(secondsSoFar(reply)) : "";
    this.now.hidden = !running || answering || reply.record.mode !== "think";
    this.stop.hidden = !running;
    this.showThought(running, answering);
    this.showAnswer();
    this.showTarget();
    this.showDecision(running);
    this.note.textContent = reply.note;
    this.error.textContent = reply.error;
    this.again.hidden = reply.status !== "failed";
    if (!running && !this.ended) this.end();
  }

  doing(answering) {
    const { progress, thought } = this.reply;
    if (answering) return "answering";
    if (progress?.drawn) return `${progress.drawn} of ${progress.of} replies drawn`;
    if (progress?.round) return `round ${progress.round}: ${progress.compared} of ${progress.of} compared`;
    return thought.length ? "thinking" : "waiting";
  }

  showThought(running, answering) {
    const { reply } = this;
    if (!reply.thought.length) return;
    const thinking = running && !answering;
    const stays = this.thoughtText.scrollHeight - this.thoughtText.scrollTop - this.thoughtText.clientHeight < 40;
    if (thinking !== this.thinking) {
      this.thinking = thinking;
      this.thought.hidden = false;
      this.thought.open = thinking;
      this.thoughtHead.textContent = thinking ? "Thinking …" : "Thought";
    }
    this.thoughtView.update(reply.thought);
    const budget = budgetOf(reply);
    this.bar.hidden = !budget;
    if (budget) {
      this.bar.setAttribute("aria-valuemax", budget.limit);
      this.bar.setAttribute("aria-valuenow", budget.used);
      this.bar.firstChild.style.width = `${Math.min(100, (100 * budget.used) / budget.limit)}%`;
    }
    const left = thinking ? secondsToAnswer(reply) : null;
    this.spent.textContent = [
      count(reply.tokens.thinking, "token"),
      budget && `budget ${number(budget.used)} of ${number(budget.limit)}`,
      left !== null && `answer in about ${seconds(left)}`,
    ].filter(Boolean).join(" · ");
    if (thinking && stays) this.thoughtText.scrollTop = this.thoughtText.scrollHeight;
  }

  /** As Markdown; where both models wrote it, as plain text that shows who wrote what. */
  showAnswer() {
    const runs = this.reply.answer;
    const plain = runs.some((run) => run.target);
    if (!this.answerView || plain !== this.plain) {
      this.plain = plain;
      this.answer.replaceChildren();
      this.answer.classList.toggle("text", plain);
      this.answerView = plain ? new RunsView(this.answer) : new MarkdownView(this.answer);
    }
    this.answerView.update(plain ? runs : textOf(runs));
  }

  showTarget() {
    const { target, all } = this.reply.tokens;
    this.legend.hidden = !target;
    if (target) this.legend.lastChild.textContent = ` ${percent(target / all)} of the tokens`;
  }

  /** The record as far as it is known: a new one takes the place of the last. */
  showDecision(running) {
    const { record, threshold } = this.reply;
    if (!record.mode || (record === this.told && running === this.toldRunning)) return;
    this.told = record;
    this.toldRunning = running;
    const chips = summary({ record, running, budget: budgetOf(this.reply) });
    this.decision.hidden = false;
    this.chips.replaceChildren(...chips.map((text) => h("span", { class: "chip" }, text)));
    this.rows.replaceChildren(...rows(record, threshold));
  }

  end() {
    const { tokens, firstAnswer } = this.reply;
    this.ended = true;
    const answer = Math.max(0, tokens.all - tokens.thinking);
    this.figures.textContent = [
      tokens.thinking && `${number(tokens.thinking)} thinking + ${number(answer)} answer`,
      count(tokens.all, "token"),
      seconds(this.reply.seconds),
      firstAnswer !== null && tokens.thinking && `answer after ${seconds(firstAnswer)}`,
    ].filter(Boolean).join(" · ");
  }
}

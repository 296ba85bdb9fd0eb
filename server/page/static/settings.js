// What a question is asked with: the settings of one column, as controls and as the body of a request.

import { count, h, number } from "./dom.js";

/** Settings where nothing is said: every "" leaves it to the route. */
export const fresh = (route) => ({
  route,
  mode: "",
  threshold: "",
  amount: "", // an effort, or "tokens"
  budget: "",
  target: true,
  bestOf: "",
  maxTokens: "",
  temperature: "",
});

const MODES = { auto: "Auto", think: "Think", no_think: "Don't think" };
const WITHOUT_PROBABILITY = ["hint", "always", "never", "random"]; // deciders that no threshold is for
const EFFORTS = ["minimal", "low", "medium", "high", "xhigh", "max"];

/** What a route can do, as its model card says. */
export const able = (card) => card?.reasond ?? { modes: [] };

const hasThreshold = (card) => able(card).auto && !WITHOUT_PROBABILITY.includes(able(card).decider);

/** The body of a chat completion. What the route cannot do, or the settings do not say, is left out. */
export function bodyOf(settings, card, messages) {
  const { modes, budgets, speculative, best_of } = able(card);
  const reasond = {};
  const body = { model: settings.route, messages };
  const mode = modes.includes(settings.mode) ? settings.mode : "";
  if (mode) reasond.mode = mode;
  if (hasThreshold(card) && settings.threshold !== "" && mode !== "think" && mode !== "no_think") {
    reasond.mode = "auto";
    reasond.think_threshold = Number(settings.threshold);
  }
  if (budgets && mode !== "no_think") {
    const effort = budgets.efforts[settings.amount];
    if (settings.amount === "tokens" && settings.budget !== "") reasond.budget = Number(settings.budget);
    else if (effort !== undefined && reasond.mode === "auto") reasond.budget = effort; // an effort asks for thinking
    else if (effort !== undefined) body.reasoning_effort = settings.amount;
  }
  if (speculative && !settings.target) reasond.speculative = { target: false };
  if (best_of && settings.bestOf !== "") reasond.best_of = Number(settings.bestOf);
  if (settings.maxTokens !== "") body.max_tokens = Number(settings.maxTokens);
  if (settings.temperature !== "") body.temperature = Number(settings.temperature);
  if (Object.keys(reasond).length) body.reasond = reasond;
  return body;
}

/** The settings in a few words. */
export function inWords(settings, card) {
  const { reasond = {}, reasoning_effort: effort, max_tokens: most, temperature } = bodyOf(settings, card, []);
  return [
    settings.route,
    reasond.mode && MODES[reasond.mode].toLowerCase(),
    reasond.think_threshold !== undefined && `from P ${reasond.think_threshold}`,
    effort && `${effort} effort`,
    reasond.budget !== undefined && `budget ${number(reasond.budget)}`,
    reasond.speculative && "small model alone",
    reasond.best_of && `best of ${reasond.best_of}`,
    most && `max ${number(most)}`,
    temperature !== undefined && `temperature ${temperature}`,
  ].filter(Boolean).join(" · ");
}

let made = 0;

/** Controls for `settings`, only those that the route has. `changed` is called with each change. */
export function controls(settings, cards, changed) {
  const card = cards.find((each) => each.id === settings.route);
  const { description, modes, default_mode, decider, think_threshold, budgets, speculative, best_of, judge } = able(card);
  const prefix = `c${made++}`;
  const set = (name, value, anew = false) => {
    settings[name] = value;
    changed(anew);
  };
  const field = (name, label, control, hint) => {
    control.id = `${prefix}-${name}`;
    return h("div", { class: "field" }, h("label", { for: control.id }, label), control, hint && h("small", {}, hint));
  };
  const option = (value, text, now) => h("option", { value, selected: value === now }, text);
  const numeric = (name, label, props, hint) => {
    const input = h("input", { type: "number", inputmode: "decimal", value: settings[name], ...props, input: () => set(name, input.validity.valid ? input.value : settings[name]) });
    return field(name, label, input, hint);
  };

  const routes = h("select", { change: () => set("route", routes.value, true) }, cards.map((each) => option(each.id, each.id, settings.route)));
  const parts = [field("route", "Route", routes, description)];

  if (modes.length > 1) {
    const byRoute = `Default: ${(MODES[default_mode] ?? default_mode).toLowerCase()}`;
    const choices = [["", byRoute], ...Object.entries(MODES).filter(([mode]) => modes.includes(mode))];
    parts.push(
      h(
        "fieldset",
        { class: "field" },
        h("legend", {}, "Mode"),
        h(
          "div",
          { class: "segments" },
          choices.map(([mode, text]) =>
            h(
              "label",
              {},
              h("input", { type: "radio", name: `${prefix}-mode`, value: mode, checked: settings.mode === mode, change: () => set("mode", mode, true) }),
              h("span", {}, text),
            ),
          ),
        ),
      ),
    );
  }
  const forced = settings.mode === "think" || settings.mode === "no_think" || (settings.mode === "" && default_mode !== "auto");
  if (hasThreshold(card) && !forced) {
    const input = h("input", { type: "range", min: 0, max: 1, step: 0.05, value: settings.threshold === "" ? think_threshold ?? 0.5 : settings.threshold });
    const shown = h("output", {}, settings.threshold === "" ? think_threshold ?? (decider === "model" ? "the model's first token decides" : "0.5") : settings.threshold);
    input.addEventListener("input", () => {
      shown.value = input.value;
      set("threshold", input.value);
    });
    const reset = h("button", { type: "button", class: "link", click: () => set("threshold", "", true) }, "reset");
    parts.push(field("threshold", "Think from a probability of", input, h("span", {}, shown, settings.threshold !== "" && reset)));
  }
  if (budgets && settings.mode !== "no_think") {
    const own = budgets.default === null ? "Default: no limit" : `Default: ${count(budgets.default, "token")}`;
    const select = h(
      "select",
      { change: () => set("amount", select.value, true) },
      option("", own, settings.amount),
      EFFORTS.filter((effort) => effort in budgets.efforts).map((effort) => option(effort, `${effort}: ${count(budgets.efforts[effort], "token")}`, settings.amount)),
      option("tokens", "A number of tokens …", settings.amount),
    );
    const what = budgets.scope === "reply" ? "of the whole reply" : "of thinking";
    parts.push(field("amount", `Effort or budget ${what}`, select, budgets.cap !== null && `at most ${count(budgets.cap, "token")} on this route`));
    if (settings.amount === "tokens") {
      const top = budgets.cap ?? Math.max(...Object.values(budgets.efforts), 256);
      const input = h("input", { type: "number", inputmode: "numeric", min: budgets.scope === "reply" ? 1 : 0, step: 1, value: settings.budget, "aria-label": "Budget in tokens" });
      const slider = h("input", { type: "range", min: 0, max: 100, value: toSlider(settings.budget || 0, top), "aria-label": "Budget" });
      input.addEventListener("input", () => {
        if (!input.validity.valid) return;
        slider.value = toSlider(input.value, top);
        set("budget", input.value);
      });
      slider.addEventListener("input", () => {
        input.value = Math.max(Number(input.min), fromSlider(slider.value, top));
        set("budget", input.value);
      });
      parts.push(h("div", { class: "field budget" }, slider, input));
    }
  }
  if (speculative) {
    const input = h("input", { type: "checkbox", checked: settings.target, change: () => set("target", input.checked) });
    const down = speculative.degraded ? "The target is down just now; replies come from the small model alone." : `The target is ${speculative.target}.`;
    parts.push(field("target", "The target model takes over", input, down));
  }
  if (best_of) parts.push(numeric("bestOf", "Best of how many replies", { min: 1, max: 64, step: 1, placeholder: `${best_of}` }));
  if (judge) parts.push(h("p", { class: "hint" }, `Judges ${judge.judges.join(", ")} with ${count(judge.votes, "vote")}.`));
  parts.push(
    h(
      "details",
      { class: "more" },
      h("summary", {}, "Length and sampling"),
      numeric("maxTokens", "Most tokens of a reply", { min: 1, step: 1, placeholder: "default" }),
      numeric("temperature", "Temperature", { min: 0, max: 2, step: 0.1, placeholder: "default" }),
    ),
  );
  return parts;
}

/** A slider whose steps grow: small budgets matter as much as large ones. */
const toSlider = (tokens, top) => Math.round((100 * Math.log1p(Number(tokens))) / Math.log1p(top));
const fromSlider = (position, top) => Math.round(Math.expm1((position / 100) * Math.log1p(top)));

/** Settings to set side by side, on the route of `settings`: what the route can do. */
export function comparisons(settings, cards) {
  const card = cards.find((each) => each.id === settings.route);
  const { modes, budgets, speculative } = able(card);
  const base = fresh(settings.route);
  const found = [];
  const order = ["no_think", "auto", "think"].filter((mode) => modes.includes(mode));
  if (order.length > 1) found.push(["Modes", order.map((mode) => ({ ...base, mode }))]);
  if (budgets) {
    const think = modes.includes("think") && modes.length > 1 ? "think" : "";
    found.push(["Budgets", ["minimal", "low", "medium", "high"].map((amount) => ({ ...base, mode: think, amount }))]);
  }
  if (speculative) {
    const alone = cards.find((each) => each.id === speculative.target);
    const pair = [{ ...base, target: false }, base];
    found.push(["Small and target", alone ? [...pair, fresh(alone.id)] : pair]);
  }
  return found;
}

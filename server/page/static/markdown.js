// A model's answer as Markdown and maths. What a model writes is never trusted: HTML in it is shown as text, the outcome
// is sanitised, and nothing is loaded from anywhere. `DOMPurify` and `temml` are scripts of chat.html.

import { Marked } from "./vendor/marked.esm.js";

const escaped = (text) => text.replace(/[&<>"]/g, (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[sign]);

/** Maths between a pair of marks. `$` counts only where it cannot be a price. */
function maths(name, level, start, pattern) {
  return {
    name,
    level,
    start: (source) => source.match(start)?.index,
    tokenizer(source) {
      const found = pattern.exec(source);
      return found ? { type: name, raw: found[0], tex: (found[1] ?? found[2]).trim() } : undefined;
    },
    renderer: ({ tex }) => `<span data-tex="${escaped(tex)}"${level === "block" ? ' data-display="block"' : ""}></span>`,
  };
}

const marked = new Marked({ gfm: true, breaks: true }).use({
  extensions: [
    maths("mathsBlock", "block", /\$\$|\\\[/, /^(?:\$\$([\s\S]+?)\$\$|\\\[([\s\S]+?)\\\])/),
    maths("maths", "inline", /\$|\\\(|\\\[/, /^(?:\$\$?(?!\s)((?:\\.|[^$\\\n])+?)(?<!\s)\$\$?(?!\d)|\\[([](.+?)\\[)\]])/),
  ],
  renderer: {
    html: ({ text }) => escaped(text),
    image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
    heading({ tokens, depth }) {
      const tag = `h${Math.min(6, depth + 3)}`;
      return `<${tag}>${this.parser.parseInline(tokens)}</${tag}>`;
    },
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
});

const SAFE = {
  ALLOWED_TAGS: "a b blockquote br code del em h4 h5 h6 hr i li ol p pre s span strong sub sup table tbody td th thead tr ul".split(" "),
  ALLOWED_ATTR: ["href", "title", "start", "align", "data-tex", "data-display"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  RETURN_DOM_FRAGMENT: true,
};
const SAFE_MATHS = {
  USE_PROFILES: { mathMl: true },
  ADD_ATTR: ["data-style"],
  FORBID_ATTR: ["style", "href", "id"],
  RETURN_DOM_FRAGMENT: true,
};

function rendered(tokens) {
  const fragment = DOMPurify.sanitize(marked.parser(tokens), SAFE);
  for (const link of fragment.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer";
  }
  for (const box of fragment.querySelectorAll("pre, table")) box.tabIndex = 0; // they scroll
  for (const span of fragment.querySelectorAll("[data-tex]")) typeset(span);
  return fragment;
}

/** Inline style sheets are forbidden to the page, so the few styles of a formula are set one by one. */
function typeset(span) {
  const options = { displayMode: span.dataset.display === "block", throwOnError: false, trust: false };
  const markup = temml.renderToString(span.dataset.tex, options).replaceAll(" style=", " data-style=");
  span.replaceChildren(DOMPurify.sanitize(markup, SAFE_MATHS));
  for (const part of span.querySelectorAll("[data-style]")) part.style.cssText = part.dataset.style;
}

/** Shows a text that grows. Only its last two blocks can still change, so only they are made anew. */
export class MarkdownView {
  constructor(element) {
    this.element = element;
    this.text = "";
    this.settled = 0; // characters in blocks that will not change
    this.open = []; // the elements of those that may
  }

  update(text) {
    text = text.replaceAll("\r\n", "\n");
    if (text === this.text) return;
    if (!text.startsWith(this.text.slice(0, this.settled))) this.clear();
    this.text = text;
    const blocks = marked.lexer(text.slice(this.settled));
    for (const element of this.open) element.remove();
    this.open = [];
    blocks.forEach((block, index) => {
      const element = document.createElement("div");
      element.append(rendered([block]));
      this.element.append(element);
      if (index < blocks.length - 2) this.settled += block.raw.length;
      else this.open.push(element);
    });
  }

  clear() {
    this.settled = 0;
    this.element.replaceChildren();
  }
}

// Plain text with its writers told apart: the model, the target model, the server.

const PIECE = 1200; // characters after which a new element begins, so that what is above is never laid out again

/** Text of one writer behind the runs that are there. A run is `{text, target, forced}`. */
export function addText(runs, text, target, forced) {
  const last = runs.at(-1);
  if (last && last.target === target && last.forced === forced) last.text += text;
  else runs.push({ text, target, forced });
}

/** Shows runs that grow, touching only what is new. */
export class RunsView {
  constructor(element) {
    this.element = element;
    this.run = 0; // the run that is being shown, and how much of it is
    this.shown = 0;
    this.piece = null;
  }

  update(runs) {
    for (; this.run < runs.length; this.run++, this.shown = 0) {
      const run = runs[this.run];
      if (this.shown < run.text.length) this.append(run, run.text.slice(this.shown));
      this.shown = run.text.length;
      if (this.run === runs.length - 1) return;
    }
  }

  append(run, text) {
    if (!this.piece || (this.length > PIECE && this.endsLine) || this.length > 8 * PIECE) this.begin();
    const kind = run.target ? "target" : run.forced ? "forced" : "";
    if (!this.last || this.last.className !== kind) {
      this.last = document.createElement("span");
      this.last.className = kind;
      if (run.target) this.last.title = "written by the target model";
      else if (run.forced) this.last.title = "written by the server";
      this.piece.append(this.last);
    }
    const end = this.length + text.length > PIECE ? text.lastIndexOf("\n") + 1 || text.length : text.length;
    this.last.append(text.slice(0, end));
    this.length += end;
    this.endsLine = text[end - 1] === "\n";
    if (end < text.length) this.append(run, text.slice(end));
  }

  begin() {
    this.piece = document.createElement("div");
    this.element.append(this.piece);
    this.last = null;
    this.length = 0;
  }
}

"""The table of models in docs/families.md, made by running each of them: `python -m tests.families.table`."""

import asyncio
import itertools

import httpx

from models.engines.scripted import ScriptedEngine
from models.formats import FAMILIES
from models.formats.prompt import TemplateInput, render
from models.formats.reasoning import Mode, ReasoningFormat
from models.formats.template import writes_calls
from models.text.tokenizer import HubTokenizer
from models.tool_calls.grammar import has_grammar
from server.app import create_app
from server.config.load import parse_config
from tests.conftest import ROOT
from tests.families.corpus import ALL, MODELS, tokenizer_of
from tests.families.test_models import USER, compare_prompts, conversations, section_of

DOCUMENT = ROOT / "docs/families.md"
BEGINS, ENDS = "<!-- models -->", "<!-- end of models -->"
HEAD = """| model | family | prompt | think | no think | efforts | budget | tools | history |
|---|---|---|---|---|---|---|---|---|"""
BUDGETS = (1, 8, 33)
SETTINGS = """
[engines.main]
kind = "scripted"
model = "demo/tokenizer"
[routes.graceful]
engine = "main"
family = "{family}"
mode = "think"
[routes.hard]
engine = "main"
family = "{family}"
mode = "think"
budgets = {{ cut = "hard" }}
"""


def row(name: str) -> str:
    """What is found of a model."""
    form, tokenizer = FAMILIES[ALL[name].family], tokenizer_of(name)
    same, refused = compare_prompts(form, tokenizer)
    prompt = f"= in {same}" + (f", refused {refused}" if refused else "")
    cells = [
        prompt,
        *(mode_cell(form, tokenizer, mode) for mode in ("think", "no_think")),
        ", ".join(word for key, word in form.efforts.items() if key != "argument") or "as budgets" * bool(form.scope),
        held(form, tokenizer) if form.scope else "",
        calls_cell(form, tokenizer),
        history_cell(form, tokenizer),
    ]
    return f"| {name} | {form.name} | {' | '.join(cell or '-' for cell in cells)} |"


def mode_cell(form: ReasoningFormat, tokenizer: HubTokenizer, mode: Mode) -> str:
    """How a mode is asked for, and where its prompt leaves the reply."""
    if mode not in form.able:
        return ""
    switch = ", ".join(f"`{key} = {value!r}`" for key, value in form.modes.get(mode, {}).items())
    how = switch or (f"`{form.system[mode]}`" if mode in form.system else "")
    forced = " and a forced text" if form.behind.get(mode) else ""
    section = section_of(form, tokenizer, render(form, tokenizer, TemplateInput([USER]), mode))
    where = {"start": "the model begins", "reasoning": "opened", "answer": "closed"}[section]
    return f"{how or 'always'}{forced}: {where}" if form.scope else how or "always"


def calls_cell(form: ReasoningFormat, tokenizer: HubTokenizer) -> str:
    if form.tools is None or not writes_calls(form, tokenizer):
        return "the template shows none"
    constrained = has_grammar(form.tools) and not form.answer
    return form.tools.style_name + (", constrained" if constrained else ", read")


def history_cell(form: ReasoningFormat, tokenizer: HubTokenizer) -> str:
    """What the prompt behind a turn with thinking and a call, and its result, shows of it."""
    messages, _ = conversations(form)["thought and result"]
    mode = form.able[0]
    prompt = tokenizer.decode(render(form, tokenizer, TemplateInput(messages), mode), skip_special_tokens=False)
    shown = [what for what, text in (("thoughts", "I look it up."), ("calls", "Oslo")) if text in prompt]
    return " and ".join(shown) or "the template shows neither"


def held(form: ReasoningFormat, tokenizer: HubTokenizer) -> str:
    """Whether budgets hold to the token, in both cuts."""
    return "held" if all(thought == budget for budget, thought in asyncio.run(cut(form, tokenizer))) else "not held"


async def cut(form: ReasoningFormat, tokenizer: HubTokenizer) -> list[tuple[int, int]]:
    """Budgets, and the tokens of thinking that they left."""
    assert form.thinking is not None
    opened = section_of(form, tokenizer, render(form, tokenizer, TemplateInput([USER]), "think")) == "reasoning"
    reply = ("" if opened else form.thinking[0]) + "and on " * 60  # no line ends, at which a budget may end early
    app = create_app(
        parse_config(SETTINGS.format(family=form.name), ROOT), {"main": ScriptedEngine(tokenizer, [reply], name="main")}
    )
    found: list[tuple[int, int]] = []
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for route, budget in itertools.product(("graceful", "hard"), BUDGETS):
            body = {"model": route, "messages": [USER], "thinking_budget": budget, "max_tokens": 400}
            answer = (await client.post("/v1/chat/completions", json=body)).json()
            found.append((budget, answer["usage"]["completion_tokens_details"]["reasoning_tokens"]))
    return found


def table() -> str:
    return "\n".join([HEAD, *map(row, MODELS)])


def main() -> None:
    before, _, rest = DOCUMENT.read_text("utf-8").partition(BEGINS)
    _, _, behind = rest.partition(ENDS)
    DOCUMENT.write_text(f"{before}{BEGINS}\n\n{table()}\n\n{ENDS}{behind}", "utf-8")


if __name__ == "__main__":
    main()

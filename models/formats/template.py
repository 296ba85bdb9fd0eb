"""A family proves itself against the chat template and the vocabulary that it is to be used with.

A turn with thinking and calls is rendered by the template and read back by the family. What does not come back is a
fault, told in one line with what the template wrote and what the family reads.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

from models.engines.base import InvalidRequest, Tokenizer
from models.formats.parser import ReplyParser
from models.formats.prompt import TemplateInput, opening_of, render
from models.formats.reasoning import MODES, Mode, ReasoningFormat
from models.formats.vocabulary import Tags, compile_tags
from models.tool_calls.tools import Tool

SystemPlace = Literal["anywhere", "first", "nowhere"]
"""Where a chat template takes system turns."""

QUESTION = "What is 2 + 3?"
THOUGHT = "Two and three make five."
ANSWER = "It is 5."
PROPERTIES = {"city": {"type": "string"}, "days": {"type": "integer"}}
TOOL = Tool("look_up", {"type": "object", "properties": PROPERTIES}, "Looks something up.")
CALLS: tuple[Mapping[str, Any], ...] = ({"city": "Oslo", "days": 3}, {"city": "Rome"})
LONGEST_EXCERPT = 120


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found. `fault` is empty where nothing speaks against the family.

    `reads`: the template writes calls as the family reads them; `calls`: it shows tools, too. `closing`: it ends
    thinking as the family does. `seen`: it writes thinking.
    """

    fault: str = ""
    calls: bool = False
    reads: bool = False
    closing: bool = False
    seen: bool = False


@dataclass(frozen=True, slots=True)
class _Turn:
    """A turn of the assistant, as the template writes it and as the family reads it."""

    text: str
    thought: str
    answer: str
    calls: tuple[tuple[str, Any], ...]


def prove(form: ReasoningFormat, tokenizer: Tokenizer) -> Proof:
    """Whether a family fits."""
    try:
        tags = compile_tags(form, tokenizer)
    except ValueError as error:
        return Proof(str(error))
    if form.able and (fault := _mode_fault(form, tokenizer, tags)):
        return Proof(fault)
    turns = list(_turns(form, tokenizer, tags))
    fault = next(filter(None, (_turn_fault(form, turn) for turn in turns)), "")
    reads = any(turn.calls for turn in turns)
    calls = reads and TOOL.name in _prompt_text(form, tokenizer)
    thinking = [turn for turn in turns if THOUGHT in turn.text]
    return Proof(fault, calls, reads, any(_closes(form, turn) for turn in thinking), bool(thinking))


def find_family(tokenizer: Tokenizer, known: Mapping[str, ReasoningFormat]) -> tuple[ReasoningFormat, str]:
    """The first family that a template and a vocabulary speak for, and why. Those whose calls are read, and which end
    thinking as the template does, go before the others. Raises `ValueError` where none fits."""
    if not tokenizer.template:
        raise ValueError("the model has no chat template to find its family by: give the engine a chat_template")
    found: list[tuple[int, ReasoningFormat, str]] = []
    faults: list[str] = []
    for form in known.values():
        told = _told(form, tokenizer)
        if not told:
            continue
        proof = prove(form, tokenizer)
        if proof.fault:
            faults.append(f"{form.name}: {proof.fault}")
        elif proof.calls or form.thinking or form.scope:
            reads = "thinking and calls" if proof.calls and proof.seen else "calls" if proof.calls else "prompts"
            found.append((2 * proof.reads + proof.closing, form, f"{told}, and reads the template's {reads}"))
    if found:
        best = max(rank for rank, _, _ in found)
        return next((form, why) for rank, form, why in found if rank == best)
    if faults:
        raise ValueError("none fits the model's chat template; " + "; ".join(faults))
    return known["plain"], "the template writes no thinking and no calls that a family knows"


def _told(form: ReasoningFormat, tokenizer: Tokenizer) -> str:
    """What speaks for a family at first sight; empty where nothing does. A family without a prompt of its own is told
    by all of its tags in the vocabulary."""
    if form.name == "plain":
        return ""
    thinks = re.search(r"</?think|reasoning_content", tokenizer.template)
    if form.direct or form.budget:
        own = all(tokenizer.control_id(tag) is not None for tag in form.tags)
        return "its tags are tokens" if own and not thinks else ""
    if form.thinking:
        closing = form.thinking[1].strip()
        first = tokenizer.token_text(tokenizer.encode_control(closing)[0])
        in_parts = first != closing and tokenizer.control_id(first) is not None  # a macro may put it together
        return "its tags stand in the template" if closing in tokenizer.template or in_parts else ""
    return "the template writes no thinking" if not thinks else ""


def _closes(form: ReasoningFormat, turn: _Turn) -> bool:
    """Whether a turn ends its thinking as the family does."""
    behind = turn.text.partition(THOUGHT)[2].lstrip("\n")
    return (
        behind.startswith(form.closing + ANSWER) if ANSWER in behind else behind.startswith(form.closing.rstrip("\n"))
    )


def writes_calls(form: ReasoningFormat, tokenizer: Tokenizer) -> bool:
    """Whether the template shows the tools that it is given, and writes calls as the family reads them: the model has
    learned to write them as its template does."""
    if form.tools is None or TOOL.name not in _prompt_text(form, tokenizer):
        return False
    return any(turn.calls for turn in _turns(form, tokenizer, compile_tags(form, tokenizer)))


def _prompt_text(form: ReasoningFormat, tokenizer: Tokenizer) -> str:
    """A prompt with a tool in it; empty where the template takes none."""
    given = TemplateInput([{"role": "user", "content": QUESTION}], [TOOL.as_template_input()])
    try:
        return tokenizer.decode(render(form, tokenizer, given, None), skip_special_tokens=False)
    except InvalidRequest:
        return ""


def _turns(form: ReasoningFormat, tokenizer: Tokenizer, tags: Tags) -> Iterator[_Turn]:
    """Turns with two calls, or with one where the template takes no two, and a turn without any."""
    for count in (len(CALLS), 1):
        try:
            yield _turn(form, tokenizer, tags, "", CALLS[:count])
            break
        except InvalidRequest:  # a template that knows no calls, or only one at a time
            continue
    try:
        yield _turn(form, tokenizer, tags, ANSWER, ())
    except InvalidRequest:
        return


def _turn(
    form: ReasoningFormat, tokenizer: Tokenizer, tags: Tags, answer: str, calls: Sequence[Mapping[str, Any]]
) -> _Turn:
    question = {"role": "user", "content": QUESTION}
    turn: dict[str, Any] = {"role": "assistant", "content": answer, "reasoning_content": THOUGHT}
    if calls:
        turn["tool_calls"] = [
            {"id": _id(form, number), "type": "function", "function": {"name": TOOL.name, "arguments": arguments}}
            for number, arguments in enumerate(calls)
        ]
    tools = [TOOL.as_template_input()] if calls else []
    mode: Mode | None = "think" if "think" in form.able else None
    prompt = render(form, tokenizer, TemplateInput([question], tools), mode, behind="")
    ids = render(form, tokenizer, TemplateInput([question, turn], tools), mode, behind="")
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prompt, ids, strict=False)))
    start = shared - len(opening_of(tags, ids[:shared]))
    while start == shared > 0 and ids[start - 1] in tags.marks:  # within a tag of several tokens
        start = shared = shared - 1
    reply = list(takewhile(lambda token_id: tokenizer.token_text(token_id) not in tags.ends_turns, ids[start:]))
    return _read(tags, tokenizer, reply)


def _id(form: ReasoningFormat, number: int) -> str:
    written = form.history.ids.replace("$name", TOOL.name).replace("$id", str(number))
    return written or f"call_{number:09}"


def _read(tags: Tags, tokenizer: Tokenizer, reply: Sequence[int]) -> _Turn:
    parser = ReplyParser(tags, [TOOL])
    chunks = parser.feed(reply, [tokenizer.token_text(token_id) for token_id in reply]) + parser.flush()
    arguments: list[str] = []
    names: list[str] = []
    for chunk in chunks:
        if chunk.call is not None and chunk.call.name is not None:
            names.append(chunk.call.name)
            arguments.append("")
        if chunk.call is not None:
            arguments[chunk.call.number] += chunk.text
    texts = {kind: "".join(chunk.text for chunk in chunks if chunk.kind == kind) for kind in ("reasoning", "answer")}
    calls = tuple((name, _json(text)) for name, text in zip(names, arguments, strict=True))
    text = tokenizer.decode(reply, skip_special_tokens=False)
    return _Turn(text, texts["reasoning"].strip(), texts["answer"].strip(), calls)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _turn_fault(form: ReasoningFormat, turn: _Turn) -> str:
    """What of a turn does not come back."""
    if THOUGHT in turn.text and turn.thought != THOUGHT:
        tags = " … ".join(form.thinking) if form.thinking else "no thinking"
        return f"the template writes thinking as {_excerpt(turn.text)}, the family reads {tags!r}"
    wanted = tuple((TOOL.name, arguments) for arguments in CALLS)[: max(1, len(turn.calls))]
    if form.tools is not None and CALLS[0]["city"] in turn.text and turn.calls != wanted:
        return f"the template writes calls as {_excerpt(turn.text)}, the family reads {_excerpt(_spelled(form))}"
    if THOUGHT in turn.text and ANSWER in turn.text and not turn.answer.startswith(ANSWER):
        return f"the template writes answers as {_excerpt(turn.text)}, of which the family reads {turn.answer!r}"
    return ""


def _spelled(form: ReasoningFormat) -> str:
    assert form.tools is not None
    return form.tools.open + form.tools.call + form.tools.close


def _mode_fault(form: ReasoningFormat, tokenizer: Tokenizer, tags: Tags) -> str:
    """What does not fit in the prompts of the modes."""
    given = TemplateInput([{"role": "user", "content": QUESTION}])
    try:
        bare = {mode: render(form, tokenizer, given, mode, behind="") for mode in form.able}
        prompts = {mode: render(form, tokenizer, given, mode) for mode in form.able}
    except InvalidRequest as error:
        return str(error)
    if form.thinking and not _known(form.thinking[0], tokenizer, tags):
        return (
            f"neither the template nor the vocabulary knows {form.thinking[0]!r}, with which the family begins thinking"
        )
    switched = form.modes.get("think") != form.modes.get("no_think") and len(form.modes) == len(MODES)
    if len(prompts) == len(MODES) and (bare if switched else prompts)["think"] == prompts["no_think"]:
        switch = ", ".join(f"{key}={value!r}" for key, value in form.modes.get("no_think", {}).items())
        return f"the template's prompt is the same with and without thinking ({switch or 'no switch'})"
    for mode, prompt in prompts.items():
        section = _section(tags, tokenizer, prompt)
        before = _section(tags, tokenizer, bare[mode])
        forced = form.behind.get(mode, "").strip()
        if form.thinking and forced.startswith(form.thinking[0]) and before == "reasoning":
            return f"the template already opens {form.thinking[0]!r}, which the family writes itself in mode {mode}"
        if form.thinking and forced.startswith(form.thinking[1]) and before != "reasoning":
            return f"the template does not open {form.thinking[0]!r}, which the family closes in mode {mode}"
        if form.thinking and (mode, section) in (("think", "answer"), ("no_think", "reasoning")):
            end = tokenizer.decode(prompt[-12:], skip_special_tokens=False)
            return (
                f"the template's prompt ends with {_excerpt(end)} in mode {mode}, which the family reads as {section}"
            )
    return ""


def _known(text: str, tokenizer: Tokenizer, tags: Tags) -> bool:
    """Whether a tag stands in the template, or its control tokens in the vocabulary."""
    return text.strip() in tokenizer.template or tags.mark(text) != text


def _section(tags: Tags, tokenizer: Tokenizer, prompt: Sequence[int]) -> str:
    parser = ReplyParser(tags)
    opening = opening_of(tags, prompt)
    parser.feed(opening, [tokenizer.token_text(token_id) for token_id in opening])
    return parser.section


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= LONGEST_EXCERPT else text[:LONGEST_EXCERPT] + "…")


def system_place(tokenizer: Tokenizer) -> SystemPlace:
    """Where the tokenizer's template takes system turns: one that it refuses or leaves out has no place there."""
    rules = ("Keep to the first-probe-7f3.", "And to the second-probe-9a1.", "And to the third-probe-4c8.")
    first, second, late = ({"role": "system", "content": text} for text in rules)
    user, assistant = {"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}
    if _shows(tokenizer, [first, second, user, assistant, late, user], rules):
        return "anywhere"
    return "first" if _shows(tokenizer, [first, user], rules[:1]) else "nowhere"


def _shows(tokenizer: Tokenizer, turns: Sequence[Mapping[str, str]], texts: Sequence[str]) -> bool:
    try:
        prompt = tokenizer.decode(tokenizer.render(turns))
    except InvalidRequest:
        return False
    return all(text in prompt for text in texts)

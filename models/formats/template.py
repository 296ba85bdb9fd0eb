"""A family proves itself against the chat template and the vocabulary that it is to be used with.

A turn with thinking and calls is rendered by the template and read back by the family. What does not come back is a
fault, told in one line with what the template wrote and what the family reads.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Literal

from models.engines.base import InvalidRequest, Tokenizer
from models.formats.history import AS_GIVEN, THINKING
from models.formats.parser import ReplyParser
from models.formats.prompt import TemplateInput, opening_of, render
from models.formats.reasoning import MODES, Mode, ReasoningFormat, Section
from models.formats.shipped import shipped
from models.formats.vocabulary import Tags, compile_tags
from models.tool_calls.tools import Tool

SystemPlace = Literal["anywhere", "first", "nowhere"]
"""Where a chat template takes system turns."""

PLAIN = "plain"  # it says nothing of calls: they are offered where they happen to be as it reads them
QUESTION = "What is 2 + 3?"
THOUGHT = "Two and three make five."
ANSWER = "It is 5."
PROPERTIES = {"city": {"type": "string"}, "days": {"type": "integer"}}
TOOL = Tool("look_up", {"type": "object", "properties": PROPERTIES}, "Looks something up.")
CALLS: tuple[Mapping[str, Any], ...] = ({"city": "Oslo", "days": 3}, {"city": "Rome"})
LONGEST_EXCERPT = 120
MOST_FAULTS = 3  # in one line
END_TOKENS = 12  # of a prompt, which a fault shows
THINKS = re.compile(r"</?think|reasoning_content|reasoning_effort|enable_thinking|\[THINK\]|\bthoughts?\b")
"""What a template of a model that thinks speaks of."""
OPENED = re.compile(r"(<[^<>/\s]*think[^<>/\s]*>|\[THINK\])(\\n)*['\"]\Z")
"""Thinking that a prompt, as it is shown, leaves open."""
FIELDS = (THINKING, "reasoning", "thinking")
"""Where templates look for the thinking of a turn. What never thinks is given all of them."""


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
    fault = next(filter(None, (_turn_fault(form, turn) for turn in turns)), "") or _history_fault(form, tokenizer, tags)
    reads = any(turn.calls for turn in turns)
    calls = reads and TOOL.name in _prompt_text(form, tokenizer)
    thinking = [turn for turn in turns if THOUGHT in turn.text]
    plain = [turn for turn in thinking if ANSWER in turn.text] or thinking
    closing = any(_closes(form, turn) for turn in plain) if plain else _closes_block(form, tokenizer)
    return Proof(fault, calls, reads, closing, bool(thinking))


def _closes_block(form: ReasoningFormat, tokenizer: Tokenizer) -> bool:
    """Whether the empty block of a prompt without thinking ends as the family's thinking does."""
    if form.thinking is None or "no_think" not in form.able:
        return False
    given = TemplateInput([{"role": "user", "content": QUESTION}])
    prompt = tokenizer.decode(render(form, tokenizer, given, "no_think", behind=""), skip_special_tokens=False)
    _, tag, behind = prompt.rpartition(form.thinking[1])
    return tag + behind == form.closing


def _written(form: ReasoningFormat, tokenizer: Tokenizer) -> float:
    """The share of what the family speaks of that stands in the template's source."""
    tools = () if form.tools is None else (form.tools.open, form.tools.close)
    if form.direct or form.budget:
        return 1.0  # such a family has no template of its own
    arguments = (form.efforts.get("argument", ""), *(name for mode in form.modes.values() for name in mode))
    spoken = {text.strip() for text in (*form.tags, *tools, *arguments, *form.system.values()) if text.strip()}
    return sum(text in tokenizer.template for text in spoken) / max(1, len(spoken))


def find_family(tokenizer: Tokenizer, known: Mapping[str, ReasoningFormat]) -> tuple[ReasoningFormat, str]:
    """The family that a template and a vocabulary speak for, and why. Those whose calls are read go before the others,
    then those that end thinking as the template does, then those of whom the template says the most. Where none fits
    whole, the thinking of one goes with the calls of another. Raises `ValueError` where no thinking fits."""
    known = {**known, **shipped(tokenizer.response_template)}
    if not tokenizer.template:
        raise ValueError("the model has no chat template to find its family by: give the engine a chat_template")
    found: list[tuple[tuple[bool, bool, float], ReasoningFormat, str]] = []
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
            rank = proof.reads, proof.closing, _written(form, tokenizer)
            found.append((rank, form, f"{told}, and reads the template's {reads}"))
    if found:
        best = max(rank for rank, _, _ in found)
        return next((form, why) for rank, form, why in found if rank == best)
    if combined := _combined(tokenizer, known):
        return combined
    if THINKS.search(tokenizer.template):
        faults = faults[:MOST_FAULTS] or ["it speaks of thinking, in tags of none of them"]
        raise ValueError("none fits the model's chat template; " + "; ".join(faults))
    if fault := prove(known[PLAIN], tokenizer).fault:
        raise ValueError(f"none fits the model's chat template; {fault}")
    return known[PLAIN], "the template writes no thinking and no calls that a family knows"


def _combined(tokenizer: Tokenizer, known: Mapping[str, ReasoningFormat]) -> tuple[ReasoningFormat, str] | None:
    """The thinking of one family with the calls of another, or with none; and why."""
    silent = [replace(form, tools=None) for form in known.values() if form.thinking and _told(form, tokenizer)]
    proofs = [(proof, form) for form in silent if not (proof := prove(form, tokenizer)).fault]
    if not proofs:
        return None
    _, thinks = max(proofs, key=lambda pair: (pair[0].closing, _written(pair[1], tokenizer)))
    for other in known.values():
        fitted = replace(thinks, tools=other.tools, history=replace(other.history, thinking=thinks.history.thinking))
        proof = prove(fitted, tokenizer)
        if proof.calls and not proof.fault:
            return fitted, f"it reads the template's thinking, and its calls as {other.name}"
    return thinks, "it reads the template's thinking, and no family its calls"


def _told(form: ReasoningFormat, tokenizer: Tokenizer) -> str:
    """What speaks for a family at first sight; empty where nothing does. A family without a prompt of its own is told
    by all of its tags in the vocabulary."""
    if form.name == PLAIN:
        return ""
    thinks = THINKS.search(tokenizer.template)
    if form.direct or form.budget:
        own = all(tokenizer.control_id(tag) is not None for tag in form.tags)
        return "its tags are tokens" if own and not thinks else ""
    if form.thinking:
        closing = form.thinking[1].strip()
        first = tokenizer.token_text(tokenizer.encode_control(closing)[0])
        in_parts = first != closing and tokenizer.control_id(first) is not None  # a macro may put it together
        written = closing in tokenizer.template or in_parts or closing in _said(form, tokenizer)
        return "its tags stand in the template" if written else ""
    return "the template writes no thinking" if not thinks else ""


def _said(form: ReasoningFormat, tokenizer: Tokenizer) -> str:
    """A turn with thinking, as the template writes it; empty where it takes none."""
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER, THINKING: THOUGHT}]
    try:
        return tokenizer.decode(render(form, tokenizer, TemplateInput(turns), None), skip_special_tokens=False)
    except InvalidRequest:
        return ""


def _closes(form: ReasoningFormat, turn: _Turn) -> bool:
    """Whether a turn ends its thinking as the family does."""
    behind = turn.text.partition(THOUGHT)[2].lstrip("\n")
    return (
        behind.startswith(form.closing + ANSWER) if ANSWER in behind else behind.startswith(form.closing.rstrip("\n"))
    )


def writes_calls(form: ReasoningFormat, tokenizer: Tokenizer) -> bool:
    """Whether the template shows the tools that it is given, and writes calls as the family reads them: the model has
    learned to write them as its template does. Where it leaves earlier calls out, it must tell of their opening."""
    prompt = _prompt_text(form, tokenizer)
    if form.tools is None or TOOL.name not in prompt:
        return False
    turns = list(_turns(form, tokenizer, compile_tags(form, tokenizer)))
    left_out = not any(CALLS[0]["city"] in turn.text for turn in turns)
    opening = form.tools.open.strip().rstrip("[")
    return any(turn.calls for turn in turns) or (left_out and opening != "" and opening in prompt)


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
    turn: dict[str, Any] = {"role": "assistant", "content": answer, THINKING: THOUGHT}
    if form.scope is None:
        turn |= dict.fromkeys(FIELDS, THOUGHT)
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
    text = tokenizer.decode(ids[start:], skip_special_tokens=False)
    before, thought, _ = text.partition(THOUGHT)
    if form.thinking and thought and form.thinking[0].strip() not in before:  # it may stand in the prompt alone
        reply = [*opening_of(tags, prompt), *reply]
    return _read(tags, tokenizer, reply, text)


def _id(form: ReasoningFormat, number: int) -> str:
    if "$id" not in form.history.ids:
        return f"call_{number:09}"
    return form.history.ids.replace("$name", TOOL.name).replace("$id", str(number))


def _read(tags: Tags, tokenizer: Tokenizer, reply: Sequence[int], text: str) -> _Turn:
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
    return _Turn(text, texts["reasoning"].strip(), texts["answer"].strip(), calls)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _turn_fault(form: ReasoningFormat, turn: _Turn) -> str:
    """What of a turn does not come back."""
    if THOUGHT in turn.text and turn.thought != THOUGHT:
        return f"the template writes thinking as {_excerpt(turn.text)}, the family reads {_spelled_tags(form)}"
    wanted = tuple((TOOL.name, arguments) for arguments in CALLS)[: max(1, len(turn.calls))]
    if form.tools is not None and form.name != PLAIN and CALLS[0]["city"] in turn.text and turn.calls != wanted:
        return f"the template writes calls as {_excerpt(turn.text)}, the family reads {_excerpt(_spelled(form))}"
    if THOUGHT in turn.text and ANSWER in turn.text and not turn.answer.startswith(ANSWER):
        return f"the template writes answers as {_excerpt(turn.text)}, of which the family reads {turn.answer!r}"
    return ""


def _history_fault(form: ReasoningFormat, tokenizer: Tokenizer, tags: Tags) -> str:
    """What a template refuses of earlier calls as the family hands them over, while it takes them as they come."""
    if form.history == AS_GIVEN or form.tools is None:
        return ""
    try:
        plain = _turn(replace(form, history=AS_GIVEN), tokenizer, tags, "", CALLS[:1])
    except InvalidRequest:
        return ""
    try:
        own = _turn(form, tokenizer, tags, "", CALLS[:1]).text
    except InvalidRequest as error:
        own = str(error)
    city = CALLS[0]["city"]
    if city not in plain.text or city in own:
        return ""
    return (
        f"the template writes calls as {_excerpt(plain.text)}, but of those that the family hands over {_excerpt(own)}"
    )


def _spelled_tags(form: ReasoningFormat) -> str:
    return repr(" … ".join(form.thinking)) if form.thinking else "no thinking"


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
    if fault := _unknown_fault(form, tokenizer, tags):
        return fault
    ends = {mode: _excerpt(tokenizer.decode(prompt[-END_TOKENS:], False)) for mode, prompt in bare.items()}
    if form.scope is None and (opened := next((mode for mode, end in ends.items() if OPENED.search(end)), None)):
        return f"the template's prompt ends with {ends[opened]}, which the family reads as the beginning of an answer"
    switched = form.modes.get("think") != form.modes.get("no_think") and len(form.modes) == len(MODES)
    if len(prompts) == len(MODES) and (bare if switched else prompts)["think"] == prompts["no_think"]:
        switch = ", ".join(f"{key}={value!r}" for key, value in form.modes.get("no_think", {}).items())
        return f"the template's prompt ends with {ends['think']} with and without thinking ({switch or 'no switch'})"
    faults = (
        _end_fault(form, mode, _section(tags, tokenizer, bare[mode]), _section(tags, tokenizer, prompt))
        for mode, prompt in prompts.items()
    )
    return next(
        (
            f"the template's prompt ends with {ends[mode]} in mode {mode}, {fault}"
            for mode, fault in zip(prompts, faults, strict=True)
            if fault
        ),
        "",
    )


def _end_fault(form: ReasoningFormat, mode: Mode, before: Section, section: Section) -> str:
    """What the family has against a prompt that the template leaves in `before`, and its own text in `section`."""
    if form.thinking is None:
        return ""
    forced = form.behind.get(mode, "").strip()
    if forced.startswith(form.thinking[0]) and before == "reasoning":
        return f"where the family opens thinking itself with {forced!r}"
    if forced.startswith(form.thinking[1]) and before != "reasoning":
        return f"where the family closes thinking with {forced!r}"
    wrong = (mode, section) in (("think", "answer"), ("no_think", "reasoning"))
    return f"which the family with {_spelled_tags(form)} reads as {section}" if wrong else ""


def _unknown_fault(form: ReasoningFormat, tokenizer: Tokenizer, tags: Tags) -> str:
    """The family's own tags that are nobody's."""
    own = (form.direct, form.budget, form.solution) if THINKS.search(tokenizer.template) else ()
    around = (tag for pair in (form.thinking, *own) if pair for tag in pair)
    unknown = [tag for tag in around if not _known(tag, tokenizer, tags)]
    if not unknown or unknown == [form.behind.get("think")]:  # the server writes the opening itself
        return ""
    turns = _turns(replace(form, history=AS_GIVEN), tokenizer, tags)
    turn = next((turn.text for turn in turns if ANSWER in turn.text), "")
    nowhere = f"neither it nor the vocabulary knows {unknown[0]!r}, which the family writes"
    return f"the template writes a turn as {_excerpt(turn)}, and {nowhere}"


def _known(text: str, tokenizer: Tokenizer, tags: Tags) -> bool:
    """Whether a tag stands in the template, or its control tokens in the vocabulary."""
    spelled = (tokenizer.template, _said(tags.form, tokenizer))
    return tags.mark(text) != text or any(text.strip() in written for written in spelled)


def _section(tags: Tags, tokenizer: Tokenizer, prompt: Sequence[int]) -> Section:
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


def takes_images(tokenizer: Tokenizer) -> bool:
    """Whether the template writes something for an image in a user's turn."""
    parts = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    turns = [[{"role": "user", "content": content}] for content in (parts, parts[1:])]
    try:
        seen, unseen = (tokenizer.decode(tokenizer.render(turn), skip_special_tokens=False) for turn in turns)
    except InvalidRequest:
        return False
    return seen != unseen and QUESTION in seen and "'type'" not in seen


def _shows(tokenizer: Tokenizer, turns: Sequence[Mapping[str, str]], texts: Sequence[str]) -> bool:
    try:
        prompt = tokenizer.decode(tokenizer.render(turns))
    except InvalidRequest:
        return False
    return all(text in prompt for text in texts)

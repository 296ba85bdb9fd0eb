"""Every family over the model's own tokenizer and template: prompts, replies, tool calls, grammars, history."""

import itertools
import json
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from tokenizers.decoders import DecodeStream

from models.engines.base import InvalidRequest
from models.engines.scripted import ScriptedEngine
from models.formats import FAMILIES
from models.formats.chunks import Chunk
from models.formats.history import written as as_written
from models.formats.parser import ReplyParser
from models.formats.prompt import TemplateInput, opening_of, render
from models.formats.reasoning import ReasoningFormat
from models.formats.template import find_family, prove
from models.formats.vocabulary import compile_tags
from models.text.tokenizer import HubTokenizer
from models.tool_calls.formats import PARSED_ONLY, ToolCallFormat
from models.tool_calls.grammar import answer_grammar, has_grammar
from models.tool_calls.tools import Tool
from server.app import create_app
from server.config.load import ConfigError, parse_config
from tests.conftest import ROOT
from tests.families.corpus import ALL, corpus, tokenizer_of

pytestmark = pytest.mark.skipif(isinstance(corpus(), str), reason=str(corpus()))


PROPERTIES = {"city": {"type": "string"}, "days": {"type": "integer"}}
TOOLS = (
    Tool("look_up", {"type": "object", "properties": PROPERTIES, "required": ["city"]}, "The weather."),
    Tool(
        "write", {"type": "object", "properties": {"path": {"type": "string"}, "text": {"type": "string"}}}, "A file."
    ),
)
THOUGHT, ANSWER = "I add two and three.\nThat is 5.", "It is 5.\n\nSure < 6."
CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("look_up", {"city": 'Os"lo', "days": 3}),
    ("write", {"path": "a.md", "text": "One\n\ntwo {3} | four"}),
)

USER, OTHER = {"role": "user", "content": "What is 2 + 3?"}, {"role": "user", "content": "And <b>3</b> + 4?"}
SYSTEM = {"role": "system", "content": "Be brief."}
SAID = {"role": "assistant", "content": "5"}
THOUGHT_OF = {"role": "assistant", "content": "5", "reasoning_content": "Two and three."}


def called(form: ReasoningFormat, *, thought: bool) -> list[dict[str, Any]]:
    """A turn that calls a tool, and the result."""
    form_of_id = form.history.ids.replace("$name", "look_up").replace("$id", "0") or "call_00000"
    function = {"name": "look_up", "arguments": {"city": "Oslo", "days": 3}}
    call = {"id": form_of_id, "type": "function", "function": function}
    turn = {"role": "assistant", "content": "", "tool_calls": [call]}
    return [
        turn | ({"reasoning_content": "I look it up."} if thought else {}),
        {"role": "tool", "content": "sunny", "tool_call_id": form_of_id},
    ]


def conversations(form: ReasoningFormat) -> dict[str, tuple[list[dict[str, Any]], bool]]:
    """Eight conversations, and whether tools are offered in them."""
    return {
        "single": ([USER], False),
        "system": ([SYSTEM, USER], False),
        "turns": ([USER, SAID, OTHER], False),
        "thoughts": ([SYSTEM, USER, THOUGHT_OF, OTHER], False),
        "tools": ([USER], True),
        "result": ([USER, *called(form, thought=False)], True),
        "thought and result": ([USER, *called(form, thought=True)], True),
        "after a result": ([USER, *called(form, thought=True), SAID, OTHER], True),
    }


def compare_prompts(form: ReasoningFormat, tokenizer: HubTokenizer) -> tuple[int, int]:
    """Prompts that are the model's own, token for token, and conversations that its template refuses, mode by mode."""
    same = refused = 0
    for (messages, offers), mode in itertools.product(conversations(form).values(), form.able):
        given = TemplateInput(messages, [tool.as_template_input() for tool in TOOLS] if offers else [])
        try:
            ids = render(form, tokenizer, given, mode, behind="")
        except InvalidRequest:
            refused += 1
            continue
        own = tokenizer._hf.apply_chat_template(
            list(as_written(messages, form.history, form.system.get(mode, ""))),
            tools=given.tools or None,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
            **form.modes.get(mode, {}),
        )
        assert ids == own
        behind, own_text = form.behind.get(mode, ""), tokenizer.decode(own, False)
        forced = tokenizer.decode(render(form, tokenizer, given, mode), False)
        assert forced == (own_text if own_text.endswith(behind) else own_text + behind)
        same += 1
    return same, refused


def test_prompts_are_the_models_own_token_for_token(name: str) -> None:
    form, tokenizer = FAMILIES[ALL[name].family], tokenizer_of(name)
    tokenizer.protect(form.texts)
    same, refused = compare_prompts(form, tokenizer)
    assert same >= 5 * len(form.able)
    assert same + refused == 8 * len(form.able)


def pieces_of(tokenizer: HubTokenizer, ids: Sequence[int]) -> list[str]:
    stream = DecodeStream(skip_special_tokens=True)
    return [stream.step(tokenizer.backend, token_id) or "" for token_id in ids]


Read = tuple[str, str, list[tuple[str, Any]]]


def read(
    form: ReasoningFormat, tokenizer: HubTokenizer, opening: Sequence[int], text: str, cuts: Sequence[int] | None = None
) -> Read:
    """Thought, answer and calls of a reply that arrives whole, or cut."""
    parser = ReplyParser(compile_tags(form, tokenizer), TOOLS)
    parser.feed(opening, [tokenizer.token_text(token_id) for token_id in opening])
    ids = tokenizer.encode_control(text)
    pieces = pieces_of(tokenizer, ids)
    chunks: list[Chunk] = []
    for a, b in itertools.pairwise([0, *sorted(cuts or ()), len(ids)]):
        chunks += parser.feed(ids[a:b], pieces[a:b])
    chunks += parser.flush()
    assert sorted(token_id for chunk in chunks for token_id in chunk.token_ids) == sorted(ids)
    calls: list[tuple[str, str]] = []
    for chunk in chunks:
        if chunk.call is not None:
            if chunk.call.name is not None:
                calls.append((chunk.call.name, ""))
            calls[-1] = (calls[-1][0], calls[-1][1] + chunk.text)
    thought, answer = ("".join(c.text for c in chunks if c.kind == kind) for kind in ("reasoning", "answer"))
    return thought.strip("\n"), answer.strip("\n"), [(tool, loaded(arguments)) for tool, arguments in calls]


def loaded(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except json.JSONDecodeError:
        return arguments


def arguments_text(tools: ToolCallFormat, arguments: Mapping[str, Any]) -> str:
    if tools.arguments == "gemma":
        quote = '<|"|>'
        return ",".join(f"{k}:{quote}{v}{quote}" if isinstance(v, str) else f"{k}:{v}" for k, v in arguments.items())
    if tools.arguments == "python":
        return ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    style = tools.style
    if style is None:
        return json.dumps(arguments)
    kinds = {"deepseek_xml": ("true", "false"), "kimi_k3_xml": ("string", "number")}.get(tools.style_name, ("", ""))
    gap = "" if tools.arguments in ("kimi_k3_xml", "minimax_m3_xml") or "$name$" in tools.call else "\n"
    return gap.join(
        style.head.replace("$key", key).replace("$type", kinds[not isinstance(value, str)])
        + (value if isinstance(value, str) else json.dumps(value))
        + style.end.replace("$key", key)
        for key, value in arguments.items()
    )


def calls_text(tools: ToolCallFormat, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Calls as the model writes them."""
    spelled = [
        tools.call.replace("$name", tool)
        .replace("$id", str(number))
        .replace("$arguments", arguments_text(tools, arguments))
        for number, (tool, arguments) in enumerate(calls)
    ]
    if tools.one_block:
        return tools.open + tools.separator.join(spelled) + tools.close
    return tools.separator.join(tools.open + call + tools.close for call in spelled)


def replies(form: ReasoningFormat, section: str) -> dict[str, tuple[str, Read]]:
    """Replies behind a prompt that leaves them in `section`, and what is in them."""
    thinking = form.thinking
    opened, closed = form.answer[0] if form.answer else ("", "")
    between = next((text for text in form.between if text.endswith("assistant")), "")
    found: dict[str, tuple[str, Read]] = {}
    if section != "reasoning":
        opened_here = "" if section == "answer" else opened
        found["no thinking"] = (f"{opened_here}{ANSWER}{closed}", ("", ANSWER, []))
    head = ""
    if thinking and section != "answer":
        head = ("" if section == "reasoning" else thinking[0]) + THOUGHT + thinking[1]
        found["thinking"] = (f"{head}{between}{opened}{ANSWER}{closed}", (THOUGHT, ANSWER, []))
        found["cut off"] = (head.removesuffix(thinking[1]), (THOUGHT, "", []))
        tag = thinking[1]
        if not form.answer:
            found["a tag in the answer"] = (f"{head}Write {tag} to end.", (THOUGHT, f"Write {tag} to end.", []))
    thought = THOUGHT if head else ""
    if form.tools is None or (section == "answer" and form.answer):
        return found
    for count in (1, 2):
        text = head + between + calls_text(form.tools, CALLS[:count])
        found[f"{count} calls"] = (text, (thought, "", [*CALLS[:count]]))
    if thinking:
        noted = ("write", {"path": "a", "text": f"First {thinking[1].strip()} line"})
        found["a tag in an argument"] = (head + between + calls_text(form.tools, [noted]), (thought, "", [noted]))
        if head and not form.answer:
            early = head.removesuffix(thinking[1]) + calls_text(form.tools, CALLS[:1])
            found["a call in open thinking"] = (early, (THOUGHT, "", [*CALLS[:1]]))
    return found


def section_of(form: ReasoningFormat, tokenizer: HubTokenizer, prompt: Sequence[int]) -> str:
    """Where a prompt leaves the reply."""
    tags = compile_tags(form, tokenizer)
    opening = opening_of(tags, prompt)
    parser = ReplyParser(tags, TOOLS)
    parser.feed(opening, [tokenizer.token_text(token_id) for token_id in opening])
    return parser.section


def test_replies_are_split_right_however_they_arrive(name: str) -> None:
    form, tokenizer = FAMILIES[ALL[name].family], tokenizer_of(name)
    tags = compile_tags(form, tokenizer)
    drawn = random.Random(name)
    tried = 0
    for mode in form.able:
        prompt = render(form, tokenizer, TemplateInput([USER]), mode)
        opening = opening_of(tags, prompt)
        for kind, (text, expected) in replies(form, section_of(form, tokenizer, prompt)).items():
            count = len(tokenizer.encode_control(text))
            for cuts in (None, range(1, count), sorted(drawn.sample(range(count), min(5, count)))):
                assert read(form, tokenizer, opening, text, cuts) == expected, (kind, mode, text)
            tried += 1
    assert tried >= 3


def test_a_grammar_takes_every_true_call_and_refuses_wrong_ones(name: str) -> None:
    xgrammar = pytest.importorskip("xgrammar")
    tools = FAMILIES[ALL[name].family].tools
    assert tools is not None
    if not has_grammar(tools):
        assert tools.style_name in PARSED_ONLY
        return
    compiler = xgrammar.GrammarCompiler(xgrammar.TokenizerInfo(["a"]))

    def takes(text: str, *, must_call: bool) -> bool:
        grammar = answer_grammar(tools, TOOLS, must_call=must_call, single=False, text=None)
        if grammar is None:
            return must_call
        matcher = xgrammar.GrammarMatcher(compiler.compile_structural_tag(grammar.value))
        return bool(matcher.accept_string(text))

    wrong: list[tuple[str, dict[str, Any]]] = [
        ("look_up", {"days": 3}),
        ("look_down", {"city": "Oslo"}),
        ("look_up", {"city": "Oslo", "days": "three"}),
    ]
    for text, right in [(calls_text(tools, CALLS[:n]), True) for n in (1, 2)] + [
        (calls_text(tools, [call]), False) for call in wrong
    ]:
        assert takes(text, must_call=True) == right, text
        if tools.open:
            assert takes(f"Let me see. {text.lstrip()}", must_call=False) == right, text


def test_the_family_proves_itself_and_is_found(name: str) -> None:
    form, tokenizer = FAMILIES[ALL[name].family], tokenizer_of(name)
    assert prove(form, tokenizer).fault == ""
    assert find_family(tokenizer, FAMILIES)[0].name == form.name


WRONG = {
    "Qwen3": ("qwen3.5", "glm4.7", "deepseek_r1", "gpt_oss", "hermes", "seed_oss", "gemma4", "step"),
    "Qwen3-2507-Instruct": ("qwen3", "qwen3.5", "qwq", "deepseek_r1", "glm4.6", "kimi_k3"),
    "gpt-oss": ("qwen3", "deepseek_r1", "kimi_k2", "gemma4", "smollm3", "llama"),
    "Llama 3.1": ("qwen3", "hermes", "gpt_oss", "granite3.3", "minimax_m2"),
    "DeepSeek-V3.2": ("qwen3", "deepseek_r1", "deepseek_v3.1", "deepseek_v4", "glm4.7"),
    "GLM-4.7": ("glm4.6", "qwen3", "qwen3.5", "nemotron3", "hermes"),
    "QwQ": ("hermes", "plain"),
    "Gemma 4": ("qwen3", "gpt_oss", "deepseek_v3.1", "kimi_k3", "hermes"),
}


SETTINGS = """
[engines.main]
kind = "scripted"
model = "demo/tokenizer"
[routes.main]
engine = "main"
family = "{family}"
"""


@pytest.mark.parametrize(("model", "wrong"), [(model, wrong) for model, several in WRONG.items() for wrong in several])
def test_a_wrong_family_ends_the_start_with_what_does_not_fit(model: str, wrong: str) -> None:
    assert sum(map(len, WRONG.values())) >= 40
    config = parse_config(SETTINGS.format(family=wrong), ROOT)
    with pytest.raises(ConfigError) as refused:
        create_app(config, {"main": ScriptedEngine(tokenizer_of(model), [""], name="main")})
    told = str(refused.value)
    assert told.startswith(f"routes.main.family: '{wrong}' does not fit engine 'main': the template")
    assert re.search("'s prompt ends with '.+'|writes (a turn|thinking|calls|answers) as '.+'", told)
    assert re.search("the family|with and without thinking", told)
    assert "\n" not in told

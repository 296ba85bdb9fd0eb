"""Real architectures on vLLM's CPU engine: random checkpoints of two layers, each with its family's own tokenizer and
template. Budgets hold to the token, forced calls are calls, and two hundred mixed requests go through."""

import asyncio
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.families.corpus import ALL, corpus, model_folder
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
ARCHITECTURES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "Qwen3": ("qwen3", {}),
    "QwQ": ("qwen2", {}),
    "DeepSeek-V3.2": ("deepseek_v3", {**EXPERTS, **LATENT, "n_group": 1, "topk_group": 1}),
    "GLM-4.6": ("glm4_moe", {**EXPERTS, "n_group": 1, "topk_group": 1}),
    "gpt-oss": ("gpt_oss", {"num_local_experts": 4, "num_experts_per_tok": 2, "layer_types": ["full_attention"] * 2}),
    "Llama 3.1": ("llama", {}),
    "SmolLM3": ("smollm3", {}),
    "Granite 3.3": ("granite", {}),
    "Seed-OSS": ("seed_oss", {}),
    "Ministral 3 Reasoning": ("mistral", {}),
    "Apertus": ("apertus", {}),
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
            "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}, "days": {"type": "integer"}},
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


def asked(drawn: random.Random, thinks: bool, constrained: bool) -> dict[str, Any]:
    """One request of the mix."""
    kinds = ["plain", *["budget", "none"] * thinks, *["forced"] * constrained]
    kind = drawn.choice(kinds)
    body: dict[str, Any] = {"model": drawn.choice(("main", "hard")), "messages": [USER], "max_tokens": 120}
    body |= {"stream": False, "seed": drawn.randrange(1000), "temperature": drawn.choice((0.0, 1.0))}
    if kind == "budget":
        body["thinking_budget"] = drawn.choice((1, 4, 16, 40))
    elif kind == "none":
        body["reasoning_effort"] = "none"
    elif kind == "forced":
        body |= {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 400}
        body |= {"thinking_budget": 8} if thinks else {}
    return body


def check(body: Mapping[str, Any], answer: httpx.Response) -> None:
    if body.get("reasoning_effort") == "none" and answer.status_code == 400:
        assert "no_think" in answer.text or "thinking" in answer.text
        return
    assert answer.status_code == 200, answer.text
    told = answer.json()
    choice, usage = told["choices"][0], told["usage"]
    thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens", 0)
    budget = body.get("thinking_budget")
    if budget is not None:
        assert thought <= budget
        if choice["reasond"].get("cut") == "hard":
            assert thought == budget
    if "tools" in body:
        call = choice["message"]["tool_calls"][0]["function"]
        arguments = json.loads(call["arguments"])
        assert call["name"] == "look_up"
        assert arguments["city"] in ("Oslo", "Rome")
        assert isinstance(arguments["days"], int)


async def ask_all(url: str, family: str) -> int:
    """Sends the mix; how many replies were cut at their budget."""
    limit = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        known = (await client.get("/v1/models")).json()["data"][0]["reasond"]
        calls = known["tools"] or {}
        drawn = random.Random(family)
        bodies = [asked(drawn, "think" in known["modes"], bool(calls.get("constrained"))) for _ in range(REQUESTS)]

        async def one(body: dict[str, Any]) -> int:
            async with limit:
                answer = await client.post("/v1/chat/completions", json=body)
            check(body, answer)
            return answer.status_code == 200 and bool(answer.json()["choices"][0]["reasond"].get("cut"))

        return sum(await asyncio.gather(*map(one, bodies)))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_small_model_of_a_real_architecture_is_served(name: str, tmp_path: Path) -> None:
    family = ALL[name].family
    config = tmp_path / "config.toml"
    config.write_text(CONFIG.format(folder=checkpoint(tmp_path / "model", name), family=family), encoding="utf-8")
    with reasond(config, log=tmp_path / "log", seconds=1200) as (url, _):
        assert asyncio.run(ask_all(url, family)) > REQUESTS / 20

"""A vision model on vLLM: Gemma 3's own vocabulary and template over random weights, with a picture in the prompt."""

import json
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.families.corpus import CACHE, corpus
from tests.processes import reasond

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(isinstance(corpus(), str), reason=str(corpus()))]

TOKENS_OF_AN_IMAGE = 16
SETTINGS = """
[engines.main]
kind = "vllm"
model = "{folder}"
[engines.main.args]
max_model_len = 1024
enforce_eager = true
kv_cache_memory_bytes = 67108864
[routes.main]
engine = "main"
family = "plain"
"""
PROCESSOR = {
    "image_processor_type": "Gemma3ImageProcessor",
    "processor_class": "Gemma3Processor",
    "image_seq_length": TOKENS_OF_AN_IMAGE,
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "size": {"height": 56, "width": 56},
}
SPECIAL = {
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}


def checkpoint(folder: Path) -> Path:
    """A random Gemma 3 of two layers that sees."""
    import torch
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    raw = (CACHE / "gemma3.json").read_text("utf-8")
    vocabulary = json.loads(raw)
    ids = {token["content"]: token["id"] for token in vocabulary["added_tokens"]}
    size = max([*vocabulary["model"]["vocab"].values(), *ids.values()]) + 1
    text = {
        "vocab_size": size,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": 1024,
    }
    vision = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
    }
    config = Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=TOKENS_OF_AN_IMAGE,
        boi_token_index=ids["<start_of_image>"],
        eoi_token_index=ids["<end_of_image>"],
        image_token_index=ids["<image_soft_token>"],
        eos_token_id=None,
    )
    torch.manual_seed(0)
    folder.mkdir()
    Gemma3ForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(raw, "utf-8")
    tokenizer = {"tokenizer_class": "GemmaTokenizerFast", "bos_token": "<bos>", "eos_token": "<end_of_turn>"}
    tokenizer |= {"processor_class": "Gemma3Processor", "extra_special_tokens": SPECIAL, **SPECIAL}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), "utf-8")
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR), "utf-8")
    processor = {"processor_class": "Gemma3Processor", "image_seq_length": TOKENS_OF_AN_IMAGE}
    (folder / "processor_config.json").write_text(json.dumps(processor), "utf-8")
    (folder / "chat_template.jinja").write_bytes((CACHE / "trl_gemma3.jinja").read_bytes())
    return folder


def picture(colour: str) -> dict[str, Any]:
    file = BytesIO()
    Image.new("RGB", (80, 60), colour).save(file, "PNG")
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"}}


def test_a_vision_model_reads_the_pictures_of_a_conversation(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(SETTINGS.format(folder=checkpoint(tmp_path / "model")), encoding="utf-8")
    question = {"type": "text", "text": "What is it?"}

    def asked(url: str, *parts: dict[str, Any]) -> tuple[str, int]:
        body = {"model": "main", "messages": [{"role": "user", "content": [*parts, question]}], "max_tokens": 16}
        answer = httpx.post(f"{url}/v1/chat/completions", json={**body, "temperature": 0}, timeout=120)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        return told["choices"][0]["message"]["content"], told["usage"]["prompt_tokens"]

    with reasond(config, log=tmp_path / "log") as (url, _):
        plain, without = asked(url)
        red, with_one = asked(url, picture("red"))
        blue, _ = asked(url, picture("blue"))
        _, with_two = asked(url, picture("red"), picture("blue"))
        assert asked(url, picture("red")) == (red, with_one)
        assert with_one - without >= TOKENS_OF_AN_IMAGE
        assert with_two - with_one >= TOKENS_OF_AN_IMAGE
        assert len({plain, red, blue}) == 3
        broken = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        body = {"model": "main", "messages": [{"role": "user", "content": [broken, question]}]}
        refused = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120)
        assert refused.status_code == 400
        assert "image" in refused.json()["error"]["message"]

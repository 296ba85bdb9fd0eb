"""A vision model on vLLM: LLaVA's own template over random weights, with pictures in the prompt."""

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

pytestmark = [pytest.mark.accept, pytest.mark.e2e, pytest.mark.skipif(isinstance(corpus(), str), reason=str(corpus()))]

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
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 56},
    "do_center_crop": True,
    "crop_size": {"height": 56, "width": 56},
    "do_rescale": True,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}


def checkpoint(folder: Path) -> Path:
    """A random LLaVA of two layers that sees: Llama's vocabulary with a token for images."""
    import torch
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vocabulary = json.loads((CACHE / "llama3_1.json").read_bytes())
    image = max([*vocabulary["model"]["vocab"].values(), *(token["id"] for token in vocabulary["added_tokens"])]) + 1
    vocabulary["added_tokens"].append({**vocabulary["added_tokens"][0], "id": image, "content": "<image>"})
    config = LlavaConfig(
        text_config=LlamaConfig(vocab_size=image + 1, num_key_value_heads=2, head_dim=32, **SMALL),
        vision_config=CLIPVisionConfig(image_size=56, patch_size=14, projection_dim=64, **SMALL),
        image_token_index=image,
    )
    torch.manual_seed(0)
    folder.mkdir()
    LlavaForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
    files: dict[str, Any] = {
        "tokenizer.json": vocabulary,
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|eot_id|>"},
        "preprocessor_config.json": PROCESSOR,
        "processor_config.json": {
            "processor_class": "LlavaProcessor",
            "patch_size": 14,
            "num_additional_image_tokens": 1,
            "vision_feature_select_strategy": "default",
            "image_token": "<image>",
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), "utf-8")
    (folder / "chat_template.jinja").write_bytes((CACHE / "trl_llava_next.jinja").read_bytes())
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

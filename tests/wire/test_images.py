"""Images in a conversation: shown to a model that sees, in every API; a line of text for one that does not."""

import asyncio
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from models.engines.base import InvalidRequest, ProcessedPrompt, Prompt, Sampling
from models.engines.scripted import ScriptedEngine
from models.text.tokenizer import HubTokenizer
from server.app import create_app
from server.config.load import parse_config
from tests.conftest import ROOT

TEMPLATE = """
{%- for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}
{%- if message.content is string %}{{ message.content }}{% else %}
{%- for part in message.content %}{{ '[picture]' if part.type == 'image' else part.text }}{% endfor %}{% endif %}
{{- '<|im_end|>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
SETTINGS = """
[engines.main]
kind = "scripted"
model = "demo/tokenizer"
[routes.main]
engine = "main"
family = "plain"
"""
FIRST, SECOND = b"first picture", b"second"
DATA = [f"data:image/png;base64,{b64encode(image).decode()}" for image in (FIRST, SECOND)]
TOKENS_OF_AN_IMAGE = 7
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": DATA[0]}},
                    {"type": "text", "text": "and"},
                    {"type": "image_url", "image_url": {"url": DATA[1]}},
                ],
            },
        ]
    },
    "/v1/messages": {
        "max_tokens": 20,
        "system": "Be brief.",
        "messages": [
            {
                "role": "user",
                "content": [
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": b64encode(FIRST).decode()},
                    },
                    {"type": "text", "text": "and"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": b64encode(SECOND).decode()},
                    },
                ],
            }
        ],
    },
    "/v1/responses": {
        "instructions": "Be brief.",
        "input": [
            {
                "role": "user",
                "content": [
                    {"type": "input_image", "image_url": DATA[0]},
                    {"type": "input_text", "text": "and"},
                    {"type": "input_image", "image_url": DATA[1]},
                ],
            }
        ],
    },
}


class Server:
    """A server whose model sees, or not, and the prompts that it read."""

    def __init__(self, *, sees: bool = True, template: str = TEMPLATE) -> None:
        self.prompts: list[Prompt] = []
        self.tokenizer = HubTokenizer(ROOT / "demo/tokenizer", chat_template=template)
        self.engine = ScriptedEngine(self.tokenizer, self._reply, name="main")
        if sees:
            self.engine.process_images = self._process_images
        self.app = create_app(parse_config(SETTINGS, ROOT), {"main": self.engine})

    def _reply(self, prompt: Prompt, sampling: Sampling) -> str:
        self.prompts.append(prompt)
        return "A cat."

    async def _process_images(self, token_ids: Sequence[int], images: Sequence[bytes]) -> ProcessedPrompt:
        if b"broken" in images:
            raise InvalidRequest("an image cannot be read: it is broken", "messages")
        seen = self.tokenizer.encode("x ")[:1] * TOKENS_OF_AN_IMAGE * len(images)
        return ProcessedPrompt([*seen, *token_ids], list(images))

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        async def posted() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://test") as client:
                return await client.post(path, json={"model": "main", **body})

        return asyncio.run(posted())

    def read(self) -> str:
        return self.tokenizer.decode(self.prompts[-1].token_ids, False)


@pytest.mark.parametrize("path", ASKED)
def test_a_model_that_sees_is_shown_the_images_in_their_places(path: str) -> None:
    server = Server()
    answer = server.post(path, ASKED[path])
    assert answer.status_code == 200, answer.text
    assert "A cat." in answer.text
    assert "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n[picture]and[picture]<|im_end|>" in server.read()
    assert server.prompts[-1].image_inputs == [FIRST, SECOND]
    usage = answer.json()["usage"]
    assert (usage.get("prompt_tokens") or usage["input_tokens"]) == len(server.prompts[-1].token_ids)


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize(
    "blind",
    [
        {"sees": False},
        {"template": TEMPLATE.replace("[picture]", "")},
        {"template": TEMPLATE.replace("message.content is string", "true")},
    ],
    ids=["the model", "the template", "the template, which writes parts as they are"],
)
def test_a_model_or_a_template_that_sees_nothing_reads_a_line_instead(path: str, blind: dict[str, Any]) -> None:
    server = Server(**blind)
    answer = server.post(path, ASKED[path])
    assert answer.status_code == 200, answer.text
    line = "[image: this model reads text only]"
    assert f"{line}\nand\n{line}" in server.read()
    assert server.prompts[-1].image_inputs is None


def test_images_that_are_elsewhere_or_no_base64_are_told() -> None:
    server = Server()
    for url in ("https://example.org/cat.png", "data:image/png;base64,%%%"):
        parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]
        answer = server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": parts}]})
        assert answer.status_code == 200, answer.text
        assert "[image: only images that a user's message brings along are read]\nWhat is it?" in server.read()
        assert "image parts were left out" in answer.text


def test_a_broken_image_is_the_clients_mistake() -> None:
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64encode(b'broken').decode()}"}}
    answer = Server().post("/v1/chat/completions", {"messages": [{"role": "user", "content": [part]}]})
    assert answer.status_code == 400
    assert "an image cannot be read" in answer.text


def test_every_request_behind_a_cut_has_the_images_too() -> None:
    server = Server()
    settings = SETTINGS.replace('"plain"', '"sees"')
    settings += '[families.sees]\nthinking = ["<think>", "</think>"]\nbehind = { think = "<think>" }\n'
    server.app = create_app(parse_config(settings, ROOT), {"main": server.engine})
    answer = server.post("/v1/chat/completions", {**ASKED["/v1/chat/completions"], "thinking_budget": 1})
    assert answer.status_code == 200, answer.text
    assert len(server.prompts) == 2
    assert [prompt.image_inputs for prompt in server.prompts] == [[FIRST, SECOND]] * 2

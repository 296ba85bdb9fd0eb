"""Conversations as clients send them, and what the model was shown of them."""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import httpx

from models.text.tokenizer import HubTokenizer
from tests.wire.served import ROOT, served
from tests.wire.told import Told, told_in_stream, told_whole

CONFIG = """
[engines.demo]
kind = "scripted"
model = "demo/tokenizer"
[routes.q]
engine = "demo"
family = "qwen3"
mode = "think"
"""
SHOWS = """
{%- for message in messages %}{{ '[' + message.role + ']' }}
{%- if message.reasoning_content %}{{ '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}{% endif %}
{{- message.content }}
{%- for call in message.tool_calls or [] %}{{ '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": {' }}
{%- for key, value in call.function.arguments | items %}{{ key | tojson + ': ' + value | tojson }}
{%- if not loop.last %}{{ ', ' }}{% endif %}{% endfor %}{{ '}}\\n</tool_call>' }}
{%- endfor %}{% endfor %}
{%- if add_generation_prompt %}[assistant]
{%- if enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"""
"""A template that shows thinking, and walks through the arguments of calls."""
TOOLS = "{%- for tool in tools or [] %}[tool {{ tool | tojson }}]{% endfor %}"
"""What a template has in front that shows tools."""
THOUGHT = "<think>\nold\n</think>\n\n"
NO_SYSTEM = "{% for m in messages if m.role == 'system' %}{{ raise_exception('none') }}{% endfor %}"
ONLY_FIRST = "{% for m in messages[1:] if m.role == 'system' %}{{ raise_exception('late') }}{% endfor %}"
USER = {"role": "user", "content": "hi"}
AGAIN = {"role": "user", "content": "go on"}


def called(name: str, arguments: str = "") -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {{{arguments}}}}}\n</tool_call>'


IMAGE = "[image: this model reads text only]"


class Asked:
    """What the model was shown, and what the client was told."""

    def __init__(self, rendered: str, answer: httpx.Response, grammars: list[str]) -> None:
        self.rendered = rendered
        self.prompt = rendered.rpartition("[assistant]")[0]
        self.grammars = grammars
        self.status = answer.status_code
        self.text = answer.text
        if answer.headers["content-type"].startswith("text/event-stream"):
            self.events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
            self.records = [record for event in self.events for record in _records(event)]
        else:
            self.events = []
            self.records = list(_records(answer.json()))

    @property
    def output(self) -> list[dict[str, Any]]:
        """The items of a response."""
        assert self.status == 200, self.text
        whole = self.events[-1]["response"] if self.events else json.loads(self.text)
        return whole["output"]

    @property
    def told(self) -> Told:
        assert self.status == 200, self.text
        return told_in_stream(self.events) if self.events else told_whole(json.loads(self.text))

    @property
    def texts(self) -> tuple[str, str]:
        """The thinking and the answer."""
        return self.told.thinking, self.told.answer

    @property
    def error(self) -> dict[str, Any]:
        """What was refused before anything was said."""
        assert 400 <= self.status < 500, self.text
        refused: dict[str, Any] = json.loads(self.text)["error"]
        return refused

    @property
    def notes(self) -> list[str]:
        assert self.status == 200, self.text
        return self.records[-1].get("notes", [])


def _records(value: Any) -> Any:
    if isinstance(value, dict):
        if isinstance(value.get("reasond"), dict):
            yield value["reasond"]
        for each in value.values():
            yield from _records(each)
    elif isinstance(value, list):
        for each in value:
            yield from _records(each)


@cache
def tokenizer_with(template: str) -> HubTokenizer:
    return HubTokenizer(ROOT / "demo" / "tokenizer", chat_template=template)


def chat(*messages: Any, **fields: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/chat/completions", {"messages": list(messages), **fields}


def message(*messages: Any, **fields: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/messages", {"messages": list(messages), "max_tokens": 500, **fields}


def response(*items: Any, **fields: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/responses", {"input": list(items), **fields}


def ask(
    path: str,
    body: dict[str, Any],
    template: str = SHOWS,
    config: str = CONFIG,
    reply: str | Callable[[str], str] = "so",
    whole: str = "",
    context_length: int = 65536,
) -> Asked:
    """The request to a server whose model thinks and says `reply`, or says the `whole` as it stands. A function `reply`
    says what goes on from where the reply stands."""
    tokenizer = tokenizer_with(template)
    prompts: list[str] = []
    grammars: list[str] = []

    def script(prompt: Any, sampling: Any) -> str:
        prompts.append(tokenizer.decode(prompt.token_ids, skip_special_tokens=False))
        if sampling.grammar is not None:
            grammars.append(str(sampling.grammar.value))
        begun = prompts[-1].rpartition("[assistant]")[2]
        if callable(reply):
            return reply(begun)
        if whole:
            return whole
        return reply if "</think>" in begun else f"hm</think>{reply}"

    with served(tokenizer, script, config, context_length=context_length) as server:
        answer = httpx.post(f"{server.url}{path}", json={"model": "q", **body})
    return Asked(prompts[0] if prompts else "", answer, grammars)

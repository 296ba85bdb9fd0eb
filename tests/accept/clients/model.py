"""A server for other people's clients, over a scripted model that does what its prompt says.

A line `CALL name {arguments}` of the last user turn is a tool call, one a reply, in order; `SAY text` is the answer
behind them, `WRITE "text"` one of several lines, as JSON. Where a grammar holds the answer and nothing is to be called,
it is `JSON {...}`. The model reads the rendered prompt and nothing else, so what a client loses on the way is lost here
too.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from models.engines.scripted import Line
from models.text.tokenizer import HubTokenizer
from tests.wire.served import ROOT, Served, served

TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)(?=<\|im_end\|>|\Z)", re.DOTALL)
CALL = re.compile(r"^\s*CALL (\S+) (\{.*\})\s*$", re.MULTILINE)
SAY = re.compile(r"^\s*SAY (.*?)\s*$", re.MULTILINE)
WRITE = re.compile(r"^\s*WRITE (\".*\")\s*$", re.MULTILINE)
JSON = re.compile(r"^\s*JSON (\{.*\})\s*$", re.MULTILINE)
CONFIG = """
[server]
port = 0
seal_key = "000102030405060708090a0b0c0d0e0f"
[engines.demo]
kind = "scripted"
model = "demo/tokenizer"
[routes.q]
engine = "demo"
family = "FAMILY"
MODE
"""
FAMILIES = {"qwen3": 'mode = "think"', "lhrm": "", "strict": 'mode = "think"'}
"""The kinds of route that every client is tried on; `strict` is a template that takes system turns in front only."""
LATE = "{% for m in messages[1:] if m.role == 'system' %}{{ raise_exception('system must be first') }}{% endfor %}"


@dataclass
class Reader:
    """The model. `prompts` are those that it was asked with."""

    tokenizer: HubTokenizer
    prompts: list[str] = field(default_factory=list)

    def __call__(self, prompt: Any, sampling: Any) -> Line:
        text = self.tokenizer.decode(prompt.token_ids, skip_special_tokens=False)
        self.prompts.append(text)
        turns = TURN.findall(text)
        begun = turns[-1][1] if turns[-1][0] == "assistant" else ""
        answer = self._answer(turns, sampling)
        if "</think>" in begun or "<no_think>" in begun:
            return answer
        return ("" if "<think>" in begun else "<think>") + f"I thought of {len(turns)} turns.</think>{answer}"

    def _answer(self, turns: list[tuple[str, str]], sampling: Any) -> str:
        asked = max((i for i, (role, text) in enumerate(turns) if role == "user" and _says(text)), default=None)
        if asked is None:
            return "hello"
        task = turns[asked][1]
        done = sum(role == "tool" for role, _ in turns[asked:])
        calls = CALL.findall(task)
        if done < len(calls):
            name, arguments = calls[done]
            return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'
        if found := JSON.search(task):
            return found[1]
        if written := WRITE.search(task):
            return str(json.loads(written[1]))
        results = [text for role, text in turns[asked:] if role == "tool"]
        said = SAY.search(task)
        return said[1] if said else "results: " + " | ".join(results)


def _says(text: str) -> bool:
    return any(kind.search(text) for kind in (CALL, SAY, WRITE, JSON))


@contextmanager
def clients_server(family: str, config: str = CONFIG, **delays: float) -> Iterator[tuple[Served, Reader]]:
    """A server with one route, `q`, of a kind of `FAMILIES`."""
    template = (ROOT / "demo" / "tokenizer" / "chat_template.jinja").read_text(encoding="utf-8")
    shows = "{{- '<|im_start|>' + message.role + '\\n' }}"
    assert shows in template
    thinks = "{%- if message.reasoning_content %}{{ '<think>' + message.reasoning_content + '</think>' }}{% endif %}"
    template = template.replace(shows, shows + "\n" + thinks)
    if family == "strict":
        template = LATE + template
    tokenizer = HubTokenizer(ROOT / "demo" / "tokenizer", chat_template=template)
    name = "qwen3" if family == "strict" else family
    settings = config.replace("FAMILY", name).replace("MODE", FAMILIES[family])
    reader = Reader(tokenizer)
    with served(tokenizer, reader, settings, context_length=2_000_000, **delays) as server:
        yield server, reader

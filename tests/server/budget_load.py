"""Many requests with budgets under every name, and a recount of the replies that does not use the server's parser."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, TypeVar

import httpx

from models.engines.base import Prompt, Sampling
from models.engines.scripted import Line, Script, ScriptedEngine
from models.text.tokenizer import HubTokenizer
from server.app import create_app
from server.config.load import parse_config
from tests.server.conftest import ROOT

A = TypeVar("A")
R = TypeVar("R")
SETTINGS = """
[engines.native]
kind = "scripted"
model = "demo/tokenizer"

[engines.own]
kind = "scripted"
model = "demo/tokenizer"

[routes.chooses]
engine = "native"
family = "lhrm"
budgets = { cut = "hard" }

[routes.kind]
engine = "own"
family = "lhrm"
mode = "think"
budgets = { reserve = 6, cap = 90, tolerance = 16 }

[routes.own-hard]
engine = "own"
family = "lhrm"
budgets = { cut = "hard", default = 20 }

[routes.block]
engine = "native"
family = "qwen3"
budgets = { reserve = 4, tolerance = 8 }

[routes.budgeter]
engine = "own"
family = "selfbudgeter"
budgets = { cap = 80 }

[routes.budgeter-kind]
engine = "own"
family = "selfbudgeter"
budgets = { reserve = 5, tolerance = 8 }
"""
ROUTES = ("chooses", "kind", "own-hard", "block", "budgeter", "budgeter-kind")
CUTS = {"budgeter": ("hard",), "budgeter-kind": ("graceful",)}  # what such routes can do; the others can do both
RESERVED = ("kind", "block", "budgeter-kind")


def model(tokenizer: HubTokenizer) -> Script:
    """Goes on where the prompt ends as a badly behaved model would: thoughts of any length with stray tags in them, and
    answers that may begin with another closing tag. It always has an answer."""
    words = [t for t in range(tokenizer.vocab_size) if tokenizer.token_text(t).strip().isalnum()]
    words += tokenizer.encode("\n") * 40 + tokenizer.encode(".") * 40
    ids = {name: tokenizer.encode_control(name)[0] for name in TAGS}

    def script(prompt: Prompt, sampling: Sampling) -> Line:
        rng = random.Random(f"{sampling.seed} {len(prompt.token_ids)}")
        begins = max((at for at, token in enumerate(prompt.token_ids) if token == ids["<|im_start|>"]), default=0)
        said = set(prompt.token_ids[begins:])
        strays = [ids["</no_think>"], ids["<think>"]] if rng.random() < 0.3 else []
        thought = rng.choices(words + strays * 20, k=rng.randrange(140))
        answer = [rng.choice(words[:-80]), *rng.choices(words, k=rng.randrange(20))]
        if ids["<solution>"] in said:
            return [answer[0], *rng.choices(words, k=rng.randrange(140)), ids["</solution>"]]
        if {ids["</think>"], ids["<no_think>"]} & said:
            return [ids["</think>"], *answer] if rng.random() < 0.2 else answer
        if ids["<think>"] in said:
            return [*thought, ids["</think>"], *answer]
        if rng.random() < 0.1:
            return [ids["<no_think>"], *answer, ids["</no_think>"]]
        return [ids["<think>"], *thought, ids["</think>"], *answer]

    def declaring(prompt: Prompt, sampling: Sampling) -> Line:
        if ids["<solution>"] in prompt.token_ids:
            return script(prompt, sampling)
        number = tokenizer.encode(str(random.Random(sampling.seed).randrange(1, 150)))
        opened = [ids["<budget>"], *number, ids["</budget>"], ids["<solution>"]]
        return opened + list(script(Prompt([*prompt.token_ids, *opened]), sampling))  # type: ignore[arg-type]

    def either(prompt: Prompt, sampling: Sampling) -> Line:
        # only the budget family's routes ask with its closing tag among the stop ids
        return (declaring if ids["</solution>"] in sampling.stop_token_ids else script)(prompt, sampling)

    return either


TAGS = ("<think>", "</think>", "<no_think>", "</no_think>", "<budget>", "</budget>", "<solution>", "</solution>")
TAGS += ("<|im_start|>", "<|im_end|>")


def client(tokenizer: HubTokenizer) -> httpx.AsyncClient:
    script = model(tokenizer)
    engines = {
        "native": ScriptedEngine(tokenizer, script, name="native", thinking=("<think>", "</think>")),
        "own": ScriptedEngine(tokenizer, script, name="own"),
    }
    app = create_app(parse_config(SETTINGS, ROOT), engines)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://reasond")


def body(rng: random.Random) -> dict[str, Any]:
    """One request: any route, any name of a budget, most of them small enough to bind."""
    route = rng.choice(ROUTES)
    tokens = rng.choice([rng.randrange(1, 40), rng.randrange(1, 40), rng.randrange(40, 160)])
    if rng.random() < 0.05 and not route.startswith("budgeter"):
        tokens = 0
    names: list[dict[str, Any]] = [
        {"thinking_token_budget": tokens},
        {"thinking_budget": tokens},
        {"thinking_budget_tokens": tokens},
        {"reasoning_budget_tokens": tokens},
        {"max_thinking_tokens": tokens},
        {"nvext": {"max_thinking_tokens": tokens}},
        {"reasoning": {"max_tokens": tokens}},
        {"thinking": {"budget_tokens": tokens}},
        {"reasond": {"budget": tokens, "cut": rng.choice(CUTS.get(route, ("graceful", "hard")))}},
        {"reasond": {"budget": {"tokens": tokens, "scope": "reply" if "budgeter" in route else "thinking"}}},
    ]
    if "budgeter" in route:
        names.append({"reasond": {"budget": tokens, "prefill": False}})
    fields = rng.choice(names) if rng.random() < 0.95 else {"reasoning_effort": "minimal"}
    if rng.random() < 0.4:
        fields["max_tokens"] = rng.randrange(1, 120)
    if rng.random() < 0.5:
        fields |= {"stream": True, "stream_options": {"include_usage": True}}
    messages = [{"role": "user", "content": "hi " * rng.randrange(1, 9)}]
    return {"model": route, "messages": messages, "seed": rng.randrange(10**9), "return_token_ids": True, **fields}


@dataclass(frozen=True, slots=True)
class Said:
    """What came back, however it came."""

    prompt: list[int]
    token_ids: list[int]
    answer: str
    usage: dict[str, Any]
    record: dict[str, Any]


async def ask(client: httpx.AsyncClient, fields: dict[str, Any]) -> Said:
    answer = await client.post("/v1/chat/completions", json=fields)
    assert answer.status_code == 200, answer.text
    if "stream" not in fields:
        reply = answer.json()
        choice = reply["choices"][0]
        content = choice["message"]["content"]
        return Said(reply["prompt_token_ids"], choice["token_ids"], content, reply["usage"], reply["reasond"])
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    choices = [choice for event in events for choice in event["choices"]]
    return Said(
        events[0]["prompt_token_ids"],
        [token_id for choice in choices for token_id in choice.get("token_ids", ())],
        "".join(choice["delta"].get("content", "") for choice in choices),
        events[-1]["usage"],
        events[-2]["reasond"],
    )


def in_scope(said: Said, tokenizer: HubTokenizer) -> int:
    """Tokens of the thinking, or of the solution, counted from token ids alone."""
    ids = {name: tokenizer.encode_control(name)[0] for name in TAGS}
    begins = max(at for at, token in enumerate(said.prompt) if token == ids["<|im_start|>"])
    prefix = said.prompt[begins:]
    opening, closing = ids["<think>"], ids["</think>"]
    if said.record["budget"]["scope"] == "reply":
        opening, closing = ids["<solution>"], ids["</solution>"]
    tokens = said.token_ids
    if opening in prefix:
        if closing in prefix:
            return 0
    elif opening in tokens:
        tokens = tokens[tokens.index(opening) + 1 :]
    else:
        return 0
    return len(list(takewhile(lambda token: token != closing, tokens)))


def check(fields: dict[str, Any], said: Said, tokenizer: HubTokenizer) -> None:
    budget, usage = said.record.get("budget"), said.usage
    assert usage["completion_tokens"] == len(said.token_ids)
    assert usage["prompt_tokens"] == len(said.prompt)
    assert len(said.token_ids) <= fields.get("max_tokens", 4096)
    if fields["model"] in RESERVED:
        assert said.answer.strip(), (fields, said)
    if budget is None:
        return
    counted = in_scope(said, tokenizer)
    if budget["enforced"] is not None:
        assert counted <= budget["enforced"], (fields, said)
    if budget["requested"] is not None and budget["requested"] >= 0:
        assert counted <= budget["requested"], (fields, said)
    assert budget["used"] <= counted
    if budget["scope"] == "thinking":
        assert usage["completion_tokens_details"]["reasoning_tokens"] == budget["used"]


async def run(todo: Sequence[A], concurrency: int, ask: Callable[[A], Awaitable[R]]) -> list[R]:
    """The replies to all of them, `concurrency` at a time."""
    replies: list[R | None] = [None] * len(todo)
    waiting = iter(enumerate(todo))

    async def work() -> None:
        for index, one in waiting:
            replies[index] = await ask(one)

    await asyncio.gather(*(work() for _ in range(concurrency)))
    return [reply for reply in replies if reply is not None]

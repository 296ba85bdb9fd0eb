"""`POST /v1/completions`: the engine without a controller. What the model writes is the text, tags and all."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from controllers.concurrency import merge
from controllers.generation.deltas import single
from controllers.policy.controls import PolicyError
from controllers.policy.fold import KeyLimits, cap_of
from controllers.route import Route
from models.engines.base import Delta, Engine, InvalidRequest, PositionLogprobs, Prompt, Sampling, Tokenizer
from server.apis.completions.schema import CompletionRequest
from server.apis.shared.sampling_fields import StreamOptions
from server.assemble import Runtime, runtime_of
from server.edges.json_body import json_body
from server.edges.sse import DONE, EventStream, while_connected
from server.observability.request_observer import RequestObserver, watch

router = APIRouter()


@dataclass(frozen=True, slots=True)
class CompletionJob:
    """One validated completion request: choice i continues `prompts[i]` as `samplings[i]` says. `tags` are
    the tokens around thinking where a cap holds."""

    body: CompletionRequest
    route: Route
    prompts: Sequence[Sequence[int]]
    samplings: Sequence[Sampling]
    head: dict[str, Any]
    tags: tuple[int | None, ...] = ()

    def run(self) -> AsyncGenerator[tuple[int, Delta], None]:
        engine, adapter, salt = self.route.engine, self.route.adapter, self.body.cache_salt
        return merge(
            [
                _opened_once(_continue(engine, Prompt(prompt, adapter, cache_salt=salt), sampling), prompt, self.tags)
                for prompt, sampling in zip(self.prompts, self.samplings, strict=True)
            ]
        )


async def _continue(engine: Engine, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
    """The engine's own stream; what it says of the prompt is said of this API's field."""
    try:
        async with aclosing(engine.generate(prompt, sampling)) as deltas:
            async for delta in deltas:
                yield delta
    except InvalidRequest as error:
        error.field = "prompt" if error.field == "messages" else error.field
        raise


async def _opened_once(
    deltas: AsyncGenerator[Delta, None], prompt: Sequence[int], tags: Sequence[int | None]
) -> AsyncGenerator[Delta, None]:
    """The stream up to where it opens thinking again: from there an engine that holds it would count anew."""
    opened = next((token_id == tags[0] for token_id in reversed(prompt) if token_id in tags), False)
    async with aclosing(deltas):
        async for delta in deltas:
            for step in single(delta) if tags and tags[0] in delta.token_ids else (delta,):
                if tags and tags[0] in step.token_ids:
                    if opened:
                        yield Delta((), (), finish="length")
                        return
                    opened = True
                yield step


@router.post("/v1/completions")
@json_body(CompletionRequest)
async def completions(request: Request, body: CompletionRequest) -> Response:
    runtime = runtime_of(request)
    job = prepare(body, runtime, request.scope["state"]["request_id"], runtime.limits(request))
    watching = watch(request, job.route.name)
    if body.stream:
        return EventStream(stream(job, watching), {})
    return await while_connected(request.receive, complete(job, watching))


def prepare(body: CompletionRequest, runtime: Runtime, request_id: str, key: KeyLimits | None = None) -> CompletionJob:
    route = runtime.route(body.model)
    tokenizer = route.engine.tokenizer
    prompts = [tokenizer.encode_control(prompt) if isinstance(prompt, str) else prompt for prompt in body.prompts]
    max_tokens = body.max_tokens or route.sampling.max_tokens or 16  # 16: the default of this API, kept for its clients
    sampling = body.sampling(route.sampling, max_tokens=max_tokens, logprobs=body.logprobs)
    cap = cap_of(route.defaults.budgets, key)
    sampling = _capped(sampling, route, cap)
    tags = tuple(map(tokenizer.control_id, route.family.thinking or ())) if cap is not None else ()
    n = body.n or 1
    seeded = [sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + i) for i in range(n)]
    head = {"id": f"cmpl-{request_id}", "object": "text_completion", "created": int(time.time()), "model": route.name}
    return CompletionJob(body, route, [p for p in prompts for _ in range(n)], seeded * len(prompts), head, tags)


def _capped(sampling: Sampling, route: Route, cap: int | None) -> Sampling:
    """A cap holds here too, as far as the engine can hold it by itself: no controller reads along."""
    if cap is None or route.family.scope is None:
        return sampling
    if not route.native_budget:
        raise PolicyError("model: the cap on budgets cannot be held on this route without a controller", "model")
    return replace(sampling, thinking_budget=cap)


async def stream(job: CompletionJob, watch: RequestObserver) -> AsyncGenerator[bytes, None]:
    options = job.body.stream_options or StreamOptions()
    choices = [_CompletionChoice(job, i) for i in range(len(job.prompts))]
    with watch:
        async with aclosing(job.run()) as deltas:
            async for index, delta in deltas:
                watch.spoke()
                choice = choices[index].step(delta)
                if not (choice["text"] or delta.finish or job.body.return_token_ids):
                    continue
                usage = {"usage": _usage(job, choices)} if options.continuous_usage_stats else {}
                yield b"data: " + orjson.dumps({**job.head, "choices": [choice], **usage}) + b"\n\n"
    if options.include_usage:
        yield b"data: " + orjson.dumps({**job.head, "choices": [], "usage": _usage(job, choices)}) + b"\n\n"
    yield DONE


async def complete(job: CompletionJob, watch: RequestObserver) -> Response:
    choices = [_CompletionChoice(job, i) for i in range(len(job.prompts))]
    with watch:
        async with aclosing(job.run()) as deltas:
            async for index, delta in deltas:
                watch.spoke()
                choices[index].step(delta)
    reply = {**job.head, "choices": [choice.whole() for choice in choices], "usage": _usage(job, choices)}
    return Response(orjson.dumps(reply), media_type="application/json")


class _CompletionChoice:
    """One choice while it grows."""

    def __init__(self, job: CompletionJob, index: int) -> None:
        self.index = index
        self._tokenizer = job.route.engine.tokenizer
        self._with_ids = bool(job.body.return_token_ids)
        self._prompt = job.prompts[index]
        self._texts = [self._tokenizer.decode(self._prompt)] if job.body.echo else []
        self._echo = self._texts[:]
        self._offset = sum(map(len, self._texts))
        self._logprobs: list[dict[str, Any]] = []
        self._end: Delta | None = None
        self.token_ids: list[int] = []
        self.cached_tokens = 0

    def step(self, delta: Delta) -> dict[str, Any]:
        """Takes a delta, returns it as a streamed choice. The first carries the echo of the prompt."""
        logprobs = None
        if delta.logprobs is not None:
            logprobs = legacy_logprobs(delta.pieces, delta.logprobs, self._tokenizer, self._offset)
            self._logprobs.append(logprobs)
        text = "".join(self._echo) + delta.text
        first = not self.token_ids
        self._echo = []
        self._offset += len(delta.text)
        self._texts.append(delta.text)
        self.token_ids.extend(delta.token_ids)
        self.cached_tokens = max(self.cached_tokens, delta.cached_tokens)
        self._end = delta
        return self._json(text, logprobs, delta.token_ids, prompt=first)

    def whole(self) -> dict[str, Any]:
        parts = self._logprobs
        joined = {key: [item for part in parts for item in part[key]] for key in parts[0]} if parts else None
        return self._json("".join(self._texts), joined, self.token_ids, prompt=True)

    def _json(
        self, text: str, logprobs: dict[str, Any] | None, token_ids: Sequence[int], *, prompt: bool
    ) -> dict[str, Any]:
        end = self._end
        choice: dict[str, Any] = {
            "index": self.index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": end.finish if end else None,
            "stop_reason": end.stopped_by if end else None,
        }
        if self._with_ids:
            choice["token_ids"] = token_ids
            choice["prompt_token_ids"] = list(self._prompt) if prompt else None
        return choice


def legacy_logprobs(
    pieces: Sequence[str], positions: Sequence[PositionLogprobs], tokenizer: Tokenizer, offset: int
) -> dict[str, Any]:
    """This API's own shape: four parallel lists; offsets are in characters of the choice's text."""
    offsets = [offset + sum(map(len, pieces[:i])) for i in range(len(positions))]
    return {
        "tokens": [tokenizer.token_text(at.sampled.token_id) for at in positions],
        "token_logprobs": [max(at.sampled.logprob, -9999.0) for at in positions],
        "top_logprobs": [
            {tokenizer.token_text(top.token_id): max(top.logprob, -9999.0) for top in (*at.top, at.sampled)}
            for at in positions
        ],
        "text_offset": offsets,
    }


def _usage(job: CompletionJob, choices: Sequence[_CompletionChoice]) -> dict[str, Any]:
    prompt = sum(len(prompt) for prompt in job.prompts[:: job.body.n or 1])
    completion = sum(len(choice.token_ids) for choice in choices)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(choice.cached_tokens for choice in choices)},
    }

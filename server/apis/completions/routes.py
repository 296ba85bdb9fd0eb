"""`POST /v1/completions`: the engine without a controller. What the model writes is the text, tags and all."""

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, replace
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from controllers.concurrency import gather, off_loop
from controllers.generation.deltas import single
from controllers.generation.route import Route
from controllers.policy.controls import PolicyError
from controllers.policy.fold import cap_of
from models.engines.base import Delta, InvalidRequest, Prompt, Sampling
from server.apis.completions.encoder import CompletionEncoder
from server.apis.completions.schema import CompletionRequest
from server.apis.shared.generation import Take, respond
from server.apis.shared.request import check_replies
from server.assemble import runtime_of
from server.edges.endpoints import Routes, json_body
from server.observability.request_observer import RequestObserver, watch

routes = Routes()


@routes.post("/v1/completions")
@json_body(CompletionRequest)
async def completions(request: Request, body: CompletionRequest) -> Response:
    request_id, created = request.scope["state"]["request_id"], int(time.time())
    completion = await prepare(body, request)
    name, tokenizer = completion.route.name, completion.route.engine.tokenizer
    head = {"id": f"cmpl-{request_id}", "object": "text_completion", "created": created, "model": name}
    encoder = CompletionEncoder(head, body, completion.prompts, tokenizer, completion.observer.usage)
    return await respond(request, completion.run, encoder, stream=bool(body.stream))


@dataclass(frozen=True, slots=True)
class Completion:
    """One validated request: choice i continues `prompts[i]` as `samplings[i]` says. `tags` are the tokens around
    thinking where a cap holds."""

    route: Route
    prompts: Sequence[Sequence[int]]
    samplings: Sequence[Sampling]
    cache_salt: str | None
    tags: tuple[int | None, ...]
    observer: RequestObserver
    admitted: Callable[[], AbstractAsyncContextManager[None]]

    async def run(self, take: Take[Delta]) -> None:
        """Hands the deltas of all choices to `take`."""
        with self.observer:
            try:
                async with self.admitted():
                    await gather([self._choice(i, take) for i in range(len(self.prompts))])
            except InvalidRequest as error:  # what the engine says of the prompt is said of this API's field
                error.field = "prompt" if error.field == "messages" else error.field
                raise

    async def _choice(self, index: int, take: Take[Delta]) -> None:
        usage, cached, prompt = self.observer.usage, 0, self.prompts[index]
        request = Prompt(prompt, self.route.adapter, cache_salt=self.cache_salt)
        deltas = self.route.engine.generate(request, self.samplings[index])
        async with aclosing(_opened_once(deltas, prompt, self.tags) if self.tags else deltas) as stream:
            async for delta in stream:
                self.observer.spoke()
                usage.completion_tokens += len(delta.token_ids)
                if delta.cached_tokens > cached:
                    usage.cached_tokens += delta.cached_tokens - cached
                    cached = delta.cached_tokens
                if (taking := take(index, delta)) is not None:
                    await taking


async def _opened_once(
    deltas: AsyncGenerator[Delta, None], prompt: Sequence[int], tags: Sequence[int | None]
) -> AsyncGenerator[Delta, None]:
    """The stream up to where it opens thinking again: from there an engine that holds it would count anew."""
    opened = next((token_id == tags[0] for token_id in reversed(prompt) if token_id in tags), False)
    async with aclosing(deltas):
        async for delta in deltas:
            for step in single(delta) if tags[0] in delta.token_ids else (delta,):
                if tags[0] in step.token_ids:
                    if opened:
                        yield Delta((), (), finish="length")
                        return
                    opened = True
                yield step


async def prepare(body: CompletionRequest, request: Request) -> Completion:
    runtime = runtime_of(request)
    route = runtime.route(body.model)
    check_replies({"n": body.n or 1, "prompt": len(body.prompts)}, runtime.config.server.max_replies)
    tokenizer = route.engine.tokenizer
    prompts = [
        await off_loop(len(prompt), partial(tokenizer.encode_control, prompt)) if isinstance(prompt, str) else prompt
        for prompt in body.prompts
    ]
    max_tokens = body.max_tokens or route.sampling.max_tokens or 16  # 16: the default of this API, kept for its clients
    sampling = body.sampling(route.sampling, max_tokens=max_tokens, logprobs=body.logprobs)
    cap = cap_of(route.defaults.budgets, runtime.limits(request))
    sampling = _capped(sampling, route, cap)
    tags = tuple(map(tokenizer.control_id, route.family.thinking or ())) if cap is not None else ()
    n = body.n or 1
    seeded = [sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + i) for i in range(n)]
    observer = watch(request, route.name)
    observer.usage.prompt_tokens = sum(map(len, prompts))
    key_name = request.scope["state"].get("key_name")
    work = n * (observer.usage.prompt_tokens + len(prompts) * max_tokens)
    return Completion(
        route=route,
        prompts=[prompt for prompt in prompts for _ in range(n)],
        samplings=seeded * len(prompts),
        cache_salt=body.cache_salt,
        tags=tags,
        observer=observer,
        admitted=partial(runtime.admission.admitted, route.name, key_name, work, observer.usage, n * len(prompts)),
    )


def _capped(sampling: Sampling, route: Route, cap: int | None) -> Sampling:
    """A cap holds here too, as far as the engine can hold it by itself: no controller reads along."""
    if cap is None or route.family.scope is None:
        return sampling
    if not route.native_budget:
        raise PolicyError("model: the cap on budgets cannot be held on this route without a controller", "model")
    return replace(sampling, thinking_budget=cap)

"""`POST /v1/chat/completions`: from a body to a policy, a controller, and its chunks on the wire."""

import time
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass, replace
from typing import Any, get_args

import orjson
from fastapi import APIRouter, Request, Response

from controllers.choices import side_by_side
from controllers.policy import TEMPLATE_CONTROLS, Policy, fold
from controllers.reply import Chunk, Decision, Event, Finished, Interrupt, Kind, Progress, Working
from controllers.reply import Request as Conversation
from controllers.route import Route
from models.engine import PositionLogprobs, Sampling, Tokenizer
from server.bodies import read_body
from server.chat_frames import ChatFrames, logprob_items
from server.runtime import Runtime, runtime_of
from server.sse import DONE, EventStream, while_connected
from server.usage import Tally
from server.watch import Watch, watch
from server.wire.chat import ChatBody, ChatRequest
from server.wire.fields import StreamOptions

router = APIRouter()


@dataclass(frozen=True, slots=True)
class Job:
    """One validated chat request, ready to run."""

    body: ChatBody
    route: Route
    policy: Policy
    sampling: Sampling
    conversation: Conversation
    reply_id: str
    created: int
    listing: AbstractContextManager[None]

    @property
    def n(self) -> int:
        return self.body.n or 1

    def run(self) -> AsyncGenerator[tuple[int, Event], None]:
        """Events of all choices. Choice i is a run of its own with seed + i."""
        return side_by_side(
            [
                self.route.controller(self.route, self.conversation, self.policy, sampling)
                for sampling in _seeded(self.sampling, self.n)
            ]
        )


@router.post("/v1/chat/completions")
async def chat_completions(request: Request) -> Response:
    body = await read_body(request, ChatRequest)
    runtime = runtime_of(request)
    state = request.scope["state"]
    job = prepare(body, runtime, state["request_id"], state.get("key_name"))
    watching = watch(request, job.route.name)
    if body.stream:
        headers: dict[str, str] = {}
        return EventStream(stream(job, watching, headers), headers)
    return await while_connected(request.receive, complete(job, watching))


def prepare(body: ChatBody, runtime: Runtime, request_id: str, key_name: str | None = None) -> Job:
    """Folds a body into a job. Raises `PolicyError` or `ApiError` naming the field at fault."""
    route = runtime.route(body.model)
    policy = fold(body.controls(), route.family, route.defaults, runtime.keys.get(key_name or ""))
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    sampling = body.sampling(
        route.sampling, max_tokens=body.max_completion_tokens or body.max_tokens, logprobs=logprobs
    )
    kwargs = body.chat_template_kwargs or {}
    interrupt = Interrupt()
    conversation = Conversation(
        messages=[message.as_template_input() for message in body.messages],
        template_kwargs={key: value for key, value in kwargs.items() if key not in TEMPLATE_CONTROLS},
        continue_final=body.continue_final_message,
        cache_salt=body.cache_salt,
        interrupt=interrupt,
    )
    listing = runtime.running.listed(key_name, request_id, interrupt)
    return Job(body, route, policy, sampling, conversation, f"chatcmpl-{request_id}", int(time.time()), listing)


def _seeded(sampling: Sampling, n: int) -> list[Sampling]:
    if n == 1 or sampling.seed is None:
        return [sampling] * n
    return [replace(sampling, seed=sampling.seed + i) for i in range(n)]


async def stream(job: Job, watch: Watch, headers: dict[str, str]) -> AsyncGenerator[bytes, None]:
    """SSE frames. The first holds the role, the decision and the first text together; `headers` is filled with it."""
    options = job.body.stream_options or StreamOptions()
    frames = ChatFrames(
        job.reply_id,
        job.created,
        job.route,
        token_ids=bool(job.body.return_token_ids),
        logprobs=bool(job.body.logprobs),
    )
    hidden = ("budget",) if job.policy.show_reasoning else ("budget", "reasoning")
    tally = Tally()
    waiting: dict[int, bytes] = {}  # first frames of choices that have decided and not yet spoken
    with watch, job.listing:
        async with aclosing(job.run()) as events:
            async for index, event in events:
                watch.saw(index, event)
                tally.add(event)
                if isinstance(event, Decision):
                    headers.update(decision_headers(event))
                    waiting[index] = frames.first(index, event)
                    continue
                if isinstance(event, Working):
                    yield frames.working(index, event)
                    continue
                if isinstance(event, Finished):
                    frame = frames.last(index, event)
                elif isinstance(event, Progress):
                    frame = frames.progress(index, event)
                elif event.kind in hidden:
                    if index in waiting:  # the client is told that there is thinking, though not what
                        yield waiting.pop(index)
                    continue
                elif not (event.text or event.logprobs or event.forced or job.body.return_token_ids):
                    continue
                else:
                    frame = frames.chunk(index, event, tally.usage() if options.continuous_usage_stats else None)
                yield waiting.pop(index) + frame if waiting and index in waiting else frame
    if options.include_usage:
        yield frames.usage(tally.usage())
    yield DONE


async def complete(job: Job, watch: Watch) -> Response:
    """The whole reply as one JSON answer."""
    choices = [_Choice() for _ in range(job.n)]
    tally = Tally()
    with watch, job.listing:
        async with aclosing(job.run()) as events:
            async for index, event in events:
                watch.saw(index, event)
                tally.add(event)
                choices[index].add(event)
    ends = [choice.end for choice in choices]
    reply = {
        "id": job.reply_id,
        "object": "chat.completion",
        "created": job.created,
        "model": job.route.name,
        "choices": [
            {"index": i, **choice.as_json(job, job.route.engine.tokenizer)} for i, choice in enumerate(choices)
        ],
        "usage": tally.usage(),
        "reasond": ends[0].record,
    }
    if job.body.return_token_ids:
        reply["prompt_token_ids"] = list(ends[0].decision.prompt)
    return Response(orjson.dumps(reply), headers=decision_headers(ends[0].decision), media_type="application/json")


def decision_headers(decision: Decision) -> dict[str, str]:
    """The short form of the decision record."""
    headers: dict[str, str] = {"x-reasond-mode": decision.mode, "x-reasond-chosen-by": decision.chosen_by}
    if decision.budget is not None and decision.budget.enforced is not None:
        headers["x-reasond-budget"] = str(decision.budget.enforced)
    return headers


class _Choice:
    """One choice of a reply that is not streamed, while it grows."""

    def __init__(self) -> None:
        self._texts: dict[Kind, list[str]] = {kind: [] for kind in get_args(Kind)}
        self._logprobs: list[PositionLogprobs | int] = []  # the id alone for a token that the server wrote
        self._token_ids: list[int] = []
        self._forced: list[int] = []
        self._target: list[int] = []
        self._end: Finished | None = None

    def add(self, event: Event) -> None:
        if isinstance(event, Chunk):
            self._texts[event.kind].append(event.text)
            positions = range(len(self._token_ids), len(self._token_ids) + len(event.token_ids))
            if event.forced:
                self._forced.extend(positions)
            if event.target:
                self._target.extend(positions)
            self._logprobs.extend(event.logprobs or (event.token_ids if event.forced else ()))
            self._token_ids.extend(event.token_ids)
        elif isinstance(event, Finished):
            self._end = event

    @property
    def end(self) -> Finished:
        if self._end is None:
            raise RuntimeError("the controller ended without saying so")
        return self._end

    def as_json(self, job: Job, tokenizer: Tokenizer) -> dict[str, Any]:
        wants_logprobs, token_ids = bool(job.body.logprobs), bool(job.body.return_token_ids)
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._texts["answer"])}
        reasoning = "".join(self._texts["reasoning"])
        if reasoning and job.policy.show_reasoning:
            message |= {"reasoning": reasoning, "reasoning_content": reasoning}
        items = logprob_items(self._logprobs, tokenizer) if wants_logprobs else None
        logprobs = {"content": items} if items else None
        choice = {
            "message": message,
            "logprobs": logprobs,
            "finish_reason": self.end.reason,
            "stop_reason": self.end.stopped_by,
            "reasond": self.end.record,
        }
        if not token_ids:
            return choice
        marked = {"token_ids": self._token_ids, "forced": self._forced}
        return {**choice, **marked, **({"target": self._target} if job.route.target else {})}

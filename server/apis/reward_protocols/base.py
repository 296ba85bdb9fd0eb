"""What the reward protocols share: the parts of their bodies, how their replies are judged, and the one route.

Several replies to one prompt are judged against each other, a single one against a reference, a rubric or a rival.
Where there is nothing to judge by the answer is a 4xx that says so. No replies are no work: 200. Where the judge came
to no verdict on a reply the answer is a 503 once all others are judged: they are remembered then, and whoever asks
again has only that reply judged anew, with other seeds.
`?model=…&votes=…&seed=…` on any of the paths choose the judge route and how it judges.
"""

import json
import time
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from controllers.concurrency import gather_bounded
from controllers.judging.judge import Judge, JudgeParams
from controllers.judging.ranking import TournamentRules
from controllers.judging.scoring import Criterion, Scores, criterion_for, score
from controllers.policy.controls import MOST_REPLIES
from models.text.template_marks import Marks
from server.apis.rewards.encoder import usage
from server.apis.rewards.judging import admitted
from server.apis.rewards.schema import MAX_VOTES
from server.apis.shared.sampling_fields import Body, Text
from server.assemble import runtime_of
from server.edges.endpoints import Handler, json_body
from server.edges.errors import ApiError, validated
from server.edges.sse import while_connected
from server.observability.request_observer import UsageCounter, watch

MAX_TEXTS = 1024
Texts = Annotated[list[Text], Field(max_length=MAX_TEXTS)]
REFERENCES = ("reference", "expected_answer", "ground_truth", "label")


class TrainerBody(BaseModel):
    """A body whose shape is its trainer's: fields that we do not read are let pass, not refused."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    def judge_name(self, judges: Container[str]) -> str | None:
        """The judge route that the body names."""
        return None


class WithCriterion(TrainerBody):
    """Extensions to a protocol: what a single reply is held against."""

    reference: Text | None = None
    rubric: Text | None = None
    rival: Text | None = None

    @property
    def criterion(self) -> Criterion:
        return criterion_in({"reference": self.reference, "rubric": self.rubric, "rival": self.rival})


class WithModel(WithCriterion):
    model: Text | None = None

    def judge_name(self, judges: Container[str]) -> str | None:
        return self.model


class ProtocolPart(TrainerBody):
    """A part of a message's content; one that is no text, an image, says nothing here."""

    text: Text | None = None


Content = Text | list[ProtocolPart] | None


class Turn(TrainerBody):
    """A message of any of OpenAI's APIs."""

    role: Text = "user"
    content: Content = None


def text_in(content: Content) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text or "" for part in content)


def turns(messages: Sequence[Turn]) -> list[dict[str, str]]:
    """Messages as roles and text."""
    return [{"role": message.role, "content": text_in(message.content)} for message in messages]


def criterion_in(fields: Mapping[str, Any]) -> Criterion:
    """The first of reference (under whichever of its names), rubric and rival that says something."""
    references = (text for name in REFERENCES if (text := _text(fields.get(name))).strip())
    return Criterion.of(next(references, None), _text(fields.get("rubric")), _text(fields.get("rival")))


def _text(value: Any) -> str:
    """A value of a data set as a judge reads it: text as it is, anything else as JSON, null as nothing."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class ProtocolCall:
    """One call: its judge, how that judges, what the judge's template writes around turns, and the body as sent."""

    judge: Judge
    params: JudgeParams
    marks: Marks
    sent: bytes
    usage: UsageCounter

    def pair(self, field: str, text: str, prompt: str = "") -> tuple[str, str]:
        """Prompt and reply of a text that holds both. Raises the API's error where it does not show them apart."""
        pair = self.marks.split(text, prompt)
        if pair is None:
            message = (
                f"{field}: it does not show where the reply begins, for it holds no {self.marks.to_reply!r};"
                " the judge route's chat template must be the trained model's"
            )
            raise ApiError(400, message, param=field, code="invalid_value")
        return pair

    async def score(self, query: str, replies: Sequence[str], criterion: Criterion) -> Scores:
        """Scores of one prompt's replies."""
        rules = TournamentRules(teams=self.judge.settings.teams)
        scores = await score(self.judge, query, replies, self.params, rules, criterion)
        self.usage.judged(scores.votes)
        return scores

    async def reward(self, query: str, reply: str, criterion: Criterion) -> float:
        """The score of a single reply."""
        return known((await self.score(query, [reply], criterion)).values)[0]

    async def score_pairs(self, pairs: Sequence[tuple[str, str]], criteria: Sequence[Criterion]) -> list[float]:
        """Scores of (prompt, reply) pairs, in order. Those that share prompt and criterion are a group.

        Raises before any work where a group is too large or has nothing to be judged by.
        """
        groups: dict[tuple[str, Criterion], list[int]] = {}
        for i, ((query, _), criterion) in enumerate(zip(pairs, criteria, strict=True)):
            groups.setdefault((query, criterion), []).append(i)
        for (_, criterion), members in groups.items():
            basis = criterion_for(self.judge, criterion, len(members)).basis
            if basis == "group" and len(members) > MOST_REPLIES:
                message = f"{len(members)} replies to one prompt; at most {MOST_REPLIES} are judged against each other"
                raise ApiError(400, message, code="too_many_replies")
        works = [
            partial(self.score, query, [pairs[i][1] for i in members], criterion)
            for (query, criterion), members in groups.items()
        ]
        scored = await gather_bounded(self.judge.settings.concurrency, works)
        values: list[float | None] = [None] * len(pairs)
        for members, scores in zip(groups.values(), scored, strict=True):
            for i, value in zip(members, scores.values, strict=True):
                values[i] = value
        return known(values)

    def listed(self, name: str, data: list[dict[str, Any]]) -> dict[str, Any]:
        """The answer of vLLM's list-like protocols."""
        head = {"id": name, "object": "list", "created": int(time.time()), "model": self.judge.route.name}
        return {**head, "data": data, "usage": usage(self.usage)}


def known(values: Sequence[float | None]) -> list[float]:
    """The scores, all of which are known. Raises the API's error where one is not: it is never 0 instead."""
    scores = [value for value in values if value is not None]
    if len(scores) == len(values):
        return scores
    message = f"the judge came to no verdict on {len(values) - len(scores)} of {len(values)} replies; ask again"
    raise ApiError(503, message, type="server_error", code="no_verdict", headers={"retry-after": "1"})


class JudgeQuery(Body):
    """The parameters of a URL."""

    model: str = ""
    votes: Annotated[int, Field(ge=1, le=MAX_VOTES)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


@dataclass(frozen=True, slots=True)
class RewardProtocol:
    """`answer` judges a body of class `body` and gives the answer's JSON. Its name and docstring are the route's."""

    body: type[TrainerBody]
    answer: Callable[[ProtocolCall, Any], Awaitable[Any]]


def endpoint(protocol: RewardProtocol) -> Handler:
    """The route of a protocol."""

    async def handle(request: Request, body: TrainerBody) -> Response:
        runtime, query = runtime_of(request), validated(JudgeQuery.model_validate, dict(request.query_params))
        judge = runtime.judge(query.model or body.judge_name(runtime.judges))
        params = judge.params(query.votes, query.seed, runtime.limits(request))
        marks = runtime.marks[judge.route.name]
        watching = watch(request, judge.route.name)
        call = ProtocolCall(judge, params, marks, await request.body(), watching.usage)

        async def work() -> Any:
            with watching:
                async with admitted(request, judge, params.votes, watching.usage):
                    value = await protocol.answer(call, body)
                watching.spoke()
                return value

        return Response(orjson.dumps(await while_connected(request.receive, work())), media_type="application/json")

    handle.__name__, handle.__doc__ = getattr(protocol.answer, "__name__", "reward"), protocol.answer.__doc__
    return json_body(protocol.body)(handle)

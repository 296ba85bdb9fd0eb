"""A judge: comparisons to verdicts, each the majority of k sampled votes of a reward reasoning model.

A vote is a reply of the judge route's ordinary controller, so whatever limits thinking there limits it here. Votes of
all callers are in flight together, up to the judge's `concurrency`, and callers get free slots in turn.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol

from cachetools import LRUCache

from controllers.concurrency import FairSemaphore, gather
from controllers.generation.events import Conversation, Event, Finished
from controllers.generation.route import Controller, Route
from controllers.judging.settings import JudgeConfig
from controllers.judging.tournament import Side, VoteCount
from controllers.judging.verdicts import JudgeComparison, digest, verdict_in
from controllers.policy.fold import KeyLimits, Policy, fold
from models.engines.base import Sampling
from models.formats.chunks import Chunk
from models.judge_prompts.families import JUDGE_FAMILIES, Form, Kind

NO_WISHES = Conversation(())
ABSTENTIONS = 10_000  # votes without a verdict that a judge remembers, so as not to ask the same again


class CannotJudge(Exception):
    """This judge has no prompt for what it was asked to judge. `field` is what the request had better not bring."""

    def __init__(self, kind: Kind, judge: str) -> None:
        super().__init__(f"the judge {judge} cannot hold a reply against a {kind}")
        self.field = kind


@dataclass(frozen=True, slots=True)
class JudgeParams:
    """How comparisons are judged. Equal parameters give equal verdicts.

    | field | meaning |
    |---|---|
    | `seed` | draws which reply the judge reads first, and the seed of every vote |
    | `keep_reasoning` | votes keep the judge's text, and none is taken from the cache |
    | `fixed_order` | the judge reads the first reply first in every vote |
    | `fixed_length` | the caller named `max_tokens` itself: a second try gets no more |
    | `request` | what every engine request has beside its messages: a cache salt, an interrupt |
    | `caller` | who waits for a slot; parameters that `replace` made of others share theirs |
    | `repeatable` | all that a vote depends on beside its number and what is compared |
    """

    policy: Policy
    sampling: Sampling
    votes: int = 1
    seed: int = 0
    keep_reasoning: bool = False
    fixed_order: bool = False
    fixed_length: bool = False
    request: Conversation = NO_WISHES
    caller: object = field(default_factory=object, compare=False, repr=False)
    repeatable: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        sampling = replace(self.sampling, priority=0)
        effort = (self.policy.effort,) if self.policy.effort else ()
        told = repr((self.policy, sampling, self.seed, self.fixed_order, self.fixed_length, *effort))
        object.__setattr__(self, "repeatable", told)

    def votes_at_once(self, kind: Kind) -> int:
        """Votes of one comparison that are asked for together at first. On a single reply all votes are cast."""
        return VoteCount(self.votes).needed if kind == "pair" else self.votes

    @property
    def tenant(self) -> str:
        """Whose verdicts are remembered: the name of the API key."""
        return self.policy.key.name if self.policy.key else ""


@dataclass(frozen=True, slots=True)
class Vote:
    """One vote as it was cast. `share` is the first reply's; None is an abstention: `tries` replies held no verdict.

    `swapped` says that the judge read the second reply first. Tokens are those of all tries.
    """

    share: float | None
    swapped: bool = False
    cached: bool = False
    tries: int = 0
    reasoning: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def side(self) -> Side | None:
        """The side that the vote is for."""
        return None if self.share is None or self.share == 0.5 else 0 if self.share > 0.5 else 1

    @property
    def unparsable(self) -> int:
        """Replies without a verdict."""
        return self.tries - (self.share is not None) if self.tries else 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a comparison. `identical`: both replies are the same text, so nobody was asked and nobody won."""

    count: VoteCount
    votes: tuple[Vote, ...] = ()
    identical: bool = False

    @property
    def winner(self) -> Side | None:
        return self.count.winner

    @property
    def known(self) -> bool:
        """Whether there is an outcome at all, be it a draw. Without one the judge abstained in every vote."""
        return self.identical or self.count.first + self.count.second > 0

    @property
    def share(self) -> float:
        """The first one's share of a match: no verdict counts as half."""
        return 0.5 if self.winner is None else 1.0 - self.winner


def ignore(event: object) -> None:
    """The callback of those who follow nothing."""


@dataclass(frozen=True, slots=True)
class _Question:
    """A comparison and its parameters. `content` is a digest of all that a vote depends on beside its number, `order`
    of what draws the order of the replies."""

    comparison: JudgeComparison
    params: JudgeParams
    content: bytes
    order: bytes

    def swapped(self, index: int) -> bool:
        """Whether vote number `index` reads the second reply first: by lot, then in turn."""
        if self.comparison.kind != "pair" or self.params.fixed_order:
            return False
        return ((self.order[0] + index) % 2 == 1) != self.comparison.turned


class SharedVerdicts(Protocol):
    """Verdicts that others remember too, by all that they depend on."""

    async def get(self, key: bytes) -> float | None: ...
    def put(self, key: bytes, share: float) -> None: ...


class Judge:
    """One judge route. `on_verdict` hears every verdict. What is not in its own cache is looked up in the `shared` one.
    The settings' `votes`, `teams` and `rubric` are for callers who bring none of their own.
    """

    def __init__(
        self,
        route: Route,
        controller: Controller,
        forms: Mapping[Kind, Form],
        settings: JudgeConfig,
        *,
        shared: SharedVerdicts | None = None,
        on_verdict: Callable[[Verdict], None] = ignore,
    ) -> None:
        self.route = route
        self.family = JUDGE_FAMILIES[settings.family]
        self.forms = forms
        self.settings = settings
        self.cache: LRUCache[bytes, float] = LRUCache(settings.cache_size)
        self.controller = controller
        self._fruitless_tries: LRUCache[bytes, int] = LRUCache(ABSTENTIONS)
        self._slots = FairSemaphore(settings.concurrency)
        self._shared = shared
        self._on_verdict = on_verdict

    def params(self, votes: int | None = None, seed: int = 0, key: KeyLimits | None = None) -> JudgeParams:
        """The route's own parameters under a key's limits, with the route's number of votes where none is given."""
        policy = fold({}, self.route.family, self.route.defaults, key)
        return JudgeParams(policy, self.route.sampling, votes or self.settings.votes, seed)

    def max_comparisons(self, params: JudgeParams, kind: Kind) -> int:
        """How many comparisons of one caller are worth having in flight: as many as fill all slots."""
        return -(-self.settings.concurrency // params.votes_at_once(kind))

    async def compare(
        self,
        comparison: JudgeComparison,
        params: JudgeParams,
        on_count: Callable[[VoteCount], None] = ignore,
        on_event: Callable[[Event], None] | None = None,
    ) -> Verdict:
        """The majority of `params.votes`.

        A pair's vote stops as soon as it is decided. On a single reply all votes are cast, because their share is the
        reward. `on_count` hears the count behind each vote, `on_event` the first try of the first vote as it is
        written. Raises `CannotJudge`.
        """
        if comparison.kind not in self.forms:
            raise CannotJudge(comparison.kind, self.route.name)
        count, votes, content = VoteCount(params.votes), list[Vote](), comparison.key
        parts = digest(content, self.forms[comparison.kind], params.repeatable)
        question = _Question(comparison, params, parts, digest(content, params.seed))
        identical = comparison.identical and on_event is None  # whoever reads along wants a reply all the same

        async def cast(index: int) -> Vote:
            nonlocal count
            vote = await self._cast(question, index, None if index else on_event)
            count = count.counted(vote.share)
            on_count(count)
            return vote

        def needed() -> int:
            return 0 if identical else count.needed if comparison.kind == "pair" else count.remaining

        while number := needed():
            votes += await gather([cast(index) for index in range(len(votes), len(votes) + number)])
            if params.request.cancelled:
                break
        verdict = Verdict(count, tuple(votes), identical=identical)
        self._on_verdict(verdict)
        return verdict

    async def _cast(self, question: _Question, index: int, on_event: Callable[[Event], None] | None) -> Vote:
        """Vote number `index`. Its place in the cache is its own, so no vote answers for another of its comparison.

        An abstention is no verdict, so it is not kept; but that those seeds led to none is, and whoever asks again is
        answered by others. Neither is known to another tenant, nor under another cache salt.
        """
        params, turned = question.params, question.comparison.turned
        key = digest(question.content, params.tenant, params.request.cache_salt, index)
        known = None if params.keep_reasoning else await self._known(key)
        if known is not None:
            return Vote(_turned(known, turned), cached=True)
        fruitless = self._fruitless_tries.get(key, 0)
        async with self._slots.slot(params.caller):
            vote = await self._ask(question, index, fruitless, on_event)
        if params.request.cancelled:  # half a reply is no verdict, and no abstention
            return vote
        if vote.share is None:
            self._fruitless_tries[key] = fruitless + vote.tries
        elif self.cache.maxsize and not params.fixed_order:
            self.cache[key] = _turned(vote.share, turned)
            if self._shared is not None:
                self._shared.put(key, self.cache[key])
        return vote

    async def _known(self, key: bytes) -> float | None:
        known = self.cache.get(key)
        if known is None and self._shared is not None:
            known = await self._shared.get(key)
            if known is not None:
                self.cache[key] = known
        return known

    async def _ask(
        self, question: _Question, index: int, fruitless: int, on_event: Callable[[Event], None] | None
    ) -> Vote:
        """One vote of the model: a reply without a verdict is tried once more, longer and with another seed."""
        comparison, params, kind = question.comparison, question.params, question.comparison.kind
        swapped = question.swapped(index)
        conversation = replace(params.request, messages=self.forms[kind].messages(comparison.values(swapped)))
        vote = Vote(None, swapped)
        for policy, sampling in ((params.policy, params.sampling), wider(params, self.settings.widening)):
            seed = int.from_bytes(digest(question.content, index, fruitless + vote.tries)[:7], "big")
            listener = None if vote.tries else on_event
            sampling = replace(sampling, seed=seed, whole=listener is None)
            answer, reasoning, end = await _read(self.controller(self.route, conversation, policy, sampling), listener)
            share = verdict_in(answer, self.family, kind)
            vote = replace(
                vote,
                share=None if share is None else _turned(share, swapped),
                tries=vote.tries + 1,
                reasoning=reasoning + answer if params.keep_reasoning else None,
                prompt_tokens=vote.prompt_tokens + end.prompt_tokens,
                completion_tokens=vote.completion_tokens + end.completion_tokens,
                reasoning_tokens=vote.reasoning_tokens + end.reasoning_tokens,
            )
            if share is not None or conversation.cancelled:
                break
        return vote


def wider(params: JudgeParams, factor: float) -> tuple[Policy, Sampling]:
    """The limits of a second try: a larger budget, within the cap, and more tokens in all. What the caller named itself
    stays as it is."""
    policy, sampling = params.policy, params.sampling
    if policy.budget is not None and policy.requested is None:
        longer = _longer(policy.budget, factor)
        budget = longer if policy.cap is None else min(longer, policy.cap)
        policy = replace(policy, budget=budget, prefill=None if policy.prefill is None else budget)
    if sampling.max_tokens is not None and not params.fixed_length:
        sampling = replace(sampling, max_tokens=_longer(sampling.max_tokens, factor))
    return policy, sampling


def _longer(tokens: int, factor: float) -> int:
    return max(tokens + 1, int(tokens * factor))


def _turned(share: float, turned: bool) -> float:
    return 1 - share if turned else share


async def _read(
    events: AsyncGenerator[Event, None], listener: Callable[[Event], None] | None
) -> tuple[str, str, Finished]:
    """A reply of the judge to its end: its answer, its thinking and how it ended."""
    answer, reasoning, end = list[str](), list[str](), None
    async with aclosing(events):
        async for event in events:
            if listener is not None:
                listener(event)
            if isinstance(event, Chunk):
                (answer if event.kind == "answer" else reasoning).append(event.text)
            elif isinstance(event, Finished):
                end = event
    assert end is not None, "a controller ends with Finished"
    return "".join(answer), "".join(reasoning), end

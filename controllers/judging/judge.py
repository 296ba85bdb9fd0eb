"""A judge: comparisons to verdicts, each by majority of k sampled replies of a reward reasoning model.

The judge's replies come from its route's ordinary controller, so whatever limits thinking there limits it here. Votes
of all comparisons of all callers are in flight together, up to the judge's `concurrency`; callers get slots in turn.
"""

from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from controllers.concurrency import gather
from controllers.generation.events import Conversation, Event, Finished
from controllers.judging.fair_semaphore import FairSemaphore
from controllers.judging.tournament import Side, Vote
from controllers.judging.verdicts import JudgeComparison, digest, verdict_in
from controllers.policy.fold import KeyLimits, Policy, fold
from controllers.route import Controller, Route
from models.engines.base import Sampling
from models.formats.chunks import Chunk
from models.judge_prompts.families import Form, JudgeFamily, Kind

ABSTENTIONS = 10_000  # votes without a verdict that a judge remembers, so as not to ask the same again

Known = TypeVar("Known")


class CannotJudge(Exception):
    """This judge has no prompt for what it was asked to judge. `field` is what the request had better not bring."""

    def __init__(self, kind: Kind, judge: str) -> None:
        super().__init__(f"the judge {judge} cannot hold a reply against a {kind}")
        self.field = kind


@dataclass(frozen=True, slots=True)
class JudgeParams:
    """How a comparison is to be judged. With `reasoning` the judge's thinking is kept, so nothing is taken from the
    cache. Equal terms give equal verdicts: `seed` draws the order of the replies and seeds every vote. `as_they_stand`:
    the judge reads the first reply first in every vote. `held_to_length`: the caller named `max_tokens` itself, and a
    second try gets no more. `caller` is who waits: terms that were derived from others with `replace` share theirs.
    """

    policy: Policy
    sampling: Sampling
    votes: int = 1
    seed: int = 0
    reasoning: bool = False
    as_they_stand: bool = False
    held_to_length: bool = False
    caller: object = field(default_factory=object, compare=False, repr=False)

    def wave(self, kind: Kind) -> int:
        """Votes of one comparison that are asked for at once. On a single reply all votes are cast."""
        return Vote(self.votes).wave if kind == "pair" else self.votes


@dataclass(frozen=True, slots=True)
class JudgeReply:
    """One vote as it was cast. `side` None is an abstention: `tries` replies held no verdict.

    `swapped` says that the judge read the second reply first. Tokens are those of all tries.
    """

    side: Side | None
    swapped: bool = False
    cached: bool = False
    tries: int = 0
    reasoning: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def unparsable(self) -> int:
        """Replies without a verdict."""
        return self.tries - (self.side is not None) if self.tries else 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a comparison. `identical`: both replies are the same text, so nobody was asked and nobody won."""

    vote: Vote
    ballots: tuple[JudgeReply, ...] = ()
    identical: bool = False

    @property
    def winner(self) -> Side | None:
        return self.vote.winner

    @property
    def known(self) -> bool:
        """Whether there is an outcome at all, be it a draw. Without one the judge abstained in every vote."""
        return self.identical or self.vote.first + self.vote.second > 0

    @property
    def share(self) -> float:
        """The first one's share of a match: no verdict counts as half."""
        return 0.5 if self.winner is None else 1.0 - self.winner


class Cache(Generic[Known]):
    """What is known of single votes by what was asked, the latest `size` of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._known: OrderedDict[bytes, Known] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: bytes) -> Known | None:
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
        return known

    def put(self, key: bytes, known: Known) -> None:
        self._known[key] = known
        self._known.move_to_end(key)
        if len(self._known) > self._size:
            self._known.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Audience:
    """Somebody who asked in a conversation and reads along: `tell` hears the first try of the first vote as it is
    written, and None the others. What else the conversation wants of its reply, `request` says: of every vote."""

    request: Conversation
    tell: Callable[[Event], None] | None


Counted = Callable[[Vote], None]


def uncounted(vote: Vote) -> None:
    """Nobody follows the votes."""


def silent(verdict: Verdict) -> None:
    """Nobody counts."""


class Judge:
    """One judge route. `seen` is told of every verdict; `widening` is how much longer a second try may be;
    `votes` and `teams` are what callers get who do not say, `rubric` what a single reply is held against where they
    bring nothing."""

    def __init__(
        self,
        route: Route,
        controller: Controller,
        family: JudgeFamily,
        forms: Mapping[Kind, Form],
        *,
        votes: int = 1,
        concurrency: int = 256,
        cache_size: int = 100_000,
        widening: float = 2.0,
        teams: bool = False,
        rubric: str = "",
        seen: Callable[[Verdict], None] = silent,
    ) -> None:
        self.route = route
        self.family = family
        self.forms = forms
        self.cache: Cache[Side] = Cache(cache_size)
        self.votes = votes
        self.teams = teams
        self.rubric = rubric
        self.concurrency = concurrency
        self.controller = controller
        self._abstentions: Cache[int] = Cache(ABSTENTIONS)
        self._slots = FairSemaphore(concurrency)
        self._widening = widening
        self._seen = seen

    def terms(self, votes: int | None = None, seed: int = 0, key: KeyLimits | None = None) -> JudgeParams:
        """The route's own terms under a key's limits, with the route's number of votes where none is given."""
        policy = fold({}, self.route.family, self.route.defaults, key)
        return JudgeParams(policy, self.route.sampling, votes or self.votes, seed)

    def abreast(self, terms: JudgeParams, kind: Kind) -> int:
        """How many comparisons of one caller are worth having in flight: as many as fill all slots."""
        return -(-self.concurrency // terms.wave(kind))

    async def compare(
        self,
        comparison: JudgeComparison,
        terms: JudgeParams,
        counted: Counted = uncounted,
        audience: Audience | None = None,
    ) -> Verdict:
        """Majority of `terms.votes`. A pair's vote stops as soon as it is decided; on a single reply all votes are
        cast, because their share is the reward. `counted` hears the count behind each vote. Raises `CannotJudge`.
        """
        if comparison.kind not in self.forms:
            raise CannotJudge(comparison.kind, self.route.name)
        if comparison.identical and audience is None:
            verdict = Verdict(Vote(terms.votes), identical=True)
        else:
            verdict = await self._poll(comparison, terms, counted, audience)
        self._seen(verdict)
        return verdict

    async def _poll(
        self, comparison: JudgeComparison, terms: JudgeParams, counted: Counted, audience: Audience | None
    ) -> Verdict:
        vote, ballots = Vote(terms.votes), list[JudgeReply]()
        content = digest(comparison.key, self.forms[comparison.kind], _repeatable(terms))

        async def cast(index: int) -> JudgeReply:
            nonlocal vote
            heard = replace(audience, tell=None) if audience and index else audience
            ballot = await self._cast(comparison, terms, content, index, heard)
            vote = vote.counted(ballot.side)
            counted(vote)
            return ballot

        def wanted() -> int:
            if ballots and audience and audience.request.cancelled:
                return 0
            return vote.wave if comparison.kind == "pair" else vote.left

        while wave := wanted():
            ballots += await gather([cast(index) for index in range(len(ballots), len(ballots) + wave)])
        return Verdict(vote, tuple(ballots))

    async def _cast(
        self, comparison: JudgeComparison, terms: JudgeParams, content: bytes, index: int, audience: Audience | None
    ) -> JudgeReply:
        """Vote number `index`. Its place in the cache is its own, so no vote answers for another of its comparison.

        An abstention is no verdict, so it is not kept; but that those seeds led to none is, and whoever asks again is
        answered by others.
        """
        key = digest(content, index)
        known = None if terms.reasoning else self.cache.get(key)
        if known is not None:
            return JudgeReply(_turned(known, comparison.turned), cached=True)
        in_vain = self._abstentions.get(key) or 0
        async with self._slots.taken(terms.caller):
            ballot = await self._ask(comparison, terms, content, index, in_vain, audience)
        whole = not (audience and audience.request.cancelled)  # half a reply is no verdict, and no abstention
        if whole and ballot.side is None:
            self._abstentions.put(key, in_vain + ballot.tries)
        if whole and ballot.side is not None and not terms.as_they_stand:  # a chat reads the reasoning, never the cache
            self.cache.put(key, _turned(ballot.side, comparison.turned))
        return ballot

    async def _ask(
        self,
        comparison: JudgeComparison,
        terms: JudgeParams,
        content: bytes,
        index: int,
        in_vain: int,
        audience: Audience | None,
    ) -> JudgeReply:
        """One vote of the model: a reply without a verdict is tried once more, longer and with another seed."""
        shown_turned = (content[0] + index) % 2 == 1 and comparison.kind == "pair"  # relative to the content's key
        swapped = shown_turned != comparison.turned and not terms.as_they_stand
        request = audience.request if audience else Conversation(())
        conversation = replace(request, messages=self.forms[comparison.kind].messages(comparison.values(swapped)))
        ballot = JudgeReply(None, swapped)
        for policy, sampling in ((terms.policy, terms.sampling), wider(terms, self._widening)):
            seed = int.from_bytes(digest(content, index, in_vain + ballot.tries)[:7], "big")
            tell = audience.tell if audience and not ballot.tries else None
            said, drawn = _Said(), replace(sampling, seed=seed, whole=tell is None)
            await said.listen(self.controller(self.route, conversation, policy, drawn), tell)
            side = verdict_in(said.answer, self.family.syntax, self.family.verdicts[comparison.kind])
            ballot = said.added_to(ballot, None if side is None else _turned(side, swapped), terms.reasoning)
            if side is not None or conversation.cancelled:
                break
        return ballot


def wider(terms: JudgeParams, factor: float) -> tuple[Policy, Sampling]:
    """The limits of a second try: a larger budget, within the cap, and more tokens in all. What the caller named itself
    stays as it is."""
    policy, sampling = terms.policy, terms.sampling
    if policy.budget is not None and policy.requested is None:
        longer = _longer(policy.budget, factor)
        most = longer if policy.cap is None else min(longer, policy.cap)
        policy = replace(policy, budget=most, prefill=None if policy.prefill is None else most)
    if sampling.max_tokens is not None and not terms.held_to_length:
        sampling = replace(sampling, max_tokens=_longer(sampling.max_tokens, factor))
    return policy, sampling


def _longer(tokens: int, factor: float) -> int:
    return max(tokens + 1, int(tokens * factor))


def _turned(side: Side, turned: bool) -> Side:
    if not turned:
        return side
    return 1 if side == 0 else 0


def _repeatable(terms: JudgeParams) -> str:
    """All of the terms that a vote depends on."""
    effort = (terms.policy.effort,) if terms.policy.effort else ()
    return repr((terms.policy, terms.sampling, terms.seed, terms.as_they_stand, terms.held_to_length, *effort))


class _Said:
    """One reply of the judge, while it grows."""

    def __init__(self) -> None:
        self.answer = ""
        self.reasoning = ""
        self.end: Finished | None = None

    async def listen(self, events: AsyncGenerator[Event, None], tell: Callable[[Event], None] | None) -> None:
        answer, reasoning = list[str](), list[str]()
        async with aclosing(events):
            async for event in events:
                if tell is not None:
                    tell(event)
                if isinstance(event, Chunk):
                    (answer if event.kind == "answer" else reasoning).append(event.text)
                elif isinstance(event, Finished):
                    self.end = event
        self.answer, self.reasoning = "".join(answer), "".join(reasoning)

    def added_to(self, ballot: JudgeReply, side: Side | None, reasoning: bool) -> JudgeReply:
        if self.end is None:
            raise RuntimeError("the controller ended without saying so")
        return replace(
            ballot,
            side=side,
            tries=ballot.tries + 1,
            reasoning=self.reasoning + self.answer if reasoning else None,
            prompt_tokens=ballot.prompt_tokens + self.end.prompt_tokens,
            completion_tokens=ballot.completion_tokens + self.end.completion_tokens,
            reasoning_tokens=ballot.reasoning_tokens + self.end.reasoning_tokens,
        )

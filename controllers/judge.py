"""A judge: comparisons to verdicts, each by majority of k sampled replies of a reward reasoning model.

The judge's replies come from its route's ordinary controller, so whatever limits thinking there limits it here. Every
vote of every comparison of every caller is in flight together, up to the judge's `concurrency`.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace

from controllers.choices import together
from controllers.policy import KeyLimits, Policy, fold
from controllers.reply import Chunk, Finished, Request
from controllers.route import Controller, Route
from controllers.tournament import Side, Vote
from controllers.verdicts import Comparison, digest, verdict_in
from models.engine import Sampling
from models.judge_families import Form, JudgeFamily, Kind


class CannotJudge(Exception):
    """This judge has no prompt for what it was asked to judge. `field` is what the request had better not bring."""

    def __init__(self, kind: Kind, judge: str) -> None:
        super().__init__(f"the judge {judge} cannot hold a reply against a {kind}")
        self.field = kind


@dataclass(frozen=True, slots=True)
class Terms:
    """How a comparison is to be judged. With `reasoning` the judge's thinking is kept, so nothing is taken from the
    cache. Equal terms give equal verdicts: `seed` draws the order of the replies and seeds every vote.
    """

    policy: Policy
    sampling: Sampling
    votes: int = 1
    seed: int = 0
    reasoning: bool = False


@dataclass(frozen=True, slots=True)
class Ballot:
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
    ballots: tuple[Ballot, ...] = ()
    identical: bool = False

    @property
    def winner(self) -> Side | None:
        return self.vote.winner

    @property
    def share(self) -> float:
        """The first one's share of a match: no verdict counts as half."""
        return 0.5 if self.winner is None else 1.0 - self.winner


class Cache:
    """Verdicts of single votes by what was asked, the latest `size` of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._sides: OrderedDict[bytes, Side] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sides)

    def get(self, key: bytes) -> Side | None:
        side = self._sides.get(key)
        if side is not None:
            self._sides.move_to_end(key)
        return side

    def put(self, key: bytes, side: Side) -> None:
        self._sides[key] = side
        self._sides.move_to_end(key)
        if len(self._sides) > self._size:
            self._sides.popitem(last=False)


def silent(verdict: Verdict) -> None:
    """Nobody counts."""


class Judge:
    """One judge route. `seen` is told of every verdict; `widening` is how much longer a second try may be;
    `votes` and `teams` are what callers get who do not say."""

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
        seen: Callable[[Verdict], None] = silent,
    ) -> None:
        self.route = route
        self.family = family
        self.forms = forms
        self.cache = Cache(cache_size)
        self.votes = votes
        self.teams = teams
        self.concurrency = concurrency
        self._controller = controller
        self._slots = asyncio.Semaphore(concurrency)
        self._widening = widening
        self._seen = seen

    def terms(self, votes: int | None = None, seed: int = 0, key: KeyLimits | None = None) -> Terms:
        """The route's own terms under a key's limits, with the route's number of votes where none is given."""
        policy = fold({}, self.route.family, self.route.defaults, key)
        return Terms(policy, self.route.sampling, votes or self.votes, seed)

    async def compare(self, comparison: Comparison, terms: Terms) -> Verdict:
        """Majority of `terms.votes`. A pair's vote stops as soon as it is decided; on a single reply all votes are
        cast, because their share is the reward. Raises `CannotJudge`.
        """
        if comparison.kind not in self.forms:
            raise CannotJudge(comparison.kind, self.route.name)
        if comparison.identical:
            verdict = Verdict(Vote(terms.votes), identical=True)
        else:
            verdict = await self._poll(comparison, terms)
        self._seen(verdict)
        return verdict

    async def _poll(self, comparison: Comparison, terms: Terms) -> Verdict:
        vote, ballots = Vote(terms.votes), list[Ballot]()
        content = digest(comparison.key, self.forms[comparison.kind], _repeatable(terms))
        while wave := vote.wave if comparison.kind == "pair" else vote.left:
            cast = range(len(ballots), len(ballots) + wave)
            for ballot in await together([self._cast(comparison, terms, content, index) for index in cast]):
                ballots.append(ballot)
                vote = vote.counted(ballot.side)
        return Verdict(vote, tuple(ballots))

    async def _cast(self, comparison: Comparison, terms: Terms, content: bytes, index: int) -> Ballot:
        """Vote number `index`. Its place in the cache is its own, so no vote answers for another of its comparison."""
        key = digest(content, index)
        known = None if terms.reasoning else self.cache.get(key)
        if known is None:
            ballot = await self._ask(comparison, terms, content, index)
            if ballot.side is not None:
                self.cache.put(key, _turned(ballot.side, comparison.turned))
        else:
            ballot = Ballot(_turned(known, comparison.turned), cached=True)
        return ballot

    async def _ask(self, comparison: Comparison, terms: Terms, content: bytes, index: int) -> Ballot:
        """One vote of the model: a reply without a verdict is tried once more, longer and with another seed."""
        shown_turned = (content[0] + index) % 2 == 1 and comparison.kind == "pair"  # relative to the content's key
        swapped = shown_turned != comparison.turned
        conversation = Request(self.forms[comparison.kind].messages(comparison.values(swapped)))
        ballot = Ballot(None, swapped)
        for policy, sampling in ((terms.policy, terms.sampling), wider(terms, self._widening)):
            seed = int.from_bytes(digest(content, index, ballot.tries)[:7], "big")
            said = _Said()
            async with self._slots:
                await said.listen(
                    self._controller(self.route, conversation, policy, replace(sampling, seed=seed, whole=True))
                )
            side = verdict_in(said.answer, self.family.syntax, self.family.verdicts[comparison.kind])
            ballot = said.added_to(ballot, None if side is None else _turned(side, swapped), terms.reasoning)
            if side is not None:
                break
        return ballot


def wider(terms: Terms, factor: float) -> tuple[Policy, Sampling]:
    """The limits of a second try: a larger budget, and more tokens in all."""
    policy, sampling = terms.policy, terms.sampling
    if policy.budget is not None:
        policy = replace(policy, budget=int(policy.budget * factor))
    if sampling.max_tokens is not None:
        sampling = replace(sampling, max_tokens=int(sampling.max_tokens * factor))
    return policy, sampling


def _turned(side: Side, turned: bool) -> Side:
    if not turned:
        return side
    return 1 if side == 0 else 0


def _repeatable(terms: Terms) -> str:
    """All of the terms that a vote depends on."""
    return repr((terms.policy, terms.sampling, terms.seed))


class _Said:
    """One reply of the judge, while it grows."""

    def __init__(self) -> None:
        self.answer = ""
        self.reasoning = ""
        self.end: Finished | None = None

    async def listen(self, events: AsyncGenerator[object, None]) -> None:
        answer, reasoning = list[str](), list[str]()
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Chunk):
                    (answer if event.kind == "answer" else reasoning).append(event.text)
                elif isinstance(event, Finished):
                    self.end = event
        self.answer, self.reasoning = "".join(answer), "".join(reasoning)

    def added_to(self, ballot: Ballot, side: Side | None, reasoning: bool) -> Ballot:
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

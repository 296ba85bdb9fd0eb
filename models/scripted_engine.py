"""An engine that replays a script instead of running a model: what tests and load tests drive.

It keeps the whole protocol (limits, stops, log-probabilities, aborts) and takes its time on purpose:
`first_token_delay` and `token_delay` are seconds, counted to absolute deadlines, so that a thousand streams at once
keep their pace.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle

from models.admission import admit
from models.engine import Delta, EngineDead, Finish, PositionLogprobs, Prompt, Sampling, TokenLogprob
from models.text import ReplyText
from models.tokenizer import HubTokenizer

UNLIKELY = -20.0  # log-probability of every token that a script does not speak of
LIKELY = -0.1  # of the token that it says
FILLER = 0  # what an empty script says while it must not end


@dataclass(frozen=True, slots=True)
class Reply:
    """One scripted reply, as text or as token ids; the end of sequence follows by itself.

    `logprobs` are made-up log-probabilities by token id, the same at every position. `error` is raised behind the last
    token in place of the end. `cached_tokens` is what the prefix cache is said to have held.
    """

    content: str | Sequence[int]
    logprobs: Mapping[int, float] = field(default_factory=dict)
    error: Exception | None = None
    cached_tokens: int = 0


Line = Reply | str | Sequence[int]
Script = Callable[[Prompt, Sampling], Line]


class ScriptedEngine:
    """Replays `script`: a function of the request, or a list whose replies are given in turn, again and again."""

    def __init__(
        self,
        tokenizer: HubTokenizer,
        script: Script | Sequence[Line],
        *,
        name: str = "scripted",
        context_length: int = 4096,
        adapters: frozenset[str] = frozenset(),
        first_token_delay: float = 0.0,
        token_delay: float = 0.0,
    ) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.adapters = adapters
        self.first_token_delay = first_token_delay
        self.token_delay = token_delay
        self._script = script if callable(script) else in_turn(script)
        self._eos = min(tokenizer.eos_ids, default=None)
        self._running = 0
        self._dead = False

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        if self._dead:
            raise EngineDead(f"engine {self.name} is closed")
        most = admit(self, prompt, sampling)
        reply = self._reply(prompt, sampling)
        text = ReplyText(self.tokenizer.backend, prompt.token_ids, sampling)
        due = asyncio.get_running_loop().time() + self.first_token_delay
        self._running += 1
        try:
            for count, token_id in enumerate(self._tokens(reply, sampling), 1):
                await self._wait_until(due)
                due += self.token_delay
                token_id = _obeying(token_id, reply.logprobs, sampling.allowed_token_ids)
                finish, stopped_by = self._ending(token_id, count, most, sampling)
                logprobs = _position_logprobs(token_id, reply.logprobs, sampling)
                cached = reply.cached_tokens if count == 1 else 0
                delta = text.delta((token_id,), logprobs, finish, stopped_by, cached)
                yield delta
                if delta.finish is not None:
                    return
            if reply.error is not None:
                raise reply.error
        finally:
            self._running -= 1

    def running(self) -> int:
        return self._running

    async def check(self) -> None:
        if self._dead:
            raise EngineDead(f"engine {self.name} is closed")

    async def close(self) -> None:
        self._dead = True

    def _reply(self, prompt: Prompt, sampling: Sampling) -> Reply:
        line = self._script(prompt, sampling)
        return line if isinstance(line, Reply) else Reply(line)

    def _tokens(self, reply: Reply, sampling: Sampling) -> Iterator[int]:
        """The script's tokens, then the end of sequence; again from the start while the end is ignored or too early."""
        content = reply.content
        spoken = self.tokenizer.encode_control(content) if isinstance(content, str) else content
        count = 0
        while True:
            yield from spoken
            if reply.error is not None:
                return
            count += len(spoken)
            if self._eos is not None and count >= sampling.min_tokens:
                yield self._eos
                count += 1
            elif not spoken:
                yield FILLER
                count += 1

    def _ending(self, token_id: int, count: int, most: int, sampling: Sampling) -> tuple[Finish | None, int | None]:
        """How the reply ends with this token, if it does, and the stop id that ended it."""
        if count > sampling.min_tokens:
            if token_id == self._eos and not sampling.ignore_eos:
                return "stop", None
            if token_id in sampling.stop_token_ids:
                return "stop", token_id
        return ("length", None) if count >= most else (None, None)

    async def _wait_until(self, due: float) -> None:
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))


def in_turn(lines: Sequence[Line]) -> Script:
    """A script that gives the lines in turn, again and again."""
    turns = cycle(lines)
    return lambda prompt, sampling: next(turns)


def babble(length: int, vocab: Sequence[int]) -> Script:
    """A script of `length` random tokens of `vocab`: the same for the same prompt and seed, as a model's would be."""

    def script(prompt: Prompt, sampling: Sampling) -> Line:
        drawn = random.Random(repr((list(prompt.token_ids), sampling.seed)))
        return drawn.choices(vocab, k=length)

    return script


def _obeying(token_id: int, logprobs: Mapping[int, float], allowed: tuple[int, ...]) -> int:
    """The scripted token where it is allowed, else the likeliest of the allowed ones."""
    if not allowed or token_id in allowed:
        return token_id
    return max(allowed, key=lambda candidate: logprobs.get(candidate, UNLIKELY))


def _position_logprobs(
    token_id: int, scripted: Mapping[int, float], sampling: Sampling
) -> tuple[PositionLogprobs, ...] | None:
    wanted = sampling.logprob_token_ids
    if sampling.logprobs is None and not wanted:
        return None
    known = {token_id: LIKELY, **scripted}
    if wanted:
        candidates = {candidate: known.get(candidate, UNLIKELY) for candidate in wanted}
    else:
        padding = range((sampling.logprobs or 0) + 1)
        candidates = {**{candidate: UNLIKELY - candidate for candidate in padding}, **known}
    best = sorted(candidates.items(), key=lambda item: item[1], reverse=True)
    count = len(wanted) if wanted else sampling.logprobs
    top = tuple(TokenLogprob(candidate, logprob) for candidate, logprob in best[:count])
    return (PositionLogprobs(TokenLogprob(token_id, known[token_id]), top),)

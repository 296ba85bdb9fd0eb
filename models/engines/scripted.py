"""An engine that replays a script instead of running a model: what tests and load tests drive.

It keeps the whole protocol (limits, stops, log-probabilities, aborts) and takes its time on purpose:
`first_token_delay` and `token_delay` are seconds, counted to absolute deadlines, so that a thousand streams at once
keep their pace. A delta has `tokens_per_step` tokens, as an engine with speculative decoding gives; with a `step_seed`
it has one to that many, drawn at random for each request.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, repeat

from models.engines.base import (
    Delta,
    EngineDead,
    Finish,
    ImageProcessor,
    InvalidRequest,
    PositionLogprobs,
    Prompt,
    Sampling,
    admit,
)
from models.text.detokenizer import ReplyText
from models.text.tokenizer import HubTokenizer

UNLIKELY = -20.0  # log-probability of every token that a script does not speak of
LIKELY = -0.1  # of the token that it says
FILLER = 0  # what an empty script says while it must not end


@dataclass(frozen=True, slots=True)
class ScriptedReply:
    """One scripted reply, as text or as token ids; the end of sequence follows by itself.

    `logprobs` are made-up log-probabilities by token id, the same at every position. `error` is raised behind the last
    token in place of the end. `cached_tokens` is what the prefix cache is said to have held.
    """

    content: str | Sequence[int]
    logprobs: Mapping[int, float] = field(default_factory=dict)
    error: Exception | None = None
    cached_tokens: int = 0


Line = ScriptedReply | str | Sequence[int]
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
        thinking: tuple[str, str] | None = None,
        first_token_delay: float = 0.0,
        token_delay: float = 0.0,
        tokens_per_step: int = 1,
        step_seed: int | None = None,
    ) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.adapters = adapters
        self.native_budget = thinking
        self.process_images: ImageProcessor | None = None
        self.first_token_delay = first_token_delay
        self.token_delay = token_delay
        self._tokens_per_step = tokens_per_step
        self._step_seed = step_seed
        self._script = script if callable(script) else in_turn(script)
        self._thinking = thinking and (_control_id(tokenizer, thinking[0]), _control_id(tokenizer, thinking[1]))
        self._eos = min(tokenizer.eos_ids, default=None)
        self._running = 0
        self._dead = False
        self._moving = asyncio.Event()
        self._moving.set()

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        await self.check()
        most = admit(self, prompt, sampling)
        reply = self._reply(prompt, sampling)
        spoken = self._spoken(reply, prompt, sampling.thinking_budget)
        text = ReplyText(self.tokenizer.backend, prompt.token_ids, sampling)
        due = asyncio.get_running_loop().time() + self.first_token_delay
        self._running += 1
        sizes = self._step_sizes(prompt, sampling)
        size = next(sizes)
        step: list[int] = []  # the tokens of the next delta
        cached = reply.cached_tokens
        try:
            for count, token_id in enumerate(self._tokens(spoken, reply, sampling), 1):
                token_id = self._obeying(token_id, count, reply, sampling)
                finish, stopped_by = self._ending(token_id, count, most, sampling)
                step.append(token_id)
                if finish is not None or len(step) == size:
                    await self._wait_until(due)
                    delta = text.delta(step, _positions(step, reply, sampling), finish, stopped_by)
                    yield replace(delta, cached_tokens=cached) if cached else delta
                    if delta.finish is not None:
                        return
                    step, size, cached = [], next(sizes), 0
                due += self.token_delay
            assert reply.error is not None
            if step and not sampling.at_once:
                yield text.delta(step, _positions(step, reply, sampling))
            raise reply.error
        finally:
            self._running -= 1

    def running(self) -> int:
        return self._running

    async def check(self) -> None:
        if self._dead:
            raise EngineDead(f"engine {self.name} is closed")

    async def pulse(self) -> None:
        """Returns when the engine moves."""
        await self._moving.wait()
        await self.check()

    def freeze(self) -> None:
        """The engine hangs from now on: it says nothing and does not end."""
        self._moving.clear()

    async def kill(self) -> None:
        """The engine is dead, and its requests end with `EngineDead`."""
        self._dead = True
        self._moving.set()

    async def close(self) -> None:
        await self.kill()

    def _reply(self, prompt: Prompt, sampling: Sampling) -> ScriptedReply:
        line = self._script(prompt, sampling)
        return line if isinstance(line, ScriptedReply) else ScriptedReply(line)

    def _spoken(self, reply: ScriptedReply, prompt: Prompt, budget: int | None) -> Sequence[int]:
        content = reply.content
        spoken = self.tokenizer.encode_control(content) if isinstance(content, str) else content
        if budget is None:
            return spoken
        if self._thinking is None:
            raise InvalidRequest(f"engine {self.name} was not given a tag pair to hold a budget to", "thinking_budget")
        return held_to_budget(prompt.token_ids, spoken, budget, *self._thinking)

    def _tokens(self, spoken: Sequence[int], reply: ScriptedReply, sampling: Sampling) -> Iterator[int]:
        """The script's tokens, then the end of sequence; again from the start while the end is ignored or too early."""
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

    def _step_sizes(self, prompt: Prompt, sampling: Sampling) -> Iterator[int]:
        """The tokens of each delta: the same for the same request. A reply that comes at once is one delta."""
        if sampling.at_once or self._step_seed is None:
            return repeat(self.context_length if sampling.at_once else self._tokens_per_step)
        drawn = random.Random(repr((list(prompt.token_ids), sampling.seed, self._step_seed)))
        return iter(lambda: drawn.randint(1, self._tokens_per_step), None)

    def _ending(self, token_id: int, count: int, most: int, sampling: Sampling) -> tuple[Finish | None, int | None]:
        """How the reply ends with this token, if it does, and the stop id that ended it."""
        if count > sampling.min_tokens:
            if token_id == self._eos and not sampling.ignore_eos:
                return "stop", None
            if token_id in sampling.stop_token_ids:
                return "stop", token_id
        return ("length", None) if count >= most else (None, None)

    def _obeying(self, token_id: int, count: int, reply: ScriptedReply, sampling: Sampling) -> int:
        """The scripted token where it is allowed, else the likeliest of the allowed ones."""
        allowed = sampling.allowed_token_ids
        if not allowed or token_id in allowed:
            return token_id
        bias = sampling.logit_bias or {}
        possible = [other for other in allowed if other != self._eos or count > sampling.min_tokens]
        return max(possible, key=lambda other: reply.logprobs.get(other, UNLIKELY) + bias.get(other, 0.0))

    async def _wait_until(self, due: float) -> None:
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
        if self._dead or not self._moving.is_set():
            await self.pulse()


def in_turn(lines: Sequence[Line]) -> Script:
    """A script that gives the lines in turn, again and again."""
    turns = cycle(lines)
    return lambda prompt, sampling: next(turns)


def plain_tokens(tokenizer: HubTokenizer) -> list[int]:
    """The ids that are no control tokens."""
    every = range(tokenizer.vocab_size)
    return [token_id for token_id in every if tokenizer.control_id(tokenizer.token_text(token_id)) is None]


def babble(length: int, vocab: Sequence[int]) -> Script:
    """A script of `length` random tokens of `vocab`: the same for the same prompt and seed, as a model's would be."""

    def script(prompt: Prompt, sampling: Sampling) -> Line:
        drawn = random.Random(repr((list(prompt.token_ids), sampling.seed)))
        return drawn.choices(vocab, k=length)

    return script


def held_to_budget(
    prompt: Sequence[int], spoken: Sequence[int], budget: int, opening: int, closing: int
) -> Sequence[int]:
    """What vLLM's native thinking budget makes of a reply: when `budget` tokens have followed the opening tag, in
    prompt and reply together, the closing tag is forced. The reply goes on behind its own closing tag, if it has one.
    """
    used: int | None = None  # thinking tokens since the opening tag; None outside thinking
    for index, token_id in enumerate((*prompt, *spoken), -len(prompt)):
        if index >= 0 and used is not None and used >= budget and token_id != closing:
            rest = spoken[index:]
            behind = rest[rest.index(closing) + 1 :] if closing in rest else ()
            return [*spoken[:index], closing, *behind]
        if token_id in (opening, closing):
            used = 0 if token_id == opening else None
        elif used is not None:
            used += 1
    return spoken


def _control_id(tokenizer: HubTokenizer, tag: str) -> int:
    token_id = tokenizer.control_id(tag)
    if token_id is None:
        raise ValueError(f"{tag} is not one token of this vocabulary")
    return token_id


def _positions(
    token_ids: Sequence[int], reply: ScriptedReply, sampling: Sampling
) -> tuple[PositionLogprobs, ...] | None:
    """Made-up log-probabilities where any are asked for, with as many alternatives as were asked for."""
    count, wanted = sampling.logprobs, sampling.logprob_token_ids
    if count is None and not wanted:
        return None
    unlikely = {candidate: UNLIKELY - candidate for candidate in (*range((count or 0) + 1), *wanted)}
    return tuple(
        PositionLogprobs.of(token_id, {**unlikely, token_id: LIKELY, **reply.logprobs}, count, wanted)
        for token_id in token_ids
    )

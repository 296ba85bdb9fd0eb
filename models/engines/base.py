"""The engine protocol: token ids in, a stream of token ids out.

Everything above this file speaks to a language model through `Engine`, and through nothing else. Three
implementations stand beside it: `vllm` (in this process), `remote` (a vLLM server elsewhere) and `scripted` (replays a
script). One conformance suite, `tests/models/test_engines.py`, holds all three to what is written here. What every
engine refuses before its first delta is here too. This module imports neither torch nor vllm.
"""

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Finish = Literal["stop", "length"]


class EngineError(Exception):
    """Something went wrong below the engine protocol. Subclasses say what the caller can do about it."""


class InvalidRequest(EngineError):
    """The engine cannot serve this request as asked; the caller must change `field`."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class PromptTooLong(InvalidRequest):
    """The prompt leaves no room for a single new token in the engine's context."""

    def __init__(self, prompt_tokens: int, context_length: int) -> None:
        super().__init__(
            f"the prompt has {prompt_tokens} tokens; the context of {context_length} leaves no room for a reply",
            "messages",
        )


class EngineBusy(EngineError):
    """The engine's queue is full; the same request may succeed later."""


class EngineDead(EngineError):
    """The engine has stopped for good; every request to it will fail until it is started again."""


class EngineRestarting(EngineDead):
    """The engine is being started again; the same request may succeed in about `retry_after` seconds."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model reads.

    `token_ids` is the whole prompt, forced prefix and earlier segments included. `adapter` names a LoRA adapter that
    the engine was configured with. `reasoning_ended` tells a grammar whether thinking is closed at the end of the
    prompt: with False the grammar waits for the closing tag, with True it holds from the first new token.
    `image_inputs` is what the engine's own `process_images` made of its images.
    """

    token_ids: Sequence[int]
    adapter: str | None = None
    reasoning_ended: bool | None = None
    cache_salt: str | None = None
    image_inputs: Any = None


@dataclass(frozen=True, slots=True)
class ProcessedPrompt:
    """A prompt with its images looked at: the ids with those that stand for them, and what the engine needs beside."""

    token_ids: list[int]
    image_inputs: Any


ImageProcessor = Callable[[Sequence[int], Sequence[bytes]], Awaitable[ProcessedPrompt]]
"""Looks at the files of a prompt's images, in their order. Raises `InvalidRequest` for what is no image."""


GrammarKind = Literal["json", "json_object", "regex", "choice", "grammar", "structural_tag"]


@dataclass(frozen=True, slots=True)
class Grammar:
    """A constraint on the text: `kind` is one of vLLM's structured-output fields, `value` its content."""

    kind: GrammarKind
    value: Any


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. None means the engine's own default (its model's generation config), never a constant here.

    `max_tokens` is cut to what the context has room for; None means up to its end. `logprobs` is the number of
    alternatives wanted beside each sampled token (0: the sampled token's own log-probability only; None: no
    log-probabilities at all). `logprob_token_ids` asks for the log-probabilities of exactly these ids. `stop` strings
    end the reply and are not part of its text; `stop_token_ids` end it and are part of its token ids.
    `thinking_budget` is the engine's native limit on thinking tokens, counted over prompt and output. `whole` says that
    nobody reads along: without stop strings the reply may come as one delta, which costs every engine less.
    """

    max_tokens: int | None = None
    min_tokens: int = 0
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    include_stop: bool = False
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    logprobs: int | None = None
    logprob_token_ids: tuple[int, ...] = ()
    logit_bias: Mapping[int, float] | None = None
    allowed_token_ids: tuple[int, ...] = ()
    bad_words: tuple[str, ...] = ()
    thinking_budget: int | None = None
    grammar: Grammar | None = None
    priority: int = 0
    whole: bool = False

    @property
    def at_once(self) -> bool:
        """Whether the reply is to come as one delta. Stop strings are matched while it grows."""
        return self.whole and not self.stop


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log-probability (natural, of the model's raw distribution) of one token at one position."""

    token_id: int
    logprob: float


@dataclass(frozen=True, slots=True)
class PositionLogprobs:
    """The sampled token at one position and, best first, the alternatives that were asked for."""

    sampled: TokenLogprob
    top: tuple[TokenLogprob, ...] = ()

    @classmethod
    def of(
        cls, sampled: int, known: Mapping[int, float], count: int | None, wanted: tuple[int, ...] = ()
    ) -> "PositionLogprobs":
        """From natural log-probabilities by token id, the sampled token's among them. The alternatives, best first,
        are exactly the `wanted` ids, or else the best `count`."""
        alternatives = {token_id: known[token_id] for token_id in wanted} if wanted else known
        best = sorted(alternatives.items(), key=lambda item: item[1], reverse=True)[: len(wanted) or count or 0]
        top = tuple(TokenLogprob(token_id, logprob) for token_id, logprob in best)
        return cls(TokenLogprob(sampled, known[sampled]), top)


@dataclass(frozen=True, slots=True)
class Delta:
    """What one engine step added.

    `pieces[i]` is the text that became known with `token_ids[i]`: empty while a character is incomplete, or while the
    text could still turn out to be a stop string. Their concatenation over all deltas is the reply's text. `logprobs`
    is aligned with `token_ids`, or None when none were asked for. `finish` is set on the last delta only; `stopped_by`
    then tells which stop string or stop id ended the reply (None: end of sequence, or the length limit).
    `cached_tokens`, on the first delta, counts the prompt tokens that came from the prefix cache.
    """

    token_ids: tuple[int, ...]
    pieces: tuple[str, ...]
    logprobs: tuple[PositionLogprobs, ...] | None = None
    finish: Finish | None = None
    stopped_by: str | int | None = None
    cached_tokens: int = 0

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class Tokenizer(Protocol):
    """The tokenizer of an engine. `models.text.tokenizer.HubTokenizer` is the implementation."""

    @property
    def eos_ids(self) -> frozenset[int]: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def special_texts(self) -> frozenset[str]:
        """The texts of tokens that are no text: what begins, ends and pads sequences and turns."""
        ...

    @property
    def control_texts(self) -> frozenset[str]:
        """The texts of all tokens that were added to the vocabulary, special or not."""
        ...

    @property
    def bos_text(self) -> str:
        """The text of the token that begins a sequence; empty where there is none."""
        ...

    @property
    def vocabulary(self) -> str:
        """A fingerprint: tokenizers with the same one give every token the same id."""
        ...

    @property
    def response_template(self) -> Mapping[str, Any] | None:
        """How the model ships that its replies are to be read, where it does."""
        ...

    def encode(self, text: str) -> list[int]:
        """Client text to ids: never yields a control token, whatever the text spells."""
        ...

    def encode_control(self, text: str) -> list[int]:
        """Our own text to ids: control tokens in it become themselves."""
        ...

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str: ...

    def token_text(self, token_id: int) -> str:
        """The text of one token by itself, special tokens spelled out, undecodable bytes replaced."""
        ...

    @property
    def template(self) -> str:
        """The source of the chat template; empty where there is none."""
        ...

    def protect(self, texts: Iterable[str]) -> None:
        """Keeps from clients the control tokens that these texts hold, beside those of the template."""
        ...

    def control_id(self, text: str) -> int | None:
        """The id of `text` if it is one control token of this vocabulary, else None."""
        ...

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        continue_final: bool = False,
        behind: str = "",
    ) -> list[int]:
        """Messages to the ids of the model's chat template, up to where the assistant's reply begins. Nothing in what
        is given becomes a control token, but in `behind`: our own text, encoded together with the rest, unless the
        template has written it itself. Raises `InvalidRequest` for what the template cannot render, and for
        `template_kwargs` of names that are not for clients to set."""
        ...


class Engine(Protocol):
    """One loaded model.

    `generate` checks the request before the first delta (`InvalidRequest`, `PromptTooLong`), then streams. At least one
    delta is yielded; the last carries `finish`. Closing the generator, at any point, aborts the request in the engine
    before `aclose` returns. Any number of streams may run at once.
    """

    @property
    def name(self) -> str: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def context_length(self) -> int:
        """Tokens of prompt and reply together."""
        ...

    @property
    def adapters(self) -> frozenset[str]: ...
    @property
    def native_budget(self) -> tuple[str, str] | None:
        """The pair of tags between which the engine itself can hold thinking to `Sampling.thinking_budget` tokens."""
        ...

    @property
    def process_images(self) -> ImageProcessor | None:
        """None where the model sees no images."""
        ...

    def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]: ...

    def running(self) -> int:
        """Requests that the engine holds now, waiting ones included."""
        ...

    async def check(self) -> None:
        """Raises `EngineDead` if the engine cannot serve."""
        ...

    async def close(self) -> None: ...


class FailoverStream(AsyncGenerator[Delta, None]):
    """The deltas of whoever gives the first one. From then on it is that one's own stream, which costs one call a delta
    and no generator."""

    def __init__(self, begin: Callable[[], Awaitable[tuple[AsyncGenerator[Delta, None], Delta]]]) -> None:
        """`begin` finds a stream that has a first delta."""
        self._begin = begin
        self._deltas: AsyncGenerator[Delta, None] | None = None

    def __anext__(self) -> Coroutine[Any, Any, Delta]:
        return self._first() if self._deltas is None else self._deltas.__anext__()

    async def _first(self) -> Delta:
        self._deltas, first = await self._begin()
        return first

    async def aclose(self) -> None:
        if self._deltas is not None:
            await self._deltas.aclose()

    async def asend(self, value: None) -> Delta:
        return await anext(self)

    async def athrow(self, *error: Any) -> Delta:
        if self._deltas is None:
            raise error[0]
        return await self._deltas.athrow(*error)


# Field, lowest and highest value, whether the lowest itself is allowed: vLLM's own limits.
RANGES = (
    ("temperature", 0.0, 2.0, True),
    ("top_p", 0.0, 1.0, False),
    ("min_p", 0.0, 1.0, True),
    ("presence_penalty", -2.0, 2.0, True),
    ("frequency_penalty", -2.0, 2.0, True),
    ("repetition_penalty", 0.0, math.inf, False),
    ("top_k", -1, math.inf, True),
    ("max_tokens", 1, math.inf, True),
    ("min_tokens", 0, math.inf, True),
    ("logprobs", 0, math.inf, True),
    ("thinking_budget", 0, math.inf, True),
)


def admit(engine: Engine, prompt: Prompt, sampling: Sampling) -> int:
    """Checks a request against an engine and returns the most tokens that its reply may have.

    Raises `PromptTooLong` or `InvalidRequest` with the field at fault.
    """
    room = engine.context_length - len(prompt.token_ids)
    if room < 1:
        raise PromptTooLong(len(prompt.token_ids), engine.context_length)
    if not prompt.token_ids:
        raise InvalidRequest("the prompt is empty", "messages")
    if prompt.adapter is not None and prompt.adapter not in engine.adapters:
        raise InvalidRequest(f"engine {engine.name} has no adapter {prompt.adapter}", "model")
    check_token_ids(prompt.token_ids, engine.tokenizer.vocab_size, "messages")
    _check_sampling(sampling, engine.tokenizer.vocab_size)
    most = room if sampling.max_tokens is None else min(room, sampling.max_tokens)
    if sampling.min_tokens > most:
        raise InvalidRequest(
            f"min_tokens is {sampling.min_tokens}, but the reply has at most {most} tokens", "min_tokens"
        )
    return most


def _check_sampling(sampling: Sampling, vocab_size: int) -> None:
    for field, lowest, highest, closed in RANGES:
        value = getattr(sampling, field)
        if value is None:
            continue
        if not (lowest < value <= highest or (closed and value == lowest)):
            raise InvalidRequest(f"{field} is {value}; it goes from {lowest} to {highest}", field)
    for field in ("stop", "bad_words"):
        if not all(getattr(sampling, field)):
            raise InvalidRequest(f"a string in {field} is empty", field)
    for field in ("stop_token_ids", "allowed_token_ids", "logprob_token_ids", "logit_bias"):
        check_token_ids(getattr(sampling, field) or (), vocab_size, field)


def check_token_ids(token_ids: Iterable[int], vocab_size: int, field: str) -> None:
    """Raises `InvalidRequest` for an id that the vocabulary has not."""
    lowest, highest = min(token_ids, default=0), max(token_ids, default=0)
    if lowest < 0 or highest >= vocab_size:
        wrong = lowest if lowest < 0 else highest
        raise InvalidRequest(f"token id {wrong} is outside the vocabulary of {vocab_size}", field)

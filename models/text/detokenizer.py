"""The text of a reply while its tokens arrive: one detokenisation for every engine, stop strings included."""

from collections.abc import Sequence

import tokenizers
from tokenizers.decoders import DecodeStream

from models.engines.base import Delta, EngineError, Finish, PositionLogprobs, Sampling
from models.text.stop_strings import StopMatcher

CONTEXT_TOKENS = 8  # enough of the prompt for a decoder that joins tokens (spaces, characters of several tokens)
LONGEST_CHARACTER = 4  # bytes of UTF-8, so at most three tokens of the prompt can belong to an incomplete character
INCOMPLETE = "�"


class ReplyText:
    """Turns the token ids of one reply into deltas with text; about a microsecond a token.

    Text follows vLLM's rules: the token that ended the reply (end of sequence, stop id) has no text unless
    `include_stop` asks for it, stop strings count only beyond `min_tokens`, and a character that is incomplete when the
    reply ends has no text.
    """

    __slots__ = ("_backend", "_count", "_include_stop", "_matcher", "_min_tokens", "_skip_special", "_stream")

    def __init__(self, backend: tokenizers.Tokenizer, prompt: Sequence[int], sampling: Sampling) -> None:
        self._backend = backend
        self._skip_special = sampling.skip_special_tokens
        self._stream = _primed_stream(backend, prompt, self._skip_special)
        self._matcher = StopMatcher(sampling.stop, include_stop=sampling.include_stop) if sampling.stop else None
        self._include_stop = sampling.include_stop
        self._min_tokens = sampling.min_tokens
        self._count = 0

    def delta(
        self,
        token_ids: Sequence[int],
        logprobs: tuple[PositionLogprobs, ...] | None = None,
        finish: Finish | None = None,
        stopped_by: int | None = None,
    ) -> Delta:
        """One engine step as a delta. A stop string makes it the last one and drops the step's tokens behind it."""
        if self._matcher is None and finish is None:
            pieces = [self._step(token_id) for token_id in token_ids]
            return Delta(tuple(token_ids), tuple(pieces), logprobs)
        pieces = self._matched_pieces(token_ids, silent_end=finish == "stop" and not self._include_stop)
        if self._matcher is not None and self._matcher.matched is not None:
            kept = len(pieces)
            logprobs = None if logprobs is None else logprobs[:kept]
            stop = self._matcher.matched
            return Delta(tuple(token_ids[:kept]), tuple(pieces), logprobs, "stop", stop)
        if finish is not None:
            self._release_held(pieces)
        return Delta(tuple(token_ids), tuple(pieces), logprobs, finish, stopped_by)

    def _matched_pieces(self, token_ids: Sequence[int], silent_end: bool) -> list[str]:
        """The pieces up to and with the token that completes a stop string."""
        matcher = self._matcher
        pieces: list[str] = []
        last = len(token_ids) - 1
        for index, token_id in enumerate(token_ids):
            text = "" if silent_end and index == last else self._step(token_id)
            self._count += 1
            if matcher is not None and self._count > self._min_tokens:
                text = matcher.feed(text)
            pieces.append(text)
            if matcher is not None and matcher.matched is not None:
                break
        return pieces

    def _release_held(self, pieces: list[str]) -> None:
        held = self._matcher.flush() if self._matcher is not None else ""
        if held and not pieces:
            raise EngineError("the reply ended without a token while text was held back for a stop string")
        if held:
            pieces[-1] += held

    def _step(self, token_id: int) -> str:
        try:
            return self._stream.step(self._backend, token_id) or ""
        except Exception as error:
            # Invalid UTF-8 can make a decoded prefix change afterwards; the stream cannot go on from there (known in
            # tokenizers, handled alike by vLLM). The class of this error is bare Exception, so its message decides.
            if not str(error).startswith("Invalid prefix"):
                raise
            self._stream = DecodeStream(skip_special_tokens=self._skip_special)
            return self._stream.step(self._backend, token_id) or ""


def _primed_stream(backend: tokenizers.Tokenizer, prompt: Sequence[int], skip_special: bool) -> DecodeStream:
    """A decoder that has read the end of the prompt, so that the first piece has its leading space or no space.

    Where the prompt ends inside a character (an earlier segment was cut there), the incomplete tokens go through
    `step`, and the character comes out whole with the token that completes it.
    """
    tail = list(prompt[-CONTEXT_TOKENS:])
    complete = len(tail)
    while complete > max(0, len(tail) - LONGEST_CHARACTER + 1) and _is_incomplete(backend, tail[:complete]):
        complete -= 1
    if _is_incomplete(backend, tail[:complete]):
        complete = len(tail)  # not a cut character but bytes that are none
        tail = []
    stream = DecodeStream(ids=tail[:complete], skip_special_tokens=skip_special)
    for token_id in tail[complete:]:
        stream.step(backend, token_id)
    return stream


def _is_incomplete(backend: tokenizers.Tokenizer, token_ids: list[int]) -> bool:
    return bool(backend.decode(token_ids, skip_special_tokens=False).endswith(INCOMPLETE))

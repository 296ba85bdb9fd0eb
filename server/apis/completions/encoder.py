"""Text completions as JSON, streamed or whole."""

from collections.abc import Sequence
from typing import Any

import orjson

from models.engines.base import Delta, PositionLogprobs, Tokenizer
from server.apis.completions.schema import CompletionRequest
from server.apis.shared.reply import Encoder
from server.apis.shared.sampling_fields import StreamOptions
from server.edges.sse import DONE
from server.observability.request_observer import UsageCounter


class CompletionEncoder(Encoder[Delta]):
    """Choice i continues `prompts[i]`."""

    def __init__(
        self,
        head: dict[str, Any],
        body: CompletionRequest,
        prompts: Sequence[Sequence[int]],
        tokenizer: Tokenizer,
        usage: UsageCounter,
    ) -> None:
        super().__init__(usage)
        self._head = head
        self._token_ids = bool(body.return_token_ids)
        self._options = body.stream_options or StreamOptions()
        self._choices = [_CompletionChoice(i, prompt, body, tokenizer) for i, prompt in enumerate(prompts)]

    def add(self, index: int, event: Delta) -> None:
        self._choices[index].step(event)

    def frame(self, index: int, event: Delta) -> bytes:
        choice = self._choices[index].step(event)
        if not (choice["text"] or event.finish or self._token_ids):
            return b""
        return self._event([choice], with_usage=self._options.continuous_usage_stats)

    def end(self) -> bytes:
        return (self._event([], with_usage=True) if self._options.include_usage else b"") + DONE

    def whole(self) -> dict[str, Any]:
        choices = [choice.whole() for choice in self._choices]
        return {**self._head, "choices": choices, "usage": self.usage.usage(reasoning=False)}

    def _event(self, choices: list[dict[str, Any]], *, with_usage: bool) -> bytes:
        usage = {"usage": self.usage.usage(reasoning=False)} if with_usage else {}
        return b"data: " + orjson.dumps({**self._head, "choices": choices, **usage}) + b"\n\n"


class _CompletionChoice:
    """One choice while it grows."""

    def __init__(self, index: int, prompt: Sequence[int], body: CompletionRequest, tokenizer: Tokenizer) -> None:
        self.index = index
        self._tokenizer = tokenizer
        self._with_ids = bool(body.return_token_ids)
        self._prompt = prompt
        self._texts = [self._tokenizer.decode(self._prompt)] if body.echo else []
        self._echo = self._texts[:]
        self._offset = sum(map(len, self._texts))
        self._logprobs: list[dict[str, Any]] = []
        self._end: Delta | None = None
        self.token_ids: list[int] = []
        self.cached_tokens = 0

    def step(self, delta: Delta) -> dict[str, Any]:
        """Takes a delta, returns it as a streamed choice. The first carries the echo of the prompt."""
        logprobs = None
        if delta.logprobs is not None:
            logprobs = legacy_logprobs(delta.pieces, delta.logprobs, self._tokenizer, self._offset)
            self._logprobs.append(logprobs)
        text = "".join(self._echo) + delta.text
        first = not self.token_ids
        self._echo = []
        self._offset += len(delta.text)
        self._texts.append(delta.text)
        self.token_ids.extend(delta.token_ids)
        self.cached_tokens = max(self.cached_tokens, delta.cached_tokens)
        self._end = delta
        return self._json(text, logprobs, delta.token_ids, prompt=first)

    def whole(self) -> dict[str, Any]:
        parts = self._logprobs
        joined = {key: [item for part in parts for item in part[key]] for key in parts[0]} if parts else None
        return self._json("".join(self._texts), joined, self.token_ids, prompt=True)

    def _json(
        self, text: str, logprobs: dict[str, Any] | None, token_ids: Sequence[int], *, prompt: bool
    ) -> dict[str, Any]:
        end = self._end
        choice: dict[str, Any] = {
            "index": self.index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": end.finish if end else None,
            "stop_reason": end.stopped_by if end else None,
        }
        if self._with_ids:
            choice["token_ids"] = token_ids
            choice["prompt_token_ids"] = list(self._prompt) if prompt else None
        return choice


def legacy_logprobs(
    pieces: Sequence[str], positions: Sequence[PositionLogprobs], tokenizer: Tokenizer, offset: int
) -> dict[str, Any]:
    """This API's own shape: four parallel lists; offsets are in characters of the choice's text."""
    offsets = [offset + sum(map(len, pieces[:i])) for i in range(len(positions))]
    return {
        "tokens": [tokenizer.token_text(at.sampled.token_id) for at in positions],
        "token_logprobs": [max(at.sampled.logprob, -9999.0) for at in positions],
        "top_logprobs": [
            {tokenizer.token_text(top.token_id): max(top.logprob, -9999.0) for top in (*at.top, at.sampled)}
            for at in positions
        ],
        "text_offset": offsets,
    }

"""`usage`: every token that the client is charged for, counted from token ids."""

from typing import Any

from controllers.generation.events import Decision, Event, Finished
from models.formats.chunks import Chunk


class UsageCounter:
    """Counts over all choices of one request, exact at any moment. The prompt is counted once."""

    __slots__ = ("cached_tokens", "completion_tokens", "prompt_tokens", "reasoning_tokens")

    def __init__(self) -> None:
        self.prompt_tokens = self.completion_tokens = self.reasoning_tokens = self.cached_tokens = 0

    def add(self, event: Event) -> None:
        if isinstance(event, Chunk):
            self.completion_tokens += len(event.token_ids)
            if event.kind == "reasoning":
                self.reasoning_tokens += len(event.token_ids)
        elif isinstance(event, Decision):
            self.prompt_tokens = len(event.prompt)
        elif isinstance(event, Finished):
            self.cached_tokens = max(self.cached_tokens, event.cached_tokens)

    def usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }

"""A reply while it grows, and what an API has to say to tell of it, as a stream or whole."""

from collections.abc import Container, Mapping
from typing import Any, Generic, TypeVar

from controllers.generation.events import Decision, Event, Finished, Progress, Working
from models.engines.base import PositionLogprobs
from models.formats.chunks import CallPart, Chunk, Kind
from server.edges.errors import ApiError
from server.edges.sse import COMMENT, openai_ending
from server.observability.request_observer import UsageCounter


class Part:
    """A stretch of one kind: of thinking, of text, or one tool call. Texts are joined when they are read. `id` is for
    APIs whose parts have one."""

    __slots__ = ("call", "id", "kind", "logprobs", "texts")

    def __init__(self, kind: Kind, call: CallPart | None) -> None:
        self.id = ""
        self.kind = kind
        self.call = call
        self.texts: list[str] = []
        self.logprobs: list[PositionLogprobs] = []

    @property
    def text(self) -> str:
        return "".join(self.texts)


class Choice:
    """One choice of a reply. `hidden` kinds are not for the client: their token ids alone are kept.

    `forced` and `target` are the positions of the tokens that the server and the target model wrote. `logprobs` holds
    the id alone of a token that the server wrote.
    """

    __slots__ = ("_hidden", "_progress", "decision", "finished", "forced", "logprobs", "parts", "target", "token_ids")

    def __init__(self, hidden: Container[Kind]) -> None:
        self._hidden = hidden
        self._progress: dict[str, Any] = {}
        self.decision: Decision | None = None
        self.finished: Finished | None = None
        self.parts: list[Part] = []
        self.token_ids: list[int] = []
        self.forced: list[int] = []
        self.target: list[int] = []
        self.logprobs: list[PositionLogprobs | int] = []

    def add(self, event: Event) -> Part | None:
        """Takes an event; gives the part to which its text went, if it has any."""
        if isinstance(event, Chunk):
            return self._chunk(event)
        if isinstance(event, Finished):
            self.finished = event
        elif isinstance(event, Decision):
            self.decision = event
        else:
            self._progress |= progress_record(event)
        return None

    def _chunk(self, chunk: Chunk) -> Part | None:
        before = len(self.token_ids)
        self.token_ids.extend(chunk.token_ids)
        if chunk.forced:
            self.forced.extend(range(before, len(self.token_ids)))
        if chunk.target:
            self.target.extend(range(before, len(self.token_ids)))
        if chunk.kind in self._hidden:
            return None
        logprobs = chunk.logprobs or ()
        self.logprobs.extend(logprobs or (chunk.token_ids if chunk.forced else ()))
        if not (chunk.text or chunk.call):
            return None
        part = self.parts[-1] if self.parts else None
        if part is None or part.kind != chunk.kind or (chunk.call is not None and chunk.call.name is not None):
            part = Part(chunk.kind, chunk.call)
            self.parts.append(part)
        part.texts.append(chunk.text)
        part.logprobs.extend(logprobs)
        return part

    @property
    def end(self) -> Finished:
        assert self.finished is not None, "the controller ended without saying so"
        return self.finished

    @property
    def record(self) -> dict[str, Any]:
        """The decision record as far as it is known."""
        if self.finished is not None:
            return self.finished.record
        return {**(self.decision.record() if self.decision else {}), **self._progress}

    def text(self, kind: Kind) -> str:
        return "".join(part.text for part in self.parts if part.kind == kind)


E = TypeVar("E", contravariant=True)


class Encoder(Generic[E]):
    """How an API tells of what `E` says of one reply: `frame` is what a stream sends for it, `whole` the reply of those
    who do not stream. An encoder is used for one of the two. `headers` fill on the way."""

    def __init__(self, usage: UsageCounter) -> None:
        self.usage = usage
        self.headers: dict[str, str] = {}

    def add(self, index: int, event: E) -> None:
        """Takes an event of a reply that is not streamed."""
        raise NotImplementedError

    def frame(self, index: int, event: E) -> bytes:
        """Takes an event of a stream; gives what to send for it, which may be nothing."""
        raise NotImplementedError

    def end(self) -> bytes:
        """What a stream sends behind its last event."""
        return b""

    def failed(self, error: ApiError) -> bytes:
        """The end of a stream that failed."""
        return openai_ending(error)

    def alive(self) -> bytes:
        """What a stream sends after a silence."""
        return COMMENT

    def whole(self) -> dict[str, Any]:
        """The reply as it stands."""
        raise NotImplementedError


class ReplyEncoder(Encoder[Event]):
    """An encoder of what a controller yields."""

    def __init__(self, choices: int, hidden: Container[Kind], usage: UsageCounter) -> None:
        super().__init__(usage)
        self.choices = [Choice(hidden) for _ in range(choices)]

    def add(self, index: int, event: Event) -> None:
        self.choices[index].add(event)
        if isinstance(event, Decision):
            self.headers.update(decision_headers(event))


def decision_headers(decision: Decision) -> dict[str, str]:
    """The short form of the decision record."""
    headers: dict[str, str] = {"x-reasond-mode": decision.mode, "x-reasond-chosen-by": decision.chosen_by}
    if decision.budget is not None and decision.budget.enforced is not None:
        headers["x-reasond-budget"] = str(decision.budget.enforced)
    return headers


def progress_record(event: Progress | Working) -> Mapping[str, Any]:
    return {"progress": event.record} if isinstance(event, Working) else event.record()

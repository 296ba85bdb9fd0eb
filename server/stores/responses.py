"""The responses that /v1/responses keeps: in memory, a bounded number of them, each key its share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from controllers.generation.events import Interrupt


@dataclass(slots=True)
class Stored:
    """One response. `body` is the response object as it was last read, `earlier` the turns before its own input,
    instructions left out, `items` that input. `interrupt` and `live`, which reads it anew, are there while it runs."""

    body: dict[str, Any]
    earlier: Sequence[dict[str, Any]]
    items: Sequence[dict[str, Any]]
    interrupt: Interrupt | None = None
    live: Callable[[], dict[str, Any]] | None = None
    size: int = 0

    @property
    def id(self) -> str:
        return str(self.body["id"])

    def read(self) -> dict[str, Any]:
        """The response object as it stands."""
        if self.live is not None:
            self.body = self.live()
        return self.body

    def end(self) -> None:
        """It runs no more."""
        self.read()
        self.interrupt = self.live = None


@dataclass(slots=True)
class _Shelf:
    """What one key keeps, the oldest first, and the size of it."""

    kept: dict[str, Stored] = field(default_factory=dict)
    size: int = 0

    @property
    def oldest(self) -> Stored | None:
        """The oldest of those that have ended."""
        return next((stored for stored in self.kept.values() if stored.interrupt is None), None)


class ResponseStore:
    """By key name and id: nobody finds another key's responses.

    The bounds hold for all keys together. Where they are passed, the key that keeps the most forgets its oldest: no key
    pushes out what others keep within their share. A response that runs is not forgotten. Sizes are those of the JSON.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self.most = most
        self._most_bytes = most_bytes
        self._shelves: dict[str | None, _Shelf] = {}

    def __len__(self) -> int:
        return sum(len(shelf.kept) for shelf in self._shelves.values())

    @property
    def size(self) -> int:
        return sum(shelf.size for shelf in self._shelves.values())

    def put(self, key_name: str | None, stored: Stored) -> bool:
        """Keeps a response, or its new state. False where it is not kept: it is larger than all that may be, or what
        runs now takes all the room."""
        self.delete(key_name, stored.id)
        stored.size = len(orjson.dumps([stored.read(), stored.earlier, stored.items]))
        running = [
            one.size for shelf in self._shelves.values() for one in shelf.kept.values() if one.interrupt is not None
        ]
        if len(running) >= self.most or sum(running) + stored.size > self._most_bytes:
            return False  # before anything is forgotten for its sake
        shelf = self._shelves.setdefault(key_name, _Shelf())
        shelf.kept[stored.id] = stored
        shelf.size += stored.size
        while self._full and self._forget_oldest():
            pass
        return self.find(key_name, stored.id) is stored

    def has_room(self, size: int) -> bool:
        """Whether a response of this size can be kept at all."""
        return self.most > 0 and size <= self._most_bytes

    def find(self, key_name: str | None, response_id: str) -> Stored | None:
        shelf = self._shelves.get(key_name)
        return None if shelf is None else shelf.kept.get(response_id)

    def item(self, key_name: str | None, item_id: str) -> Mapping[str, Any] | None:
        """The item of any response of this key that has this id, the newest first."""
        shelf = self._shelves.get(key_name)
        kept = reversed(shelf.kept.values()) if shelf is not None else ()
        items = (item for stored in kept for item in (*stored.items, *stored.body["output"]))
        return next((item for item in items if item["id"] == item_id), None)

    def delete(self, key_name: str | None, response_id: str) -> None:
        """Forgets a response. One that runs goes on, and is not kept."""
        shelf = self._shelves.get(key_name)
        if shelf is None or (known := shelf.kept.pop(response_id, None)) is None:
            return
        shelf.size -= known.size
        if not shelf.kept:
            del self._shelves[key_name]

    @property
    def _full(self) -> bool:
        return len(self) > self.most or self.size > self._most_bytes

    def _forget_oldest(self) -> bool:
        """False where all that is kept runs."""
        by_size = self.size > self._most_bytes
        ended = [
            (shelf.size if by_size else len(shelf.kept), name, oldest)
            for name, shelf in self._shelves.items()
            if (oldest := shelf.oldest) is not None
        ]
        if not ended:
            return False
        _, name, oldest = max(ended, key=lambda each: each[0])
        self.delete(name, oldest.id)
        return True

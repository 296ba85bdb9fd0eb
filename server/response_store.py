"""The responses that /v1/responses keeps: in memory, a bounded number of them, the oldest forgotten first."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from controllers.reply import Interrupt


@dataclass(slots=True)
class Stored:
    """One response. `body` is the response object as it stands, `turns` all that came before its output, instructions
    left out, `items` its own input. `interrupt` is there while it runs."""

    body: dict[str, Any]
    turns: Sequence[dict[str, Any]]
    items: Sequence[dict[str, Any]]
    interrupt: Interrupt | None = None
    size: int = 0


Key = tuple[str | None, str]


class ResponseStore:
    """By key name and id: nobody finds another key's responses.

    Sizes are those of the JSON. A response that is larger than `most_bytes` by itself is not kept.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._kept: OrderedDict[Key, Stored] = OrderedDict()
        self.size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, key_name: str | None, stored: Stored) -> None:
        """Keeps a response, or its new state."""
        key = (key_name, str(stored.body["id"]))
        self._forget(key)
        stored.size = len(orjson.dumps([stored.body, stored.turns, stored.items]))
        self._kept[key] = stored
        self.size += stored.size
        while self._kept and (len(self._kept) > self._most or self.size > self._most_bytes):
            self._forget(next(iter(self._kept)))

    def find(self, key_name: str | None, response_id: str) -> Stored | None:
        return self._kept.get((key_name, response_id))

    def delete(self, key_name: str | None, response_id: str) -> None:
        """Forgets a response. One that runs goes on, and is not kept."""
        self._forget((key_name, response_id))

    def _forget(self, key: Key) -> None:
        if (known := self._kept.pop(key, None)) is not None:
            self.size -= known.size

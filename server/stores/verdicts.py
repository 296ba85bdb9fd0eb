"""Verdicts of a judge route that all replicas share, by all that they depend on, the API key's name included."""

from hashlib import sha256

import orjson

from server.stores.shared import Responses


class StoredVerdicts:
    """`judge` says whose verdicts they are: another model's are not these."""

    def __init__(self, store: Responses, judge: tuple[str, ...]) -> None:
        self._store = store
        self._judge = sha256(repr(judge).encode()).hexdigest()[:16]

    async def get(self, key: bytes) -> float | None:
        share: float | None = await self._store.read(self._name(key))
        return share

    def put(self, key: bytes, share: float) -> None:
        self._store.write(self._name(key), orjson.dumps(share))

    def _name(self, key: bytes) -> str:
        return f"reasond:verdict:{self._judge}:{key.hex()}"

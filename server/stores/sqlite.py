"""A store in one SQLite file, for the processes of one machine. It survives a restart."""

import asyncio
import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from server.stores.shared import Take

CALL_SECONDS = 1.0
LOOK_SECONDS = 0.05
SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value BLOB NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS kept_until ON kept (until);
CREATE TABLE IF NOT EXISTS calls (id INTEGER PRIMARY KEY AUTOINCREMENT, message BLOB, answer BLOB, until REAL NOT NULL);
"""


class SqliteBackend:
    """One connection, which a thread of its own uses."""

    def __init__(self, path: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        self._connection = self._thread.submit(self._open, path).result()

    @staticmethod
    def _open(path: str) -> sqlite3.Connection:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # what clients said is for its owner alone
            connection = sqlite3.connect(path, timeout=10, isolation_level=None)
            connection.executescript(SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise OSError(f"{path}: {error}") from error
        return connection

    async def get(self, name: str) -> bytes | None:
        value: bytes | None = await self._one("SELECT value FROM kept WHERE name = ? AND until > ?", name, time.time())
        return value

    async def set(self, name: str, value: bytes, seconds: float) -> None:
        now = time.time()
        await self._one("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", name, value, now + seconds)
        await self._one("DELETE FROM kept WHERE name IN (SELECT name FROM kept WHERE until < ? LIMIT 10)", now)

    async def delete(self, name: str) -> None:
        await self._one("DELETE FROM kept WHERE name = ?", name)

    async def call(self, message: bytes) -> bytes | None:
        until = time.time() + CALL_SECONDS
        asked = "INSERT INTO calls (message, until) VALUES (?, ?) RETURNING id"
        number = await self._one(asked, message, until)
        while time.time() < until:
            await asyncio.sleep(LOOK_SECONDS)
            if (answer := await self._one("SELECT answer FROM calls WHERE id = ?", number)) is not None:
                return bytes(answer)
        return None

    async def serve(self, take: Take) -> None:
        seen = await self._one("SELECT coalesce(max(id), 0) FROM calls")
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self._one("DELETE FROM calls WHERE until < ?", time.time() - CALL_SECONDS)
            for number, message in await self._all("SELECT id, message FROM calls WHERE id > ? ORDER BY id", seen):
                seen = number
                if (answer := take(message)) is not None:
                    await self._one("UPDATE calls SET answer = ? WHERE id = ?", answer, number)

    async def close(self) -> None:
        await asyncio.wrap_future(self._thread.submit(self._connection.close))
        self._thread.shutdown()

    async def _one(self, statement: str, *values: Any) -> Any:
        rows = await self._all(statement, *values)
        return rows[0][0] if rows else None

    async def _all(self, statement: str, *values: Any) -> list[Any]:
        def work() -> list[Any]:
            try:
                return self._connection.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise OSError(str(error)) from error

        return await asyncio.wrap_future(self._thread.submit(work))

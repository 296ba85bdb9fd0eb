"""A store in Redis or Valkey, for any number of replicas. Needs the extra `redis`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import orjson
from redis import asyncio as client
from redis.exceptions import RedisError

from server.stores.shared import Take

CHANNEL = "reasond:calls"
CALL_SECONDS = 1.0
ANSWER_SECONDS = 10


class RedisBackend:
    def __init__(self, url: str) -> None:
        self._redis = client.from_url(url, socket_timeout=5, socket_connect_timeout=5)

    async def get(self, name: str) -> bytes | None:
        async with _translated():
            value: bytes | None = await self._redis.get(name)
            return value

    async def set(self, name: str, value: bytes, seconds: float) -> None:
        async with _translated():
            await self._redis.set(name, value, px=int(seconds * 1000))

    async def delete(self, name: str) -> None:
        async with _translated():
            await self._redis.delete(name)

    async def call(self, message: bytes) -> bytes | None:
        """Every replica answers, if only that it has nothing to say."""
        back = f"reasond:answer:{uuid4().hex}"
        loop = asyncio.get_running_loop()
        until = loop.time() + CALL_SECONDS
        async with _translated():
            listening = await self._redis.publish(CHANNEL, orjson.dumps([back, message.decode()]))
            for _ in range(listening):
                popped: Any = self._redis.blpop([back], timeout=max(0.01, until - loop.time()))
                answered = await popped
                if answered is None:
                    return None
                if answer := orjson.loads(answered[1]):
                    return str(answer[0]).encode()
        return None

    async def serve(self, take: Take) -> None:
        async with _translated(), self._redis.pubsub(ignore_subscribe_messages=True) as calls:
            await calls.subscribe(CHANNEL)
            while True:
                if (told := await calls.get_message(timeout=1.0)) is None:
                    continue
                back, message = orjson.loads(told["data"])
                answer = take(message.encode())
                said = orjson.dumps([] if answer is None else [answer.decode()])
                async with self._redis.pipeline() as together:
                    together.lpush(back, said)
                    together.expire(back, ANSWER_SECONDS)
                    await together.execute()

    async def close(self) -> None:
        await self._redis.aclose()


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except RedisError as error:
        raise OSError(f"Redis: {error}") from error

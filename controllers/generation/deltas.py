"""How what a request yields is read: token by token, and for no longer than anybody wants it."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from typing import TypeVar

from controllers.generation.events import Interrupt
from models.engines.base import Delta

T = TypeVar("T")


def single(delta: Delta) -> Iterator[Delta]:
    """A delta's tokens one by one; what it says of the prompt goes with the first, of its end with the last."""
    last = len(delta.token_ids) - 1
    if last <= 0:
        yield delta
        return
    for index, token_id in enumerate(delta.token_ids):
        logprobs = None if delta.logprobs is None else delta.logprobs[index : index + 1]
        one = replace(delta, token_ids=(token_id,), pieces=delta.pieces[index : index + 1], logprobs=logprobs)
        if index:
            one = replace(one, cached_tokens=0)
        yield one if index == last else replace(one, finish=None, stopped_by=None)


async def next_item(stream: AsyncGenerator[T, None], interrupt: Interrupt, timeout: float | None = None) -> T | None:
    """The stream's next item. None: the stream has ended, or the client has cancelled, which is known at once, also
    while nothing comes. Raises `TimeoutError` when nothing comes for `timeout` seconds."""
    if interrupt.cancelled:
        return None
    task = asyncio.current_task()
    assert task is not None
    interrupt.waiting.add(task)
    try:
        if timeout is None:
            return await anext(stream)
        async with asyncio.timeout(timeout):
            return await anext(stream)
    except StopAsyncIteration:
        return None
    except (asyncio.CancelledError, TimeoutError):
        if task in interrupt.waiting or task.uncancel():  # somebody else ends this task
            raise
        return None
    finally:
        interrupt.waiting.discard(task)

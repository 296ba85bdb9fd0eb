"""How what a request yields is read: token by token, and for no longer than anybody wants it."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
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


async def cancellable(
    stream: AsyncGenerator[T, None], interrupt: Interrupt | None, patience: float | None = None
) -> AsyncGenerator[T, None]:
    """What the stream yields, until it ends or the client cancels: at once, also while nothing comes.

    Closes the stream. Raises `TimeoutError` when the stream is silent for longer than `patience` seconds.
    """
    interrupt = interrupt or Interrupt()
    async with aclosing(stream):
        while not interrupt.cancelled:
            task = asyncio.current_task()
            assert task is not None
            interrupt.waiting.add(task)
            try:
                if patience is None:
                    item = await anext(stream)
                else:
                    async with asyncio.timeout(patience):
                        item = await anext(stream)
            except StopAsyncIteration:
                return
            except (asyncio.CancelledError, TimeoutError):
                if task in interrupt.waiting or task.uncancel():  # somebody else ends this task
                    raise
                return
            finally:
                interrupt.waiting.discard(task)
            yield item

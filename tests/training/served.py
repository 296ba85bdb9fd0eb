"""A real server on the loopback in a thread of its own, for what speaks HTTP from outside a loop."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI

from server.config.load import parse_config
from server.serve import build_server
from tests.server.conftest import ROOT
from tests.server.running import running


@contextmanager
def serving(app: FastAPI, config: str) -> Iterator[str]:
    """The address of an application that is served while the block runs."""
    address: list[str] = []
    up, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with running(build_server(parse_config(f"[server]\nport = 0\n{config}", ROOT), app)) as found:
            address.append(found)
            up.set()
            while not over.is_set():  # noqa: ASYNC110 - it is set by another thread
                await asyncio.sleep(0.01)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert up.wait(30)
        yield address[0]
    finally:
        over.set()
        thread.join(30)

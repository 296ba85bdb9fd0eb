"""Sends a case's requests to its server, in this process, in a world that stands still; and writes down the answers.

The clocks are those of an event loop whose time passes only while everybody waits, ids count from one, and chance has a
seed: the same code gives the same bytes.
"""

import asyncio
import os
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import unquote

import orjson

from tests.recorded.project import Setup, VirtualTime, app_of, project_modules

REPLIES = Path(__file__).parent / "replies"
NOW = 1_750_000_000
SINCE_BOOT = 1000.0
MARK = "c0ffee00"  # every made-up id begins with it
MADE_UP = re.compile(MARK.encode() + rb"([0-9a-f]{16})")
SHOWN = 600  # characters of a request
HEADERS = ("content-type", "cache-control", "retry-after", "www-authenticate", "allow", "x-")


@dataclass(frozen=True)
class Ask:
    """One request. `{id}` in its path and its body stands for the id of the answer before. With `meanwhile` the next
    request does not wait for the answer. `wait`: seconds that pass before it is sent. `lines` keeps of the answer only
    the lines that match. A method `CLOSE` closes the engine called `path`."""

    method: str
    path: str
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    meanwhile: bool = False
    wait: float = 0.0
    lines: str = ""


@dataclass(frozen=True)
class Case:
    """What is sent to a server of its own. The name is `group/name`, where its recording lies."""

    name: str
    setup: Setup
    asks: tuple[Ask, ...]

    @property
    def file(self) -> Path:
        return REPLIES / f"{self.name}.txt"


@dataclass
class Answer:
    """What came back."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    cut_off: bool = False


def replay(case: Case) -> bytes:
    """The recording of a case: each request, and what was answered."""
    loop = VirtualTime()
    with _still(loop), asyncio.Runner(loop_factory=lambda: loop) as runner:
        return _renumbered(runner.run(_told(case)))


async def _told(case: Case) -> bytes:
    with mock.patch.dict(os.environ, {"REASOND_API_KEYS": case.setup.keys}):
        app, engines = app_of(case.setup)
    running: list[tuple[Ask, asyncio.Task[Answer]]] = []
    last = ""
    for ask in case.asks:
        await asyncio.sleep(ask.wait)
        if ask.method == "CLOSE":
            await engines[ask.path].close()
            continue
        ask = _filled(ask, last)
        task = asyncio.create_task(_sent(app, ask))
        running.append((ask, task))
        if not ask.meanwhile:
            last = _id_of(await task) or last
    return b"\n".join([_written(ask, await task) for ask, task in running])


async def _sent(app: Callable[..., Any], ask: Ask) -> Answer:
    """The answer to one request, whole."""
    path, _, query = ask.path.partition("?")
    content = _content(ask)
    headers = {"content-type": "application/json", "content-length": str(len(content)), **ask.headers}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": ask.method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 50000),
        "server": ("reasond", 80),
        "state": {},
    }
    answer = Answer()
    messages = iter([{"type": "http.request", "body": content, "more_body": False}])

    async def receive() -> dict[str, Any]:
        for message in messages:
            return message
        await asyncio.Event().wait()  # the client stays
        raise AssertionError

    async def send(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = [(name.decode().lower(), value.decode()) for name, value in message["headers"]]
        else:
            answer.body += message.get("body", b"")

    try:
        await app(scope, receive, send)
    except Exception:  # noqa: BLE001 - it closes the connection, which a client sees
        answer.cut_off = True
    length = dict(answer.headers).get("content-length")
    assert length in (None, str(len(answer.body))), f"{ask.path}: content-length {length} of {len(answer.body)}"
    return answer


def _content(ask: Ask) -> bytes:
    if ask.raw is not None:
        return ask.raw
    return b"" if ask.body is None else orjson.dumps(ask.body)


def _filled(ask: Ask, last: str) -> Ask:
    body = orjson.loads(orjson.dumps(ask.body).replace(b"{id}", last.encode()))
    return replace(ask, path=ask.path.replace("{id}", last), body=body)


def _id_of(answer: Answer) -> str:
    found = re.search(rb'"id":"([^"]+)"', answer.body)
    return found[1].decode() if found else ""


def _written(ask: Ask, answer: Answer) -> bytes:
    sent = _content(ask).decode("utf-8", "backslashreplace")
    shown = sent if len(sent) <= SHOWN else f"{sent[:SHOWN]}… {len(sent)} characters"
    headers = "".join(f"{name}: {value}\n" for name, value in sorted(answer.headers) if name.startswith(HEADERS))
    head = f"> {ask.method} {ask.path}\n" + (f"> {shown}\n" if shown else "")
    head += "".join(f"> {name}: {value}\n" for name, value in ask.headers.items())
    body = answer.body
    if ask.lines:
        body = b"".join(line for line in body.splitlines(True) if re.search(ask.lines.encode(), line))
    end = (b"" if body.endswith(b"\n") else b"\n") + (b"the connection is closed\n" if answer.cut_off else b"")
    return f"{head}\n{answer.status}\n{headers}\n".encode() + body + end


def _renumbered(text: bytes) -> bytes:
    """Made-up ids counted in the order in which they are told, whatever else took one in between."""
    known: dict[bytes, bytes] = {}

    def number(found: re.Match[bytes]) -> bytes:
        return MARK.encode() + known.setdefault(found[1], b"%016x" % (len(known) + 1))

    return MADE_UP.sub(number, text)


@contextmanager
def _still(loop: VirtualTime) -> Iterator[None]:
    """Clocks, ids and chance of their own, for every module of the project that reads them under whatever name."""
    numbers = count(1)

    def passed() -> float:
        return round(SINCE_BOOT + loop.time(), 6)

    in_place_of = {
        time.time: lambda: float(NOW),
        time.perf_counter: passed,
        time.monotonic: passed,
        uuid.uuid4: lambda: uuid.UUID(hex=f"{MARK}{next(numbers):016x}{'0' * 8}"),
    }
    state = random.getstate()
    random.seed(0)
    patches = [mock.patch.object(module, name, in_place_of[getattr(module, name)]) for module, name in _readers()]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in reversed(patches):
            patch.stop()
        random.setstate(state)


def _readers() -> list[tuple[Any, str]]:
    """Where a clock or an id is read: the standard modules themselves, and names that project modules imported."""
    places: list[tuple[Any, str]] = [(time, "time"), (time, "perf_counter"), (time, "monotonic"), (uuid, "uuid4")]
    originals = [getattr(module, name) for module, name in places]
    for module in project_modules():
        places += [
            (module, name) for name, value in vars(module).items() if any(value is original for original in originals)
        ]
    return places

"""An engine of this process that is started again when it dies or hangs.

A request that has had no delta waits for the new engine; one that has had some ends with `EngineDead`.
"""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Literal, Protocol

from pydantic import Field

from models.config import Section
from models.engines.base import (
    Delta,
    Engine,
    EngineDead,
    EngineError,
    EngineRestarting,
    FailoverStream,
    ImageProcessor,
    Prompt,
    Sampling,
    Tokenizer,
)

log = logging.getLogger(__name__)

WATCH_SECONDS = 1.0  # between two looks at the engine
CLOSE_SECONDS = 10.0  # for a dead engine to tell its requests, and again to tidy up

State = Literal["up", "restarting", "lost"]
Cause = Literal["died", "hung"]


class SupervisionConfig(Section):
    """`[engines.NAME.supervision]`. Seconds.

    A dead engine is started again at once, then after `backoff_seconds` and twice as long each time, up to
    `most_backoff_seconds`. After `restarts` of them without `settled_seconds` of life in between it is lost. An engine
    that makes no step for `stall_seconds` while it holds requests counts as dead. `wait_seconds` is how long a request
    waits for an engine that is being started; 0: it is refused at once.
    """

    restarts: int = Field(default=5, ge=0)
    backoff_seconds: float = Field(default=1.0, ge=0)
    most_backoff_seconds: float = Field(default=60.0, ge=0)
    settled_seconds: float = Field(default=300.0, ge=0)
    stall_seconds: float = Field(default=60.0, gt=0)
    wait_seconds: float = Field(default=120.0, ge=0)


class LocalEngine(Engine, Protocol):
    """An engine whose life is in our hands."""

    async def pulse(self) -> None:
        """Returns when the engine has ended the step in hand."""
        ...

    async def kill(self) -> None:
        """Ends the engine at once, whatever it does: its requests end with `EngineDead`. Returns when it is gone."""
        ...


class SupervisedEngine:
    """Stands for one engine after another. `lost` is set when nothing will start it again, `ends` counts the ends."""

    def __init__(
        self, engine: LocalEngine, start: Callable[[], Awaitable[LocalEngine]], settings: SupervisionConfig
    ) -> None:
        """`start` starts another like `engine`, which is up. To be made inside the event loop that it lives in."""
        self.name = engine.name
        self.tokenizer: Tokenizer = engine.tokenizer
        self.context_length = engine.context_length
        self.adapters = engine.adapters
        self.native_budget = engine.native_budget
        self.state: State = "up"
        self.ends: dict[Cause, int] = {"died": 0, "hung": 0}
        self.lost = asyncio.Event()
        self._engine = engine
        self._start = start
        self._settings = settings
        self._decided = asyncio.Event()  # set while the engine is up, and once it is lost
        self._decided.set()
        self._suspected = asyncio.Event()
        self._tries = 0  # starts since the engine was last settled
        self._began = asyncio.get_running_loop().time()
        self._start_seconds = 1.0
        self._watching = asyncio.create_task(self._watch(), name=f"supervision of {self.name}")

    @property
    def process_images(self) -> ImageProcessor | None:
        return self._engine.process_images

    def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        return FailoverStream(lambda: self._begun(prompt, sampling))

    async def _begun(self, prompt: Prompt, sampling: Sampling) -> tuple[AsyncGenerator[Delta, None], Delta]:
        """The stream and the first delta of the first engine that lives long enough to give one."""
        while True:
            engine = await self._serving()
            deltas = engine.generate(prompt, sampling)
            try:
                return deltas, await anext(deltas)
            except EngineDead:
                self._suspect(engine)

    async def _serving(self) -> LocalEngine:
        """The engine, when it is up. Raises `EngineRestarting` where it is not in time, `EngineDead` where never."""
        if not self._decided.is_set() and self._settings.wait_seconds:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._decided.wait(), self._settings.wait_seconds)
        self._require_up()
        return self._engine

    def _require_up(self) -> None:
        if self.state == "lost":
            raise EngineDead(f"engine {self.name} is lost: it has ended too often")
        if self.state == "restarting":
            raise EngineRestarting(f"engine {self.name} is being started again", math.ceil(self._start_seconds))

    def _suspect(self, engine: LocalEngine) -> None:
        """A request found this engine dead: from now on nothing new goes to it."""
        if engine is self._engine and self.state == "up":
            self.state = "restarting"
            self._decided.clear()
            self._suspected.set()

    def running(self) -> int:
        return self._engine.running()

    async def check(self) -> None:
        self._require_up()
        await self._engine.check()

    async def close(self) -> None:
        self._watching.cancel()
        with suppress(asyncio.CancelledError):
            await self._watching
        await self._engine.close()

    async def _watch(self) -> None:
        try:
            while self.state != "lost":
                cause = await self._end()
                self.ends[cause] += 1
                log.error("engine %s %s", self.name, cause)
                await self._restart()
        except Exception:
            log.exception("engine %s is no longer watched", self.name)
            self._lose()

    def _lose(self) -> None:
        self.state = "lost"
        self._decided.set()
        self.lost.set()

    async def _end(self) -> Cause:
        """Waits until the engine is dead, or hangs."""
        loop = asyncio.get_running_loop()
        asked, pulse = loop.time(), loop.create_task(self._engine.pulse())
        try:
            while True:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._suspected.wait(), WATCH_SECONDS)
                    return "died"
                try:
                    await self._engine.check()
                    if pulse.done():
                        pulse.result()
                except EngineError:
                    return "died"
                if pulse.done() and self._engine.running():
                    asked, pulse = loop.time(), loop.create_task(self._engine.pulse())
                elif not pulse.done() and loop.time() - asked > self._settings.stall_seconds:
                    return "hung"
        finally:
            pulse.cancel()

    async def _restart(self) -> None:
        loop = asyncio.get_running_loop()
        self._suspect(self._engine)
        if loop.time() - self._began > self._settings.settled_seconds:
            self._tries = 0
        await self._engine.kill()
        await self._tidied(self._engine)
        while self._tries < self._settings.restarts:
            if self._tries:
                seconds = self._settings.backoff_seconds * 2.0 ** (self._tries - 1)
                await asyncio.sleep(min(self._settings.most_backoff_seconds, seconds))
            self._tries += 1
            began = loop.time()
            try:
                self._engine = await self._start()
            except (ValueError, OSError, RuntimeError, EngineError) as error:
                log.error("engine %s did not start again: %s", self.name, error)
                continue
            self._began = loop.time()
            self._start_seconds = self._began - began
            log.warning("engine %s is up again after %.1f s", self.name, self._start_seconds)
            self.state = "up"
            self._suspected.clear()
            self._decided.set()
            return
        log.error("engine %s is lost after %d starts", self.name, self._tries)
        self._lose()

    async def _tidied(self, engine: LocalEngine) -> None:
        """Lets a dead engine tell its requests, then closes it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                while await self._alive(engine):  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(0.02)
        try:
            await asyncio.wait_for(engine.close(), CLOSE_SECONDS)
        except Exception as error:  # noqa: BLE001 - it is dead: whatever it says, another takes its place
            log.warning("engine %s did not close: %r", self.name, error)

    async def _alive(self, engine: LocalEngine) -> bool:
        try:
            await engine.check()
        except EngineDead:
            return engine.running() > 0
        return True

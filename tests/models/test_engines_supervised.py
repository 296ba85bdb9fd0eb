"""An engine that dies or hangs is started again, and nobody who has heard nothing notices but by the wait."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from models.engines import supervised
from models.engines.base import Delta, EngineDead, EngineRestarting, Prompt, Sampling
from models.engines.scripted import ScriptedEngine, ScriptedReply
from models.engines.supervised import SupervisedEngine, SupervisionConfig
from models.text.tokenizer import HubTokenizer
from tests.conftest import Run

PROMPT = Prompt([1, 2])


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "WATCH_SECONDS", 0.02)


class Starts:
    """Starts scripted engines, each of which says its number; `failing` of them, the first one apart, fail."""

    def __init__(self, tokenizer: HubTokenizer, failing: int = 0, seconds: float = 0.0, delay: float = 0.01) -> None:
        self.tokenizer = tokenizer
        self.failing = failing
        self.seconds = seconds
        self.delay = delay
        self.engines: list[ScriptedEngine] = []
        self.times: list[float] = []

    async def __call__(self) -> ScriptedEngine:
        self.times.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.seconds)
        if self.engines and self.failing:
            self.failing -= 1
            raise RuntimeError("no memory")
        word = "abcdefgh"[len(self.engines)]
        self.engines.append(ScriptedEngine(self.tokenizer, [word * 20], name="demo", token_delay=self.delay))
        return self.engines[-1]

    @asynccontextmanager
    async def supervised(self, **settings: float) -> AsyncIterator[SupervisedEngine]:
        config = SupervisionConfig(**{"backoff_seconds": 0.01, "stall_seconds": 0.2, **settings})  # type: ignore[arg-type]
        engine = SupervisedEngine(await self(), self, config)
        try:
            yield engine
        finally:
            await engine.close()


async def reply(engine: SupervisedEngine, seen: Callable[[Delta], object] = lambda delta: None) -> str:
    text = ""
    async for delta in engine.generate(PROMPT, Sampling()):
        text += delta.text
        seen(delta)
    return text


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not happened():  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.005)


def test_a_live_engine_is_as_if_nobody_watched(run: Run, tokenizer: HubTokenizer) -> None:
    async def story() -> None:
        starts = Starts(tokenizer)
        async with starts.supervised() as engine:
            assert await reply(engine) == "a" * 20
            assert (engine.state, engine.ends, len(starts.engines)) == ("up", {"died": 0, "hung": 0}, 1)
            await engine.check()
        with pytest.raises(EngineDead):
            await starts.engines[0].check()

    run(story())


def test_what_has_begun_ends_and_what_has_not_goes_to_the_next_engine(run: Run, tokenizer: HubTokenizer) -> None:
    async def story() -> None:
        starts = Starts(tokenizer, seconds=0.1)
        async with starts.supervised() as engine:
            heard: list[Delta] = []
            begun = [asyncio.create_task(reply(engine, heard.append)) for _ in range(8)]
            await until(lambda: len(heard) >= 8)
            assert engine.running() == 8
            await starts.engines[0].kill()
            late = [asyncio.create_task(reply(engine)) for _ in range(8)]
            ended = await asyncio.gather(*begun, return_exceptions=True)
            assert [type(end) for end in ended] == [EngineDead] * 8
            assert engine.state == "restarting"
            with pytest.raises(EngineRestarting):
                await engine.check()
            assert await asyncio.gather(*late) == ["b" * 20] * 8
            assert (engine.state, engine.ends) == ("up", {"died": 1, "hung": 0})
            await engine.check()
            assert engine.running() == 0

    run(story())


def test_an_engine_that_dies_while_nobody_asks_is_started_again(run: Run, tokenizer: HubTokenizer) -> None:
    async def story() -> None:
        starts = Starts(tokenizer)
        async with starts.supervised() as engine:
            await starts.engines[0].kill()
            await until(lambda: len(starts.engines) == 2 and engine.state == "up")

    run(story())


def test_an_engine_that_hangs_counts_as_dead(run: Run, tokenizer: HubTokenizer) -> None:
    async def story() -> None:
        starts = Starts(tokenizer)
        async with starts.supervised(stall_seconds=0.2) as engine:
            heard: list[Delta] = []
            begun = asyncio.create_task(reply(engine, heard.append))
            await until(lambda: bool(heard))
            starts.engines[0].freeze()
            late = asyncio.create_task(reply(engine))
            began = asyncio.get_running_loop().time()
            with pytest.raises(EngineDead):
                await begun
            assert 0.15 < asyncio.get_running_loop().time() - began < 2
            assert await late == "b" * 20
            assert engine.ends == {"died": 0, "hung": 1}

    run(story())


def test_an_engine_whose_tokens_are_slow_does_not_hang(run: Run, tokenizer: HubTokenizer) -> None:
    async def story() -> None:
        starts = Starts(tokenizer, delay=0.05)
        async with starts.supervised(stall_seconds=0.03) as engine:
            assert await reply(engine) == "a" * 20
            assert engine.ends == {"died": 0, "hung": 0}

    run(story())


def test_where_nobody_is_to_wait_a_request_is_told_when_to_come_again(run: Run, tokenizer: HubTokenizer) -> None:
    async def story() -> None:
        starts = Starts(tokenizer, seconds=0.3)
        async with starts.supervised(wait_seconds=0) as engine:
            await starts.engines[0].kill()
            for _ in range(2):  # the one that finds it dead, and the next
                with pytest.raises(EngineRestarting) as refusal:
                    await reply(engine)
                assert refusal.value.retry_after == 1
            await until(lambda: engine.state == "up")
            assert await reply(engine) == "b" * 20

    run(story())


def test_a_request_waits_only_so_long(run: Run, tokenizer: HubTokenizer) -> None:
    async def story() -> None:
        starts = Starts(tokenizer, seconds=1.0)
        async with starts.supervised(wait_seconds=0.05) as engine:
            await starts.engines[0].kill()
            began = asyncio.get_running_loop().time()
            with pytest.raises(EngineRestarting):
                await reply(engine)
            assert asyncio.get_running_loop().time() - began < 0.8

    run(story())


def test_starts_that_fail_are_tried_again_after_longer_and_longer(run: Run, tokenizer: HubTokenizer) -> None:
    async def story() -> None:
        starts = Starts(tokenizer, failing=3)
        async with starts.supervised(backoff_seconds=0.05, most_backoff_seconds=0.1) as engine:
            await starts.engines[0].kill()
            assert await reply(engine) == "b" * 20
            waits = [late - early for early, late in zip(starts.times[1:], starts.times[2:], strict=False)]
            assert [round(wait, 1) for wait in waits] == [0.1, 0.1, 0.1]
            assert waits[0] < 0.09 < waits[1]

    run(story())


def test_an_engine_that_cannot_be_started_is_lost(
    run: Run, tokenizer: HubTokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        starts = Starts(tokenizer, failing=9)
        async with starts.supervised(restarts=2) as engine:
            await starts.engines[0].kill()
            with pytest.raises(EngineDead, match="lost") as end:
                await reply(engine)
            assert not isinstance(end.value, EngineRestarting)
            assert (engine.state, engine.lost.is_set(), len(starts.times)) == ("lost", True, 3)

    with caplog.at_level(logging.ERROR):
        run(story())
    assert "no memory" in caplog.text


def test_an_engine_that_dies_again_and_again_is_lost_but_not_one_that_settles(
    run: Run, tokenizer: HubTokenizer
) -> None:
    async def deaths(settled_seconds: float) -> int:
        starts = Starts(tokenizer)
        async with starts.supervised(restarts=2, settled_seconds=settled_seconds) as engine:
            for count in range(5):
                await starts.engines[-1].kill()
                await until(lambda count=count: len(starts.engines) > count + 1 or engine.state == "lost")
                await until(lambda: engine.state != "restarting")
                if engine.state == "lost":
                    return count
            return 5

    assert run(deaths(settled_seconds=60)) == 2
    assert run(deaths(settled_seconds=0)) == 5


def test_an_error_of_another_kind_is_the_requests_own(run: Run, tokenizer: HubTokenizer) -> None:
    async def story() -> None:
        starts = Starts(tokenizer)
        async with starts.supervised() as engine:
            starts.engines[0]._script = lambda prompt, sampling: ScriptedReply("x", error=ValueError("odd"))
            with pytest.raises(ValueError, match="odd"):
                await reply(engine)
            assert engine.state == "up"

    run(story())


def test_a_request_that_is_left_lets_go_of_its_engine(run: Run, tokenizer: HubTokenizer) -> None:
    async def story() -> None:
        starts = Starts(tokenizer, seconds=0.2)
        async with starts.supervised() as engine:
            stream = engine.generate(PROMPT, Sampling())
            await anext(stream)
            assert engine.running() == 1
            await stream.aclose()
            assert engine.running() == 0
            await engine.generate(PROMPT, Sampling()).aclose()  # before it has begun
            await starts.engines[0].kill()
            waiting = asyncio.create_task(reply(engine))
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await until(lambda: engine.state == "up")
            assert engine.running() == 0

    run(story())

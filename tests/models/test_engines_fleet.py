"""Several servers behind one engine: who is asked, and what is lost when one goes (nothing that had not begun)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from models.engines import RemoteEngineConfig, load
from models.engines.base import EngineBusy, EngineDead, EngineError, InvalidRequest, Prompt, Sampling
from models.engines.fleet import PrefixMemory, RemoteFleet, prefix_marks
from models.engines.scripted import ScriptedEngine
from models.text.tokenizer import HubTokenizer
from server.config.load import ConfigError, parse_config
from tests.conftest import ROOT, Run
from tests.processes import free_port
from tests.vllm_like import Running, VllmLike, running

SAMPLING = Sampling(max_tokens=40)
CHECK = 0.05


def like(tokenizer: HubTokenizer, word: str = "a", delay: float = 0.0, context_length: int = 4096) -> VllmLike:
    engine = ScriptedEngine(tokenizer, [word * 20], token_delay=delay, context_length=context_length)
    return VllmLike(engine)


@asynccontextmanager
async def fleet(*servers: VllmLike, **settings: object) -> AsyncIterator[tuple[RemoteFleet, list[Running]]]:
    async with AsyncExitStack() as stack:
        ran = [await stack.enter_async_context(running(server.app())) for server in servers]
        named = settings or {"urls": [server.url for server in ran]}
        config = RemoteEngineConfig(model=str(ROOT / "demo/tokenizer"), check_seconds=CHECK, **named)  # type: ignore[arg-type]
        engine = await load("far", config)
        assert isinstance(engine, RemoteFleet)
        for server in servers:
            server.prompts.clear()  # what they were asked at start
        try:
            yield engine, ran
        finally:
            await engine.close()


async def reply(engine: RemoteFleet, prompt: list[int] | None = None, sampling: Sampling = SAMPLING) -> str:
    stream = engine.generate(Prompt(prompt or [1, 2, 3]), sampling)
    return "".join([delta.text async for delta in stream])


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not happened():  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.005)


def test_requests_that_share_nothing_go_to_the_least_busy_in_turn(run: Run, tokenizer: HubTokenizer) -> None:
    servers = [like(tokenizer, delay=0.01) for _ in range(3)]

    async def story() -> None:
        async with fleet(*servers) as (engine, _):
            asked = [asyncio.create_task(reply(engine, [n, n + 1])) for n in range(1, 10)]
            await until(lambda: sum(len(server.prompts) for server in servers) == 9)
            assert [len(server.prompts) for server in servers] == [3, 3, 3]
            assert set(await asyncio.gather(*asked)) == {"a" * 20}
            assert engine.running() == 0
            await engine.check()

    run(story())


def test_turns_and_segments_go_where_their_prefix_was_read(run: Run, tokenizer: HubTokenizer) -> None:
    servers = [like(tokenizer) for _ in range(3)]

    async def story() -> None:
        async with fleet(*servers) as (engine, _):
            conversations = [[n] * 40 for n in range(1, 13)]
            for turn in range(4):
                for prompt in conversations:
                    await reply(engine, [*prompt, *range(20, 20 + 30 * turn)])
            for server in servers:
                firsts = [prompt[0] for prompt in server.prompts]
                assert all(firsts.count(first) == 4 for first in firsts), "all turns of a conversation, or none"
            assert [len(server.prompts) for server in servers] == [16, 16, 16]

    run(story())


def test_affinity_does_not_overload_a_server(run: Run, tokenizer: HubTokenizer) -> None:
    servers = [like(tokenizer, delay=0.02) for _ in range(2)]

    async def story() -> None:
        async with fleet(*servers) as (engine, _):
            asked = [asyncio.create_task(reply(engine, [7] * 100)) for _ in range(40)]
            await until(lambda: sum(len(server.prompts) for server in servers) == 40)
            few, many = sorted(len(server.prompts) for server in servers)
            assert few >= 10
            assert many <= 2 * few + 9
            await asyncio.gather(*asked)

    run(story())


def test_a_salt_or_an_adapter_is_another_prefix() -> None:
    ids = list(range(64))
    marks = {
        tuple(prefix_marks(Prompt(ids, adapter=adapter, cache_salt=salt)))
        for adapter in (None, "x")
        for salt in (None, "s")
    }
    assert len(marks) == 4


def test_the_longest_beginning_wins_and_old_ones_are_forgotten() -> None:
    memory = PrefixMemory(size=6)
    first, second = Prompt([1] * 40), Prompt([*([1] * 40), *([2] * 40)])
    memory.read(prefix_marks(first), "a")
    memory.read(prefix_marks(second), "b")
    assert memory.reader(prefix_marks(Prompt([*([1] * 40), *([2] * 20), 3]))) == "b"
    assert memory.reader(prefix_marks(Prompt([5] * 40))) is None
    assert memory.reader(prefix_marks(Prompt([1] * 10))) is None
    memory.read(prefix_marks(Prompt([9] * 96)), "c")
    assert memory.reader(prefix_marks(first)) is None
    assert len(prefix_marks(Prompt(range(100_000)))) < 300, "a long prompt is not compared token by token"


def test_what_has_sent_nothing_goes_to_another_server_and_what_has_fails(run: Run, tokenizer: HubTokenizer) -> None:
    servers = [like(tokenizer, delay=0.05), like(tokenizer, delay=0.05)]

    async def story() -> None:
        async with fleet(*servers) as (engine, ran):
            begun = [asyncio.create_task(reply(engine, [n])) for n in range(1, 9)]
            await until(lambda: all(server.engine.running() == 4 for server in servers))
            await asyncio.sleep(0.2)
            await ran[0].kill()
            late = [asyncio.create_task(reply(engine, [n])) for n in range(11, 19)]
            ended = await asyncio.gather(*begun, return_exceptions=True)
            assert sum(isinstance(end, EngineError) for end in ended) == 4
            assert ended.count("a" * 20) == 4
            assert set(await asyncio.gather(*late)) == {"a" * 20}
            assert engine.servers[ran[0].url].state == "down"

    run(story())


def test_a_request_whose_server_breaks_off_before_the_first_token_is_not_lost(
    run: Run, tokenizer: HubTokenizer
) -> None:
    slow = like(tokenizer)

    async def story() -> None:
        async with fleet(slow, like(tokenizer)) as (engine, ran):
            slow.engine.first_token_delay = 60
            asked = [asyncio.create_task(reply(engine, [n])) for n in range(1, 3)]
            await until(lambda: slow.engine.running() == 1)
            await ran[0].kill()
            assert await asyncio.gather(*asked) == ["a" * 20] * 2

    run(story())


@pytest.mark.parametrize(("status", "error"), [(503, EngineBusy), (500, EngineError), (400, InvalidRequest)])
def test_a_server_that_refuses_is_not_the_end_but_for_the_clients_mistakes(
    run: Run, tokenizer: HubTokenizer, status: int, error: type[Exception]
) -> None:
    refusing, fine = like(tokenizer), like(tokenizer)

    async def story() -> None:
        async with fleet(refusing, fine) as (engine, _):
            refusing.status = status
            replies = await asyncio.gather(*(reply(engine, [n]) for n in range(1, 5)), return_exceptions=True)
            lost = [end for end in replies if not isinstance(end, str)]
            assert len(lost) == (2 if error is InvalidRequest else 0)
            fine.status = status
            with pytest.raises(error):
                await reply(engine)
            assert {server.state for server in engine.servers.values()} == {"up"}

    run(story())


def test_a_server_that_comes_back_is_asked_again_and_none_at_all_is_a_dead_engine(
    run: Run, tokenizer: HubTokenizer
) -> None:
    async def story() -> None:
        async with fleet(like(tokenizer, "a")) as (engine, ran):
            assert await reply(engine) == "a" * 20
            await ran[0].kill()
            with pytest.raises(EngineDead):
                await reply(engine)
            with pytest.raises(EngineDead):
                await engine.check()
            port = int(ran[0].url.rpartition(":")[2])
            async with running(like(tokenizer, "b").app(), port):
                await until(lambda: engine.servers[ran[0].url].state == "up")
                assert await reply(engine) == "b" * 20

    run(story())


def test_a_server_that_says_it_is_not_well_gets_nothing_new(run: Run, tokenizer: HubTokenizer) -> None:
    ill, well = like(tokenizer), like(tokenizer)

    async def story() -> None:
        async with fleet(ill, well) as (engine, ran):
            ill.healthy = False
            await until(lambda: engine.servers[ran[0].url].state == "down")
            await asyncio.gather(*(reply(engine, [n]) for n in range(1, 5)))
            assert (len(ill.prompts), len(well.prompts)) == (0, 4)

    run(story())


def test_a_busy_server_is_waited_for_at_start_and_holds_up_no_look_at_the_others(
    run: Run, tokenizer: HubTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.engines.fleet.CHECK_SECONDS", 0.1)
    busy, stuck = (VllmLike(ScriptedEngine(tokenizer, ["a"], first_token_delay=delay)) for delay in (0.3, 60.0))
    names = tmp_path / "servers"

    async def story() -> None:
        async with running(busy.app()) as first, running(stuck.app()) as second:
            names.write_text(first.url)
            async with fleet(urls_file=str(names)) as (engine, _):
                names.write_text(f"{first.url}\n{second.url}")
                await until(lambda: bool(stuck.prompts))
                busy.healthy = False
                await until(lambda: engine.servers[first.url].state == "down")

    run(story())


def test_another_model_at_the_same_address_is_not_asked(run: Run, tokenizer: HubTokenizer) -> None:
    async def story() -> None:
        async with fleet(like(tokenizer), like(tokenizer)) as (engine, ran):
            port = int(ran[0].url.rpartition(":")[2])
            await ran[0].kill()
            await until(lambda: engine.servers[ran[0].url].state == "down")
            other = like(tokenizer, context_length=64)
            async with running(other.app(), port):
                await asyncio.sleep(10 * CHECK)
                assert engine.servers[ran[0].url].state == "down"
                assert other.prompts == []

    run(story())


def test_servers_are_named_by_a_file_and_one_that_is_taken_out_is_drained(
    run: Run, tokenizer: HubTokenizer, tmp_path: Path
) -> None:
    servers = [like(tokenizer, "a", 0.03), like(tokenizer, "b", 0.03)]
    file = tmp_path / "servers.txt"

    async def story() -> None:
        ports = [free_port(), free_port()]
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        file.write_text(f"# the first\n{urls[0]}\n\n")
        async with running(servers[0].app(), ports[0]), running(servers[1].app(), ports[1]):  # noqa: SIM117
            async with fleet(urls_file=str(file)) as (engine, _):
                begun = asyncio.create_task(reply(engine, [1]))
                await until(lambda: engine.running() == 1)
                file.write_text("\n".join(urls))
                await until(lambda: len(engine.servers) == 2 and engine.servers[urls[1]].state == "up")
                file.write_text(urls[1])
                await until(lambda: engine.servers[urls[0]].state == "draining")
                assert await reply(engine, [2]) == "b" * 20
                assert await begun == "a" * 20, "what it has begun, it ends"
                await until(lambda: urls[0] not in engine.servers)
                file.unlink()
                await asyncio.sleep(3 * CHECK)
                assert await reply(engine, [3]) == "b" * 20, "without the file the servers stay"

    run(story())


def test_servers_that_are_down_at_start_join_later_but_a_wrong_one_is_refused(
    run: Run, tokenizer: HubTokenizer
) -> None:
    async def story() -> None:
        port = free_port()
        late = f"http://127.0.0.1:{port}"
        with pytest.raises(EngineDead):
            async with fleet(urls=[late]):
                pass
        async with running(like(tokenizer).app()) as first:
            async with fleet(urls=[first.url, late]) as (engine, _):
                assert engine.servers[late].state == "down"
                async with running(like(tokenizer).app(), port):
                    await until(lambda: engine.servers[late].state == "up")
            wrong = like(tokenizer)
            wrong.token_ids = False
            async with running(wrong.app()) as second:
                with pytest.raises(ValueError, match="return_token_ids"):
                    async with fleet(urls=[first.url, second.url]):
                        pass

    run(story())


def test_a_request_that_is_left_lets_go_of_its_server(run: Run, tokenizer: HubTokenizer) -> None:
    server = like(tokenizer, delay=0.05)

    async def story() -> None:
        async with fleet(server) as (engine, _):
            stream = engine.generate(Prompt([1]), SAMPLING)
            await anext(stream)
            await stream.aclose()
            await until(lambda: server.engine.running() == 0)
            assert engine.running() == 0

    run(story())


@pytest.mark.parametrize("ways", ["", 'url = "http://a"\nurls = ["http://b"]'])
def test_servers_are_named_in_one_way(ways: str) -> None:
    text = f'[engines.e]\nkind = "remote"\nmodel = "m"\n{ways}\n[routes.r]\nengine = "e"\nfamily = "plain"\n'
    with pytest.raises(ConfigError, match=r"engines\.e: needs one of url, urls and urls_file"):
        parse_config(text, ROOT)

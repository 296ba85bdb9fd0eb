"""Overload: who begins, who waits, who is told to come again; and no key pays for another's hunger."""

import asyncio
import random
import statistics
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from models.engines.scripted import ScriptedEngine
from server.admission import FIRST_MEAN, Admission, AdmissionConfig, Refusal
from server.app import create_app
from server.config.load import parse_config
from tests.server.conftest import ENGINE_AND_ROUTE, ROOT
from tests.server.judges import JudgeServer
from tests.virtual_time import VirtualTime


@dataclass
class Used:
    prompt_tokens: int = 0
    completion_tokens: int = 0
    votes: int = 0


def in_no_time(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        runner.run(story())


def admission_of(keys: dict[str, tuple[int, int]] | None = None, **settings: float) -> Admission:
    return Admission({"r": AdmissionConfig(**settings)}, keys or {}, asyncio.get_running_loop().time)  # type: ignore[arg-type]


async def served(admission: Admission, key: str, work: int = 100, seconds: float = 1.0) -> str:
    """One request that takes so long once it runs: `ok`, or why it was refused."""
    usage = Used()
    try:
        async with admission.admitted("r", key, work, usage):
            await asyncio.sleep(seconds)
            usage.completion_tokens = work
    except Refusal as refusal:
        return refusal.cause
    return "ok"


def test_without_a_bound_everything_begins_at_once():
    async def story() -> None:
        admission = admission_of()
        asked = [asyncio.create_task(served(admission, "a", 10**6)) for _ in range(50)]
        await asyncio.sleep(1.5)
        assert [task.result() for task in asked] == ["ok"] * 50
        assert (admission.routes["r"].running.total(), admission.routes["r"].queued.total()) == (0, 0)

    in_no_time(story)


def test_no_more_runs_than_there_is_room_for_and_the_rest_waits_in_turn():
    async def story() -> None:
        admission = admission_of(running_tokens=250)
        queue, ended = admission.routes["r"], []

        async def ask(name: str) -> None:
            await served(admission, "a")
            ended.append((name, asyncio.get_running_loop().time()))

        tasks = [asyncio.create_task(ask(name)) for name in "abcde"]
        await asyncio.sleep(0.5)
        assert (queue.running.total(), queue.queued.total()) == (200, 300)
        await asyncio.gather(*tasks)
        assert [name for name, _ in sorted(ended, key=lambda each: (round(each[1]), each[0]))] == list("abcde")
        assert [round(at) for _, at in ended] == [1, 1, 2, 2, 3]
        assert (queue.running.total(), queue.queued.total()) == (0, 0)

    in_no_time(story)


def test_a_request_that_is_larger_than_all_the_room_begins_alone():
    async def story() -> None:
        admission = admission_of(running_tokens=250)
        first = asyncio.create_task(served(admission, "a", 100))
        await asyncio.sleep(0)
        assert await served(admission, "a", 10_000) == "ok"
        assert asyncio.get_running_loop().time() == pytest.approx(2)
        assert await first == "ok"

    in_no_time(story)


def test_the_queue_has_a_bound_and_a_key_its_share_of_it():
    async def story() -> None:
        admission = admission_of(running_tokens=100, queue_tokens=600, key_share=0.5, queue_seconds=100)
        greedy = [asyncio.create_task(served(admission, "greedy")) for _ in range(8)]
        await asyncio.sleep(0)
        modest = [asyncio.create_task(served(admission, key)) for key in "abcd"]
        ends = await asyncio.gather(*greedy, *modest)
        assert ends[:8] == ["ok"] * 4 + ["bound"] * 4, "one runs and three wait"
        assert ends[8:] == ["ok"] * 3 + ["bound"]
        assert admission.routes["r"].refused["bound"] == 5

    in_no_time(story)


def test_what_would_wait_in_vain_is_refused_at_once_and_told_when_to_come_again():
    async def story() -> None:
        admission = admission_of(running_tokens=100, queue_seconds=5)
        early = [asyncio.create_task(served(admission, key)) for key in "abc"]
        await asyncio.sleep(2.5)  # two have ended while others waited: a hundred tokens a second
        late = [asyncio.create_task(served(admission, key)) for key in "defg"]
        await asyncio.sleep(0)
        began = asyncio.get_running_loop().time()
        with pytest.raises(Refusal) as refusal:
            async with admission.admitted("r", "z", 100, Used()):
                pass
        assert refusal.value.cause == "deadline"
        assert refusal.value.retry_after == 4, "when the queue of now is served"
        assert asyncio.get_running_loop().time() == began
        assert set(await asyncio.gather(*early, *late)) == {"ok"}

    in_no_time(story)


def test_what_has_waited_too_long_is_refused_and_leaves_no_trace():
    async def story() -> None:
        admission = admission_of(running_tokens=100, queue_seconds=3)
        long = asyncio.create_task(served(admission, "a", seconds=10))
        await asyncio.sleep(0)
        assert await served(admission, "b") == "deadline"
        assert asyncio.get_running_loop().time() == pytest.approx(6)
        assert admission.routes["r"].queued.total() == 0
        assert await long == "ok"
        assert admission.routes["r"].running.total() == 0

    in_no_time(story)


def test_before_anybody_has_waited_the_pace_is_known_by_how_long_requests_ran():
    async def story() -> None:
        admission = admission_of(running_tokens=200, queue_seconds=4)
        assert await served(admission, "a", seconds=2.0) == "ok"
        asked = [asyncio.create_task(served(admission, "a", seconds=2.0)) for _ in range(8)]
        await asyncio.sleep(0)
        assert [task.done() for task in asked] == [False] * 6 + [True] * 2, "two run, four wait for up to four seconds"
        assert set(await asyncio.gather(*asked)) == {"ok", "deadline"}

    in_no_time(story)


def test_who_leaves_while_waiting_or_as_the_turn_comes_gives_it_back():
    async def story() -> None:
        admission = admission_of(running_tokens=100)
        queue = admission.routes["r"]
        first = asyncio.create_task(served(admission, "a"))
        left, last = (asyncio.create_task(served(admission, key)) for key in "bc")
        await asyncio.sleep(0.5)
        left.cancel()
        await asyncio.sleep(0)
        assert queue.queued.total() == 100
        other = asyncio.create_task(served(admission, "d"))
        await asyncio.sleep(0)
        queue.leave("a", 0, 0.0, None)  # nothing changes
        assert await first == "ok"
        last.cancel()  # it has been let in, and does not know it yet
        assert await other == "ok"
        assert (queue.running.total(), queue.queued.total()) == (0, 0)
        assert last.cancelled()

    in_no_time(story)


def test_keys_take_turns_by_work_however_much_one_of_them_asks():
    async def story() -> None:
        admission = admission_of(running_tokens=1000, queue_seconds=1000)
        ended: Counter[str] = Counter()

        async def ask(key: str, work: int) -> None:
            if await served(admission, key, work, seconds=work / 1000) == "ok":
                ended[key] += work

        greedy = [asyncio.create_task(ask("greedy", 500)) for _ in range(200)]
        modest = [asyncio.create_task(ask(key, 100)) for _ in range(100) for key in ("b", "c")]
        await asyncio.sleep(3)
        assert ended["b"] == ended["c"] == pytest.approx(ended["greedy"], rel=0.35)
        for task in (*greedy, *modest):
            task.cancel()
        await asyncio.wait((*greedy, *modest))
        assert admission.routes["r"].running.total() == 0

    in_no_time(story)


def test_ten_times_the_load_serves_as_much_as_one():
    """A hundred tokens a second of capacity for each of ten places, asked for ten times of that."""

    async def goodput(times: float) -> tuple[float, Counter[str], float]:
        admission = admission_of(running_tokens=1000, queue_seconds=10)
        drawn = random.Random(0)
        ends: list[tuple[str, float]] = []

        async def ask() -> None:
            began = asyncio.get_running_loop().time()
            end = await served(admission, drawn.choice("abcde"), 100)
            ends.append((end, asyncio.get_running_loop().time() - began))

        tasks = []
        for _ in range(int(180 * 10 * times)):
            tasks.append(asyncio.create_task(ask()))
            await asyncio.sleep(drawn.expovariate(10 * times))
        await asyncio.gather(*tasks)
        causes = Counter(end for end, _ in ends)
        took = statistics.quantiles([took for end, took in ends if end == "ok"], n=100)[98]
        return causes["ok"] / asyncio.get_running_loop().time(), causes, took

    results = {}
    for times in (1.0, 10.0):
        with asyncio.Runner(loop_factory=VirtualTime) as runner:
            results[times] = runner.run(goodput(times))
    assert results[10.0][0] >= 0.95 * 10, "capacity is ten a second"
    assert results[10.0][1]["deadline"] > 10_000
    assert results[10.0][2] < 14, "99 of 100 wait for about the deadline at most, and a reply takes a second"
    assert results[1.0][1]["ok"] > 0.9 * 1800


@pytest.mark.parametrize(("running_share", "slower"), [(1.0, 1.3), (0.3, 1.1)])
def test_a_greedy_key_hardly_slows_ten_modest_ones(running_share, slower):
    async def waits(greedy: bool) -> float:
        admission = admission_of(running_tokens=1000, queue_seconds=30, running_share=running_share)
        drawn, took, over = random.Random(1), [], asyncio.Event()

        async def modest(key: str) -> None:
            while not over.is_set():
                began = asyncio.get_running_loop().time()
                assert await served(admission, key, 100, drawn.uniform(0.5, 1.5)) == "ok"
                took.append(asyncio.get_running_loop().time() - began)
                await asyncio.sleep(drawn.expovariate(1 / 3))

        async def hungry() -> None:
            while not over.is_set():
                if await served(admission, "greedy", 100, drawn.uniform(0.5, 1.5)) != "ok":
                    await asyncio.sleep(1)

        tasks = [asyncio.create_task(modest(key)) for key in "abcdefghij"]
        tasks += [asyncio.create_task(hungry()) for _ in range(100 if greedy else 0)]
        await asyncio.sleep(300)
        over.set()
        await asyncio.gather(*tasks)
        return sum(took) / len(took)

    means = []
    for greedy in (False, True):
        with asyncio.Runner(loop_factory=VirtualTime) as runner:
            means.append(runner.run(waits(greedy)))
    assert means[1] < slower * means[0]


def test_a_key_has_so_many_requests_at_once_and_tokens_a_minute():
    async def story() -> None:
        admission = admission_of({"a": (2, 0), "b": (0, 600)})
        asked = [asyncio.create_task(served(admission, "a")) for _ in range(3)]
        assert await asyncio.gather(*asked) == ["ok", "ok", "key_requests"]
        assert await served(admission, "a") == "ok"
        for _ in range(6):
            assert await served(admission, "b", 100, 0.0) == "ok"
        with pytest.raises(Refusal) as refusal:
            async with admission.admitted("r", "b", 100, Used()):
                pass
        assert (refusal.value.cause, refusal.value.retry_after) == ("key_tokens", 1)
        await asyncio.sleep(refusal.value.retry_after)
        assert await served(admission, "b", 100, 0.0) == "ok"
        assert await served(admission, "c", 10**6, 0.0) == "ok", "a key without limits"
        assert admission.routes["r"].refused == {"bound": 0, "deadline": 0, "key_requests": 1, "key_tokens": 1}

    in_no_time(story)


def test_what_was_estimated_too_high_goes_back_to_the_key():
    async def story() -> None:
        admission = admission_of({"b": (0, 600)})
        async with admission.admitted("r", "b", 600, Used(prompt_tokens=10, completion_tokens=20)):
            with pytest.raises(Refusal):
                async with admission.admitted("r", "b", 1, Used()):
                    pass
        async with admission.admitted("r", "b", 1, Used()):
            pass

    in_no_time(story)


def test_work_is_estimated_by_what_replies_have_been_and_may_be():
    async def story() -> None:
        admission = admission_of()
        assert admission.estimate("r", 100, None, None) == 100 + FIRST_MEAN
        assert admission.estimate("r", 100, 20, None, replies=3) == 360
        for _ in range(200):
            async with admission.admitted("r", "a", 1, Used(completion_tokens=4000), replies=2):
                pass
        assert admission.estimate("r", 100, None, None) == pytest.approx(2100, rel=0.01)
        assert admission.estimate("r", 100, None, 50) == 100 + 50 + FIRST_MEAN

    in_no_time(story)


CHAT = {"model": "demo", "messages": [{"role": "user", "content": "2+3"}], "max_tokens": 50}


@pytest.mark.anyio
async def test_the_server_refuses_early_and_a_key_at_its_limit_gets_429(tokenizer, monkeypatch):
    monkeypatch.setenv("REASOND_API_KEYS", "one,two")
    text = ENGINE_AND_ROUTE + "admission = { running_tokens = 70, queue_tokens = 100, key_share = 1.0 }\n"
    config = parse_config(text + "[keys.environment-2]\nmax_requests = 1\n", ROOT)
    engine = ScriptedEngine(tokenizer, ["<no_think>" + "5 " * 40], name="demo", token_delay=0.02)
    transport = httpx.ASGITransport(create_app(config, {"demo": engine}), raise_app_exceptions=False)

    async def ask(key: str, path: str = "/v1/chat/completions", **fields) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"}
        return await client.post(path, json={**CHAT, **fields}, headers=headers)

    async with httpx.AsyncClient(transport=transport, base_url="http://reasond") as client:
        answers = await asyncio.gather(*(ask("one", stream=stream) for stream in (False, True, False, True)))
        assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503]
        refused = next(answer for answer in answers if answer.status_code == 503)
        assert refused.json()["error"]["code"] == "overloaded"
        assert int(refused.headers["retry-after"]) >= 1
        completion = {"prompt": "2+3", "messages": None}
        first, second = await asyncio.gather(ask("two"), ask("two"))
        assert sorted((first.status_code, second.status_code)) == [200, 429]
        limited = next(answer for answer in (first, second) if answer.status_code == 429)
        assert limited.json()["error"] | {"message": ""} == {
            "message": "",
            "type": "rate_limit_error",
            "param": None,
            "code": "rate_limit_exceeded",
        }
        body = {key: value for key, value in (CHAT | completion).items() if value is not None}
        headers = {"authorization": "Bearer one"}
        posts = [client.post("/v1/completions", json=body, headers=headers) for _ in range(4)]
        assert sorted(answer.status_code for answer in await asyncio.gather(*posts)) == [200, 200, 503, 503]
        metrics = (await client.get("/metrics", headers=headers)).text
        assert 'reasond:refusals_total{cause="bound",route="demo"} 4.0' in metrics
        assert 'reasond:refusals_total{cause="key_requests",route="demo"} 1.0' in metrics
        assert 'reasond:admitted_tokens{route="demo"} 0.0' in metrics
        assert 'reasond:requests_total{outcome="overloaded",route="demo"} 5.0' in metrics
    assert engine.running() == 0


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/rewards/compare", {"query": "more?", "replies": ["4", "5"]}),
        ("/v1/rewards/compare", {"query": "more?", "replies": ["4", "5"], "stream": True}),
        ("/v1/rewards/compare", {"items": [{"query": "more?", "replies": ["4", "5"]}] * 3}),
        ("/v1/rewards/compare", {"items": [{"query": "more?", "replies": ["4", "5"]}] * 3, "stream": True}),
        ("/score", {"model": "judge", "text_1": "more?", "text_2": ["4", "5"]}),
    ],
    ids=["one", "one streamed", "batch", "batch streamed", "a trainer's protocol"],
)
async def test_what_is_judged_waits_and_is_refused_as_conversations_are(tokenizer, path, body):
    settings = "admission = { running_tokens = 10, queue_tokens = 2000 }\njudge = { cache_size = 0, concurrency = 1 }\n"
    server = JudgeServer(tokenizer, token_delay=0.01, settings=settings)
    answers = await asyncio.gather(*(server.post(path, body) for _ in range(6)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses[0] == 200 and statuses[-1] == 503, [answer.text for answer in answers]
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.json()["error"]["code"] == "overloaded" and int(refused.headers["retry-after"]) >= 1
    queue = server.app.state.runtime.admission.routes["judge"]
    assert (queue.running.total(), queue.queued.total()) == (0, 0)
    assert queue.mean_reply < 512, "votes were counted"


@pytest.mark.anyio
async def test_a_batch_that_waits_in_vain_is_still_one_json_object(tokenizer):
    settings = "admission = { running_tokens = 10, queue_seconds = 0.4 }\njudge = { cache_size = 0, concurrency = 1 }\n"
    server = JudgeServer(tokenizer, token_delay=0.2, settings=settings)
    body = {"items": [{"query": "more?", "replies": ["4", "5"]}]}
    first, second = await asyncio.gather(*(server.post("/v1/rewards/compare", body) for _ in range(2)))
    assert first.json()["judged"] == 1
    assert (second.status_code, second.json()["error"]["code"]) == (200, "overloaded")
    assert second.json()["not_judged_from"] == 0

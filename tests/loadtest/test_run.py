"""The client and the run, against the emitter."""

import asyncio
import errno
import gc
import json
import pickle
import signal
import subprocess
from collections.abc import Coroutine
from typing import Any

import pytest
import uvloop

from loadtest import (
    ComparedSide,
    Concurrent,
    Constant,
    Goal,
    LoadTarget,
    RunResult,
    Trace,
    Variant,
    compare,
    crossed,
    poisson,
    run,
    summarise,
)
from loadtest.load.client import LoadClient
from loadtest.load.processes import run_in
from loadtest.load.run import encode
from loadtest.load.series import alone, best, next_rate, rates_between, search, sweep, sweep_range
from loadtest.records import RunProgress
from tests.loadtest.emitted import Emitted, all_asking, asking
from tests.loadtest.made import made

FAST = {"first": 0.02, "gap": 0.001}


def ran(what: Coroutine[Any, Any, RunResult]) -> RunResult:
    return uvloop.run(what)


def test_a_closed_loop_holds_as_many_as_asked_and_keeps_its_connections(emitted: Emitted) -> None:
    found = ran(run(emitted.target, all_asking(20, FAST), Concurrent(4)))
    assert summarise(found).max_in_flight == 4
    assert summarise(found).errors == {}
    assert [record.request.id for record in found.records] == [str(number) for number in range(20)]


def test_an_open_loop_starts_when_it_was_due(emitted: Emitted) -> None:
    for plan in (Constant(100), poisson(100)):
        found = ran(run(emitted.target, all_asking(20, FAST), plan))
        offsets = plan.offsets(all_asking(20, FAST))
        due = [(record.scheduled_ns - found.start_ns) / 1e9 for record in found.records]
        assert due == pytest.approx(offsets, abs=1e-6)
        assert all(record.start_ns >= record.scheduled_ns for record in found.records)


def test_an_open_loop_does_not_wait_for_a_slow_server(emitted: Emitted) -> None:
    found = ran(run(emitted.target, all_asking(20, {"first": 0.3}), Constant(200)))
    assert summarise(found).max_in_flight == 20


def test_a_bound_on_an_open_loop_shows_as_late_starts(emitted: Emitted) -> None:
    found = summarise(ran(run(emitted.target, all_asking(6, {"first": 0.05}), Constant(1000), max_concurrency=2)))
    assert found.max_in_flight == 2
    assert found.measures["request_dispatch_delay_ms"].max > 90  # the last two wait for two replies of 50 ms
    assert found.measures["request_scheduled_latency_ms"].max > 140


def test_a_trace_is_replayed(emitted: Emitted) -> None:
    timed = [asking(number, FAST, at=at) for number, at in enumerate((7.0, 7.1, 7.3))]
    found = ran(run(emitted.target, timed, Trace(speed=2)))
    assert [record.scheduled_ns - found.start_ns for record in found.records] == pytest.approx(
        [0, 5e7, 1.5e8], abs=1000
    )


def test_nothing_starts_after_the_time_is_up(emitted: Emitted) -> None:
    found = ran(run(emitted.target, all_asking(1000, {"first": 0.05}), Concurrent(2), max_seconds=0.2))
    assert 4 <= len(found.records) <= 10
    assert len(ran(run(emitted.target, all_asking(50, FAST), Constant(100), max_seconds=0.1)).records) == 10


def test_a_whole_reply_is_taken_as_well_as_a_stream(emitted: Emitted) -> None:
    found = ran(run(emitted.target, [asking(0, FAST, stream=False)], Concurrent(1))).records[0]
    assert (found.error, found.output_tokens, found.thinking_tokens, found.events) == (None, 10, 5, ())


def test_a_refusal_and_a_broken_stream_are_errors_by_kind(emitted: Emitted) -> None:
    requests = [asking(0, {"status": 429}), asking(1, {**FAST, "drop": 3}), asking(2, FAST), asking(3, {"first": 9.0})]
    found = ran(run(emitted.target, requests, Concurrent(4), timeout=0.5))
    assert [record.error for record in found.records] == ["http_429", "disconnect", None, "timeout"]
    assert len(found.records[1].events) == 3  # what came before is kept
    assert found.records[1].status == 200


def test_a_server_that_is_not_there_is_told_before_a_closed_loop_and_as_errors_in_an_open_one() -> None:
    nobody = LoadTarget("http://127.0.0.1:9", "m")
    with pytest.raises(OSError):
        ran(run(nobody, all_asking(2, FAST), Concurrent(1)))
    found = ran(run(nobody, all_asking(2, FAST), Constant(100)))
    assert [record.error for record in found.records] == ["connect", "connect"]


def test_a_connection_that_the_server_closed_meanwhile_is_replaced(emitted: Emitted) -> None:
    async def twice() -> list[str | None]:
        client = LoadClient(emitted.target)
        broken = await client.send(encode(asking(0, {**FAST, "drop": 0}), emitted.target))
        await client.warm(1)
        client._idle[0]._transport.close()
        await asyncio.sleep(0)
        whole = await client.send(encode(asking(1, FAST), emitted.target))
        await client.close()
        return [broken.error, whole.error]

    assert uvloop.run(twice()) == ["disconnect", None]


def test_the_request_says_what_the_workload_says(emitted: Emitted) -> None:
    request = asking(0, FAST, route="other", body={"max_tokens": 5})
    body = json.loads(encode(request, emitted.target))
    assert (body["model"], body["max_tokens"], body["stream"]) == ("other", 5, True)
    assert body["stream_options"] == {"include_usage": True}
    assert "stream" not in json.loads(encode(asking(0, FAST, stream=False), emitted.target))


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "h:1", "http://h:1/v1/chat/completions"])
def test_the_path_is_found_whatever_form_the_url_has(url: str) -> None:
    head = LoadClient(LoadTarget(url, "m", key="k%d"))._head % 3
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nhost: h:1\r\n")
    assert b"authorization: Bearer k%d\r\ncontent-length: 3\r\n\r\n" in head


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not the URL"):
        LoadClient(LoadTarget("ftp://x", "m"))


def test_garbage_collection_rests_while_a_run_goes_on_and_returns(emitted: Emitted) -> None:
    async def look() -> bool:
        running = asyncio.create_task(run(emitted.target, all_asking(1, {"first": 0.1}), Concurrent(1)))
        await asyncio.sleep(0.05)
        enabled = gc.isenabled()
        await running
        return enabled

    assert not uvloop.run(look())
    assert gc.isenabled()


def test_several_processes_share_one_run(emitted: Emitted) -> None:
    live = RunProgress()
    requests = all_asking(30, {"first": 0.05})
    found = uvloop.run(run_in(2, emitted.target, requests, Concurrent(6, ramp=0.05), live=live))
    assert (found.processes, found.concurrency, found.arrivals) == (2, 6, "6 concurrent")
    assert sorted(int(record.request.id) for record in found.records) == list(range(30))
    assert summarise(found).max_in_flight <= 6
    assert summarise(found).errors == {}


def test_several_processes_keep_an_open_loops_times(emitted: Emitted) -> None:
    plan, requests = poisson(100, seed=2), all_asking(20, FAST)
    found = uvloop.run(run_in(3, emitted.target, requests, plan))
    assert [record.request.id for record in found.records] == [request.id for request in requests]
    due = [(record.scheduled_ns - found.start_ns) / 1e9 for record in found.records]
    assert due == pytest.approx(plan.offsets(requests), abs=1e-6)


def test_a_process_that_fails_ends_the_run() -> None:
    with pytest.raises(RuntimeError, match="client process ended"):
        uvloop.run(run_in(2, LoadTarget("http://127.0.0.1:9", "m"), all_asking(4, FAST), Concurrent(2)))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The client processes that a run starts. The third is refused, as by a system that has too many."""
    processes: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def refusing(*command: Any, **options: Any) -> subprocess.Popen[bytes]:
        if len(processes) == 2:
            raise BlockingIOError(errno.EAGAIN, "no more processes")
        processes.append(start(*command, **options))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", refusing)
    return processes


def test_a_process_that_cannot_start_ends_those_that_did(started: list[subprocess.Popen[bytes]]) -> None:
    with pytest.raises(BlockingIOError):
        uvloop.run(run_in(3, LoadTarget("http://127.0.0.1:9", "m"), all_asking(6, FAST), Concurrent(3)))
    assert [process.returncode for process in started] == [-signal.SIGTERM] * 2


def test_a_share_that_cannot_be_sent_ends_the_processes(started: list[subprocess.Popen[bytes]]) -> None:
    requests = [asking(0, FAST), asking(1, FAST, body={"not data": lambda: None})]
    with pytest.raises((pickle.PicklingError, AttributeError)):
        uvloop.run(run_in(2, LoadTarget("http://127.0.0.1:9", "m"), requests, Concurrent(2)))
    assert [process.returncode for process in started] == [-signal.SIGTERM] * 2


def test_a_run_that_is_given_up_ends_its_processes(emitted: Emitted, started: list[subprocess.Popen[bytes]]) -> None:
    async def given_up() -> None:
        async with asyncio.timeout(1.5):
            await run_in(2, emitted.target, all_asking(2, {"first": 60}), Concurrent(2))

    with pytest.raises(TimeoutError):
        uvloop.run(given_up())
    assert [process.returncode for process in started] == [-signal.SIGTERM] * 2


def test_servers_are_compared_in_alternation(emitted: Emitted) -> None:
    slow, fast = all_asking(24, {"first": 0.3}), all_asking(24, {"first": 0.1})
    sides = [
        ComparedSide(emitted.target, slow),
        ComparedSide(emitted.target, fast),
        ComparedSide(emitted.target, fast, "again"),
    ]
    found = uvloop.run(compare(sides, Concurrent(4), rounds=3, warmup=2))
    assert [side.name for side in found.sides] == ["A", "B", "again"]
    for ratios in found.ratios:
        ratio = ratios["time_to_first_token_ms p50"]
        assert len(ratio.rounds) == 3
        assert 1.5 < ratio.ratio.value < 5  # 300 ms over 100, on a machine that others use
    begins = [(result.start_ns, side.name[0]) for side in found.sides for result in side.results]
    assert "".join(name for _, name in sorted(begins)) == "ABaaBAABa"


def test_the_search_doubles_then_bisects_the_ratio() -> None:
    assert next_rate([], 4, 0.1) == 4
    assert next_rate([(4, True)], 4, 0.1) == 8
    assert next_rate([(4, True), (8, False)], 4, 0.1) == pytest.approx(32**0.5)
    assert next_rate([(4, True), (8, False), (7.5, True)], 4, 0.1) is None
    assert next_rate([(4, False)], 4, 0.1) == 2
    assert next_rate([(4, False), (2, True)], 4, 0.1) == pytest.approx(8**0.5)
    assert next_rate([(4 / 2**n, False) for n in range(17)], 4, 0.1) is None


def test_the_search_finds_the_rate_that_a_server_can_bear(emitted: Emitted) -> None:
    """One reply at a time of 20 ms or more: about 45 a second at most, above which requests come to wait."""

    async def trials() -> list[Any]:
        goals, requests = [Goal("request_latency_ms", 150)], all_asking(5, {"first": 0.02})
        options = {"first": 10.0, "precision": 0.5, "trial_seconds": 0.7, "max_concurrency": 1}
        return [trial async for trial in search(emitted.target, requests, goals, **options)]

    found = uvloop.run(trials())
    chosen = best(found)
    assert chosen is not None and 10 <= chosen.rate <= 60
    assert not found[-1].met or not any(trial.met and trial.rate > chosen.rate for trial in found)
    assert any(not trial.met for trial in found)


def test_a_search_for_what_no_rate_can_give_ends(emitted: Emitted) -> None:
    async def trials() -> list[Any]:
        goals, requests = [Goal("request_latency_ms", 10)], all_asking(5, {"first": 0.02})
        return [trial async for trial in search(emitted.target, requests, goals, first=25.0, trial_seconds=0.1)]

    found = uvloop.run(trials())
    assert best(found) is None and len(found) <= 4


def test_requests_that_had_the_server_to_themselves_are_known() -> None:
    spans = [(0, 10), (10, 30), (20, 25), (40, 50), (50, 60), (55, 56)]
    found = alone([made(number, start=start, end=end) for number, (start, end) in enumerate(spans)])
    assert [record.request.id for record in found] == ["0", "3"]


def test_a_sweep_runs_every_level_and_can_find_its_own(emitted: Emitted) -> None:
    requests = all_asking(6, FAST)

    async def levels() -> tuple[list[str], list[str]]:
        asked = [result.arrivals async for result in sweep(emitted.target, requests, [Concurrent(1), Concurrent(2)])]
        found = [result.arrivals async for result in sweep_range(emitted.target, requests, 2)]
        return asked, found

    asked, found = uvloop.run(levels())
    assert asked == ["synchronous", "2 concurrent"]
    assert found[:2] == ["synchronous", "6 concurrent"] and all(name.startswith("Poisson") for name in found[2:])
    assert rates_between(10, 40, 2) == [20, 30]


def test_variants_reach_the_server_and_come_back_as_groups(emitted: Emitted) -> None:
    requests = crossed(all_asking(3, FAST), [Variant("a"), Variant("b")])
    found = summarise(ran(run(emitted.target, requests, Concurrent(1))))
    assert [(group.name, group.replies) for group in found.variants] == [("a", 3), ("b", 3)]

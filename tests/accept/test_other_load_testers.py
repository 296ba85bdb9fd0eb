"""guidellm and aiperf drive reasond as they would any server, and find what reasond-load finds."""

import urllib.request
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from loadtest import Concurrent, LoadRequest, LoadTarget, last_digit, run, summarise
from tests.accept.other_load_testers import TOOLS, Figures, Load, command
from tests.loadtest.emitted import lateness
from tests.loadtest.test_truth import BUSY_MS
from tests.processes import ROOT, reasond

pytestmark = pytest.mark.accept

SCRIPTED = """
[engines.demo]
kind = "scripted"
model = "demo/tokenizer"
replies = [
  "<think>1 and 2 and 3 and 4 and 5 and 6 and 7 and 8</think>7 is the answer 7",
  "<think>1 and 2</think>5",
  "<no_think>the answer is 8",
]
first_token_delay = 0.15
token_delay = 0.02

[routes.demo]
engine = "demo"
family = "lhrm"
"""
RATES = ("requests_per_second", "output_tokens_per_second", "output_tokens")
# What other event loops on a busy machine may put between two clients' time stamps, in milliseconds. Not compared: the
# latency of the whole reply, which aiperf ends with the last text and reasond-load with the end of the stream.
SLACK_MS = {
    "time_to_first_token_ms": 8.0,
    "time_to_first_output_token_ms": 8.0,
    "inter_token_latency_ms": 1.0,
    "inter_chunk_latency_ms": 1.0,
}
SHARE = 0.05
ROUNDS = 3
SERVER_SAYS = {
    "time_to_first_token_ms": "reasond:time_to_first_token_seconds",
    "time_to_first_output_token_ms": "reasond:time_to_first_answer_token_seconds",
}
ADDED_MS = 25.0  # between the server's own clock and a client's, on cores that an engine takes all of


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Replies whose times are known: the engine keeps them, whoever else is busy."""
    config = tmp_path_factory.mktemp("scripted") / "config.toml"
    config.write_text(SCRIPTED.replace("demo/tokenizer", str(ROOT / "demo/tokenizer")))
    with reasond(config, log=config.with_suffix(".log")) as (url, _):
        yield url


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with reasond(ROOT / "configs/demo.toml", log=tmp_path_factory.mktemp("demo") / "log") as (url, _):
        yield url


def questions(count: int) -> Sequence[LoadRequest]:
    return last_digit(count, seed=3)


def load_on(url: str, requests: Sequence[LoadRequest], concurrency: int) -> Load:
    return Load(url, "demo", tuple(request.messages[0]["content"] for request in requests), concurrency)


def reasond_load(url: str, requests: Sequence[LoadRequest], concurrency: int) -> Figures:
    summary = summarise(uvloop.run(run(LoadTarget(url, "demo"), requests, Concurrent(concurrency))))
    assert summary.succeeded == len(requests), summary.errors
    means = {name: figures.mean for name, figures in summary.measures.items()}
    return {**means, "requests_per_second": summary.requests_per_second} | {
        "output_tokens_per_second": summary.output_tokens_per_second
    }


def told(name: str, ours: Sequence[Figures], theirs: Figures) -> None:
    print(f"\n{name:32}{'reasond-load':>24}{name:>14}")
    for figure in theirs:
        low, high = min(one[figure] for one in ours), max(one[figure] for one in ours)
        print(f"{figure:32}{f'{low:.2f} - {high:.2f}':>24}{theirs[figure]:>14.2f}")


def apart(ours: Sequence[Figures], theirs: Figures, share: float) -> list[str]:
    """The figures that lie outside what reasond-load found in its own runs, by more than the share (or SLACK_MS)."""
    found = []
    for name in [name for name in theirs if name in RATES or name in SLACK_MS]:
        low, high = min(one[name] for one in ours), max(one[name] for one in ours)
        slack = max(share * high, SLACK_MS.get(name, 0.0))
        if not low - slack <= theirs[name] <= high + slack:
            found.append(f"{name}: {theirs[name]:.2f}, reasond-load {low:.2f} to {high:.2f}")
    return found


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_agrees_on_a_scripted_engine(tool: str, concurrency: int, scripted: str, tmp_path: Path) -> None:
    """Who defines a figure otherwise differs in every round; who was woken late by a busy machine, in some.

    Few streams: replies of fixed delays run in step, and each client's own work on all their chunks at once (httpx: a
    fifteenth of a millisecond and more for each) would be in every time stamp."""
    command(tool)
    requests = questions(24 * concurrency)
    wrong, late = ["never ran"], list[float]()
    for number in range(ROUNDS):
        (folder := tmp_path / str(number)).mkdir()
        ours = [reasond_load(scripted, requests, concurrency)]
        with lateness() as round_late:
            theirs = TOOLS[tool](load_on(scripted, requests, concurrency), folder)
        ours.append(reasond_load(scripted, requests, concurrency))
        told(tool, ours, theirs)
        wrong = apart(ours, theirs, SHARE)
        late += round_late
        if not wrong:
            return
    if min(late) > BUSY_MS:
        pytest.skip(f"the machine is too busy to tell: {min(late):.1f} ms late in the best round; {wrong}")
    pytest.fail("; ".join(wrong))


@pytest.mark.e2e
def test_all_agree_with_the_server_on_the_demo(demo: str, tmp_path: Path) -> None:
    """A real engine on the clients' own cores goes the slower the more work a client makes itself. So each is held to
    what the server saw in the same run: the times of `/metrics`, and as many in flight as were asked for."""
    requests, concurrency = questions(200), 8
    reasond_load(demo, requests[:32], concurrency)
    clients: dict[str, Callable[[], Figures]] = {"reasond-load": lambda: reasond_load(demo, requests, concurrency)}
    for name, tool in TOOLS.items():
        command(name)
        (folder := tmp_path / name).mkdir()
        clients[name] = partial(tool, load_on(demo, requests, concurrency), folder)
    found, wrong = [], []
    for name, client in clients.items():
        before = seen(demo)
        figures = client()
        after = seen(demo)
        found.append(figures)
        for figure in SERVER_SAYS:
            (total, count), (total_before, count_before) = after[figure], before[figure]
            assert count - count_before == len(requests)
            server_ms = 1000 * (total - total_before) / len(requests)
            print(f"{name:14}{figure:32}{figures[figure]:8.1f}, the server {server_ms:8.1f}")
            if not 0 <= figures[figure] - server_ms <= ADDED_MS:
                wrong.append(f"{name} {figure}: {figures[figure]:.1f}, the server {server_ms:.1f}")
        in_flight = figures["requests_per_second"] * figures["request_latency_ms"] / 1000  # Little's law
        rates = ", ".join(f"{figures[rate]:.1f} {rate.replace('_', ' ')}" for rate in RATES)
        print(f"{name:14}{rates}, {in_flight:.2f} in flight")
        if not 0.85 * concurrency <= in_flight <= concurrency:
            wrong.append(f"{name}: {in_flight:.2f} in flight")
    tokens = [figures["output_tokens"] for figures in found]
    assert max(tokens) <= 1.05 * min(tokens)
    assert not wrong


def seen(url: str) -> dict[str, tuple[float, float]]:
    """The server's own times so far: sum in seconds, and of how many requests."""
    text = urllib.request.urlopen(f"{url}/metrics").read().decode()
    samples = {
        (sample.name, sample.labels.get("route")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return {
        name: (samples[f"{metric}_sum", "demo"], samples[f"{metric}_count", "demo"])
        for name, metric in SERVER_SAYS.items()
    }

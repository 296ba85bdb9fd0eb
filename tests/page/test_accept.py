"""The long criteria of the page, run by `make accept`: every control, large and small, and a very long thought."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.page.conftest import SIZES, Visit
from tests.page.site import Site, site
from tests.page.test_chat import CRATE

pytestmark = pytest.mark.accept

TOKENS = 10_000
SLOW = 50.0  # milliseconds of the main thread's own time: what browsers call a long task
TRACED = ["toplevel", "devtools.timeline", "disabled-by-default-devtools.timeline"]


def choose(label: str, value: str) -> Callable[[Visit], None]:
    return lambda seen: seen.page.get_by_label(label).first.select_option(value)


def fill(label: str, value: str) -> Callable[[Visit], None]:
    return lambda seen: seen.page.get_by_label(label).first.fill(value)


def tap(text: str) -> Callable[[Visit], None]:
    return lambda seen: seen.page.locator("#columns").get_by_text(text, exact=True).click()


EFFORT = "Effort or budget of thinking"
MORE = "Length and sampling"
CONTROLS: list[tuple[str, list[Callable[[Visit], None]], dict[str, Any]]] = [
    ("hybrid", [], {}),
    ("hybrid", [tap("Think")], {"reasond": {"mode": "think"}}),
    ("hybrid", [tap("Don't think")], {"reasond": {"mode": "no_think"}}),
    ("hybrid", [tap("Auto")], {"reasond": {"mode": "auto"}}),
    (
        "hybrid",
        [fill("Think from a probability of", "0.3")],
        {"reasond": {"mode": "auto", "think_threshold": 0.3}},
    ),
    ("hybrid", [choose(EFFORT, "medium")], {"reasoning_effort": "medium"}),
    ("hybrid", [tap("Auto"), choose(EFFORT, "medium")], {"reasond": {"mode": "auto", "budget": 48}}),
    ("hybrid", [choose(EFFORT, "tokens"), fill("Budget in tokens", "33")], {"reasond": {"budget": 33}}),
    ("qwen3", [choose(EFFORT, "tokens"), fill("Budget in tokens", "0")], {"reasond": {"budget": 0}}),
    ("guided", [tap("The target model takes over")], {"reasond": {"speculative": {"target": False}}}),
    ("best", [fill("Best of how many replies", "2")], {"reasond": {"best_of": 2}}),
    ("plain", [tap(MORE), fill("Most tokens of a reply", "40")], {"max_tokens": 40}),
    ("plain", [tap(MORE), fill("Temperature", "0.7")], {"temperature": 0.7}),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("route", "steps", "expected"), CONTROLS, ids=[f"{each[0]}-{n}" for n, each in enumerate(CONTROLS)]
)
def test_every_control_is_sent_and_honoured(visit, quick, size, route, steps, expected):
    seen = visit(quick.url, size)
    seen.route(route)
    for step in steps:
        step(seen)
    seen.ask("Say a large number" if route == "best" else CRATE)
    seen.answered()
    (body,) = seen.bodies
    told = {"model", "messages", "stream", "stream_options"}
    assert {name: value for name, value in body.items() if name not in told} == expected
    assert (body["model"], seen.page.locator(".reply .error").inner_text()) == (route, "")
    words = seen.page.locator(".reply > header .words").inner_text()
    assert words.startswith(route) and (len(words) > len(route)) == bool(expected)


@pytest.mark.parametrize("size", SIZES)
def test_settings_that_are_kept_hold_after_a_reload(visit, quick, size):
    seen = visit(quick.url, size)
    seen.route("qwen3")
    tap("Think")(seen)
    choose(EFFORT, "tokens")(seen)
    fill("Budget in tokens", "77")(seen)
    seen.page.reload()
    seen.ask("Hello!")
    seen.answered()
    assert seen.bodies[-1]["reasond"] == {"mode": "think", "budget": 77}


@pytest.fixture(scope="module", params=[0.0, 0.001], ids=["at once", "1 ms a token"])
def long(request: pytest.FixtureRequest, tokenizer: Any) -> Iterator[Site]:
    with site(tokenizer, token_delay=request.param) as here:
        yield here


@pytest.mark.parametrize("size", SIZES)
def test_a_thought_of_ten_thousand_tokens_makes_no_slow_frame(browser, visit, long, size):
    """Time of the thread and not of the clock, so that a busy neighbour does not count."""
    seen = visit(long.url, size)
    seen.route("hybrid")
    seen.chat()
    browser.start_tracing(page=seen.page, categories=TRACED)
    seen.ask("A long one")
    seen.page.locator("#send").wait_for(state="visible", timeout=120_000)
    tasks = main_thread(json.loads(browser.stop_tracing())["traceEvents"])
    tokens = int(seen.page.locator(".figures").inner_text().split(" thinking")[0].replace(",", ""))
    print(f"\n{size}: {tokens} tokens, {len(tasks)} tasks, the longest {[round(each, 1) for each in tasks[:3]]} ms")
    assert tokens >= TOKENS
    assert tasks[0] < SLOW


def main_thread(events: list[dict[str, Any]]) -> list[float]:
    """The milliseconds that the page's main thread spent in each of its tasks, the longest first."""
    named = [event for event in events if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"]
    threads = {(event["pid"], event["tid"]) for event in named}
    tasks = [event for event in events if event["name"] == "RunTask" and (event["pid"], event["tid"]) in threads]
    return sorted((event["tdur"] / 1000 for event in tasks if "tdur" in event), reverse=True)

"""The page in a real browser, at the width of a desk and of a phone."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest import Goal, RequestRecord, RunResult
from loadtest.analysis.comparison import compared
from loadtest.report.page import comparison_report, report
from tests.loadtest import browser
from tests.loadtest.made import made, result

needs_browser = pytest.mark.skipif(browser.COMMAND is None, reason="no chromium on PATH: the page was not looked at")
SIZES = {"desk": (1280, 900), "phone": (390, 844)}


def one(number: int, draw: random.Random) -> RequestRecord:
    """A reply as a thinking model gives it: harder questions think longer, small budgets are cut and often wrong."""
    variant, budget = draw.choice([("no_think", 0), ("budget 32", 32), ("budget 128", 128), ("think <&> long", 512)])
    difficulty = draw.choice([1, 2, 4, 8])
    wanted = int(difficulty * 20 * draw.uniform(0.5, 2)) if budget else 0
    used, start = min(budget, wanted), number * 12.0
    first = start + draw.uniform(30, 90)
    thinking = [first + 4 * step for step in range(used)]
    begun = first + 4 * used
    right = draw.random() < (0.9 if used == wanted else 0.4) - 0.03 * difficulty
    decision = {
        "mode": "think" if budget else "no_think",
        "chosen_by": "client",
        "budget": {"requested": budget, "used": used},
        "cut": "hard" if used < wanted else None,
    }
    record = made(
        number,
        scheduled=start - draw.uniform(0, 3),
        start=start,
        end=begun + 9,
        reasoning=thinking,
        answer=[begun, begun + 4, begun + 8],
        decision=decision,
        error="http_503" if draw.random() < 0.03 else None,
        request={"variant": variant, "difficulty": difficulty, "answer": "7"},
    )
    return replace(record, answer="7" if right else "3")


def level(seed: int, count: int, rate: float) -> RunResult:
    draw = random.Random(seed)
    made_up = result([one(number, draw) for number in range(count)], seconds=count * 0.012)
    return replace(made_up, rate=rate, arrivals=f"Poisson {rate:g}/s")


MODES = ("auto", "always", "never")


def alike(seed: int) -> list[RunResult]:
    """Two rounds without variants."""
    found = []
    for whole in (level(seed, 40, 9), level(seed + 9, 40, 9)):
        records = (replace(record, request=replace(record.request, variant="")) for record in whole.records)
        found.append(replace(whole, records=tuple(records)))
    return found


PAGES = {
    "run": lambda: report([level(1, 300, 80)], [Goal("time_to_first_token_ms", 70)]),
    "sweep": lambda: report([level(n, 60 * n, 20.0 * n) for n in (1, 2, 3)], headline="three levels"),
    "comparison": lambda: comparison_report(
        compared(*((name, [level(n + 9 * place, 40, 9) for n in range(3)]) for place, name in enumerate("ABC")))
    ),
    "modes": lambda: comparison_report(compared(*((name, alike(place)) for place, name in enumerate(MODES)))),
    "bare": lambda: report([result([made()])]),
}
PLOTS = {"run": 6, "sweep": 6, "comparison": 7, "modes": 7, "bare": 2}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    with browser.browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@needs_browser
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_whole_in_a_browser(name: str, size: str, opened: browser.Browser, tmp_path: Path) -> None:
    page = tmp_path / f"{name}.html"
    page.write_text(PAGES[name](), encoding="utf-8")
    opened.open(page, *SIZES[size])
    opened.screenshot(tmp_path / f"{name}-{size}.png")
    assert not opened.said("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    asked = [event["request"]["url"] for event in opened.said("Network.requestWillBeSent")]
    assert all(url == page.as_uri() or url.startswith("data:") for url in asked), asked
    assert opened.value("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the window"
    assert opened.value("document.querySelectorAll('figure svg').length") == PLOTS[name]
    drawn = "[...document.querySelectorAll('figure svg')].every(svg => {const b = svg.getBoundingClientRect();"
    drawn += "return b.width > 300 && b.height > 80 && svg.querySelectorAll('path, use').length > 8})"
    assert opened.value(drawn)
    smallest = "Math.min(...[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height))"
    assert opened.value(smallest) > 9, "text too small to read"


@needs_browser
def test_three_sides_fit_beside_each_other_on_a_phone(opened: browser.Browser, tmp_path: Path) -> None:
    page = tmp_path / "modes.html"
    page.write_text(PAGES["modes"](), encoding="utf-8")
    opened.open(page, *SIZES["phone"])
    table = "[...document.querySelectorAll('section')].find(one => one.textContent.startsWith('Side by side'))"
    assert opened.value(f"{table}.querySelectorAll('thead th').length") == 1 + len(MODES)
    assert opened.value(f"(box => box.scrollWidth <= box.clientWidth)({table}.querySelector('.scroll'))")
    words = "[...document.querySelectorAll('figure:first-of-type svg text')].map(one => one.textContent)"
    assert set(MODES) <= set(opened.value(words)), "the legend names the sides"


@needs_browser
def test_the_page_prints(opened: browser.Browser, tmp_path: Path) -> None:
    page = tmp_path / "run.html"
    page.write_text(PAGES["run"](), encoding="utf-8")
    opened.open(page, *SIZES["desk"])
    opened.pdf(tmp_path / "run.pdf")
    printed = (tmp_path / "run.pdf").read_bytes()
    assert printed.startswith(b"%PDF") and 1 <= printed.count(b"/Type /Page\n") <= 4


def test_the_page_needs_nothing_but_itself() -> None:
    for build in PAGES.values():
        text = build()
        assert (
            "<script" not in text and "http://" not in text.replace("http://127.0.0.1:1", "") and "https://" not in text
        )
        assert "nan" not in text.lower().replace("finance", "")


def test_names_from_outside_are_text_on_the_page() -> None:
    text = PAGES["run"]()
    assert "think &lt;&amp;&gt; long" in text and "<&>" not in text


def test_the_page_stays_small() -> None:
    assert len(report([level(1, 2000, 80)])) < 200_000


def test_a_report_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        report([])


def test_a_run_in_which_all_failed_still_has_a_page() -> None:
    assert "http_503" in report([result([made(error="http_503")])])

"""A browser, a server to look at, and pages that hold no error when a test is over."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from models.text.tokenizer import HubTokenizer
from tests.page.site import Site, site

CHROMIUM = shutil.which("chromium")
SIZES = {"desktop": (1280, 860), "phone": (390, 844)}
PACE = 0.03  # seconds a token, where a test looks at a reply while it runs; a busy machine looks slowly


class Visit:
    """One page in a window of its own. `problems` are what the browser complained of, `hosts` where it went."""

    def __init__(self, browser: Any, url: str, size: str, path: str, **options: Any) -> None:
        width, height = SIZES[size]
        phone = {"is_mobile": True, "has_touch": True} if size == "phone" else {}
        self.context = browser.new_context(viewport={"width": width, "height": height}, **phone, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.url = url
        self.problems: list[str] = []
        self.hosts: set[str] = set()
        self.bodies: list[dict[str, Any]] = []
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.problems.append(said.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", self._asked)
        self.page.goto(url + path)

    def _asked(self, request: Any) -> None:
        if request.url.startswith("http"):
            self.hosts.add(urlsplit(request.url).netloc)
        if request.url.endswith("/v1/chat/completions"):
            self.bodies.append(json.loads(request.post_data))

    def expect(self, selector: str) -> Any:
        from playwright.sync_api import expect

        expect.set_options(timeout=20_000)
        return expect(self.page.locator(selector))

    def settings(self) -> None:
        """Opens them, where they are not in sight."""
        self.page.locator("#columns > details").first.wait_for(state="attached")
        if self.page.locator("#toggle").is_visible() and not self.page.locator("#side").is_visible():
            self.page.click("#toggle")

    def chat(self) -> None:
        if self.page.locator("#toggle").is_visible() and self.page.locator("#side").is_visible():
            self.page.click("#toggle")

    def route(self, name: str) -> None:
        self.settings()
        self.page.get_by_label("Route", exact=True).first.select_option(name)

    def ask(self, question: str) -> None:
        self.chat()
        self.page.locator("#columns > details").first.wait_for(state="attached")
        self.page.fill("#question", question)
        self.page.press("#question", "Enter")

    def answered(self) -> None:
        """Waits until nothing runs any more."""
        self.expect("#send").to_be_visible()
        self.expect(".reply.running").to_have_count(0)

    def rows(self, reply: int = 0) -> dict[str, str]:
        """The decision record of a reply as it is told."""
        decision = self.page.locator(".reply").nth(reply).locator(".decision")
        if not decision.evaluate("each => each.open"):
            decision.locator("summary").click()
        labels, texts = decision.locator("dt").all_inner_texts(), decision.locator("dd").all_inner_texts()
        return dict(zip(labels, texts, strict=True))

    def findings(self) -> list[str]:
        """What axe-core finds serious or worse."""
        package = pytest.importorskip("axe_playwright_python", reason="needs the extra `dev`")
        self.page.evaluate((Path(package.__path__[0]) / "axe.min.js").read_text(encoding="utf-8"))
        found = self.page.evaluate("() => axe.run().then(({ violations }) => violations)")
        grave = [each for each in found if each["impact"] in ("serious", "critical")]
        return [f"{each['id']}: {node['html']}" for each in grave for node in each["nodes"]]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Not for the whole session: while Playwright is there, no other test can run an event loop in this thread."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright (the extra `dev`)")
    if CHROMIUM is None:
        pytest.skip("needs Debian's package `chromium`")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def quick(tokenizer: HubTokenizer) -> Iterator[Site]:
    """A server whose models take no time."""
    with site(tokenizer) as here:
        yield here


@pytest.fixture(scope="module")
def slow(tokenizer: HubTokenizer) -> Iterator[Site]:
    """A server whose models can be watched."""
    with site(tokenizer, token_delay=PACE) as here:
        yield here


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Visit]]:
    """`visit(url)`: a page. When the test is over it must have asked no other host, and complained of nothing but what
    was put into `expected`."""
    visits: list[tuple[Visit, tuple[str, ...]]] = []

    def open_page(
        url: str, size: str = "desktop", path: str = "/", expected: tuple[str, ...] = (), **options: Any
    ) -> Visit:
        visits.append((Visit(browser, url, size, path, **options), expected))
        return visits[-1][0]

    yield open_page
    for each, expected in visits:
        each.context.close()
        assert each.hosts <= {urlsplit(each.url).netloc}
        assert [problem for problem in each.problems if not any(text in problem for text in expected)] == []

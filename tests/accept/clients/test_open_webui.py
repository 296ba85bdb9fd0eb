"""Open WebUI in a browser: thinking, a second turn, a tool, titles, and stop. It looks at nothing but the loopback."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.accept.clients.model import clients_server
from tests.e2e.environments import environment
from tests.processes import free_port, running

pytestmark = pytest.mark.accept
WEBUI = ("open-webui==0.12.4",)
TITLE, NEXT = "Made by the model", "And then?"
THOUGHT = re.compile(r"^I thought of \d turns\.$")
SETTINGS = {
    "WEBUI_AUTH": "False",
    "WEBUI_SECRET_KEY": "any",
    "ENABLE_OLLAMA_API": "False",
    "OPENAI_API_KEY": "any",
    "OFFLINE_MODE": "True",
    "BYPASS_EMBEDDING_AND_RETRIEVAL": "True",
    "RAG_EMBEDDING_ENGINE": "openai",
    "ANONYMIZED_TELEMETRY": "False",
    "DO_NOT_TRACK": "True",
    "SCARF_NO_ANALYTICS": "True",
    "TITLE_GENERATION_PROMPT_TEMPLATE": f'JSON {{"title": "{TITLE}"}}',
    "TAGS_GENERATION_PROMPT_TEMPLATE": 'JSON {"tags": ["here"]}',
    "FOLLOW_UP_GENERATION_PROMPT_TEMPLATE": f'JSON {{"follow_ups": ["{NEXT}"]}}',
}
SECONDS, LOOK = 900, 120  # to start, and to show something, on a machine that does other things as well
PACE = 0.05  # seconds a token, so that there is something to stop
LONG = " ".join(f"w{i}" for i in range(1000))


@contextmanager
def open_webui(url: str, folder: Path) -> Iterator[str]:
    """Open WebUI with an empty home, before a server of ours: its address."""
    port = free_port()
    here = f"http://127.0.0.1:{port}"
    command = [str(environment("open-webui", WEBUI) / "open-webui"), "serve", "--host", "127.0.0.1", "--port"]
    homes = {"HOME": str(folder), "DATA_DIR": str(folder / "data"), "OPENAI_API_BASE_URL": f"{url}/v1"}
    settings = {**SETTINGS, **homes}
    with running([*command, str(port)], f"{here}/health", settings, SECONDS, log=folder / "log", folder=folder):
        yield here


class Window:
    """A browser's window on it. What it shows is kept as pictures in `folder`."""

    def __init__(self, browser: Any, url: str, folder: Path) -> None:
        self.page = browser.new_page(viewport={"width": 1280, "height": 860})
        self.page.set_default_timeout(LOOK * 1000)
        self.hosts: set[str] = set()
        self.page.on("request", lambda asked: self.hosts.add(urlsplit(asked.url).netloc))
        self.page.goto(url)
        self.page.get_by_text("Okay, Let's Go!").click()
        self._folder = folder

    def ask(self, *lines: str) -> None:
        self.page.locator("#chat-input").click()
        for i, line in enumerate(lines):
            if i:
                self.page.keyboard.press("Shift+Enter")
            self.page.keyboard.insert_text(line)
        self.page.keyboard.press("Enter")

    def shows(self, text: str | re.Pattern[str], picture: str) -> None:
        self.page.get_by_text(text, exact=True).last.wait_for()
        self.page.screenshot(path=self._folder / f"{picture}.png")

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name).last.click()


def test_a_person_sees_the_thinking_goes_on_uses_a_tool_and_stops(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REASOND_API_KEYS", raising=False)
    with clients_server("qwen3", token_delay=PACE) as (server, model), open_webui(server.url, tmp_path) as here:
        window = Window(browser, here, tmp_path)
        window.ask("SAY hello from here")
        window.shows("hello from here", "answer")
        window.shows(TITLE, "title")
        window.shows(NEXT, "follow-up")  # the last that comes: nothing on the page is drawn anew any more
        window.press("Thought for")
        window.shows(THOUGHT, "thinking")

        window.ask("CALL get_current_timestamp {}", "SAY the tool was called")
        window.shows("the tool was called", "tool")
        asked = next(prompt for prompt in reversed(model.prompts) if "current_iso" in prompt)
        assert "hello from here" in asked

        window.ask(f"SAY {LONG}")
        window.page.get_by_text(re.compile(f"^{LONG[:20]}")).last.wait_for()
        window.press("Stop")
        assert server.until_idle(LOOK) == 0
        window.page.screenshot(path=tmp_path / "stopped.png")
        assert window.page.locator("body").inner_text().count(LONG[-20:]) == 1, "the question's own"
        window.ask("SAY it goes on")
        window.shows("it goes on", "after")
        assert window.hosts == {urlsplit(here).netloc}

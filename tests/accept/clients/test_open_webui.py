"""Open WebUI in a browser: thinking, a second turn, a tool, titles, and stop. It looks at nothing but the loopback."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.accept.clients.model import Reader, clients_server
from tests.e2e.environments import environment
from tests.page.conftest import browser  # noqa: F401
from tests.processes import free_port, running
from tests.wire.served import Served

pytestmark = pytest.mark.accept
WEBUI = ("open-webui==0.12.4",)
TITLE = "Made by the model"
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
    "FOLLOW_UP_GENERATION_PROMPT_TEMPLATE": 'JSON {"follow_ups": ["SAY a third"]}',
}
SECONDS = 300  # to start, on a machine that does other things as well
PACE = 0.05  # seconds a token, so that there is something to stop
LONG = " ".join(f"w{i}" for i in range(1000))


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Served, Reader]]:
    with clients_server("qwen3", token_delay=PACE) as both:
        yield both


@contextmanager
def open_webui(url: str, folder: Path) -> Iterator[str]:
    """Open WebUI with an empty home, before a server of ours: its address."""
    port = free_port()
    here = f"http://127.0.0.1:{port}"
    homes = {"HOME": str(folder), "DATA_DIR": str(folder / "data"), "OPENAI_API_BASE_URL": f"{url}/v1"}
    command = [str(environment("open-webui", WEBUI) / "open-webui"), "serve", "--host", "127.0.0.1"]
    with running(
        [*command, "--port", str(port)],
        f"{here}/health",
        {**SETTINGS, **homes},
        SECONDS,
        log=folder / "log",
        folder=folder,
    ):
        yield here

"""A first token after a minute and a minute of hidden thinking: no API is silent, and no proxy that gives up on silence
cuts a stream."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.text.tokenizer import HubTokenizer
from server.config.load import ServerConfig
from tests.processes import free_port
from tests.wire.served import ANSWER, SETTINGS, Heard, chat_body, listen, served

pytestmark = pytest.mark.accept
MINUTE = 60
THOUGHT = "so " * (MINUTE // 2)
PATIENCE = 15
NGINX = """
daemon off;
master_process off;
pid FOLDER/pid;
error_log FOLDER/errors;
events {}
http {
  access_log off;
  client_body_temp_path FOLDER/body;
  proxy_temp_path FOLDER/proxy;
  fastcgi_temp_path FOLDER/fastcgi;
  uwsgi_temp_path FOLDER/uwsgi;
  scgi_temp_path FOLDER/scgi;
  server {
    listen 127.0.0.1:PORT;
    location / {
      proxy_pass URL;
      proxy_http_version 1.1;
      proxy_buffering off;
      proxy_read_timeout PATIENCEs;
    }
  }
}
"""
HIDDEN = {"include_reasoning": False, "stream": True, "reasond": {"mode": "think"}}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": chat_body(**HIDDEN),
    "/v1/messages": chat_body(max_tokens=400, **HIDDEN),
    "/v1/responses": {"model": "demo", "input": "hi", **HIDDEN},
}


@contextmanager
def nginx(folder: Path, url: str) -> Iterator[str]:
    """A proxy before `url` that gives up after `PATIENCE` seconds of silence."""
    program, port = shutil.which("nginx") or "/usr/sbin/nginx", free_port()
    config = folder / "nginx.conf"
    text = NGINX.replace("FOLDER", str(folder)).replace("PORT", str(port)).replace("URL", url)
    config.write_text(text.replace("PATIENCE", str(PATIENCE)))
    process = subprocess.Popen([program, "-c", str(config), "-e", str(folder / "errors")])
    try:
        _wait(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _wait(url: str) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{url}/health")
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("nginx did not start")


def test_two_silent_minutes_are_heard_through_bare_and_behind_nginx(tokenizer: HubTokenizer, tmp_path: Path) -> None:
    silence = ServerConfig().keep_alive_seconds
    assert silence < PATIENCE
    script = [f"<think>{THOUGHT}</think>{ANSWER}"]
    pace = {"first_token_delay": MINUTE, "token_delay": MINUTE / len(tokenizer.encode(THOUGHT))}
    with (
        served(tokenizer, script, SETTINGS, 1024, **pace) as server,
        nginx(tmp_path, server.url) as proxy,
        ThreadPoolExecutor() as pool,
    ):
        asked = [
            (path, pool.submit(listen, url, path, body)) for url in (server.url, proxy) for path, body in BODIES.items()
        ]
        heard = [(path, each.result()) for path, each in asked]
    for path, each in heard:
        print(f"{path}: first byte {each.times[0]:.2f} s, longest silence {each.longest_silence:.2f} s")
    for path, each in heard:
        assert each.status == 200, path
        assert each.times[0] < 1
        assert each.longest_silence < silence + 1
        assert each.times[-1] > 2 * MINUTE
        assert _whole(each)
    assert (tmp_path / "errors").read_text() == ""


def _whole(heard: Heard) -> bool:
    """Whether the answer came to its end."""
    return any(end in heard.text for end in ("data: [DONE]", "event: message_stop", "event: response.completed"))

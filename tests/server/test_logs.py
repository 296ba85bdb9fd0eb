"""The log: what a line holds, and that none holds a prompt unless the settings ask for it."""

import asyncio
import io
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from models.engines.base import EngineDead
from models.engines.scripted import ScriptedEngine, ScriptedReply
from server.app import create_app
from server.config.load import LoggingConfig, parse_config
from server.observability import logs
from server.serve import build_server
from tests.server.conftest import ENGINE_AND_ROUTE, ROOT
from tests.server.running import running

SECRET = "my-diagnosis-is-xyzzy"


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What the process's log holds, at every level."""
    text = io.StringIO()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield text
    root.handlers[:] = before
    root.setLevel(level)


def capture(written: io.StringIO, **settings: object) -> None:
    """As the command sets the log up, into a string."""
    logs.configure(LoggingConfig.model_validate({"level": "debug", "requests": True, **settings}), written)


def failing(prompt, sampling) -> ScriptedReply:
    """A reply that breaks with an exception that quotes the prompt, and one below it that does too."""
    said = tokenizer_text(prompt)
    try:
        raise ValueError(f"inside: {said}")
    except ValueError as error:
        broken = RuntimeError(f"cannot serve {said}")
        broken.add_note(said)
        broken.__cause__ = error
    return ScriptedReply("<no_think>5", error=broken)


def tokenizer_text(prompt) -> str:
    return f"{SECRET} {len(prompt.token_ids)}"


def chat(**fields: object) -> dict[str, object]:
    return {"model": "demo", "messages": [{"role": "user", "content": SECRET}], **fields}


BODIES = [
    chat(),
    chat(stream=True),
    chat(n=2),
    chat(messages=[{"role": SECRET, "content": SECRET}]),
    chat(temperature=SECRET),
    chat(**{SECRET: 1}),
    chat(model=SECRET),
    chat(reasond={"mode": SECRET}),
    chat(messages=[{"role": "user", "content": SECRET * 500}]),
    chat(stop=[SECRET]),
    {"model": "demo", "prompt": SECRET},
    {"model": "demo", "prompt": SECRET, "stream": True, "echo": True},
]


async def ask_everything(address: str) -> int:
    """Requests that succeed, are refused or break, all of them about the secret. Returns how many."""
    paths = ("/v1/chat/completions", "/v1/completions")
    async with httpx.AsyncClient(base_url=address) as client:
        answers = [await client.post(path, json=body) for path in paths for body in BODIES]
        answers += [await client.post(path, content=f'{{"{SECRET}') for path in paths]
    assert {answer.status_code for answer in answers} >= {200, 400, 404}
    for path in (f"/v1/models/{SECRET}", f"/{SECRET}?q={SECRET}"):
        await asyncio.to_thread(lost, address + path)
    return len(answers) + 2


def lost(url: str) -> None:
    """Asks for what is not there, by a client that does not log the address itself."""
    with pytest.raises(urllib.error.HTTPError, match="404") as refusal:
        urllib.request.urlopen(urllib.request.Request(url, headers={"x-request-id": f"{SECRET} {SECRET}"}))
    refusal.value.close()


@pytest.mark.anyio
@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("breaks", [False, True])
async def test_no_line_at_any_level_holds_a_prompt_by_default(tokenizer, written, form, breaks):
    engine = ScriptedEngine(tokenizer, failing if breaks else ["<no_think>5</no_think>"], name="demo")
    config = parse_config(f"[server]\nport = 0\n{ENGINE_AND_ROUTE}", ROOT)
    capture(written, format=form)
    asyncio.get_running_loop().set_exception_handler(logs.report_loop_error)
    app = create_app(config, {"demo": engine}, [logs.log_request])
    async with running(build_server(config, app)) as address:
        asked = await ask_everything(address)
        asyncio.get_running_loop().call_exception_handler(
            {"message": "a task failed", "task": f"<Task {SECRET}>", "exception": RuntimeError(SECRET)}
        )
    text = written.getvalue()
    assert text.count("request_id") == asked
    assert "RuntimeError" in text
    assert ("ValueError" in text) == breaks
    assert SECRET not in text


@pytest.mark.anyio
async def test_a_request_is_one_json_line_with_its_id_and_its_decision(make_app, make_client, written):
    capture(written, format="json")
    async with make_client(make_app(observers=[logs.log_request])) as client:
        await client.post("/v1/chat/completions", json=chat(), headers={"x-request-id": "r1"})
        await client.get("/health")
    (line,) = [json.loads(line) for line in written.getvalue().splitlines() if '"r1"' in line]
    assert line["time"].endswith("+00:00")
    expected = {
        "level": "info",
        "logger": "server.observability.logs",
        "message": "request",
        "request_id": "r1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "route": "demo",
        "outcome": "ok",
        "mode": "no_think",
        "chosen_by": "model",
        "choices": 1,
        "reasoning_tokens": 0,
    }
    assert line.items() >= expected.items()
    assert 0 < line["first_token_seconds"] <= line["first_answer_seconds"] <= line["seconds"]
    health = next(json.loads(line) for line in written.getvalue().splitlines() if '"/health"' in line)
    assert health["level"] == "debug"


@pytest.mark.anyio
async def test_prompts_are_logged_where_the_settings_ask_for_them(make_app, make_client, written):
    capture(written, prompts=True)
    asked = make_app(extra="[logging]\nrequests = true\nprompts = true\n", observers=[logs.log_request])
    async with make_client(asked) as client:
        await client.post("/v1/chat/completions", json=chat())
    assert SECRET in written.getvalue()


def test_a_traceback_says_where_and_what_class_and_what_cannot_quote_a_request():
    def broken() -> BaseException:
        try:
            try:
                Path("/nowhere/at/all").read_text()
            except OSError as error:
                raise EngineDead("engine demo has stopped") from error
        except EngineDead as error:
            return ExceptionGroup(SECRET, [error, KeyError(SECRET)])

    told = logs.traceback_text(broken(), full=False)
    assert "FileNotFoundError: No such file or directory" in told
    assert "models.engines.base.EngineDead: engine demo has stopped" in told
    assert "in broken" in told
    assert told.splitlines()[-1] == "ExceptionGroup"
    assert SECRET not in told
    assert SECRET in logs.traceback_text(broken(), full=True)


@pytest.mark.anyio
async def test_a_response_in_the_background_has_its_line_when_it_has_ended(make_app, make_client, written):
    capture(written, format="json")
    app = make_app(observers=[logs.log_request])
    async with make_client(app) as client:
        body = {"model": "demo", "input": SECRET, "background": True}
        await client.post("/v1/responses", json=body, headers={"x-request-id": "b1"})
        await asyncio.wait(app.state.runtime.background)
    lines = [line for line in map(json.loads, written.getvalue().splitlines()) if line.get("request_id") == "b1"]
    answered, ended = lines
    assert (answered["message"], answered["status"]) == ("request", 200)
    assert "outcome" not in answered
    assert (ended["message"], ended["path"]) == ("background", "/v1/responses")
    assert (ended["route"], ended["outcome"], ended["mode"], ended["answer_tokens"]) == ("demo", "ok", "no_think", 2)
    assert SECRET not in written.getvalue()

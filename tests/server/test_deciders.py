"""A route with a decider, a deadline and a shadow, as it is served."""

import json
from collections.abc import Sequence

import anyio
import httpx
import pytest

from controllers.generation.events import Finished
from models.engines.base import Prompt, Sampling
from models.engines.scripted import Line, ScriptedEngine, ScriptedReply
from models.text.tokenizer import HubTokenizer
from server.app import Application, create_app
from server.config.load import ConfigError, parse_config
from server.observability.metrics import Metrics
from tests.server.conftest import ROOT
from tests.server.test_metrics import DECIDED, chunk, observer, value

ROUTE = """
[engines.demo]
kind = "scripted"
model = "demo/tokenizer"

[routes.main]
engine = "demo"
family = "qwen3"
"""
DRAFT = 'auto = { decider = "draft", raw_threshold = 0.5, shadow_rate = 1.0, shadow_compare = "number" }\n'
DIRECT = "it is 391"


def served(tokenizer: HubTokenizer, more: str, logprob: float = -0.1) -> Application:
    def script(prompt: Prompt, sampling: Sampling) -> Line:
        reply = tokenizer.decode(prompt.token_ids, skip_special_tokens=False).rpartition("assistant\n")[2]
        if "</think>" not in reply:
            return "so</think>17*23 is 391"
        return ScriptedReply(DIRECT, dict.fromkeys(tokenizer.encode(DIRECT), logprob))

    return create_app(parse_config(ROUTE + more, ROOT), {"demo": ScriptedEngine(tokenizer, script, name="demo")})


async def ask(app: Application, **fields: object) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://reasond") as client:
        body = {"model": "main", "messages": [{"role": "user", "content": "17*23?"}], **fields}
        return await client.post("/v1/chat/completions", json=body)


def frames(response: httpx.Response) -> Sequence[dict[str, object]]:
    lines = (line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: {"))
    return [json.loads(line) for line in lines]


def sample(app: Application, name: str, **labels: str) -> float | None:
    return app.state.runtime.metrics.registry.get_sample_value(f"reasond:{name}", labels)


@pytest.mark.anyio
@pytest.mark.parametrize(("logprob", "mode"), [(-0.1, "no_think"), (-3.0, "think")])
async def test_a_stream_begins_with_the_decision_and_whole_and_stream_are_one(
    tokenizer: HubTokenizer, logprob: float, mode: str
) -> None:
    app = served(tokenizer, DRAFT, logprob)
    streamed = frames(await ask(app, stream=True, n=2))
    whole = (await ask(app)).json()
    assert streamed[0]["reasond"]["mode"] == whole["reasond"]["mode"] == mode  # type: ignore[index]
    said = [
        "".join(
            each["choices"][0]["delta"].get("content", "") for each in streamed if each["choices"][0]["index"] == at
        )  # type: ignore[index]
        for at in range(2)
    ]
    assert set(said) == {whole["choices"][0]["message"]["content"]}
    assert sample(app, "mode_decisions_total", route="main", mode=mode, source="draft") == 3
    assert sample(app, "p_think_count", route="main") == 3
    spent = sample(app, "decision_tokens_total", route="main")
    assert spent == 3 * whole["reasond"].get("decision_tokens", 0)
    assert whole["reasond"].get("discarded_tokens", 0) * 3 == spent
    assert sample(app, "held_seconds_count", route="main") == (3 if mode == "no_think" else 0)
    await anyio.sleep(0.2)
    assert bool(sample(app, "shadow_replies_total", route="main", same="true")) == (mode == "no_think")


@pytest.mark.anyio
async def test_deadlines_of_request_key_and_route_are_kept_and_counted(tokenizer: HubTokenizer) -> None:
    app = served(tokenizer, "[routes.main.load]\ngoal_seconds = 30\n")
    record = (await ask(app)).json()["reasond"]
    assert record["deadline"]["seconds"] == 30
    record = (await ask(app, reasond={"deadline_seconds": 20})).json()["reasond"]
    assert record["deadline"]["seconds"] == 20
    assert sample(app, "deadlines_total", route="main", met="true") == 2
    assert sample(app, "pressure", engine="demo") is not None
    refused = await ask(app, reasond={"deadline_seconds": 0})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "reasond.deadline_seconds")


def test_an_answer_that_never_began_has_missed_its_deadline() -> None:
    metrics = Metrics(["demo", "other"])
    late = {"deadline": {"seconds": 0.0, "tokens": None}}
    with observer(metrics) as request:
        for index in range(3):
            request.saw(index, DECIDED)
        request.saw(0, chunk("answer", "4"))
        ended = Finished("stop", None, 20, 12, 7, 2, DECIDED, more=late)
        request.saw(0, ended)
        request.saw(1, ended)
        request.saw(2, Finished("stop", None, 20, 12, 7, 2, DECIDED, more=late, cancelled=True))
    assert value(metrics, "deadlines_total", met="false") == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('auto = { decider = "draft" }\n', "raw_threshold"),
        ('auto = { decider = "guess" }\n', "unknown decider 'guess'"),
        ('auto = { decider = "ask", calibration = "nowhere.json" }\n', "does not exist"),
        ('auto = { decider = "chain", links = [{ decider = "ask" }, { decider = "x" }] }\n', "unknown decider 'x'"),
    ],
)
def test_what_is_wrong_with_a_decider_is_said_at_start(more: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(ROUTE + more, ROOT)


def test_a_goal_needs_thinking_that_could_end_sooner() -> None:
    plain = ROUTE.replace("qwen3", "plain")
    with pytest.raises(ConfigError, match=r"routes\.main\.load"):
        parse_config(plain + "[routes.main.load]\ngoal_seconds = 30\n", ROOT)

"""A server with a judge route over a script that judges by a rule."""

from collections.abc import Callable

import httpx

from models.engines.scripted import Line, ScriptedEngine
from models.text.tokenizer import HubTokenizer
from server.app import Application, create_app
from server.config.load import parse_config
from tests.judging import Reader, larger_number
from tests.server.conftest import ROOT

JUDGE = """
[engines.judge]
kind = "scripted"
model = "demo/tokenizer"

[routes.judge]
engine = "judge"
family = "lhrm"
controller = "judge"
"""


class JudgeServer:
    """The application, its script and a client of it."""

    def __init__(
        self,
        tokenizer: HubTokenizer,
        rule: Callable[[str, str], Line] = larger_number,
        single: Callable[[str, str], Line] | None = None,
        *,
        settings: str = "",
        key: str = "",
        family: str = "lhrm",
        engines: dict[str, ScriptedEngine] | None = None,
        context_length: int = 4096,
        **engine: float,
    ) -> None:
        self.reader = Reader(tokenizer, rule, single)
        self.engine = ScriptedEngine(tokenizer, self.reader, name="judge", context_length=context_length, **engine)
        config = parse_config(JUDGE.replace('"lhrm"', f'"{family}"') + settings, ROOT)
        self.app: Application = create_app(config, {"judge": self.engine, **(engines or {})})
        headers = {"authorization": f"Bearer {key}"} if key else {}
        transport = httpx.ASGITransport(self.app)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://reasond", headers=headers)

    async def post(self, path: str, body: object) -> httpx.Response:
        return await self.client.post(path, json=body)

    def metric(self, name: str, **labels: str) -> float | None:
        registry = self.app.state.runtime.metrics.registry
        value: float | None = registry.get_sample_value(f"reasond:{name}", {"route": "judge", **labels})
        return value

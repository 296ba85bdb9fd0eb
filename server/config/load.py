"""One TOML file to checked, frozen settings. Every error names the key it is about.

Imports neither the web framework nor any engine, so that `reasond --help` answers at once.
"""

import re
import tomllib
from base64 import b64decode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SecretBytes,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from controllers.policy.fold import modes
from controllers.policy.speculation import OnFailure
from models.config import Section, Tokens, resolve
from models.engines import EngineConfig
from models.formats import FAMILIES
from models.formats.reasoning import ReasoningFormat, read_formats
from models.judge_prompts.families import JUDGE_FAMILIES
from server.config.engines import AnyEngineConfig, memory_problems
from server.config.routes import AUTO, BudgetsConfig, RouteConfig

RUN_FILE = "reasond.toml"  # the configuration that a training run leaves in its folder
MIB = 1024 * 1024
ROUTE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")


class ConfigError(Exception):
    """The configuration cannot be used. The message has one line a problem, each beginning with its key."""


def key_bytes(text: str) -> bytes:
    """A key that is written in hex or base64."""
    try:
        key = bytes.fromhex(text) if re.fullmatch(r"[0-9a-fA-F]*", text) else b64decode(text, validate=True)
    except (ValueError, TypeError) as error:
        raise ValueError("expected hex or base64") from error
    if text and len(key) < 16:
        raise ValueError(f"{len(key)} bytes; a key has at least 16")
    return key


class ServerConfig(Section):
    """`[server]`: the HTTP edge.

    `processes`: how many share the port, each with an event loop of its own; for engines elsewhere.
    `drain_seconds`: how long running requests may go on after a stop signal. `notice_seconds`: how long before that
    the server says at /ready that it drains and still takes new requests, for balancers that ask now and then.
    `keep_alive_seconds`: after so much silence a stream sends a comment, or a ping, so that nobody takes it for dead.
    `head_seconds` is for the head of a request to arrive in, `body_seconds` for each MiB of its body.
    `page`: the built-in page at `/` and `/status`.
    `stored_responses` and `stored_bytes` bound what /v1/responses keeps in memory for all keys together, and how many
    responses run in the background; of the key that keeps the most, the oldest go first. `max_replies` bounds how many
    replies one request may have drawn. Tools that the server would have to run are left out of a request and told in
    its record; with `refuse_hosted_tools` the request is refused. `seal_key`, at least 16 bytes in hex or base64, seals
    the thinking that clients carry unread; left out, each process has its own. `store` keeps responses elsewhere, for
    `store_seconds`: a file (`sqlite:PATH`), `redis://...`, or what the variable `store_env` holds.
    """

    processes: int = Field(default=1, ge=1, le=256)
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    cors_origins: tuple[Annotated[str, Field(pattern=r"^(\*|https?://[^/]+)$")], ...] = ()
    keys_file: str = ""
    page: bool = True
    max_body_bytes: int = Field(default=32 * MIB, ge=1)
    max_head_bytes: int = Field(default=64 * 1024, ge=1024)
    head_seconds: float = Field(default=30.0, gt=0)
    body_seconds: float = Field(default=60.0, gt=0)
    keep_alive_seconds: float = Field(default=10.0, gt=0)
    drain_seconds: float = Field(default=30.0, ge=0)
    notice_seconds: float = Field(default=0.0, ge=0)
    stored_responses: int = Field(default=1000, ge=0)
    stored_bytes: int = Field(default=64 * MIB, ge=0)
    store: str = Field(default="", pattern=r"^(sqlite:.+|(redis|rediss|unix)://.+)?$")
    store_env: str = "REASOND_STORE"
    store_seconds: float = Field(default=30 * 86400.0, gt=0)
    max_replies: int = Field(default=1024, ge=1)
    refuse_hosted_tools: bool = False
    seal_key: Annotated[SecretBytes, BeforeValidator(key_bytes)] = SecretBytes(b"")

    @field_validator("keys_file")
    @classmethod
    def _file_exists(cls, value: str, info: ValidationInfo) -> str:
        return resolve(value, info, must_exist=True) if value else ""


class LoggingConfig(Section):
    """`[logging]`, to standard error. `json` is one object a line. `requests`: one line a request, when it is over.
    `prompts`: request bodies in those lines, and what exceptions say, which may quote them.
    """

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
    requests: bool = False
    prompts: bool = False


class TracingConfig(Section):
    """`[tracing]`: one OpenTelemetry span a request, sent to `endpoint` by OTLP over HTTP; empty: none.

    `sample`: the share of requests that is traced, where the caller has not decided already.
    """

    endpoint: str = Field(default="", pattern=r"^(https?://.+)?$")
    service_name: str = "reasond"
    sample: float = Field(default=1.0, ge=0, le=1)


class KeyConfig(Section):
    """`[keys.NAME]`: what one API key gets. `budget` goes before a route's default, `budget_cap` beside its cap. By its
    `deadline_seconds` an answer is to begin where the request names no deadline; 0: none.
    `max_requests` at once and `tokens_per_minute`, prompts and replies together, bound its use; 0: no bound."""

    budget: Tokens | None = None
    budget_cap: Tokens | None = None
    deadline_seconds: float = Field(default=0.0, ge=0)
    max_requests: int = Field(default=0, ge=0)
    tokens_per_minute: Tokens = 0


class RewardsConfig(Section):
    """`[rewards]`. `judge` is the route of callers that cannot name one; left out: the first judge route."""

    judge: str = ""


class Config(Section):
    """The whole file."""

    server: ServerConfig = ServerConfig()
    logging: LoggingConfig = LoggingConfig()
    tracing: TracingConfig = TracingConfig()
    rewards: RewardsConfig = RewardsConfig()
    engines: dict[str, AnyEngineConfig] = Field(min_length=1)
    routes: dict[str, RouteConfig] = Field(min_length=1)
    families: dict[str, dict[str, Any]] = Field(default_factory=dict)
    keys: dict[str, KeyConfig] = Field(default_factory=dict)

    @property
    def known_families(self) -> Mapping[str, ReasoningFormat]:
        """The configuration's own families, then the built-in ones."""
        return {**read_formats(self.families, FAMILIES), **FAMILIES}

    def with_routes(self, routes: Mapping[str, RouteConfig]) -> "Config":
        """The configuration with other routes. Raises `ConfigError` for what does not fit them."""
        config = self.model_copy(update={"routes": dict(routes)})
        if problems := [*_route_problems(config)]:
            raise ConfigError("\n".join(problems))
        return config

    def targets(self, on_failure: OnFailure) -> dict[str, str]:
        """The target engines of routes that do this when theirs fails, by route."""
        speculative = {name: route.speculative for name, route in self.routes.items()}
        return {name: each.target for name, each in speculative.items() if each and each.on_failure == on_failure}

    @property
    def needed_engines(self) -> frozenset[str]:
        """The engines without which the server cannot serve all its routes. One route's doing without a target does
        not spare another that cannot."""
        own = {route.engine for route in self.routes.values()}
        alone = set(self.targets("alone").values())
        return frozenset(own | set(self.targets("fail").values()) | (self.engines.keys() - alone))

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        problems = [
            *_process_problems(self),
            *_route_problems(self),
            *_judge_problems(self),
            *memory_problems(self.engines),
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self


def load_config(path: str | Path) -> Config:
    """Reads and checks a file. Relative paths in it are looked up beside it, then in the working directory."""
    table = read_table(path)
    try:
        return parse_table(table, Path(path).parent)
    except ConfigError as error:
        raise ConfigError(f"{path}:\n{error}") from error


def read_table(path: str | Path) -> dict[str, Any]:
    """A TOML file, unchecked."""
    try:
        return _table(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        raise ConfigError(f"{path}: {error.strerror if isinstance(error, OSError) else error}") from error


def parse_config(text: str, folder: Path) -> Config:
    """The text of a file that stands in `folder`."""
    return parse_table(_table(text), folder)


def _table(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}") from error


def parse_table(table: Mapping[str, Any], folder: Path) -> Config:
    """The settings of a table whose paths are relative to `folder`."""
    try:
        own = read_formats(table.get("families", {}), FAMILIES)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    try:
        return Config.model_validate(table, context={"folder": folder, "families": {**FAMILIES, **own}})
    except ValidationError as error:
        raise ConfigError("\n".join(_lines(error, table))) from error


def _process_problems(config: Config) -> Iterator[str]:
    if config.server.processes > 1 and (here := [name for name, each in config.engines.items() if each.kind == "vllm"]):
        yield f"server.processes: engine {here[0]!r} lives in one process; several need engines of kind 'remote'"


def _route_problems(config: Config) -> Iterator[str]:
    names = [*config.routes, *(name for route in config.routes.values() for name in route.names)]
    for name, route in config.routes.items():
        key = f"routes.{name}"
        if not ROUTE_NAME.fullmatch(name):
            yield f"{key}: a route's name is letters, digits and . _ : / -, at most 128"
        for other in route.names:
            if not ROUTE_NAME.fullmatch(other) or names.count(other) > 1:
                yield f"{key}.names: {other!r} is no name, or another route's too"
        engine = config.engines.get(route.engine)
        if engine is None:
            yield f"{key}.engine: no engine {route.engine!r}; there is {', '.join(config.engines)}"
        elif route.adapter and route.adapter not in engine.adapters:
            yield f"{key}.adapter: engine {route.engine!r} has no adapter {route.adapter!r}"
        if route.family == AUTO:
            continue
        if route.default_mode not in (able := modes(route.of_family, route.auto.decider if route.auto else None)):
            yield f"{key}.mode: family {route.family!r} has {', '.join(able)}, not {route.mode}"
        elif route.think_threshold is not None and route.default_mode != "auto":
            yield f"{key}.think_threshold: only a route whose mode is auto can have one"
        if route.load.goal_seconds and route.of_family.scope != "thinking":
            yield f"{key}.load: models of family {route.family!r} have no thinking that could end sooner"
        yield from _budget_problems(f"{key}.budgets", route)
        if route.exit is not None and route.of_family.scope != "thinking":
            yield f"{key}.exit: models of family {route.family!r} have no thinking that could be ended"
        yield from _speculative_problems(key, route, config.engines)


def _budget_problems(key: str, route: RouteConfig) -> Iterator[str]:
    budgets, family = route.budgets, route.of_family
    if family.scope is None and budgets != BudgetsConfig():
        yield f"{key}: family {route.family!r} has no budgets"
    if family.scope == "reply":
        numbers = {"default": budgets.default, "cap": budgets.cap}
        numbers |= {f"efforts.{effort}": tokens for effort, tokens in budgets.efforts.items()}
        yield from (
            f"{key}.{name}: a budget for the whole reply is at least 1"
            for name, tokens in numbers.items()
            if tokens == 0
        )
        if budgets.reserve and budgets.cut == "hard":
            yield f"{key}.cut: a reply that keeps a reserve for its answer is not cut hard"
    if budgets.hold_declared and family.budget is None:
        yield f"{key}.hold_declared: models of family {route.family!r} declare no budget"


def _speculative_problems(key: str, route: RouteConfig, engines: Mapping[str, EngineConfig]) -> Iterator[str]:
    settings = route.speculative
    if (settings is not None) != (route.controller == "speculative"):
        yield f"{key}.controller: speculative needs the table {key}.speculative, and the reverse"
    if settings is None:
        return
    target = engines.get(settings.target)
    if target is None:
        yield f"{key}.speculative.target: no engine {settings.target!r}; there is {', '.join(engines)}"
    elif settings.adapter and settings.adapter not in target.adapters:
        yield f"{key}.speculative.adapter: engine {settings.target!r} has no adapter {settings.adapter!r}"
    elif (settings.target, settings.adapter) == (route.engine, route.adapter):
        yield f"{key}.speculative.target: the target is the small model itself"


def _judge_problems(config: Config) -> Iterator[str]:
    """Every name of a judge is that of a judge route."""
    judges = {name for name, route in config.routes.items() if route.controller == "judge"}
    if config.rewards.judge and config.rewards.judge not in judges:
        yield f"rewards.judge: no judge route {config.rewards.judge!r}"
    for name, route in config.routes.items():
        if route.judged_by and route.judged_by not in judges:
            yield f"routes.{name}.judged_by: no judge route {route.judged_by!r}"
        able = JUDGE_FAMILIES[route.judge.family].outcomes
        for kind in (*route.judge.templates, *(("rubric",) if route.judge.rubric else ())):
            if kind not in able:
                yield f"routes.{name}.judge: family {route.judge.family!r} judges no {kind}"
        if name not in judges and "judge" in route.model_fields_set:
            yield f'routes.{name}.judge: only a route whose controller is "judge" has one'
        if name in judges and route.judged_by:
            yield f"routes.{name}.judged_by: a judge's own replies are not ranked"
        if route.best_of > 1 and not route.judged_by:
            yield f"routes.{name}.best_of: needs judged_by, the judge route that ranks the replies"


def _lines(error: ValidationError, table: Mapping[str, Any]) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_input=False):
        message = (
            "unknown key" if problem["type"] == "extra_forbidden" else problem["msg"].removeprefix("Value error, ")
        )
        key = _key(problem["loc"], table)
        yield f"{key}: {message}" if key else message


def _key(loc: tuple[Any, ...], table: Any) -> str:
    """The dotted key, without the union tags that pydantic writes into it: they lead nowhere in the table."""
    parts: list[str] = []
    for position, part in enumerate(loc):
        if (isinstance(table, dict) and part in table) or (isinstance(table, list) and isinstance(part, int)):
            table = table[part]
        elif position < len(loc) - 1:
            continue
        parts.append(str(part))
    return ".".join(parts)

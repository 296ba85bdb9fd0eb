"""What `reasond check` says: what each route would be, the memory it takes, and what the start would refuse."""

from collections.abc import Iterator
from pathlib import Path

from controllers.generation.route import Route
from models import engines
from models.engines import EngineConfig, VllmEngineConfig
from models.engines.base import Engine
from models.engines.scripted import ScriptedEngine
from models.memory import MemoryPlan, memory_plan, model_folder
from models.text.tokenizer import HubTokenizer
from server.apis.ops import tool_abilities
from server.assemble import Runtime, assemble
from server.config.load import Config, ConfigError
from server.engines import START_ERRORS, reason_of, thinking_tags
from server.ready import modes_of

GIB = 1024**3


def report(config: Config, device_memory_gib: float | None = None) -> tuple[list[str], list[str]]:
    """What a configuration whose families are found comes to, and what of it would be refused. No weights are
    loaded."""
    lines: list[str] = []
    refused: list[str] = []
    away = [name for name, engine in config.engines.items() if not _is_here(engine)]
    if not away:
        try:
            engines_alone = {name: _unloaded(config, name) for name in config.engines}
            lines += _route_lines(assemble(config, engines_alone, 0))
        except ConfigError as error:
            refused.append(str(error))
    device_memory = None if device_memory_gib is None else int(device_memory_gib * GIB)
    for name, engine in config.engines.items():
        if name in away:
            lines.append(f"engines.{name}: {engine.model} is not on this machine yet; its routes are proved at start")
        else:
            lines += _memory_lines(name, engine, device_memory)
            refused += _refusals(name, engine)
    return lines, refused


def _is_here(engine: EngineConfig) -> bool:
    try:
        return model_folder(engine.model).is_dir()
    except FileNotFoundError:
        return False


def _unloaded(config: Config, name: str) -> Engine:
    """An engine that has its tokenizer and nothing else."""
    engine, tags = config.engines[name], thinking_tags(config, name)
    tokenizer = HubTokenizer(engine.model, chat_template=engine.template)
    if tags and any(tokenizer.control_id(tag) is None for tag in tags):
        tags = None  # an engine watches single tokens only
    return ScriptedEngine(tokenizer, [""], name=name, adapters=frozenset(engine.adapters), thinking=tags)


def _route_lines(runtime: Runtime) -> Iterator[str]:
    for name, route in runtime.routes.items():
        yield f"routes.{name}:"
        yield f"  family   {route.family.name}: {route.found_by}"
        yield f"  modes    {modes_of(route)}"
        yield f"  efforts  {_efforts(route)}"
        yield f"  budgets  {_budgets(route)}"
        yield f"  tools    {_tools(route)}"


def _efforts(route: Route) -> str:
    budgets = ", ".join(f"{effort} {tokens}" for effort, tokens in route.defaults.budgets.efforts.items())
    words = ", ".join(word for word in route.family.efforts if word != "argument")
    if route.family.scope is None:
        return words or "none"
    return f"the template's {words}; as budgets: {budgets}" if words else f"as budgets: {budgets}"


def _budgets(route: Route) -> str:
    if route.family.scope is None:
        return "none"
    return f"in tokens of the {route.family.scope}, ended {'gracefully' if route.defaults.budgets.graceful else 'hard'}"


def _tools(route: Route) -> str:
    tools = tool_abilities(route)
    if tools is None:
        return "none: the template shows the model no tools"
    return f"{tools['arguments']}, {'constrained by a grammar' if tools['constrained'] else 'parsed, not constrained'}"


def _memory_lines(name: str, engine: EngineConfig, device_memory: int | None) -> Iterator[str]:
    """One line for an engine that holds its model in this machine's memory."""
    if not isinstance(engine, VllmEngineConfig):
        return
    try:
        yield f"engines.{name}: {_words(memory_plan(engine, device_memory))}"
    except (LookupError, FileNotFoundError) as error:
        yield f"engines.{name}: its memory cannot be told from config.json: {error}"


def _refusals(name: str, engine: EngineConfig) -> Iterator[str]:
    """What would keep an engine from starting."""
    try:
        engines.check(engine)
    except START_ERRORS as error:
        yield f"engines.{name}: {reason_of(error)}"
    folder = Path(engine.model)
    if isinstance(engine, VllmEngineConfig) and folder.is_dir() and not any(folder.glob("*.safetensors")):
        yield f"engines.{name}.model: {folder} has no weights (*.safetensors)"


def _words(plan: MemoryPlan) -> str:
    weights = _size(plan.weights) if plan.weights else "not on this machine yet"
    need = f"weights {weights}, cache {_size(plan.kv_per_token)} a token"
    if plan.kv is None or plan.tokens is None or plan.full_contexts is None:
        return f"{need}; a full context of {plan.context_length} takes {_size(plan.kv_per_token * plan.context_length)}"
    return f"{need}; {_size(plan.kv)} of cache hold {plan.tokens} tokens, {plan.full_contexts:.1f} full contexts"


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"

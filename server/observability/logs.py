"""The log: lines of text or of JSON, which never hold a prompt unless the settings ask for it.

What an exception says may quote the request, so tracebacks are written without it: where, and of which class.
"""

import asyncio
import datetime
import logging
import sys
import traceback
from collections.abc import Iterator
from typing import Any, TextIO

import orjson

from models.engines.base import EngineDead
from server.config.load import LoggingConfig
from server.edges.request_scope import Report

log = logging.getLogger(__name__)

OWN = frozenset({"server", "controllers", "models"})
"""The packages that log from `info` on; others do so at level `debug` only, but for their errors."""
QUIET_PATHS = frozenset({"/health", "/ready", "/metrics", "/version"})
"""Asked every few seconds by machines: logged at debug level only."""


def configure(config: LoggingConfig, to: TextIO = sys.stderr) -> None:
    """Sends every logger of this process to one place, in the form that is asked for."""
    handler = logging.StreamHandler(to)
    form = JsonLines if config.format == "json" else TextLines
    handler.setFormatter(form(prompts=config.prompts))
    if config.level != "debug":
        handler.addFilter(lambda record: record.levelno >= logging.ERROR or record.name.partition(".")[0] in OWN)
    logging.basicConfig(level=config.level.upper(), handlers=[handler], force=True)


def log_request(report: Report) -> None:
    """The observer that writes one line for each request, and one for what it left to be done in the background."""
    level = logging.DEBUG if report.path in QUIET_PATHS else logging.INFO
    log.log(level, "background" if report.background else "request", extra={"fields": request_fields(report)})


def request_fields(report: Report) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "request_id": report.request_id,
        "method": report.method,
        "path": report.path,
        "status": report.status,
        "seconds": round(report.seconds, 6),
        "key": report.key_name,
    }
    if report.watch is not None:
        fields |= report.watch.fields()
    if report.body is not None:
        fields["body"] = report.body.decode(errors="replace")
    return {name: value for name, value in fields.items() if value is not None}


def report_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The event loop's own error report, without the objects in it: their text may hold anything."""
    del loop
    log.error("event loop: %s", context.get("message"), exc_info=context.get("exception"))


class TextLines(logging.Formatter):
    """Time, level, logger, message, then the fields as `name=value`."""

    def __init__(self, *, prompts: bool = False) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self.prompts = prompts

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", {})
        told = (f" {name}={orjson.dumps(value, default=str).decode()}" for name, value in fields.items())
        return super().formatMessage(record) + "".join(told)

    def format(self, record: logging.LogRecord) -> str:
        record.exc_text = None  # another handler's form of the same exception
        return super().format(record)

    def formatException(self, ei: Any) -> str:
        return traceback_text(ei[1], full=self.prompts)


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the fields, and an exception's traceback."""

    def __init__(self, *, prompts: bool = False) -> None:
        super().__init__()
        self.prompts = prompts

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = type(record.exc_info[1]).__name__
            line["traceback"] = traceback_text(record.exc_info[1], full=self.prompts)
        return orjson.dumps(line, default=str).decode()


def traceback_text(error: BaseException, *, full: bool) -> str:
    """The traceback, causes first; `full` adds what the exceptions say."""
    if full:
        return "".join(traceback.format_exception(error)).rstrip()
    return "\n".join("".join(traceback.format_tb(each.__traceback__)) + _named(each) for each in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """What led to the exception, what it groups, and the exception itself."""
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    found: list[BaseException] = []
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        found.append(each)
        led = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
        waiting += [led] if led is not None else []
        waiting += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
    return reversed(found)


def _named(error: BaseException) -> str:
    """The class of an exception, and what it says where that cannot quote a request."""
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    if isinstance(error, OSError) and error.strerror:
        return f"{name}: {error.strerror}"
    return f"{name}: {error}" if isinstance(error, EngineDead) else name

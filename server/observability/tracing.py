"""OpenTelemetry: one span a request, with the decision record as its attributes.

A span is made when its request is over, with the times at which it began and ended: while tokens flow nothing is done,
and without the setting not even the library is loaded. A `traceparent` header (W3C) makes it a child of its caller's.
"""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import orjson

from server import __version__
from server.config.load import ConfigError, TracingConfig
from server.edges.request_scope import Observer, Report
from server.observability.logs import QUIET_PATHS

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

NANOSECONDS = 1_000_000_000


def start_tracing(config: TracingConfig, stack: AsyncExitStack) -> Observer:
    """The observer that sends spans to `config.endpoint`. `stack` flushes and stops the exporter.

    Raises `ConfigError` where the extra `otel` is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
    except ImportError as error:
        raise ConfigError("tracing.endpoint: needs the extra 'otel': pip install 'reasond[otel]'") from error
    resource = Resource.create({"service.name": config.service_name, "service.version": __version__})
    provider = TracerProvider(sampler=ParentBasedTraceIdRatio(config.sample), resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=config.endpoint)))
    stack.callback(provider.shutdown)
    return span_observer(provider)


def span_observer(provider: "TracerProvider") -> Observer:
    """Turns reports into spans of `provider`. Health checks and scrapes have none."""
    from opentelemetry.trace import SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    tracer = provider.get_tracer("reasond", __version__)
    propagator = TraceContextTextMapPropagator()

    def observe(report: Report) -> None:
        if report.path in QUIET_PATHS:
            return
        began = int(report.began * NANOSECONDS)
        attributes = span_attributes(report)
        name = f"{report.method} {report.path}" if report.path else report.method
        span = tracer.start_span(
            f"{name} in the background" if report.background else name,
            context=propagator.extract(report.headers),
            kind=SpanKind.INTERNAL if report.background else SpanKind.SERVER,
            attributes=attributes,
            start_time=began,
        )
        if (report.status or 0) >= 500 or attributes.get("reasond.outcome") == "error":
            span.set_status(Status(StatusCode.ERROR))
        span.end(began + int(report.seconds * NANOSECONDS))

    return observe


def span_attributes(report: Report) -> dict[str, Any]:
    """HTTP's own attributes by OpenTelemetry's names, ours under `reasond.`, never text of the conversation."""
    attributes: dict[str, Any] = {
        "http.request.method": report.method,
        "http.route": report.path,
        "http.response.status_code": report.status,
        "reasond.request_id": report.request_id,
        "reasond.key": report.key_name,
    }
    if report.watch is not None:
        attributes |= _flat("reasond", report.watch.fields())
    return {name: value for name, value in attributes.items() if value is not None}


def _flat(prefix: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes are plain values: what is nested gets a dotted name, a list becomes JSON."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            flat |= _flat(f"{prefix}.{name}", value)
        else:
            plain = value is None or isinstance(value, str | int | float)
            flat[f"{prefix}.{name}"] = value if plain else orjson.dumps(value, default=str).decode()
    return flat

"""What the metrics tell of engines and queues: asked at each scrape, counted by whoever is asked."""

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from models.engines.base import Engine
from models.engines.supervised import Cause, State, SupervisedEngine
from server.admission import Admission

NEVER: Mapping[Cause, int] = {"died": 0, "hung": 0}


def engine_state(engine: Engine) -> State:
    """An engine elsewhere is its own supervisor's affair."""
    return engine.state if isinstance(engine, SupervisedEngine) else "up"


class EngineCollector(Collector):
    """Whether each engine is up, and how often it ended."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("reasond:engine_up", "0 while an engine is being started again.", labels=["engine"])
        ends = CounterMetricFamily("reasond:engine_ends", "Engines that ended, by how.", labels=["engine", "cause"])
        for name, engine in self._engines.items():
            up.add_metric([name], engine_state(engine) == "up")
            counts = engine.ends if isinstance(engine, SupervisedEngine) else NEVER
            for cause, count in counts.items():
                ends.add_metric([name, cause], count)
        yield from (up, ends)


class AdmissionCollector(Collector):
    """What runs and waits on each route, by estimate, and what was refused there."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def collect(self) -> Iterator[Metric]:
        running = GaugeMetricFamily("reasond:admitted_tokens", "Estimated work that runs.", labels=["route"])
        queued = GaugeMetricFamily("reasond:queued_tokens", "Estimated work that waits.", labels=["route"])
        refused = CounterMetricFamily("reasond:refusals", "Requests refused, by why.", labels=["route", "cause"])
        for name, queue in self._admission.routes.items():
            running.add_metric([name], queue.running.total())
            queued.add_metric([name], queue.queued.total())
            for cause, count in queue.refused.items():
                refused.add_metric([name, cause], count)
        yield from (running, queued, refused)

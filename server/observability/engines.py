"""What is told of the engines: whether each is up, and how often it ended."""

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from models.engines.base import Engine
from models.engines.supervised import Cause, State, SupervisedEngine

NEVER: Mapping[Cause, int] = {"died": 0, "hung": 0}


def engine_state(engine: Engine) -> State:
    """An engine elsewhere is its own supervisor's affair."""
    return engine.state if isinstance(engine, SupervisedEngine) else "up"


class EngineCollector(Collector):
    """Asked at each scrape."""

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

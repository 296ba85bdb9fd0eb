"""The metrics of several processes as those of one server."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

LEAST = frozenset({"reasond:engine_up", "process_start_time_seconds"})
MOST = frozenset({"reasond:route_degraded", "reasond:engine_ends", "python_info"})


def summed(texts: Sequence[str]) -> bytes:
    """One text of Prometheus' format out of several. All is added up but what says how something is."""
    registry = CollectorRegistry()
    registry.register(_Summed(texts))
    return generate_latest(registry)


class _Summed(Collector):
    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]] = {}
        for text in self._texts:
            for family in text_string_to_metric_families(text):
                families.setdefault(family.name, family)
                series = values.setdefault(family.name, {})
                for sample in family.samples:
                    series.setdefault((sample.name, tuple(sample.labels.items())), []).append(sample.value)
        for name, family in families.items():
            together = _together(name)
            family.samples = [
                Sample(series, dict(labels), together(each)) for (series, labels), each in values[name].items()
            ]
            yield family


def _together(name: str) -> Callable[[Iterable[float]], float]:
    return min if name in LEAST or name.endswith("_created") else max if name in MOST else sum

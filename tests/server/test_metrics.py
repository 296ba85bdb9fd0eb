"""Counting requests: what each mark moves, and that nothing is counted twice or left standing."""

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controllers.generation.events import Decision, Finished
from controllers.policy.controls import PolicyError
from models.engines.base import EngineBusy
from models.formats.chunks import Chunk, Kind
from server.observability.metrics import Metrics
from server.observability.request_observer import RequestObserver


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"reasond:{name}", {"route": "demo", **labels})


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(["demo", "other"])


def observer(metrics: Metrics, *, stopping: bool = False) -> RequestObserver:
    cut = asyncio.Event()
    if stopping:
        cut.set()
    return RequestObserver(metrics.routes["demo"], cut)


def gauges(metrics: Metrics) -> tuple[float | None, float | None]:
    return value(metrics, "num_requests_waiting"), value(metrics, "num_requests_running")


def chunk(kind: Kind, text: str, tokens: int = 1) -> Chunk:
    return Chunk(kind, text, (7,) * tokens)


DECIDED = Decision("think", "threshold", [1, 2, 3])
END = Finished("stop", None, 20, 12, 7, 2, DECIDED)


def test_a_request_waits_until_its_first_token_and_then_runs(metrics):
    with observer(metrics) as request:
        assert gauges(metrics) == (1, 0)
        request.saw(0, chunk("control", ""))
        assert gauges(metrics) == (1, 0)
        request.saw(0, chunk("reasoning", "so"))
        request.saw(0, chunk("reasoning", "on"))
        assert gauges(metrics) == (0, 1)
    assert gauges(metrics) == (0, 0)
    assert value(metrics, "time_to_first_token_seconds_count") == 1
    assert value(metrics, "requests_total", outcome="ok") == 1


@pytest.mark.parametrize(
    "error,outcome",
    [(EngineBusy("full"), "overloaded"), (PolicyError("no", "think"), "refused"), (RuntimeError("broken"), "error")],
)
def test_a_request_that_fails_counts_by_whose_fault_it_was(metrics, error, outcome):
    with pytest.raises(type(error)), observer(metrics):
        raise error
    assert value(metrics, "requests_total", outcome=outcome) == 1
    assert gauges(metrics) == (0, 0)


@pytest.mark.parametrize("spoke", [False, True])
@pytest.mark.parametrize("cause", ["client", "shutdown"])
def test_an_aborted_request_counts_by_cause_and_leaves_no_gauge_standing(metrics, cause, spoke):
    with pytest.raises(asyncio.CancelledError), observer(metrics, stopping=cause == "shutdown") as request:
        if spoke:
            request.spoke()
        raise asyncio.CancelledError
    assert value(metrics, "requests_total", outcome="aborted") == 1
    assert value(metrics, "request_aborts_total", cause=cause) == 1
    assert gauges(metrics) == (0, 0)


def test_a_reply_is_observed_with_its_mode_its_tokens_and_its_first_answer(metrics):
    with observer(metrics) as request:
        for index in range(2):
            request.saw(index, DECIDED)
            request.saw(index, chunk("reasoning", "hm", 3))
        request.saw(0, chunk("answer", "4", 2))
        request.saw(0, END)
        request.saw(1, END)
    assert value(metrics, "mode_decisions_total", mode="think", source="threshold") == 2
    assert value(metrics, "time_to_first_answer_token_seconds_count") == 1
    assert value(metrics, "request_reasoning_tokens_sum") == 24
    assert value(metrics, "request_answer_tokens_sum") == 14
    assert value(metrics, "empty_answers_total") == 1
    usage = request.usage
    counts = (usage.prompt_tokens, usage.completion_tokens, usage.reasoning_tokens, usage.cached_tokens)
    assert counts == (3, 8, 6, 2)


def test_what_an_engine_holds_is_asked_of_the_engine_when_the_metrics_are_read():
    held = 0
    metrics = Metrics(["demo"], {"big": lambda: held})
    assert metrics.registry.get_sample_value("reasond:engine_requests", {"engine": "big"}) == 0
    held = 3
    assert metrics.registry.get_sample_value("reasond:engine_requests", {"engine": "big"}) == 3


def test_two_servers_in_one_process_count_apart():
    one, two = Metrics(["demo"]), Metrics(["demo"])
    with observer(one):
        assert (gauges(one)[0], gauges(two)[0]) == (1, 0)


def test_every_series_is_there_from_the_start_with_values_from_the_configuration_only(metrics):
    everything = text_string_to_metric_families(metrics.text().decode())
    ours = [family for family in everything if family.name.startswith("reasond:") and "_created" not in family.name]
    without = {sample.name for family in ours for sample in family.samples if "route" not in sample.labels}
    lag = {f"reasond:event_loop_lag_seconds_{what}" for what in ("bucket", "count", "sum")}
    assert without == {"reasond:http_responses_total", "reasond:asyncio_tasks", *lag}  # and no engine is given here
    assert {sample.labels.get("route", "demo") for family in ours for sample in family.samples} == {"demo", "other"}
    with pytest.raises(KeyError):
        metrics.routes["invented"]

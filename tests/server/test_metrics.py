"""Counting requests: what each mark moves, and that nothing is counted twice or left standing."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.observability.metrics import Metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"reasond:{name}", {"route": "demo", **labels})


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(["demo", "other"])


def test_a_request_waits_until_its_first_token_and_then_runs(metrics):
    request = metrics.route("demo").started()
    assert (value(metrics, "num_requests_waiting"), value(metrics, "num_requests_running")) == (1, 0)
    request.first_token(0.2)
    assert (value(metrics, "num_requests_waiting"), value(metrics, "num_requests_running")) == (0, 1)
    request.finished("ok")
    assert (value(metrics, "num_requests_waiting"), value(metrics, "num_requests_running")) == (0, 0)


def test_a_request_is_counted_out_once(metrics):
    request = metrics.route("demo").started()
    request.first_token(0.02)
    request.first_token(0.02)
    request.finished("ok")
    request.finished("error")
    request.aborted("client")
    assert value(metrics, "time_to_first_token_seconds_bucket", le="0.025") == 1
    assert value(metrics, "requests_total", outcome="ok") == 1
    assert value(metrics, "requests_total", outcome="error") == 0
    assert value(metrics, "request_aborts_total", cause="client") == 0


def test_an_aborted_request_counts_by_cause_and_leaves_no_gauge_standing(metrics):
    before, after = metrics.route("demo").started(), metrics.route("demo").started()
    before.aborted("client")
    after.first_token(0.1)
    after.aborted("shutdown")
    after.first_token(0.1)
    assert value(metrics, "requests_total", outcome="aborted") == 2
    assert value(metrics, "request_aborts_total", cause="client") == 1
    assert value(metrics, "request_aborts_total", cause="shutdown") == 1
    assert (value(metrics, "num_requests_waiting"), value(metrics, "num_requests_running")) == (0, 0)


def test_a_reply_is_observed_with_its_mode_its_tokens_and_its_first_answer(metrics):
    route = metrics.route("demo")
    route.decided("think", "threshold")
    route.first_answer(3.0)
    route.replied(100, 7, empty=False)
    route.replied(50, 0, empty=True)
    assert value(metrics, "mode_decisions_total", mode="think", source="threshold") == 1
    assert value(metrics, "time_to_first_answer_token_seconds_bucket", le="2.5") == 0
    assert value(metrics, "time_to_first_answer_token_seconds_bucket", le="5.0") == 1
    assert value(metrics, "request_reasoning_tokens_sum") == 150
    assert value(metrics, "request_answer_tokens_sum") == 7
    assert value(metrics, "empty_answers_total") == 1


def test_what_an_engine_holds_is_asked_of_the_engine_when_the_metrics_are_read():
    held = 0
    metrics = Metrics(["demo"], {"big": lambda: held})
    assert metrics.registry.get_sample_value("reasond:engine_requests", {"engine": "big"}) == 0
    held = 3
    assert metrics.registry.get_sample_value("reasond:engine_requests", {"engine": "big"}) == 3


def test_two_servers_in_one_process_count_apart():
    one, two = Metrics(["demo"]), Metrics(["demo"])
    one.route("demo").started()
    assert value(two, "num_requests_waiting") == 0


def test_every_series_is_there_from_the_start_with_values_from_the_configuration_only(metrics):
    everything = text_string_to_metric_families(metrics.text().decode())
    ours = [family for family in everything if family.name.startswith("reasond:") and "_created" not in family.name]
    without = {sample.name for family in ours for sample in family.samples if "route" not in sample.labels}
    assert without == {"reasond:http_responses_total", "reasond:asyncio_tasks"}  # and no engine is given here
    assert {sample.labels.get("route", "demo") for family in ours for sample in family.samples} == {"demo", "other"}
    with pytest.raises(KeyError):
        metrics.route("invented")

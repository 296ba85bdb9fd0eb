"""What no engine exports: how much was thought, who decided it, and when the answer began. Names in vLLM's manner.

Label values come from the configuration and from the literals below, never from a request. Children are resolved when
the server starts, so a request pays for counting and not for looking up.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from controllers.deciders.drift import Drift
from controllers.generation.events import DeciderFailure, Decision, Finished, TargetFailure, TargetUse
from controllers.generation.throughput import ThroughputEstimate
from controllers.judging.judge import Verdict
from controllers.policy.controls import ChosenBy, Cut, CutBy
from controllers.speculative.takeovers import TakeoverKind
from models.formats.reasoning import Mode

M = TypeVar("M", Counter, Gauge, Histogram)
Failure = Literal["refused", "overloaded", "error"]
Outcome = Literal["ok", "aborted"] | Failure
OUTCOMES: tuple[Outcome, ...] = ("ok", "aborted", "refused", "overloaded", "error")
AbortCause = Literal["client", "shutdown"]

MODELS = ("speculative", "target")
TOKENS = (0, 1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
RATIOS = (0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.999, 1.0)
LAGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
LAG_EVERY = 0.1
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)


class Metrics:
    """The server's own metrics, in a registry of their own. `engines` gives what each engine says it holds now."""

    def __init__(self, routes: Iterable[str], engines: Mapping[str, Callable[[], int]] = MappingProxyType({})) -> None:
        self.registry = CollectorRegistry()
        known: dict[str, Any] = {}
        self.routes = {name: RouteMetrics(self.registry, known, name) for name in routes}
        responses = Counter("reasond:http_responses", "Answers of any path.", ["status"], registry=self.registry)
        self.responses = {hundreds: responses.labels(f"{hundreds}xx") for hundreds in range(1, 6)}
        self.tasks = Gauge("reasond:asyncio_tasks", "Tasks of the server's event loop.", registry=self.registry)
        self.loop_lag = Histogram(
            "reasond:event_loop_lag_seconds",
            "By how much the server's event loop is late: all streams wait for what holds it up.",
            buckets=LAGS,
            registry=self.registry,
        )
        self._drift = Gauge(
            "reasond:decider_drift",
            "Distance of a decider's scores from those of its calibration, 0 to 1.",
            ["route", "decider"],
            registry=self.registry,
        )
        self._pressure = Gauge(
            "reasond:pressure",
            "0 where an engine writes as fast as it can, 1 where a token takes four times as long.",
            ["engine"],
            registry=self.registry,
        )
        held = Gauge(
            "reasond:engine_requests",
            "Requests that an engine holds, waiting ones included.",
            ["engine"],
            registry=self.registry,
        )
        for name, running in engines.items():
            held.labels(name).set_function(running)

    def degraded(self, routes: Mapping[str, Callable[[], bool]]) -> None:
        """Watches routes that can do without their target: whether they have to just now."""
        gauge = Gauge("reasond:route_degraded", "1 while the target is down.", ["route"], registry=self.registry)
        for name, is_degraded in routes.items():
            gauge.labels(name).set_function(is_degraded)

    def watch_drifts(self, route: str, drifts: Iterable[tuple[str, Drift]]) -> None:
        """Watches how far the scores of a route's deciders have moved from their calibrations."""
        for decider, drift in drifts:
            self._drift.labels(route, decider).set_function(drift.distance)

    def watch_pressure(self, paces: Mapping[str, ThroughputEstimate]) -> None:
        """Watches how much slower engines write than they can."""
        for engine, pace in paces.items():
            self._pressure.labels(engine).set_function(partial(getattr, pace, "pressure"))

    def watch_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on, ten times a second, notes by how much the loop is late."""

        def tick(due: float) -> None:
            now = loop.time()
            self.loop_lag.observe(max(0.0, now - due))
            loop.call_at(now + LAG_EVERY, tick, now + LAG_EVERY)

        tick(loop.time())

    def text(self) -> bytes:
        """Prometheus' text format: ours, then the process's and vLLM's, which live in the global registry."""
        return generate_latest(self.registry) + generate_latest(REGISTRY)


class _Children:
    """Makes the children that one route has of every metric. `known` are the metrics by name, those of all routes."""

    def __init__(self, registry: CollectorRegistry, known: dict[str, Any], route: str) -> None:
        self._registry = registry
        self._known = known
        self._route = route

    def _metric(self, kind: type[M], name: str, text: str, labels: Iterable[str] = (), **options: Any) -> M:
        if name not in self._known:
            self._known[name] = kind(f"reasond:{name}", text, ["route", *labels], registry=self._registry, **options)
        metric: M = self._known[name]
        return metric

    def gauge(self, name: str, text: str) -> Gauge:
        return self._metric(Gauge, name, text).labels(self._route)

    def counter(self, name: str, text: str) -> Counter:
        return self._metric(Counter, name, text).labels(self._route)

    def histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return self._metric(Histogram, name, text, buckets=buckets).labels(self._route)

    def each(self, kind: type[M], name: str, text: str, /, **labels: Any) -> dict[Any, M]:
        """One for each value of a label, or for each combination of values; a label's values may be a `Literal`."""
        metric = self._metric(kind, name, text, labels)
        known = [get_args(values) or values for values in labels.values()]
        made = {values: metric.labels(self._route, *map(_word, values)) for values in product(*known)}
        return made if len(known) > 1 else {values[0]: child for values, child in made.items()}

    def counters(self, name: str, text: str, /, **labels: Any) -> dict[Any, Counter]:
        return self.each(Counter, name, text, **labels)


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class RouteMetrics:
    """One route's children of every metric."""

    def __init__(self, registry: CollectorRegistry, known: dict[str, Any], name: str) -> None:
        self.name = name
        make = _Children(registry, known, name)
        gauge, counter, counters, histogram = make.gauge, make.counter, make.counters, make.histogram
        self.running = gauge("num_requests_running", "Requests that have had their first token.")
        self.waiting = gauge("num_requests_waiting", "Requests that wait for their first token.")
        self._replies = make.each(
            Gauge, "replies_running", "Replies that have decided and not ended, by mode.", mode=Mode
        )
        self._budgets = gauge("budgets_running", "Those of them that the server holds to a budget.")
        self.tokens = counters(
            "generated_tokens", "Tokens of replies while they are written.", kind=("reasoning", "answer")
        )
        self._reasoning_tokens = histogram("request_reasoning_tokens", "Thinking tokens of a reply.", TOKENS)
        self._answer_tokens = histogram("request_answer_tokens", "Answer tokens of a reply.", TOKENS)
        self.first_token = histogram("time_to_first_token_seconds", "Arrival to first token of any kind.", SECONDS)
        self.first_answer = histogram(
            "time_to_first_answer_token_seconds", "Arrival to first token of the answer.", SECONDS
        )
        self._decisions = counters("mode_decisions", "Modes of replies, by who chose them.", mode=Mode, source=ChosenBy)
        self._p_think = histogram("p_think", "Deciders' probability that a reply gains from thinking.", RATIOS)
        self._decision_tokens = counter("decision_tokens", "Tokens generated for decisions and thrown away.")
        self._decider_failures = counters(
            "decider_failures", "Decisions that a decider failed to make.", cause=DeciderFailure
        )
        self._deadlines = counters(
            "deadlines", "Replies with a deadline, by whether the answer began in time.", met=(True, False)
        )
        self._shadows = counters(
            "shadow_replies", "Direct replies that were thought through as well, unseen.", same=(True, False)
        )
        self._budget_used = histogram("budget_used_ratio", "Tokens used of the budget that was requested.", RATIOS)
        self._cuts = counters("cuts", "Stretches ended by the server, by how and for whose sake.", cut=Cut, by=CutBy)
        self._probed = counter("probe_tokens", "Tokens of trial answers, beside the replies.")
        self._empty_answers = counter("empty_answers", "Replies whose answer has no token.")
        self._takeovers = counters(
            "takeovers", "Stretches that the target model wrote, by what called for them.", kind=TakeoverKind
        )
        self._target_failures = counters(
            "target_failures", "Replies that went on without their target, by why.", cause=TargetFailure
        )
        self._model_tokens = counters("model_tokens", "Tokens of replies, by the model that wrote them.", model=MODELS)
        self._model_seconds = counters("model_seconds", "Time that replies spent in each model.", model=MODELS)
        self._target_share = histogram("target_token_share", "Share of a reply's tokens from the target.", RATIOS)
        self._held = histogram("held_seconds", "Time for which a reply's text was held back in all.", SECONDS)
        self._discarded = counter("discarded_tokens", "Tokens that were generated and thrown away.")
        self._reread = counter("reread_tokens", "Prompt tokens of hand-overs.")
        self._reread_cached = counter("reread_cached_tokens", "Prompt tokens of hand-overs that an engine had cached.")
        self._comparisons = counter("judge_comparisons", "Comparisons that a judge was asked for.")
        self._votes = counter("judge_votes", "Votes on comparisons, remembered ones included.")
        self._unparsable = counter("judge_unparsable_verdicts", "Replies of a judge that held no verdict.")
        self._cache_hits = counter("judge_cache_hits", "Votes that the cache of verdicts answered.")
        self.outcomes = counters("requests", "Requests, by how they ended.", outcome=OUTCOMES)
        self.aborts = counters("request_aborts", "Requests ended before their reply was, by cause.", cause=AbortCause)

    def decided(self, decision: Decision) -> None:
        self._decisions[decision.mode, decision.chosen_by].inc()
        if decision.p_think is not None:
            self._p_think.observe(decision.p_think)
        if decision.decision_tokens:
            self._decision_tokens.inc(decision.decision_tokens)
        if decision.decider_failure is not None:
            self._decider_failures[decision.decider_failure].inc()
        if decision.held_seconds is not None:
            self._held.observe(decision.held_seconds)

    def deadline(self, *, met: bool) -> None:
        """A reply with a deadline is over; `met`: its answer had begun by then."""
        self._deadlines[met].inc()

    def shadowed(self, same: bool) -> None:
        """A direct reply was thought through as well; `same`: the answer stayed the same."""
        self._shadows[same].inc()

    def runs(self, mode: Mode, replies: Literal[1, -1], *, budgeted: bool) -> None:
        """A reply whose mode is known begins (1) or is over (-1)."""
        self._replies[mode].inc(replies)
        if budgeted:
            self._budgets.inc(replies)

    def replied(self, end: Finished, *, empty: bool) -> None:
        """One choice is complete; `empty` says that its answer has no text."""
        self._reasoning_tokens.observe(end.reasoning_tokens)
        self._answer_tokens.observe(end.answer_tokens)
        if empty:
            self._empty_answers.inc()
        if end.discarded_tokens:
            self._discarded.inc(end.discarded_tokens)
        if end.target is not None:
            self.helped(end.target)
        if end.early_exit is not None:
            self._probed.inc(end.early_exit.probe_tokens)
        if end.cut is not None and end.cut_by is not None:
            self._cuts[end.cut, end.cut_by].inc()
        if end.budget is not None and end.budget.requested and end.budget.requested > 0:
            self._budget_used.observe(end.budget.used / end.budget.requested)

    def helped(self, use: TargetUse) -> None:
        """One choice of a speculative route is complete."""
        for kind, counter in self._takeovers.items():
            counter.inc(use.takeovers.get(kind, 0))
        self._model_tokens["target"].inc(use.target_tokens)
        self._model_tokens["speculative"].inc(use.completion_tokens - use.target_tokens)
        for model, seconds in use.seconds.items():
            self._model_seconds[model].inc(seconds)
        self._target_share.observe(use.share)
        self._held.observe(use.held_seconds)
        self._reread.inc(use.reread_tokens)
        self._reread_cached.inc(use.cached_tokens)
        if use.failure is not None:
            self._target_failures[use.failure].inc()

    def judged(self, verdict: Verdict) -> None:
        """One comparison of a judge, asked or remembered."""
        self._comparisons.inc()
        self._votes.inc(len(verdict.votes))
        self._unparsable.inc(sum(vote.unparsable for vote in verdict.votes))
        self._cache_hits.inc(sum(vote.cached for vote in verdict.votes))

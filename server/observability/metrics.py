"""What no engine exports: how much was thought, who decided it, and when the answer began. Names in vLLM's manner.

Label values come from the configuration and from the literals below, never from a request. Children are resolved when
the server starts, so a request pays for counting and not for looking up.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Literal, get_args

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from controllers.deciders.drift import Drift
from controllers.generation.events import DeciderFailure, Decision, Finished, TargetFailure, TargetUse
from controllers.generation.throughput import ThroughputEstimate
from controllers.judging.judge import Verdict
from controllers.policy.controls import ChosenBy, Cut
from controllers.speculative.takeovers import TakeoverKind
from models.formats.reasoning import Mode

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
        families = _Families(self.registry)
        self.routes: Mapping[str, RouteMetrics] = {name: RouteMetrics(families, name) for name in routes}
        self.responses = {hundreds: families.responses.labels(f"{hundreds}xx") for hundreds in range(1, 6)}
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


class RouteMetrics:
    """One route's children of every metric."""

    def __init__(self, families: "_Families", name: str) -> None:
        self.name = name
        self.running = families.running.labels(name)
        self.waiting = families.waiting.labels(name)
        self.reasoning_tokens = families.reasoning_tokens.labels(name)
        self.answer_tokens = families.answer_tokens.labels(name)
        self.first_token = families.first_token.labels(name)
        self.first_answer = families.first_answer.labels(name)
        self.empty_answers = families.empty_answers.labels(name)
        self.budget_used = families.budget_used.labels(name)
        self.cuts: Mapping[Cut, Counter] = {cut: families.cuts.labels(name, cut) for cut in get_args(Cut)}
        self.comparisons = families.comparisons.labels(name)
        self.votes = families.votes.labels(name)
        self.unparsable = families.unparsable.labels(name)
        self.cache_hits = families.cache_hits.labels(name)
        self.decisions: Mapping[tuple[Mode, ChosenBy], Counter] = {
            (mode, source): families.decisions.labels(name, mode, source)
            for mode in get_args(Mode)
            for source in get_args(ChosenBy)
        }
        self._p_think = families.p_think.labels(name)
        self._decision_tokens = families.decision_tokens.labels(name)
        self._decider_failures: Mapping[DeciderFailure, Counter] = {
            failure: families.decider_failures.labels(name, failure) for failure in get_args(DeciderFailure)
        }
        self._deadlines = {met: families.deadlines.labels(name, str(met).lower()) for met in (True, False)}
        self._shadows = {same: families.shadows.labels(name, str(same).lower()) for same in (True, False)}
        self._replies: Mapping[Mode, Gauge] = {mode: families.replies.labels(name, mode) for mode in get_args(Mode)}
        self._budgets = families.budgets.labels(name)
        self.thought, self.answered = (families.tokens.labels(name, kind) for kind in ("reasoning", "answer"))
        self._takeovers: Mapping[TakeoverKind, Counter] = {
            kind: families.takeovers.labels(name, kind) for kind in get_args(TakeoverKind)
        }
        self._target_failures: Mapping[TargetFailure, Counter] = {
            failure: families.target_failures.labels(name, failure) for failure in get_args(TargetFailure)
        }
        self._model_tokens = {model: families.model_tokens.labels(name, model) for model in MODELS}
        self._model_seconds = {model: families.model_seconds.labels(name, model) for model in MODELS}
        self._target_share = families.target_share.labels(name)
        self._held = families.held.labels(name)
        self._discarded = families.discarded.labels(name)
        self._reread = families.reread.labels(name)
        self._reread_cached = families.reread_cached.labels(name)
        self.outcomes: Mapping[Outcome, Counter] = {
            outcome: families.requests.labels(name, outcome) for outcome in OUTCOMES
        }
        self.aborts: Mapping[AbortCause, Counter] = {
            cause: families.aborts.labels(name, cause) for cause in get_args(AbortCause)
        }

    def decided(self, decision: Decision) -> None:
        self.decisions[decision.mode, decision.chosen_by].inc()
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
        self.reasoning_tokens.observe(end.reasoning_tokens)
        self.answer_tokens.observe(end.answer_tokens)
        if empty:
            self.empty_answers.inc()
        if end.discarded_tokens:
            self._discarded.inc(end.discarded_tokens)
        if end.target is not None:
            self.helped(end.target)
        if end.cut is not None:
            self.cuts[end.cut].inc()
        if end.budget is not None and end.budget.requested and end.budget.requested > 0:
            self.budget_used.observe(end.budget.used / end.budget.requested)

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
        self.comparisons.inc()
        self.votes.inc(len(verdict.votes))
        self.unparsable.inc(sum(vote.unparsable for vote in verdict.votes))
        self.cache_hits.inc(sum(vote.cached for vote in verdict.votes))


class _Families:
    """The metrics themselves, before labels."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"reasond:{name}", text, ["route"], buckets=buckets, registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"reasond:{name}", text, ["route", *labels], registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"reasond:{name}", text, ["route", *labels], registry=registry)

        self.running = gauge("num_requests_running", "Requests that have had their first token.")
        self.waiting = gauge("num_requests_waiting", "Requests that wait for their first token.")
        self.replies = gauge("replies_running", "Replies that have decided and not ended, by mode.", "mode")
        self.budgets = gauge("budgets_running", "Those of them that the server holds to a budget.")
        self.tokens = counter("generated_tokens", "Tokens of replies while they are written.", "kind")
        self.reasoning_tokens = histogram("request_reasoning_tokens", "Thinking tokens of a reply.", TOKENS)
        self.answer_tokens = histogram("request_answer_tokens", "Answer tokens of a reply.", TOKENS)
        self.first_token = histogram("time_to_first_token_seconds", "Arrival to first token of any kind.", SECONDS)
        self.first_answer = histogram(
            "time_to_first_answer_token_seconds", "Arrival to first token of the answer.", SECONDS
        )
        self.decisions = counter("mode_decisions", "Modes of replies, by who chose them.", "mode", "source")
        self.p_think = histogram("p_think", "Deciders' probability that a reply gains from thinking.", RATIOS)
        self.decision_tokens = counter("decision_tokens", "Tokens generated for decisions and thrown away.")
        self.decider_failures = counter("decider_failures", "Decisions that a decider failed to make.", "cause")
        self.deadlines = counter("deadlines", "Replies with a deadline, by whether the answer began in time.", "met")
        self.shadows = counter("shadow_replies", "Direct replies that were thought through as well, unseen.", "same")
        self.budget_used = histogram("budget_used_ratio", "Tokens used of the budget that was requested.", RATIOS)
        self.cuts = counter("cuts", "Stretches ended by the server, by how.", "cut")
        self.empty_answers = counter("empty_answers", "Replies whose answer has no token.")
        self.takeovers = counter("takeovers", "Stretches that the target model wrote, by what called for them.", "kind")
        self.target_failures = counter("target_failures", "Replies that went on without their target, by why.", "cause")
        self.model_tokens = counter("model_tokens", "Tokens of replies, by the model that wrote them.", "model")
        self.model_seconds = counter("model_seconds", "Time that replies spent in each model.", "model")
        self.target_share = histogram("target_token_share", "Share of a reply's tokens from the target.", RATIOS)
        self.held = histogram("held_seconds", "Time for which a reply's text was held back in all.", SECONDS)
        self.discarded = counter("discarded_tokens", "Tokens that were generated and thrown away.")
        self.reread = counter("reread_tokens", "Prompt tokens of hand-overs.")
        self.reread_cached = counter("reread_cached_tokens", "Prompt tokens of hand-overs that an engine had cached.")
        self.comparisons = counter("judge_comparisons", "Comparisons that a judge was asked for.")
        self.votes = counter("judge_votes", "Votes on comparisons, remembered ones included.")
        self.unparsable = counter("judge_unparsable_verdicts", "Replies of a judge that held no verdict.")
        self.cache_hits = counter("judge_cache_hits", "Votes that the cache of verdicts answered.")
        self.requests = counter("requests", "Requests, by how they ended.", "outcome")
        self.aborts = counter("request_aborts", "Requests ended before their reply was, by cause.", "cause")
        self.responses = Counter("reasond:http_responses", "Answers of any path.", ["status"], registry=registry)

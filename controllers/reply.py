"""The controller of every conversation: from a request to the events of one reply, by one model or by two."""

import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from functools import partial

from controllers.deciders import decider_for
from controllers.deciders.base import Question
from controllers.driver import Driver
from controllers.generation.events import Conversation, Decision, Event, Interrupt
from controllers.generation.prompt import RenderedPrompt, prompt_of
from controllers.generation.route import Route, TargetModel
from controllers.generation.state import ReplyState, new_reply, room_for_reply
from controllers.policy.controls import PolicyError
from controllers.policy.fold import Policy
from controllers.rules import RuleContext, rules_for
from controllers.rules.grammar import grammar_of
from controllers.rules.limits import scope_limits
from controllers.speculative.target import Target, refuse
from controllers.speculative.turns import Turns
from models.engines.base import PromptTooLong, Sampling
from models.formats.reasoning import Mode

SHORTEST_THOUGHT = 48
"""Tokens. Where a limit that nobody divided leaves less for thinking, the model answers directly."""


def run(route: Route, request: Conversation, policy: Policy, sampling: Sampling) -> AsyncGenerator[Event, None]:
    """One reply. Its events raise `PolicyError` for what the route cannot keep to, and what its engines raise."""
    return Driver.drive(partial(prepare, route, request, policy, sampling))


def helping_target(route: Route, request: Conversation, policy: Policy) -> TargetModel | None:
    """The target model, where there may be thinking for it to share."""
    unwanted = not policy.target or (policy.mode == "no_think" and policy.chosen_by == "client")
    only_answer = request.shape is not None and route.family.thinking is None  # under a format there is nothing else
    return None if unwanted or only_answer else route.target


async def prepare(
    route: Route, request: Conversation, policy: Policy, sampling: Sampling
) -> Driver | AsyncGenerator[Event, None]:
    """The prompt, the mode where it can be known before the model has written anything, and the rules; or the events of
    a reply that a decider has begun."""
    policy = in_time(route, request, policy)
    target = helping_target(route, request, policy)
    if target is not None:
        refuse(route, target, sampling)
        sampling = replace(sampling, whole=False)
    if route.family.scope == "reply" and policy.requested and 0 < policy.requested < sampling.min_tokens:
        raise PolicyError(f"min_tokens and {policy.asked_in} contradict each other", "min_tokens")
    interrupt = request.interrupt or Interrupt()
    prompt = await prompt_of(route, request, policy.mode, policy)
    settled = leaving_room(route, prompt.token_ids[: len(prompt.token_ids) - len(prompt.opening)], policy, sampling)
    if (settled.mode, settled.prefill) != (policy.mode, policy.prefill):
        prompt = await prompt_of(route, request, settled.mode, settled)
    policy = settled
    decision: Decision | None = None
    if policy.mode != "auto":
        decision = Decision(policy.mode, policy.chosen_by, prompt.token_ids)
    else:
        begin = partial(_begin, route, request, policy, interrupt)
        question = Question(route, request, policy, sampling, prompt, interrupt, begin)
        verdict = await decider_for(question).decide(question)
        if verdict is not None:
            request = verdict.request or request
            prompt = await prompt_of(route, request, verdict.mode, policy)
            decision = Decision(
                verdict.mode,
                verdict.chosen_by,
                prompt.token_ids,
                verdict.p_think,
                threshold=verdict.threshold,
                score=verdict.score,
                decision_tokens=question.spent.tokens,
                decider_failure=verdict.failure,
            )
            if verdict.draft is not None:
                return verdict.draft.events(decision)
    if decision is not None and len(prompt.token_ids) >= route.engine.context_length:
        raise PromptTooLong(len(prompt.token_ids), route.engine.context_length)
    return _driver(route, target, request, policy, sampling, prompt, decision, interrupt)


async def _begin(
    route: Route, request: Conversation, policy: Policy, interrupt: Interrupt, mode: Mode, sampling: Sampling
) -> tuple[ReplyState, AsyncGenerator[Event, None]]:
    """A reply in a mode, by the route's own model alone."""
    prompt = await prompt_of(route, request, mode, policy)
    decision = Decision(mode, policy.chosen_by, prompt.token_ids)
    driver = _driver(route, None, request, policy, sampling, prompt, decision, interrupt)

    async def begun() -> Driver:
        return driver

    return driver.state, Driver.drive(begun)


def _driver(
    route: Route,
    target: TargetModel | None,
    request: Conversation,
    policy: Policy,
    sampling: Sampling,
    prompt: RenderedPrompt,
    decision: Decision | None,
    interrupt: Interrupt,
) -> Driver:
    grammar = grammar_of(route, request.shape, sampling)
    state = new_reply(route, sampling, prompt, request.shape)
    state.grammar_pending = grammar is not None
    if policy.deadline is not None:
        state.notes = {"deadline": {"seconds": policy.deadline.seconds, "tokens": policy.deadline.tokens}}
    state.discarded_tokens = 0 if decision is None else decision.decision_tokens
    limits = scope_limits(state, policy, request.shape)
    rules = rules_for(RuleContext(state, limits, interrupt, grammar, request.cache_salt))
    turns = None
    if target is not None:
        mode = "auto" if decision is None else decision.mode
        turns = Turns(state, Target(target, request, policy, mode), policy, interrupt)
    return Driver(state, limits, rules, interrupt, decision, cache_salt=request.cache_salt, turns=turns)


def in_time(route: Route, request: Conversation, policy: Policy) -> Policy:
    """The policy with its deadline on the clock, and without thinking where that leaves less than its floor for it."""
    if policy.deadline is None or policy.mode == "no_think":
        return policy
    at = request.arrived + policy.deadline.seconds
    tokens = route.pace.within(at - time.perf_counter())
    deadline = replace(policy.deadline, at=at, tokens=None if tokens is None else max(0, tokens))
    late = tokens is not None and tokens < deadline.floor and "no_think" in route.prefixes
    policy = replace(policy, deadline=deadline)
    return replace(policy, mode="no_think", chosen_by=deadline.by) if late else policy


def leaving_room(route: Route, prompt: Sequence[int], policy: Policy, sampling: Sampling) -> Policy:
    """The policy, without thinking where the answer's reserve leaves no room for any, and with the room as its budget
    where a model that declares its own would need that room to do so."""
    if not policy.reserve:
        return policy
    whole, closing = room_for_reply(route, prompt, sampling), len(route.closing.token_ids)
    if route.family.scope == "reply":
        needed = route.longest_field + len(route.wrap_up.token_ids) + closing
        if policy.prefill is not None or not route.longest_field or whole - policy.reserve >= needed:
            return policy
        left = max(1, whole - closing)
        return replace(policy, prefill=left if policy.budget is None else min(left, policy.budget))
    left = whole - closing - (policy.requested or 0)
    if policy.requested and 0 < left < policy.reserve:  # a client that names both numbers has left that much
        return replace(policy, reserve=left)
    unnamed = policy.reserve_share < 1
    if unnamed and whole * policy.reserve_share < policy.reserve:
        policy = replace(policy, reserve=max(1, int(whole * policy.reserve_share)))
    least = SHORTEST_THOUGHT if unnamed and policy.chosen_by != "client" else 2
    if "no_think" not in route.prefixes or whole - policy.reserve - closing >= least or policy.mode == "no_think":
        return policy
    return replace(policy, mode="no_think", chosen_by="reserve")

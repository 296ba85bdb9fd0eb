"""Think, do not think, or let the model or a threshold decide.

A forced mode is a forced prefix: the mode's opening tokens stand behind the prompt, and the model goes on from there.
In mode `auto` the model's own first token decides; with a threshold its probability does, asked for by a one-token
probe before the reply is generated with the winning prefix.
"""

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from controllers.generation.deltas import cancellable
from controllers.generation.events import Conversation, Decision, Event, Interrupt
from controllers.generation.prompt import prefix, rendered
from controllers.generation.state import Reply, most_tokens
from controllers.policy.controls import PolicyError
from controllers.policy.fold import Policy
from controllers.route import Route
from controllers.rules.limits import Watcher
from models.engines.base import Prompt, PromptTooLong, Sampling
from models.formats.families import Mode


async def run(route: Route, request: Conversation, policy: Policy, sampling: Sampling) -> AsyncGenerator[Event, None]:
    """One reply, in one engine request unless its thinking has to be cut."""
    opening = await begin(route, request, policy, sampling)
    reply, watcher = opening.reply, opening.watcher
    for event in opening.told():
        yield event
    while reply.finish is None:
        for chunk in watcher.due():
            yield chunk
        if reply.finish is not None:
            break
        asked = reply.segment(request.cache_salt, **watcher.limits())
        async with aclosing(cancellable(route.engine.generate(*asked), request.interrupt)) as stream:
            async for delta in stream:
                position = reply.position + len(delta.token_ids)
                events: Sequence[Event] = reply.take(delta) if position < watcher.look_at else watcher.look(delta)
                for event in events if opening.done else opening.told(events):
                    yield event
                if reply.finish is not None or watcher.handover:
                    break
        for event in opening.told(watcher.left()):
            yield event
    yield watcher.finished(opening.decision)


class Opening:
    """A reply from its prompt to its decision. What is said before the decision is known waits for it; `forced` says
    that the mode was known before the model said anything, `done` that the decision has been told."""

    __slots__ = ("_decision", "_kept", "done", "forced", "reply", "watcher")

    def __init__(self, reply: Reply, watcher: Watcher, decision: Decision | None) -> None:
        self.reply = reply
        self.watcher = watcher
        self.forced = decision is not None
        self.done = False
        self._decision = decision
        self._kept: list[Event] = []

    @property
    def decision(self) -> Decision:
        if self._decision is not None:
            return self._decision
        thinks = self.reply.parser.section == "reasoning" or self.reply.reasoning_tokens > 0
        return Decision("think" if thinks else "no_think", "model", self.reply.prompt)

    def told(self, events: Sequence[Event] = ()) -> Sequence[Event]:
        """What may be told now: nothing until the decision is known, then it first."""
        if self.done:
            return events
        self._kept += events
        if self.watcher.undecided:
            return []
        self.done, self._decision = True, self.watcher.decided(self.decision)
        kept, self._kept = self._kept, []
        return [self._decision, *kept]


async def begin(route: Route, request: Conversation, policy: Policy, sampling: Sampling) -> Opening:
    """The prompt, and the mode where it can be known before the model has said anything."""
    refuse(route, policy, sampling)
    prompt = rendered(route, request)
    decision = await decide(route, prompt, leaving_room(route, prompt, policy, sampling), request.interrupt)
    if decision is not None and len(decision.prompt) >= route.engine.context_length:
        raise PromptTooLong(len(decision.prompt), route.engine.context_length)
    reply = Reply(route, sampling, prompt if decision is None else decision.prompt, request.shape)
    watcher = Watcher(reply, policy, request.interrupt)
    if decision is not None:
        reply.begin(decision.prompt[len(prompt) :])
        watcher.begin()
    return Opening(reply, watcher, decision)


def refuse(route: Route, policy: Policy, sampling: Sampling) -> None:
    """Raises `PolicyError` for a whole reply that is to be longer than its own budget."""
    if route.family.scope == "reply" and policy.requested and 0 < policy.requested < sampling.min_tokens:
        raise PolicyError(f"min_tokens and {policy.asked_in} contradict each other", "min_tokens")


def leaving_room(route: Route, prompt: Sequence[int], policy: Policy, sampling: Sampling) -> Policy:
    """The policy, without thinking where the answer's reserve leaves no room for any, and with the room as its budget
    where a model that declares its own would need that room to do so."""
    if not policy.reserve:
        return policy
    room, closing = most_tokens(route, prompt, sampling) - policy.reserve, len(route.closing.token_ids)
    if route.family.scope == "reply":
        needed = route.longest_field + len(route.wrap_up.token_ids) + closing
        if policy.prefill is not None or not route.longest_field or room >= needed:
            return policy
        left = max(1, room + policy.reserve - closing)
        return replace(policy, prefill=left if policy.budget is None else min(left, policy.budget))
    if "no_think" not in route.prefixes or room > closing + 1 or policy.mode == "no_think":
        return policy
    return replace(policy, mode="no_think", chosen_by="reserve")


async def decide(
    route: Route, prompt: Sequence[int], policy: Policy, interrupt: Interrupt | None = None
) -> Decision | None:
    """The mode of a reply and its prompt, or None where the model's own first token is to decide it."""
    if policy.mode != "auto":
        return Decision(policy.mode, policy.chosen_by, [*prompt, *prefix(route, policy.mode, policy.prefill)])
    if policy.think_threshold is None:
        return None
    p_think = await probability_of_thinking(route, prompt, interrupt)
    if p_think is None:
        return None
    mode: Mode = "think" if p_think >= policy.think_threshold else "no_think"
    return Decision(mode, "threshold", [*prompt, *route.prefixes[mode]], p_think)


async def probability_of_thinking(
    route: Route, prompt: Sequence[int], interrupt: Interrupt | None = None
) -> float | None:
    """P(think) against P(no_think) as the reply's first token, by one token restricted to the two (temperature 1). None
    where the client cancels before it is there."""
    think, direct = route.prefixes["think"][0], route.prefixes["no_think"][0]
    probe = Sampling(
        max_tokens=1, temperature=1.0, allowed_token_ids=(think, direct), logprob_token_ids=(think, direct), logprobs=0
    )
    async with aclosing(cancellable(route.engine.generate(Prompt(prompt, route.adapter), probe), interrupt)) as stream:
        async for delta in stream:
            if delta.logprobs:
                known = {at.token_id: at.logprob for at in delta.logprobs[0].top}
                return 1.0 / (1.0 + math.exp(known[direct] - known[think]))
    if interrupt is not None and interrupt.cancelled:
        return None
    raise RuntimeError("the probe returned no log-probabilities")

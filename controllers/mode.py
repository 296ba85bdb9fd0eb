"""Think, do not think, or let the model or a threshold decide.

A forced mode is a forced prefix: the mode's opening tokens stand behind the prompt, and the model goes on from there.
In mode `auto` the model's own first token decides; with a threshold its probability does, asked for by a one-token
probe before the reply is generated with the winning prefix.
"""

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from controllers.policy import Policy
from controllers.reply import Chunk, Decision, Event, Finished, Request
from controllers.route import Route
from controllers.thinking import ThinkingParser
from models.engine import Delta, Finish, Prompt, Sampling
from models.families import Mode
from models.stops import StopMatcher


async def run(route: Route, request: Request, policy: Policy, sampling: Sampling) -> AsyncGenerator[Event, None]:
    """One reply in one engine request. Stop strings in `sampling` end the answer; inside thinking they are text."""
    tokenizer = route.engine.tokenizer
    prompt = tokenizer.render(request.messages, request.tools, request.template_kwargs, request.continue_final)
    reply = _Reply(route, sampling)
    decision = await decide(route, prompt, policy)
    if decision is not None:
        prefix = route.prefixes[decision.mode]
        reply.parser.feed(prefix, [tokenizer.token_text(token_id) for token_id in prefix])
        yield decision
        prompt = list(decision.prompt)
    asked = Prompt(prompt, route.adapter, cache_salt=request.cache_salt)
    async with aclosing(route.engine.generate(asked, replace(sampling, stop=(), include_stop=False))) as stream:
        undecided: list[Chunk] = []  # tags that lead nowhere may come before the one that decides
        async for delta in stream:  # pragma: no branch - left by `return`: an engine's last delta says how it ended
            chunks = reply.take(delta)
            if decision is None:
                chunks = undecided = undecided + chunks
                if reply.parser.section == "start" and reply.finish is None:
                    continue
                decision = Decision("think" if reply.parser.section == "reasoning" else "no_think", "model", prompt)
                yield decision
            for chunk in chunks:
                yield chunk
            if reply.finish is not None:
                yield reply.finished(decision)
                return


async def decide(route: Route, prompt: Sequence[int], policy: Policy) -> Decision | None:
    """The mode of a reply and its prompt, or None where the model's own first token is to decide it."""
    if policy.mode != "auto":
        return Decision(policy.mode, policy.chosen_by, [*prompt, *route.prefixes[policy.mode]])
    if policy.think_threshold is None:
        return None
    p_think = await probability_of_thinking(route, prompt)
    mode: Mode = "think" if p_think >= policy.think_threshold else "no_think"
    return Decision(mode, "threshold", [*prompt, *route.prefixes[mode]], p_think)


async def probability_of_thinking(route: Route, prompt: Sequence[int]) -> float:
    """P(think) against P(no_think) as the reply's first token, by one token restricted to the two (temperature 1)."""
    think, direct = route.prefixes["think"][0], route.prefixes["no_think"][0]
    probe = Sampling(
        max_tokens=1, temperature=1.0, allowed_token_ids=(think, direct), logprob_token_ids=(think, direct), logprobs=0
    )
    stream = route.engine.generate(Prompt(prompt, route.adapter), probe)
    async with aclosing(stream):
        async for delta in stream:
            if delta.logprobs:
                known = {at.token_id: at.logprob for at in delta.logprobs[0].top}
                return 1.0 / (1.0 + math.exp(known[direct] - known[think]))
    raise RuntimeError("the probe returned no log-probabilities")


class _Reply:
    """What has been said so far: the parser, the stop strings, and the counts."""

    __slots__ = (
        "answer_tokens",
        "cached_tokens",
        "completion_tokens",
        "finish",
        "min_tokens",
        "parser",
        "reasoning_tokens",
        "stopped_by",
        "stops",
    )

    def __init__(self, route: Route, sampling: Sampling) -> None:
        self.parser = ThinkingParser(route.tags)
        self.stops = StopMatcher(sampling.stop, include_stop=sampling.include_stop) if sampling.stop else None
        self.min_tokens = sampling.min_tokens  # stop strings count only beyond them
        self.completion_tokens = self.reasoning_tokens = self.answer_tokens = self.cached_tokens = 0
        self.finish: Finish | None = None
        self.stopped_by: str | int | None = None

    def take(self, delta: Delta) -> list[Chunk]:
        """The chunks of one delta; sets `finish` when it, or a stop string in the answer, ends the reply."""
        chunks = self.parser.feed(delta.token_ids, delta.pieces, delta.logprobs)
        if delta.finish is not None:
            chunks += self.parser.flush()
            self.finish, self.stopped_by = delta.finish, delta.stopped_by
        if delta.cached_tokens:
            self.cached_tokens = delta.cached_tokens
        if self.stops is not None:
            chunks = self._stop(self.stops, chunks, ended=delta.finish is not None)
        for chunk in chunks:
            self.completion_tokens += len(chunk.token_ids)
            if chunk.kind == "reasoning":
                self.reasoning_tokens += len(chunk.token_ids)
            elif chunk.kind == "answer":
                self.answer_tokens += len(chunk.token_ids)
        return chunks

    def _stop(self, stops: StopMatcher, chunks: list[Chunk], ended: bool) -> list[Chunk]:
        kept: list[Chunk] = []
        said = self.completion_tokens
        for chunk in chunks:
            said += len(chunk.token_ids)
            if chunk.kind != "answer" or said <= self.min_tokens:
                kept.append(chunk)
                continue
            kept.append(replace(chunk, text=stops.feed(chunk.text)))
            if stops.matched is not None:
                self.finish, self.stopped_by = "stop", stops.matched
                return kept
        if ended and (rest := stops.flush()):
            kept.append(Chunk("answer", rest, ()))
        return kept

    def finished(self, decision: Decision) -> Finished:
        return Finished(
            reason=self.finish or "stop",
            stopped_by=self.stopped_by,
            completion_tokens=self.completion_tokens,
            reasoning_tokens=self.reasoning_tokens,
            answer_tokens=self.answer_tokens,
            cached_tokens=self.cached_tokens,
            decision=decision,
        )

"""The loop of the authors' script (uservan/speculative_thinking, speculative_vllm.py), one question at a time.

Segment by segment: the small model writes until a delimiter, a probe of 20 tokens is drawn and thrown away, the target
writes where the probe has a cue, and every request sends all token ids again. Cues are found as substrings, as there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from models.engines.base import Engine, Prompt, Sampling

VERIFY = ("verify", "think again", "recap", "check")
NEGATIVE = ("wait", "alternatively", "hold on", "another")
POSITIVE = ("yeah", "yes", "final answer", "confident")
SEGMENT = 1024
MOST_EXCESS, MOST_NEGATIVES = 200, 30


@dataclass(slots=True)
class Loop:
    """One question. Lengths are those of the route that it is compared with."""

    small: Engine
    target: Engine
    sampling: Sampling
    takeover_tokens: int
    verification_tokens: int
    excess_tokens: int
    excess_after: int
    excess_prompt: str
    target_tokens: int = 0
    requests: int = 0
    said: list[int] = field(default_factory=list)

    async def write(self, prompt: Sequence[int], most: int) -> list[int]:
        """The reply's token ids. `most` bounds them."""
        negatives = 0
        tokenizer = self.small.tokenizer
        while len(self.said) < most:
            token_ids, ended = await self._ask(self.small, prompt, min(SEGMENT, most - len(self.said)), ("\n\n",))
            self.said += token_ids
            if ended or len(self.said) >= most:
                break
            if "\n\n" not in tokenizer.decode(self.said[-5:], False):
                continue
            if negatives >= self.excess_after:
                self.said += tokenizer.encode(self.excess_prompt)
                share, negatives = self.excess_tokens, 0
                self.excess_tokens = max(self.excess_tokens, min(self.excess_tokens + 25, MOST_EXCESS))
                self.excess_after = max(self.excess_after, min(self.excess_after + 5, MOST_NEGATIVES))
            else:
                probe, _ = await self._ask(self.small, prompt, self.takeover_tokens, ())
                if kind(tokenizer.decode(probe, False)) == "statement":
                    continue
                written, ended = await self._ask(self.target, prompt, self.takeover_tokens, ())
                self._take(written)
                text = tokenizer.decode(written, False)
                negatives += kind(text) == "negative"
                if ended or not any(cue in text.lower() for cue in VERIFY):
                    if ended:
                        break
                    continue
                share = self.verification_tokens
            written, ended = await self._ask(self.target, prompt, share, ())
            self._take(written)
            if ended:
                break
        return self.said

    def _take(self, token_ids: list[int]) -> None:
        self.said += token_ids
        self.target_tokens += len(token_ids)

    async def _ask(
        self, engine: Engine, prompt: Sequence[int], most: int, stop: tuple[str, ...]
    ) -> tuple[list[int], bool]:
        """What the engine writes, and whether it ended by itself."""
        self.requests += 1
        sampling = replace(self.sampling, max_tokens=most, stop=stop, include_stop=True)
        token_ids: list[int] = []
        ended = False
        async for delta in engine.generate(Prompt([*prompt, *self.said]), sampling):
            token_ids += delta.token_ids
            ended = delta.finish == "stop" and delta.stopped_by is None
        return token_ids, ended


def kind(text: str) -> str:
    text = text.lower()
    negative = sum(text.count(cue) for cue in (*NEGATIVE, *VERIFY))
    positive = sum(text.count(cue) for cue in POSITIVE)
    if not negative and not positive:
        return "statement"
    return "negative" if negative >= positive else "positive"

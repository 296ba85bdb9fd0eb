"""The one file that touches private methods of TRL's GRPOTrainer. `tests/training/test_trl_seam.py` holds the contract.

Four things are added to GRPO and nothing is copied from it: replies may come from a sampler of our own, equal shares
of every group begin with a forced prefix, prompts are rendered as they are served, and advantages have a token
dimension. A reply's tokens are `prefix + sampled`. The first token of a prefix is the mode token; the rest of a prefix
is masked, the policy never learns from tokens that it did not choose.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from trl import GRPOTrainer

from training.plain_head import log_probabilities
from training.samplers import Sampler

TokenAdvantages = Callable[[Tensor, Tensor], Tensor]
"""(G, N) rewards and the (G, N, T) reply mask to (G, N, T) advantages."""


Render = Callable[[Sequence[Mapping[str, Any]]], list[int]]
"""The messages of a prompt to its token ids."""

LOG_HALF = math.log(0.5)


def unless_settled(advantages: Tensor, probability: Tensor, settled: float) -> Tensor:
    """Mode-token advantages, 0 where the policy is where they push it: above `settled`, or below 1 - it. (B,)"""
    there = torch.where(advantages > 0, probability > settled, probability < 1 - settled)
    return advantages.masked_fill(there, 0.0)


class SampledTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPO whose replies come from `sampler`, or from TRL where it is None."""

    def __init__(self, *args: Any, sampler: Sampler | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sampler = sampler

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *rest: Any
    ) -> tuple[list[list[int]], list[list[float | None]] | None]:
        if self.sampler is None:
            return super()._generate_single_turn(prompt_ids, *rest)  # type: ignore[no-any-return]
        return self.sampler(self.accelerator.unwrap_model(self.model), prompt_ids), None


class ForcedPrefixTrainer(SampledTrainer):
    """GRPO with forced prefixes: the first N/k replies of a group begin with prefix 0, the next with prefix 1, …

    A mode token is forced, so it was not sampled from the policy, and its importance ratio is a choice. "on_policy": 1,
    as for a sampled token; kept. "half": π(m) over 1/2; its gradient fades with π(m), so a mode that became rare
    on the majority's account never comes back. With a ratio of 1 nothing fades, and a mode token pushed for ever drains
    into tokens that are no mode at all; so it is left alone once it is `settled`: PPO's clip about an old probability
    of 1/2. docs/log.md (2026-11-21) compares them.
    """

    def __init__(
        self,
        *args: Any,
        prefixes: Sequence[Sequence[int]],
        token_advantages: TokenAdvantages,
        render: Render | None = None,
        mode_ratio: Literal["on_policy", "half"] = "on_policy",
        settled: float = 1.0,
        fused_head: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.fused_head = fused_head
        self.render = render
        if self.num_generations % len(prefixes):
            raise ValueError(f"{self.num_generations} replies do not divide into {len(prefixes)} prefixes")
        self.prefixes = [list(prefix) for prefix in prefixes]
        self.token_advantages = token_advantages
        self.mode_ratio = mode_ratio
        self.settled = settled
        self._scores = torch.empty(0)

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], Any, dict[str, Any]]:
        """Prompts as the server renders them. TRL's own tokenization makes a control token of every text that spells
        one, and a judge's prompt spells its verdicts."""
        if self.render is None:
            return super()._tokenize_prompts(prompts)  # type: ignore[no-any-return]
        return [self.render(prompt) for prompt in prompts], None, {}

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], images: Any, multimodal_fields: Any, num_generations: int, *rest: Any
    ) -> tuple[list[list[int]], list[list[float | None]] | None]:
        """Samples behind the forced prefixes. Equal prompts stay contiguous: vLLM's server mode needs it."""
        share = num_generations // len(self.prefixes)
        forced = [self.prefixes[i % num_generations // share] for i in range(len(prompt_ids))]
        begun = [[*ids, *prefix] for ids, prefix in zip(prompt_ids, forced, strict=True)]
        sampled, logprobs = super()._generate_single_turn(begun, images, multimodal_fields, share, *rest)
        replies = [[*prefix, *ids] for prefix, ids in zip(forced, sampled, strict=True)]
        if logprobs is None:
            return replies, None
        return replies, [[*[None] * len(prefix), *some] for prefix, some in zip(forced, logprobs, strict=True)]

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, *rest: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """With or without TRL's fused head; both (B, logits_to_keep)."""
        if self.fused_head:
            return super()._get_per_token_logps_and_entropies(  # type: ignore[no-any-return]
                model, input_ids, attention_mask, logits_to_keep, *rest, **kwargs
            )
        head = self.accelerator.unwrap_model(self.model).get_output_embeddings()
        with self.accelerator.autocast():
            found = log_probabilities(model, head, input_ids, attention_mask, logits_to_keep, self.temperature)
        return *found, None

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:
        """Keeps the rewards of all processes. A missing reward is an error."""
        rewards: Tensor = super()._calculate_rewards(*args, **kwargs)  # (all B, reward functions)
        if rewards.isnan().any():
            raise ValueError("a reward function gave no reward for a reply")
        self._scores = (rewards * self.reward_weights.to(rewards.device)).sum(1)  # (all B,)
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's batch, its (B,) advantages replaced by (B, T) ones."""
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        mask: Tensor = output["completion_mask"]  # (B, T)
        batch, length = mask.shape
        if batch % self.num_generations:
            raise ValueError(f"a process holds {batch} replies: not whole groups of {self.num_generations}")
        first = self.accelerator.process_index * batch
        rewards = self._scores[first : first + batch].view(-1, self.num_generations)  # (G, N)
        by_group = mask.view(len(rewards), self.num_generations, length)
        output["advantages"] = self.token_advantages(rewards, by_group).view(batch, length)
        if max(map(len, self.prefixes)) > 1:
            output["tool_mask"] = self._chosen(batch, length).to(mask)
        if self.mode_ratio == "half" or self.settled < 1:
            self._weigh_mode_token(output)
        self._log_modes(rewards)
        return output

    def _chosen(self, batch: int, length: int) -> Tensor:
        """(B, T), 0 on the tokens of a prefix behind its mode token."""
        share = self.num_generations // len(self.prefixes)
        chosen = torch.ones(batch, length)
        for i in range(batch):
            chosen[i, 1 : len(self.prefixes[i % self.num_generations // share])] = 0
        return chosen

    def _weigh_mode_token(self, output: dict[str, Any]) -> None:
        """Leaves settled mode tokens alone; with "half", replaces their old probability by 1/2."""
        logps = output.get("old_per_token_logps")  # (B, T)
        if logps is None:
            ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
            mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
            length = output["completion_ids"].shape[1]
            with torch.no_grad():
                logps = self._get_per_token_logps_and_entropies(self.model, ids, mask, length)[0]
        probability, advantages = logps[:, 0].exp(), output["advantages"][:, 0]  # (B,), (B,)
        share = self.num_generations // len(self.prefixes)
        first = probability.view(-1, self.num_generations)[:, :share]
        self._metrics["train"]["hgpo/probability_0"].append(first.mean().item())
        output["advantages"][:, 0] = unless_settled(advantages, probability, self.settled)
        if self.mode_ratio == "half":
            output["old_per_token_logps"] = logps.clone().index_fill(1, torch.tensor(0, device=logps.device), LOG_HALF)

    def _log_modes(self, rewards: Tensor) -> None:
        """Mean reward behind each prefix, under `hgpo/reward_0`, `hgpo/reward_1`, …"""
        means = rewards.view(len(rewards), len(self.prefixes), -1).mean(dim=(0, 2))
        for i, mean in enumerate(means.tolist()):
            self._metrics["train"][f"hgpo/reward_{i}"].append(mean)

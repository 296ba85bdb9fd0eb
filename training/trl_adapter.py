"""The one file that touches private methods of TRL's trainers. `tests/training/test_trl_adapter.py` holds the contract.

Four things are added to GRPO and nothing is copied from it: replies may come from a sampler of our own, equal shares
of every group begin with a forced prefix, prompts are rendered as they are served, and advantages have a token
dimension. A reply's tokens are `prefix + sampled`.

A mode token is forced, so it was not sampled from the policy, and its importance ratio is a choice. "on_policy": 1, as
for a sampled token; kept. "half": pi(m) over 1/2; its gradient fades with pi(m), so a mode that became rare on the
majority's account never comes back. With a ratio of 1 nothing fades, and a mode token pushed for ever drains into
tokens that are no mode at all; so it is left alone once it is `settled`: PPO's clip about an old probability of 1/2.
docs/log.md (2026-11-21) compares them.
"""

import math
from collections.abc import Sequence
from copy import copy, deepcopy
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from torch.nn import functional
from trl import DPOTrainer, GRPOTrainer, SFTTrainer
from trl.models import prepare_deepspeed, prepare_fsdp
from trl.trainer.callbacks import SyncRefModelCallback
from trl.trainer.utils import add_fused_lm_head

from training import optimizers
from training.algorithms.curriculum import Curriculum
from training.algorithms.parts import CheckedReply, PolicyParts, Sampler
from training.config.sections import OptimizerSection
from training.data.errors import UserError
from training.data.rows import IGNORED
from training.plain_head import log_probabilities, scored_logits

LOG_HALF = math.log(0.5)


class RecipeTrainer:
    """What all trainers share: the recipe's optimizer and schedule, made when the trainer asks for them, as by then the
    model is sharded; and a loss that is no number ends the run."""

    settings: OptimizerSection
    optimizer: Any
    lr_scheduler: Any

    def create_optimizer(self, model: Any = None) -> Any:
        if self.optimizer is None:
            self.optimizer = optimizers.build(model or self.model, self.settings)  # type: ignore[attr-defined]
        return self.optimizer

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss: Tensor = super().training_step(*args, **kwargs)  # type: ignore[misc]
        if not torch.isfinite(loss):
            step = self.state.global_step + 1  # type: ignore[attr-defined]
            raise UserError(f"the loss is no number at step {step}; --resume goes on from the last checkpoint")
        return loss

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            self.lr_scheduler = optimizers.schedule(optimizer or self.optimizer, num_training_steps, self.settings)
        return self.lr_scheduler


class RowTrainer(RecipeTrainer, SFTTrainer):  # type: ignore[misc]
    """Next-token loss, through TRL's fused head or the model's own (see `plain_head`)."""

    def __init__(self, *args: Any, settings: OptimizerSection, fused_head: bool, **kwargs: Any) -> None:
        self.settings, self.fused_head = settings, fused_head
        super().__init__(*args, **kwargs)

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if self.fused_head:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"][:, 1:]  # (B, T - 1)
        scored = labels != IGNORED
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        logits = scored_logits(model, head, inputs["input_ids"], inputs["attention_mask"], scored)  # (N, V)
        loss = functional.cross_entropy(logits.float(), labels[scored], reduction="sum")
        loss = loss / (scored.sum() if num_items_in_batch is None else num_items_in_batch)
        return (loss, {"logits": logits}) if return_outputs else loss


class PairTrainer(RecipeTrainer, DPOTrainer):  # type: ignore[misc]
    """Direct preference optimization on pairs that are token ids already."""

    def __init__(self, *args: Any, settings: OptimizerSection, fused_head: bool, **kwargs: Any) -> None:
        self.settings = settings
        model = kwargs["model"]
        super().__init__(*args, ref_model=None if isinstance(model, PeftModel) else deepcopy(model), **kwargs)

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


class PolicyTrainer(RecipeTrainer, GRPOTrainer):  # type: ignore[misc]
    """GRPO of an algorithm's `parts`: the first N/k replies of a group begin with prefix 0, the next with prefix 1, …

    `sampler` writes the replies; TRL does where it is None.
    """

    def __init__(
        self,
        *args: Any,
        parts: PolicyParts[Any],
        settings: OptimizerSection,
        sampler: Sampler | None = None,
        fused_head: bool = True,
        **kwargs: Any,
    ) -> None:
        self.parts, self.settings, self.sampler, self.fused_head = parts, settings, sampler, fused_head
        self.prefixes = [list(prefix) for prefix in parts.prefixes]
        self._scores = torch.empty(0)
        beta, arguments = kwargs["args"].beta, copy(kwargs["args"])
        arguments.beta = 0.0
        reference = deepcopy(kwargs["model"]) if beta else None
        super().__init__(*args, reward_funcs=self._reward, **{**kwargs, "args": arguments})
        if reference is not None:
            self._hold_to(reference, beta)
        if self.num_generations % len(self.prefixes):
            raise UserError(f"{self.num_generations} replies do not divide into {len(self.prefixes)} prefixes")

    def _hold_to(self, reference: Any, beta: float) -> None:
        """Keeps the policy near a copy of what it was. TRL would load it anew: without what is in memory alone, such as
        trained token rows beside an adapter."""
        self.beta = self.args.beta = beta
        base = reference.get_base_model() if isinstance(reference, PeftModel) else reference
        add_fused_lm_head(base, temperature=self.temperature, cast_lm_head_to_fp32=self.args.cast_lm_head_to_fp32)
        if self.is_deepspeed_enabled:
            self.ref_model = prepare_deepspeed(reference, self.accelerator)
        elif self.is_fsdp_enabled:
            self.ref_model = prepare_fsdp(reference, self.accelerator)
        else:
            self.ref_model = self.accelerator.prepare_model(reference, evaluation_mode=True)
        self.add_callback(SyncRefModelCallback(ref_model=self.ref_model, accelerator=self.accelerator))

    def _reward(
        self, completion_ids: list[list[int]], index: list[int], trainer_state: Any, log_metric: Any, **_: Any
    ) -> list[float]:
        """Reads token ids: TRL's own text has lost the end of turn. A reward that is no number is an error."""
        checked = check_replies(self.parts, index, completion_ids)
        rewards = self.parts.reward(checked, trainer_state.global_step / self.args.max_steps, log_metric)
        if not all(map(math.isfinite, rewards)):
            raise UserError("an algorithm gave no reward for a reply")
        if isinstance(self.parts.questions, Curriculum):
            self.parts.questions.observe(index, rewards)
        return rewards

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], Any, dict[str, Any]]:
        """Prompts as the server renders them. TRL's own tokenization makes a control token of every text that spells
        one, and a judge's prompt spells its verdicts."""
        return [self.parts.render(prompt) for prompt in prompts], None, {}

    def _prefix_of(self, i: int, of_each: int) -> list[int]:
        """What reply i begins with, where each prefix has `of_each` replies of a group."""
        return self.prefixes[i // of_each % len(self.prefixes)]

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], images: Any, multimodal_fields: Any, num_generations: int, *rest: Any
    ) -> tuple[list[list[int]], list[list[float | None]] | None]:
        """Samples behind the forced prefixes. Equal prompts stay contiguous: vLLM's server mode needs it."""
        share = num_generations // len(self.prefixes)
        forced = [self._prefix_of(i, share) for i in range(len(prompt_ids))]
        begun = [[*ids, *prefix] for ids, prefix in zip(prompt_ids, forced, strict=True)]
        logprobs: Any = None
        if self.sampler is None:
            sampled, logprobs = super()._generate_single_turn(begun, images, multimodal_fields, share, *rest)
        else:
            sampled = self.sampler(self.accelerator.unwrap_model(self.model), begun)
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
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        with self.accelerator.autocast():
            found = log_probabilities(model, head, input_ids, attention_mask, logits_to_keep, self.temperature)
        return *found, None

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:
        """Keeps the rewards of all processes."""
        rewards: Tensor = super()._calculate_rewards(*args, **kwargs)  # (all B, 1)
        self._scores = rewards[:, 0]  # (all B,)
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's batch, its (B,) advantages replaced by the algorithm's (B, T) ones."""
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        mask: Tensor = output["completion_mask"]  # (B, T)
        batch, length = mask.shape
        if batch % self.num_generations:
            raise UserError(f"a process holds {batch} replies: not whole groups of {self.num_generations}")
        first = self.accelerator.process_index * batch
        rewards = self._scores[first : first + batch].view(-1, self.num_generations)  # (G, N)
        if self.parts.advantages is not None:
            by_group = mask.view(len(rewards), self.num_generations, length)
            output["advantages"] = self.parts.advantages(rewards, by_group).view(batch, length)
        if any(len(prefix) > 1 or self.parts.mode_position is None for prefix in self.prefixes if prefix):
            output["tool_mask"] = self._chosen(batch, length).to(mask)
        if self.parts.mode_ratio == "half" or self.parts.settled < 1:
            self._weigh_mode_token(output)
        if len(self.prefixes) > 1:
            for i, mean in enumerate(rewards.view(len(rewards), len(self.prefixes), -1).mean(dim=(0, 2)).tolist()):
                self._metrics["train"][f"hgpo/reward_{i}"].append(mean)
        return output

    def _chosen(self, batch: int, length: int) -> Tensor:
        """(B, T), 0 on the tokens of a prefix but its mode token."""
        chosen = torch.ones(batch, length)
        for i in range(batch):
            prefix = self._prefix_of(i, self.num_generations // len(self.prefixes))
            chosen[i, : len(prefix)] = 0
            if self.parts.mode_position is not None:
                chosen[i, self.parts.mode_position] = 1
        return chosen

    def _weigh_mode_token(self, output: dict[str, Any]) -> None:
        """Leaves settled mode tokens alone; with "half", replaces their old probability by 1/2."""
        at = self.parts.mode_position
        assert at is not None and output["advantages"].ndim == 2
        logps = output.get("old_per_token_logps")  # (B, T)
        if logps is None:
            ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
            mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
            length = output["completion_ids"].shape[1]
            with torch.no_grad():
                logps = self._get_per_token_logps_and_entropies(self.model, ids, mask, length)[0]
        probability, advantages = logps[:, at].exp(), output["advantages"][:, at]  # (B,), (B,)
        share = self.num_generations // len(self.prefixes)
        first = probability.view(-1, self.num_generations)[:, :share]
        self._metrics["train"]["hgpo/probability_0"].append(first.mean().item())
        output["advantages"][:, at] = unless_settled(advantages, probability, self.parts.settled)
        if self.parts.mode_ratio == "half":
            output["old_per_token_logps"] = logps.clone().index_fill(1, torch.tensor(at, device=logps.device), LOG_HALF)


def unless_settled(advantages: Tensor, probability: Tensor, settled: float) -> Tensor:
    """Mode-token advantages, 0 where the policy is where they push it: above `settled`, or below 1 - it. (B,)"""
    there = torch.where(advantages > 0, probability > settled, probability < 1 - settled)
    return advantages.masked_fill(there, 0.0)


def prompts(parts: PolicyParts[Any]) -> Dataset:
    """One row a question: its `prompt` (messages) and its `index`, made when it is asked for."""

    def rows(asked: dict[str, list[int]]) -> dict[str, list[Any]]:
        questions = [parts.questions[i] for i in asked["index"]]
        return {**asked, "prompt": [parts.messages(one) if parts.messages else one.messages for one in questions]}

    return Dataset.from_dict({"index": list(range(len(parts.questions)))}).with_transform(rows)


def check_replies(
    parts: PolicyParts[Any], indices: Sequence[int], replies: Sequence[Sequence[int]]
) -> list[CheckedReply[Any]]:
    """The replies to questions of those numbers, read and scored; the source sees complete ones alone."""
    asked = [parts.questions[i] for i in indices]
    read = [parts.read(question, ids) for question, ids in zip(asked, replies, strict=True)]
    complete = [(question, reply.answer) for question, reply in zip(asked, read, strict=True) if reply.complete]
    scores = iter(parts.source.scores(complete))
    return [
        CheckedReply(question, reply, next(scores) if reply.complete else 0.0)
        for question, reply in zip(asked, read, strict=True)
    ]

"""Who writes the replies that a policy learns from, where TRL does not: a merged copy of it, or our own engine.

TRL keeps the engine that it runs to versions of vLLM that it knows, and hands it weights in a way that vLLM's CPU build
cannot take. Our engine reads them from a folder (`VllmEngine.take_weights`) and runs on every version and device that
reasond serves on. docs/log.md (2026-11-21) has what is faster.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from copy import deepcopy
from typing import Any

import torch

from models.engines.base import Prompt, Sampling
from training.algorithms.parts import Sampler
from training.config.sections import PolicyRecipe
from training.data.errors import UserError
from training.sampling.batches import sample
from training.weights import store

CACHE_BYTES = 2**30
"""The engine's key-value cache, where `[engine]` does not say. The trainer wants the rest of the memory."""


@contextmanager
def sampler_of(config: PolicyRecipe) -> Iterator[Sampler | None]:
    """The recipe's sampler; None where TRL samples."""
    if config.generation == "merged":
        yield merged(config, store.load_tokenizer(config.model).eos_token_id)
    elif config.generation == "engine":
        with asyncio.Runner() as runner:
            engine = EngineSampler(config)
            try:
                yield lambda model, prompts: runner.run(engine.sample(model, prompts))
            finally:
                runner.run(engine.close())
    else:
        yield None


def merged(config: PolicyRecipe, end: int) -> Sampler:
    """Samples with a merged copy, the replies behind each forced tag in batches of their own: their lengths differ."""

    def draw(model: Any, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        plain = without_adapter(model).eval()
        replies: list[list[int]] = [[] for _ in prompts]
        for tag in dict.fromkeys(prompt[-1] for prompt in prompts):
            chosen = [i for i, prompt in enumerate(prompts) if prompt[-1] == tag]
            found = sample(
                plain,
                [prompts[i] for i in chosen],
                end,
                max_new_tokens=config.max_new_tokens,
                temperature=config.temperature,
                batch=config.micro_batch,
            )
            for i, reply in zip(chosen, found, strict=True):
                replies[i] = reply
        return replies

    return draw


def without_adapter(model: Any) -> Any:
    """A copy of the model with its adapter, if it has one, in its weights."""
    copy = deepcopy(model)
    return copy.merge_and_unload() if hasattr(copy, "merge_and_unload") else copy


class EngineSampler:
    """Samples with an engine of this process, started with the first weights. `folder` holds the weights of now."""

    def __init__(self, config: PolicyRecipe) -> None:
        self.config = config
        self.folder = config.run.out / "checkpoints" / "policy"
        self.tokenizer = store.load_tokenizer(config.model)
        self.engine: Any = None

    async def sample(self, model: Any, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        store.save(without_adapter(model), self.tokenizer, self.folder)
        if self.engine is None:
            self.engine = await self._start()
        await self.engine.take_weights(str(self.folder))
        if (longest := max(map(len, prompts)) + self.config.max_new_tokens) > self.engine.context_length:
            raise UserError(f"engine.max_model_len must be at least {longest}")
        seeds = torch.randint(2**31, (len(prompts),)).tolist()
        return await asyncio.gather(*map(self._reply, prompts, seeds))

    async def _start(self) -> Any:
        from models.engines.vllm import CHANGING, VllmEngine  # here: it takes seconds, and few recipes need it

        args = {
            **CHANGING,
            "dtype": self.config.model.dtype,
            "kv_cache_memory_bytes": CACHE_BYTES,
            **self.config.engine,
        }
        return await VllmEngine.load(str(self.folder), name="policy", args=args)

    async def _reply(self, prompt: Sequence[int], seed: int) -> list[int]:
        sampling = Sampling(
            max_tokens=self.config.max_new_tokens,
            temperature=self.config.temperature,
            top_p=1.0,
            top_k=0,
            seed=seed,
            whole=True,
        )
        async with aclosing(self.engine.generate(Prompt(prompt), sampling)) as stream:
            return [token for delta in [delta async for delta in stream] for token in delta.token_ids]

    async def close(self) -> None:
        if self.engine is not None:
            await self.engine.close()

"""A model in this process, run by vLLM's asynchronous engine (its core runs in processes of its own).

Tokens are sampled by vLLM and detokenised once, by us: vLLM is asked for token ids only, so stop strings are matched
here too, and a match aborts the request in vLLM. This is the one file that knows vLLM's versions apart.
"""

import asyncio
import dataclasses
import difflib
import json
import os
import time
import typing
import uuid
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from psutil import virtual_memory
from vllm import SamplingParams
from vllm import exceptions as vllm_exceptions
from vllm.config.reasoning import ReasoningConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.logprobs import FlatLogprobs
from vllm.lora.request import LoRARequest
from vllm.outputs import RequestOutput
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from models.engines.base import (
    Delta,
    EngineBusy,
    EngineDead,
    EngineError,
    Grammar,
    ImageProcessor,
    InvalidRequest,
    PositionLogprobs,
    ProcessedPrompt,
    Prompt,
    Sampling,
    admit,
)
from models.engines.processes import EngineProcesses
from models.engines.vllm_keeper import CoreConnection
from models.text.detokenizer import ReplyText
from models.text.tokenizer import HubTokenizer

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the ranks that vLLM allocates for
SHUTDOWN_SECONDS = 30.0  # the core processes leave within about five; vLLM would kill them then
DEFAULTED = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
)
CACHE_SIZES = frozenset({"kv_cache_memory_bytes", "gpu_memory_utilization", "num_gpu_blocks_override"})
CPU_CACHE_SHARE = 0.25  # of the memory that is free when the engine starts
MOST_PIXELS = 1 << 26  # of an image: it is unpacked to three bytes each
PICTURE_ERRORS = (OSError, Image.DecompressionBombError)
EXTENSION = "models.engines.vllm_worker.TakesWeights"
CHANGING: Mapping[str, Any] = {"worker_extension_cls": EXTENSION, "enforce_eager": True}
"""Arguments of an engine whose weights will change: a compiled graph may hold on to those it was compiled with."""
# vLLM's classes for the client's mistakes and for a full queue, by version.
CLIENT_ERROR: type[Exception] = getattr(vllm_exceptions, "VLLMClientError", ValueError)
BUSY_ERROR: type[Exception] = getattr(vllm_exceptions, "GracefulHTTPError", EngineBusy)


class VllmEngine:
    """One vLLM engine. `load` starts it; every method belongs to the event loop that first used it."""

    def __init__(
        self,
        llm: AsyncLLM,
        processes: EngineProcesses | CoreConnection,
        tokenizer: HubTokenizer,
        *,
        name: str,
        adapters: Mapping[str, str],
        native_budget: tuple[str, str] | None,
    ) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.context_length: int = llm.model_config.max_model_len
        self.adapters = frozenset(adapters)
        self._llm = llm
        self._processes = processes
        self._lora = {
            adapter: LoRARequest(lora_name=adapter, lora_int_id=number, lora_path=path)
            for number, (adapter, path) in enumerate(adapters.items(), 1)
        }
        self.native_budget = native_budget
        self.process_images: ImageProcessor | None = self._process_images if _sees(llm) else None
        # What the model's makers recommend, and vLLM's own server applies to whatever a client left out.
        self._defaults: dict[str, Any] = llm.model_config.get_diff_sampling_param()

    @classmethod
    async def load(
        cls,
        model: str,
        *,
        name: str,
        args: Mapping[str, Any] | None = None,
        adapters: Mapping[str, str] | None = None,
        thinking: tuple[str, str] | None = None,
        chat_template: str | None = None,
        keeper: str = "",
    ) -> "VllmEngine":
        """Starts an engine: `args` are vLLM's engine arguments by their Python names, `adapters` LoRA folders by name,
        `thinking` the tag pair that native thinking budgets watch. With a `keeper` it is one that others share.

        Raises `ValueError` for an argument that vLLM does not have, before anything is loaded.
        """
        adapters = adapters or {}
        engine_args = engine_arguments(model, args or {}, adapters, thinking)
        tokenizer = HubTokenizer(
            engine_args.tokenizer or engine_args.model,
            chat_template=chat_template,
            revision=engine_args.tokenizer_revision or engine_args.revision,
            mode=engine_args.tokenizer_mode,
        )
        processes: EngineProcesses | CoreConnection
        if keeper:
            processes = CoreConnection(keeper)
            try:
                llm = await asyncio.to_thread(processes.client)
            except BaseException:  # who no longer waits for the core leaves its place
                processes.shutdown()
                raise
        else:
            processes = EngineProcesses()
            llm = await asyncio.to_thread(_start, engine_args, processes)
        return cls(llm, processes, tokenizer, name=name, adapters=adapters, native_budget=_watched_tags(engine_args))

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        most = admit(self, prompt, sampling)
        if sampling.thinking_budget is not None and self.native_budget is None:
            raise InvalidRequest(f"engine {self.name} was not given a tag pair to hold a budget to", "thinking_budget")
        text = ReplyText(self.tokenizer.backend, prompt.token_ids, sampling)
        with self._translating_errors(sampling):
            async with aclosing(self._stream(prompt, sampling, most)) as stream:
                first = True
                async for output in stream:
                    delta = self._delta(output, text, sampling)
                    if first and output.num_cached_tokens:
                        delta = dataclasses.replace(delta, cached_tokens=output.num_cached_tokens)
                    yield delta
                    first = False
                    if delta.finish is not None:
                        return

    async def _process_images(self, token_ids: Sequence[int], images: Sequence[bytes]) -> ProcessedPrompt:
        try:
            pictures = await asyncio.to_thread(lambda: [_picture(image) for image in images])
            prompt = {"prompt_token_ids": list(token_ids), "multi_modal_data": {"image": pictures}}
            seen = await self._llm.renderer.process_for_engine_async(prompt, time.time(), skip_mm_cache=True)
        except (*PICTURE_ERRORS, ValueError, CLIENT_ERROR) as error:
            raise InvalidRequest(f"an image cannot be read: {error}", "messages") from error
        return ProcessedPrompt(list(seen["prompt_token_ids"]), seen)

    def _stream(self, prompt: Prompt, sampling: Sampling, most: int) -> AsyncGenerator[RequestOutput, None]:
        engine_input: dict[str, Any] = dict(prompt.image_inputs or {"type": "token"})
        engine_input["prompt_token_ids"] = list(prompt.token_ids)
        if prompt.cache_salt is not None:
            engine_input["cache_salt"] = prompt.cache_salt
        stream: AsyncGenerator[RequestOutput, None] = self._llm.generate(
            engine_input,
            sampling_params(sampling, most, self._defaults),
            uuid.uuid4().hex,
            lora_request=self._lora[prompt.adapter] if prompt.adapter else None,
            priority=sampling.priority,
            reasoning_ended=prompt.reasoning_ended,
        )
        return stream

    def _delta(self, request_output: RequestOutput, text: ReplyText, sampling: Sampling) -> Delta:
        output = request_output.outputs[0]
        logprobs = None if output.logprobs is None else _sampled_positions(output.logprobs, sampling)
        if output.finish_reason is None:
            return text.delta(output.token_ids, logprobs)
        if output.finish_reason not in ("stop", "length"):
            raise EngineError(f"engine {self.name} ended a request with {output.finish_reason!r}")
        # vLLM reports the further end-of-sequence ids of a generation config as stop ids; they are not the client's.
        stop = output.stop_reason if output.stop_reason in sampling.stop_token_ids else None
        return text.delta(output.token_ids, logprobs, output.finish_reason, stop)

    @contextmanager
    def _translating_death(self) -> Iterator[None]:
        try:
            yield
        except EngineDeadError as error:
            raise EngineDead(f"engine {self.name} has stopped; the log says why") from error

    @contextmanager
    def _translating_errors(self, sampling: Sampling) -> Iterator[None]:
        try:
            with self._translating_death():
                yield
        except BUSY_ERROR as error:
            raise EngineBusy(str(error)) from error
        except EngineGenerateError as error:
            raise EngineError(f"engine {self.name} failed: {error.__cause__ or error}") from error
        except CLIENT_ERROR as error:
            # vLLM often leaves the field out; grammars are what it checks beyond our own admission.
            field = getattr(error, "parameter", None) or ("grammar" if sampling.grammar else "sampling")
            raise InvalidRequest(str(error), field) from error

    async def take_weights(self, folder: str) -> None:
        """Goes on with the weights of `folder`, of the same architecture, and forgets every cached prefix. For
        an engine that was started with the arguments `CHANGING`, on this machine, while no request runs."""
        with self._translating_death():
            await self._llm.collective_rpc("take_weights", args=(folder,))
            emptied = await self._llm.reset_prefix_cache()
        if not emptied:
            raise EngineError(f"engine {self.name} holds prefixes of its old weights: a request still runs")

    def running(self) -> int:
        if self._llm.errored:  # its books stay open
            return 0
        count: int = self._llm.output_processor.get_num_unfinished_requests()
        return count

    async def check(self) -> None:
        with self._translating_death():
            await self._llm.check_health()

    async def pulse(self) -> None:
        """Returns when the engine's core has ended the step in hand: it answers between steps."""
        with self._translating_death():
            await self._llm.is_sleeping()

    async def kill(self) -> None:
        """Ends the engine at once, whatever its processes do. `close` tidies up behind it."""
        await asyncio.to_thread(self._processes.kill)

    async def close(self) -> None:
        if self._llm.output_handler is not None:
            self._llm.output_handler.cancel()  # it would take the end of the core process for a crash
        await asyncio.to_thread(self._llm.shutdown, SHUTDOWN_SECONDS)
        await self.kill()


def _sees(llm: AsyncLLM) -> bool:
    """Whether the model is one that takes images, and is allowed some."""
    if not llm.model_config.is_multimodal_model:
        return False
    return bool(llm.renderer.get_mm_processor().info.allowed_mm_limits.get("image"))


def _picture(image: bytes) -> Image.Image:
    """Unpacked. Raises `ValueError` for what is no image, or one that is too large."""
    try:
        picture = Image.open(BytesIO(image))
    except UnidentifiedImageError as error:
        raise ValueError("its format is not known") from error
    if picture.width * picture.height > MOST_PIXELS:
        raise ValueError(f"it has more than {MOST_PIXELS} pixels")
    return picture.convert("RGB")


def sampling_params(sampling: Sampling, most: int, defaults: Mapping[str, Any]) -> SamplingParams:
    """vLLM's parameters for one request of at most `most` new tokens. `defaults` fill what the request leaves open."""
    drawn = {field: getattr(sampling, field) for field in DEFAULTED}
    drawn = {field: defaults.get(field) if value is None else value for field, value in drawn.items()}
    if sampling.max_tokens is None:
        most = min(most, defaults.get("max_tokens", most))
    return SamplingParams(
        **{field: value for field, value in drawn.items() if value is not None},
        max_tokens=most,
        min_tokens=sampling.min_tokens,
        seed=sampling.seed,
        stop_token_ids=list(sampling.stop_token_ids) or None,
        ignore_eos=sampling.ignore_eos,
        logprobs=None if sampling.logprob_token_ids else sampling.logprobs,  # vLLM takes one or the other
        logprob_token_ids=list(sampling.logprob_token_ids) or None,
        flat_logprobs=True,
        logit_bias=dict(sampling.logit_bias) if sampling.logit_bias else None,
        allowed_token_ids=list(sampling.allowed_token_ids) or None,
        bad_words=list(sampling.bad_words) or None,
        thinking_token_budget=sampling.thinking_budget,
        structured_outputs=_structured_outputs(sampling.grammar),
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY if sampling.at_once else RequestOutputKind.DELTA,
        skip_clone=True,
    )


def _start(engine_args: AsyncEngineArgs, processes: EngineProcesses) -> AsyncLLM:
    with processes.started():
        try:
            return AsyncLLM.from_engine_args(engine_args)
        except BaseException:
            processes.kill()
            raise


def engine_arguments(
    model: str, args: Mapping[str, Any], adapters: Mapping[str, str], thinking: tuple[str, str] | None
) -> AsyncEngineArgs:
    """vLLM's engine arguments from config, with what adapters and native budgets need filled in unless it is given.

    A mapping given for one of vLLM's config classes becomes that class. Raises `ValueError` for an unknown name.
    """
    known = {field.name: field.type for field in dataclasses.fields(AsyncEngineArgs) if field.name != "model"}
    for name in args:
        if name not in known:
            close = ", ".join(difflib.get_close_matches(name, known)) or "none"
            raise ValueError(f"vLLM has no engine argument {name!r} (similar ones: {close})")
    filled: dict[str, Any] = {"disable_log_stats": True}  # one engine's metrics would overwrite another's
    if current_platform.is_cpu():
        # A prompt that is read in parts has sampled tokens thrown away; vLLM then winds the request's generator back,
        # which a CPU generator cannot do: one request with a seed would end the engine.
        filled["enable_chunked_prefill"] = False
        filled["worker_extension_cls"] = EXTENSION
        if not CACHE_SIZES & args.keys() and "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
            # vLLM would take nearly all memory, and refuses to start where some of it is in use.
            filled["kv_cache_memory_bytes"] = int(virtual_memory().available * CPU_CACHE_SHARE)
        filled["max_model_len"] = -1  # the model's own where the cache holds that, else as much as it does
    if adapters:
        filled |= {"enable_lora": True, "max_loras": len(adapters), "max_lora_rank": _lora_rank(adapters.values())}
    if thinking is not None:
        filled["reasoning_config"] = ReasoningConfig(reasoning_start_str=thinking[0], reasoning_end_str=thinking[1])
    given = {name: _as_config(value, known[name]) for name, value in args.items()}
    return AsyncEngineArgs(model=model, **(filled | given))


def _watched_tags(args: AsyncEngineArgs) -> tuple[str, str] | None:
    """The pair of tags that native budgets watch, ours or one that the arguments brought along."""
    reasoning = args.reasoning_config
    if reasoning is None:
        return None
    return reasoning.reasoning_start_str, reasoning.reasoning_end_str


def _as_config(value: Any, wanted: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    for candidate in (wanted, *typing.get_args(wanted)):
        if isinstance(candidate, type) and dataclasses.is_dataclass(candidate):
            return candidate(**value)
    return dict(value)


def _lora_rank(paths: Iterable[str]) -> int:
    """The smallest rank that vLLM allocates for and every adapter fits in."""
    largest = max(json.loads(Path(path, "adapter_config.json").read_text())["r"] for path in paths)
    return next((rank for rank in LORA_RANKS if rank >= largest), largest)


def _structured_outputs(grammar: Grammar | None) -> StructuredOutputsParams | None:
    if grammar is None:
        return None
    return StructuredOutputsParams(**{grammar.kind: grammar.value})


def _sampled_positions(logprobs: FlatLogprobs, sampling: Sampling) -> tuple[PositionLogprobs, ...]:
    known = (_known(logprobs, index) for index in range(len(logprobs)))
    return tuple(
        PositionLogprobs.of(next(iter(entries)), entries, sampling.logprobs, sampling.logprob_token_ids)
        for entries in known
    )


def _known(logprobs: FlatLogprobs, index: int) -> dict[int, float]:
    """Log-probabilities by token id at one position: the sampled token first, as vLLM orders them."""
    span = slice(logprobs.start_indices[index], logprobs.end_indices[index])
    return dict(zip(logprobs.token_ids[span], logprobs.logprobs[span], strict=True))

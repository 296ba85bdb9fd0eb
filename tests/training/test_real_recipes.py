"""The recipes for real models: one step of each on a shrunken random model of the same architecture.

Each runs with the demo's tokenizer, without the tags, behind the model's own way of opening a reply; and with the
model's own tokenizer and template, where the package indices can be reached.
"""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.families.corpus import corpus, model_folder
from tests.training.conftest import train
from tests.training.test_replies import OPENINGS, TEMPLATE
from tests.training.test_runs import metrics
from training.cli import read
from training.config.sections import PolicyRecipe
from training.data.questions import TrainingQuestion
from training.data.samples import SampledReply
from training.weights import store

R1 = "DeepSeek-R1 (distilled)"
RECIPES = {
    "qwen3_0.6b_hft": (Qwen3Config, Qwen3ForCausalLM, "qwen3", "Qwen3"),
    "qwen3_0.6b_hgpo": (Qwen3Config, Qwen3ForCausalLM, "qwen3", "Qwen3"),
    "lhrm_qwen2.5_1.5b_hft": (Qwen2Config, Qwen2ForCausalLM, "lhrm", "Qwen2.5"),
    "lhrm_qwen2.5_1.5b_hgpo": (Qwen2Config, Qwen2ForCausalLM, "lhrm", "Qwen2.5"),
    "selfbudgeter_r1_1.5b_start": (Qwen2Config, Qwen2ForCausalLM, "selfbudgeter", R1),
    "selfbudgeter_r1_1.5b_grpo": (Qwen2Config, Qwen2ForCausalLM, "selfbudgeter", R1),
    "rrm_r1_7b_grpo": (Qwen2Config, Qwen2ForCausalLM, "deepseek_r1", R1),
}
NOT_OF_QWEN_2 = ("<tool_response>", "</tool_response>", "<think>", "</think>")
"""What Qwen3 added to the vocabulary of Qwen2.5."""


def tokenizer(family: str):
    demo = AutoTokenizer.from_pretrained("demo/tokenizer")
    backend = json.loads(demo.backend_tokenizer.to_str())
    kept = ("<think>", "</think>") if family in ("qwen3", "deepseek_r1") else ()
    backend["added_tokens"] = [one for one in backend["added_tokens"] if one["special"] or one["content"] in kept]
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(backend)), eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    made.chat_template = TEMPLATE.replace("OPENING", OPENINGS.get(family, ""))
    return made


def real_tokenizer(name: str, folder: Path):
    if isinstance(why := corpus(), str):
        pytest.skip(why)
    model_folder(folder, name)
    if name == "Qwen2.5":
        file = folder / "tokenizer.json"
        written = json.loads(file.read_text())
        written["added_tokens"] = [one for one in written["added_tokens"] if one["content"] not in NOT_OF_QWEN_2]
        file.write_text(json.dumps(written))
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Data such as the recipes ask for."""
    rows = [
        {"prompt": f"{i}+1?", "thinking": f"{i}+1={i + 1}", "answer": str(i + 1), "direct": str(i + 1)}
        for i in range(40)
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = [{"prompt": f"Which is larger, {i} or 5?", "answer": "\\boxed{Assistant 1}"} for i in range(40)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    samples = [
        SampledReply(
            TrainingQuestion(row["prompt"], answer=row["answer"]),
            None,
            None,
            None,
            "",
            f"so {row['answer']}",
            5,
            True,
            1.0,
        )
        for row in rows
    ]
    (tmp_path / "samples.jsonl").write_text("".join(one.line() for one in samples))
    return tmp_path


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.accept)], ids=["demo", "real"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_step_of_a_recipe_for_a_real_model(name, real, files, tmp_path):
    config_class, model_class, family, model = RECIPES[name]
    vocabulary = real_tokenizer(model, tmp_path / "tokenizer") if real else tokenizer(family)
    base = tmp_path / "base"
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = config_class(vocab_size=len(vocabulary), num_key_value_heads=1, tie_word_embeddings=True, **sizes)
    store.save(model_class(config), vocabulary, base)
    path = Path(f"configs/train/{name}.toml")
    recipe = read(path)
    changes = ["steps=1", "questions=2", f"model.path={base}", f"run.out={tmp_path / 'run'}", "run.log_every=1"]
    changes += [f"data.file={files / recipe.data.file.name}", "data.test_share=0"] if recipe.data else []
    changes += [f"samples={files / 'samples.jsonl'}"] if "samples" in type(recipe).model_fields else []
    if isinstance(recipe, PolicyRecipe):
        changes += ["generation=trainer", "replies=2", "micro_batch=4", "max_new_tokens=8"]
    else:
        changes += [f"micro_batch={recipe.model_copy(update={'questions': 2}).rows_a_step}"]
    train(read(path, changes))
    logged = [line for line in metrics(tmp_path / "run") if "loss" in line]
    assert [line["step"] for line in logged] == [1]
    assert (tmp_path / "run" / "reasond.toml").exists()

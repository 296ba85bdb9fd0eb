"""A few steps of everything on a micro model: does it run, learn, save, and measure?"""

import json
import re
import shutil
from pathlib import Path
from random import Random

import pytest
import torch
from peft import PeftConfig
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demo.tasks import TASKS
from models.text.tokenizer import HubTokenizer
from tests.training.conftest import material, train
from training import cli
from training.algorithms import hft
from training.config.sections import EvaluateRecipe, LoraSection, MergeRecipe, ModelSection
from training.data.errors import UserError
from training.data.questions import draw
from training.data.replies import MODES, format_of
from training.evaluation import modes as evaluate
from training.optimizers import build, rate
from training.runs import last_checkpoint
from training.weights import merge, store


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_hft_rows_say_nothing_about_the_right_mode(hft_recipe):
    form = format_of("lhrm", HubTokenizer("demo/tokenizer"))
    think, no_think = (form.prefixes[mode][0] for mode in MODES)
    modes: dict[tuple[int, ...], set[int]] = {}
    for row in hft.rows(hft_recipe, material(hft_recipe)):
        prompt = tuple(token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label < 0)
        modes.setdefault(prompt, set()).add(row["input_ids"][len(prompt)])
    assert all(found == {think, no_think} for found in modes.values())


def test_an_unpaired_question_is_written_once_and_some_follow_an_earlier_one(hft_recipe):
    form = format_of("lhrm", HubTokenizer("demo/tokenizer"))
    recipe = hft_recipe.model_copy(update={"paired": False, "history": 0.5, "questions": 8})
    rows = list(hft.rows(recipe, material(recipe)))
    assert len(rows) == recipe.steps * 8
    turns = [form.tokenizer.decode(row["input_ids"], skip_special_tokens=False).count("user\n") for row in rows]
    assert sorted(turns) == [1] * (len(rows) // 2) + [2] * (len(rows) // 2)


def test_the_modes_of_a_difficulty_put_the_choice_into_the_data(hft_recipe):
    form = format_of("lhrm", HubTokenizer("demo/tokenizer"))
    recipe = hft_recipe.model_copy(update={"paired": False, "modes": ("no_think",), "modes_at": {2: ("think",)}})
    texts = [
        form.tokenizer.decode(row["input_ids"], skip_special_tokens=False) for row in hft.rows(recipe, material(recipe))
    ]
    hard = [bool(re.search(r"then a\S+ b", text)) for text in texts]
    assert hard == ["<think>" in text for text in texts]
    assert len(set(hard)) == 2


def test_an_hft_row_is_the_served_prompt_and_a_learned_reply():
    tokenizer = HubTokenizer("demo/tokenizer")
    question = draw(TASKS["chain"], 2, "train", Random(0))
    row = hft.mode_row(question, "think", format_of("lhrm", tokenizer))
    served = tokenizer.render([{"role": "user", "content": question.text}])
    assert row["input_ids"][: len(served)] == served
    assert row["labels"][: len(served)] == [-100] * len(served)
    assert row["labels"][len(served) :] == row["input_ids"][len(served) :]
    learned = tokenizer.decode(row["labels"][len(served) :], skip_special_tokens=False)
    assert learned == f"<think>{question.thought}</think>{question.answer}<|im_end|>"


def test_hft_learns_saves_and_logs(hft_recipe):
    train(hft_recipe)
    losses = [line["loss"] for line in metrics(hft_recipe.run.out) if "loss" in line]
    assert losses[-1] < losses[0]
    saved = AutoModelForCausalLM.from_pretrained(hft_recipe.run.out)
    assert saved.config.architectures == ["Qwen3ForCausalLM"]
    assert saved.config.tie_word_embeddings
    assert HubTokenizer(hft_recipe.run.out).has_template


def test_hft_goes_on_from_its_checkpoint_to_the_same_weights(hft_recipe):
    run = hft_recipe.run.model_copy(update={"checkpoint_every": 4})
    recipe = hft_recipe.model_copy(update={"run": run})
    train(recipe)
    whole = AutoModelForCausalLM.from_pretrained(run.out).state_dict()
    shutil.rmtree(run.out / "checkpoints" / "checkpoint-6")
    train(recipe, resume=True)
    resumed = AutoModelForCausalLM.from_pretrained(run.out).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert [line["step"] for line in metrics(run.out) if "loss" in line][-2:] == [5, 6]


@pytest.fixture
def foreign(tmp_path):
    """A pretrained model's folder whose tokenizer knows no mode tags."""
    tokenizer = AutoTokenizer.from_pretrained("demo/tokenizer")
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend["added_tokens"] = [token for token in backend["added_tokens"] if token["special"]]
    plain = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(backend)), eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    plain.chat_template = tokenizer.chat_template
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(plain), tie_word_embeddings=True, **size))
    store.save(model, plain, tmp_path / "foreign")
    return tmp_path / "foreign"


@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4}])
def test_hft_takes_any_causal_model_and_adds_the_mode_tags(hft_recipe, foreign, lora):
    model = ModelSection.model_validate({"path": str(foreign), "lora": lora})
    adamw = hft_recipe.optimizer.model_copy(update={"matrix_lr": None})
    train(hft_recipe.model_copy(update={"model": model, "optimizer": adamw}))
    saved = HubTokenizer(hft_recipe.run.out)
    assert saved.control_id("<no_think>") is not None
    before = AutoModelForCausalLM.from_pretrained(foreign)
    after = AutoModelForCausalLM.from_pretrained(hft_recipe.run.out)
    assert after.get_input_embeddings().num_embeddings >= saved.vocab_size > before.config.vocab_size
    changed = after.model.layers[0].mlp.up_proj.weight - before.model.layers[0].mlp.up_proj.weight
    assert changed.abs().max() > 0
    assert torch.equal(after.get_input_embeddings().weight, after.get_output_embeddings().weight)
    known = before.config.vocab_size
    kept = torch.equal(after.get_input_embeddings().weight[:known], before.get_input_embeddings().weight)
    assert kept == (lora is not None)  # an adapter trains the tags' rows alone


def test_an_adapter_is_kept_beside_the_model_and_merges_into_the_same_again(hft_recipe, foreign, tmp_path):
    model = ModelSection.model_validate({"path": str(foreign), "lora": {"rank": 2, "alpha": 4}})
    adamw = hft_recipe.optimizer.model_copy(update={"matrix_lr": None})
    train(hft_recipe.model_copy(update={"model": model, "optimizer": adamw, "fused_head": False}))
    adapter = hft_recipe.run.out / "adapter"
    plain = model.model_copy(update={"lora": None})
    recipe = MergeRecipe(model=plain, adapter=adapter, out=tmp_path / "merged")
    merge.main(recipe)
    trained, merged = (
        AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (hft_recipe.run.out, recipe.out)
    )
    for name, weight in trained.items():
        torch.testing.assert_close(merged[name], weight, atol=1e-3, rtol=1e-2)  # the adapter is kept in bfloat16
    assert merge.main(recipe) == f"{recipe.out} is there"


def test_hgpo_goes_on_with_an_adapter_and_samples_each_mode_apart(hft_recipe, hgpo_recipe, foreign):
    model = ModelSection.model_validate({"path": str(foreign), "lora": {"rank": 2, "alpha": 4}})
    adamw = hft_recipe.optimizer.model_copy(update={"matrix_lr": None})
    train(hft_recipe.model_copy(update={"model": model, "optimizer": adamw}))
    going_on = model.model_copy(update={"lora": LoraSection(start=hft_recipe.run.out / "adapter")})
    train(hgpo_recipe.model_copy(update={"model": going_on, "generation": "merged", "fused_head": False}))
    lines = [line for line in metrics(hgpo_recipe.run.out) if "reward" in line]
    assert len(lines) == hgpo_recipe.steps
    assert PeftConfig.from_pretrained(hgpo_recipe.run.out / "adapter").r == 2


def test_the_plain_head_gives_the_loss_of_the_fused_one(hft_recipe):
    train(hft_recipe)
    fused = [line["loss"] for line in metrics(hft_recipe.run.out) if "loss" in line]
    train(hft_recipe.model_copy(update={"fused_head": False}))
    plain = [line["loss"] for line in metrics(hft_recipe.run.out) if "loss" in line]
    assert plain == pytest.approx(fused, rel=1e-2)


def test_rows_that_do_not_fill_the_micro_batches_are_refused(hft_recipe):
    with pytest.raises(ValueError, match="micro_batch"):
        train(hft_recipe.model_copy(update={"micro_batch": 3}))


def test_hgpo_runs_and_logs_the_reward_of_both_modes(hgpo_recipe):
    train(hgpo_recipe)
    lines = [line for line in metrics(hgpo_recipe.run.out) if "reward" in line]
    assert len(lines) == hgpo_recipe.steps
    assert {"hgpo/reward_0", "hgpo/reward_1"} <= lines[0].keys()
    assert (hgpo_recipe.run.out / "model.safetensors").exists()


def test_an_evaluation_measures_every_mode_and_difficulty(hgpo_recipe, tmp_path):
    recipe = EvaluateRecipe.model_validate(
        {
            "model": hgpo_recipe.model.model_dump(),
            "data": {"task": "demo.tasks.chain:Chain", "difficulties": [1, 2]},
            "out": str(tmp_path / "evaluation"),
            "questions": 3,
            "samples": 2,
            "max_new_tokens": 6,
            "resamples": 10,
        }
    )
    table = evaluate.main(recipe)
    result = json.loads((recipe.out / "evaluation.json").read_text())
    assert [cell["difficulty"] for cell in result["by_difficulty"]] == [1, 2]
    assert result["hybrid_accuracy"]["questions"] == 6
    assert {"think", "no_think", "free", "think_ratio"} <= result["by_difficulty"][0].keys()
    assert table in (recipe.out / "evaluation.md").read_text()


@pytest.mark.parametrize(("threshold", "mode"), [(0.0, "think"), (1.0, "no_think")])
def test_an_evaluation_may_choose_by_a_threshold_as_a_route_does(hgpo_recipe, tmp_path, threshold, mode):
    recipe = EvaluateRecipe.model_validate(
        {
            "model": hgpo_recipe.model.model_dump(),
            "data": {"task": "demo.tasks.chain:Chain", "difficulties": [1]},
            "out": str(tmp_path / "evaluation"),
            "questions": 3,
            "samples": 1,
            "max_new_tokens": 6,
            "resamples": 10,
            "think_threshold": threshold,
        }
    )
    evaluate.main(recipe)
    (cell,) = json.loads((recipe.out / "evaluation.json").read_text())["by_difficulty"]
    assert cell["free"] == cell[mode]


def test_a_model_of_one_mode_is_measured_without_a_choice(hft_recipe, tmp_path):
    made = hft_recipe.model_copy(update={"modes": ("think",)})
    train(made)
    recipe = EvaluateRecipe.model_validate(
        {
            "model": {"path": str(made.run.out)},
            "data": {"task": "demo.tasks.countdown:Countdown", "difficulties": [1]},
            "out": str(tmp_path / "evaluation"),
            "questions": 3,
            "modes": ["think"],
            "max_new_tokens": 6,
            "resamples": 10,
        }
    )
    table = evaluate.main(recipe)
    result = json.loads((recipe.out / "evaluation.json").read_text())
    assert result["overall"]["think"] == result["by_difficulty"][0]["think"]
    assert "hybrid_accuracy" not in result
    assert table.count("| think |") == 2


def test_a_recipe_of_one_mode_writes_every_question_once(hft_recipe):
    form = format_of("lhrm", HubTokenizer("demo/tokenizer"))
    recipe = hft_recipe.model_copy(update={"modes": ("think",)})
    rows = list(hft.rows(recipe, material(recipe)))
    assert len(rows) == hft_recipe.steps * hft_recipe.questions
    assert all(form.prefixes["think"][0] in row["labels"] for row in rows)


def test_matrices_go_to_muon_and_the_rest_to_adamw(hft_recipe):
    tokenizer = store.load_tokenizer(hft_recipe.model)
    model = store.load_model(hft_recipe.model, tokenizer, 0)
    muon, adamw = build(model, hft_recipe.optimizer).param_groups
    assert {weight.ndim for weight in muon["params"]} == {2}
    assert any(weight is model.get_input_embeddings().weight for weight in adamw["params"])
    assert len(muon["params"]) + len(adamw["params"]) == len(list(model.parameters()))


def test_the_rate_warms_up_holds_and_falls():
    # 10 steps, 2 of warm-up, falling from step 5 on: (10 - 8) / (10 - 5)
    assert [rate(step, 10, 2, 0.5) for step in (0, 1, 4, 8, 10)] == [0.5, 1.0, 1.0, 0.4, 0.0]
    assert rate(9, 10, 0, 1.0) == 1.0


def test_a_run_ends_with_the_evaluation_that_its_recipe_names(tmp_path, monkeypatch, capsys):
    out, settings = tmp_path / "run", ["steps=2", "questions=2", "micro_batch=2", "easy=[]", "easy_share=0.0"]
    scratch = "{ hidden = 32, layers = 1, heads = 2, feed_forward = 64, context = 256 }"
    settings += ["model.path=demo/tokenizer", f"model.scratch={scratch}", f"run.out={out}", "run.log_every=1"]
    small = tmp_path / "evaluate.toml"
    small.write_text(Path("configs/train/hybrid_evaluate.toml").read_text().replace("questions = 250", "questions = 2"))
    overrides = [part for setting in [*settings, f"run.evaluate={small}"] for part in ("--set", setting)]
    with monkeypatch.context() as patched:
        patched.setattr(cli, "_is_main_process", lambda: False)
        assert cli.main(["configs/train/hybrid_hft.toml", *overrides]) == 0
    assert not (out / "evaluation.md").exists()  # another process of the same run does it
    assert cli.main(["configs/train/hybrid_hft.toml", *overrides]) == 0
    assert {"evaluation.md", "evaluation.json", "evaluation.png", "metrics.png"} <= {
        file.name for file in out.iterdir()
    }
    assert (out / "evaluation.md").read_text() in capsys.readouterr().out


def test_a_run_goes_on_from_the_newest_checkpoint_that_is_whole(tmp_path):
    for step, state in ((8, "{\n}\n"), (10, "{\n}\n"), (12, '{\n "glo'), (14, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    with pytest.raises(ValueError, match="no checkpoint"):
        last_checkpoint(tmp_path / "checkpoint-8")


def test_a_run_that_begins_anew_is_never_gone_on_with_from_an_earlier_one(hft_recipe):
    every = hft_recipe.model_copy(update={"run": hft_recipe.run.model_copy(update={"checkpoint_every": 1})})
    train(every)
    train(every.model_copy(update={"steps": 2, "easy_share": 0.0}))
    assert last_checkpoint(every.run.out / "checkpoints").endswith("checkpoint-2")


def test_a_run_goes_on_with_the_recipe_that_it_began_with(hft_recipe):
    every = hft_recipe.model_copy(update={"run": hft_recipe.run.model_copy(update={"checkpoint_every": 1})})
    train(every)
    with pytest.raises(UserError, match="another `questions`"):
        train(every.model_copy(update={"questions": 8}), resume=True)
    train(every.model_copy(update={"steps": 7}), resume=True)
    assert [line["step"] for line in metrics(every.run.out) if "loss" in line] == list(range(1, 8))

"""HFT and HGPO in a family whose modes are prefixes (qwen3): the model learns when to think without new tokens."""

import json

import pytest
from transformers import AutoModelForCausalLM

from models.text.tokenizer import HubTokenizer
from server.config.command_line import table_of
from server.config.load import parse_table
from tests.server.judges import JUDGE, JudgeServer
from tests.training.conftest import train
from tests.training.served import serving
from tests.training.test_runs import metrics
from training.algorithms.grpo import GrpoRecipe
from training.config.sections import EvaluateRecipe, ModelSection
from training.config.source import DataSection
from training.evaluation import modes


@pytest.mark.parametrize("family", ["qwen3", "deepseek_r1"])
def test_both_stages_and_the_evaluation_run_in_a_prefix_family(hft_recipe, hgpo_recipe, family, tmp_path):
    model = hft_recipe.model.model_copy(update={"family": family})
    train(hft_recipe.model_copy(update={"model": model}))
    made = ModelSection(path=str(hft_recipe.run.out), family=family)
    settings = {"model": made, "mode_ratio": "half", "settled": 0.98}
    train(hgpo_recipe.model_copy(update=settings))
    lines = [line for line in metrics(hgpo_recipe.run.out) if "reward" in line]
    assert len(lines) == hgpo_recipe.steps
    assert all(0 <= line["hgpo/probability_0"] <= 1 for line in lines)
    before = AutoModelForCausalLM.from_pretrained(hft_recipe.run.out).get_input_embeddings().num_embeddings
    after = AutoModelForCausalLM.from_pretrained(hgpo_recipe.run.out).get_input_embeddings().num_embeddings
    assert before == after == HubTokenizer("demo/tokenizer").vocab_size, "no token is new"
    if family == "qwen3":  # the other has no token that begins thinking: nothing to read P(think) from
        measured = {"model": made.model_dump(), "data": hft_recipe.data.model_dump(exclude_unset=True)}
        sizes = {"questions": 2, "samples": 1, "max_new_tokens": 6, "resamples": 5, "out": str(tmp_path / "e")}
        modes.main(EvaluateRecipe.model_validate({**measured, **sizes}))
        assert json.loads((tmp_path / "e" / "evaluation.json").read_text())["hybrid_accuracy"]["questions"] == 4


def test_a_run_folder_is_a_configuration_that_the_server_reads(hft_recipe, hgpo_recipe):
    train(hft_recipe)
    config = parse_table(*table_of(str(hft_recipe.run.out)))
    (engine,), (route,) = config.engines.values(), config.routes.values()
    assert (hft_recipe.run.out / "config.json").exists()
    assert str(engine.model) == str(hft_recipe.run.out)
    assert route.family == "lhrm"
    assert list(config.routes) == [hft_recipe.run.out.name]


def test_a_judge_of_a_running_reasond_rewards_replies_to_questions_without_answers(hgpo_recipe, tmp_path, monkeypatch):
    monkeypatch.delenv("REASOND_API_KEY", raising=False)
    file = tmp_path / "unlabelled.jsonl"
    texts = ["Start with 2, then a*3. What is the last digit?", "Start with 7, then a+5. What is the last digit?"]
    file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    server = JudgeServer(HubTokenizer("demo/tokenizer"))
    with serving(server.app, JUDGE) as url:
        checker = {"type": "judge", "url": url, "no_verdict": 0.5}
        data = DataSection.parse({"file": str(file), "test_share": 0, "checker": checker})
        settings = {name: getattr(hgpo_recipe, name) for name in hgpo_recipe.model_fields_set}
        model = ModelSection(path="demo/hybrid")
        changes = {"data": data, "model": model, "max_new_tokens": 16, "temperature": 2.0}
        train(GrpoRecipe(**{**settings, **changes}))
        assert server.metric("judge_comparisons_total") > 0
    assert len([line for line in metrics(hgpo_recipe.run.out) if "reward" in line]) == hgpo_recipe.steps

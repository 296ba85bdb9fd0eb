"""SelfBudgeter from its base to its evaluation, a few steps each on a micro model; and what single replies earn."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from models.text.tokenizer import HubTokenizer
from tests.training.conftest import SCRATCH
from training import budget_data, budget_sft, evaluate_budget, selfbudgeter
from training.budget_data import Observed
from training.budget_format import budget_format_of
from training.budget_rewards import Settings
from training.config import BudgetData, BudgetReward, BudgetSft, EvaluateBudget, SelfBudgeter
from training.tasks import TASKS

MODEL = {"path": "demo/tokenizer", "family": "selfbudgeter", "scratch": SCRATCH}
TASK = {"name": "checked", "difficulties": [2, 3]}
FORM = budget_format_of("selfbudgeter", HubTokenizer("demo/tokenizer"))
PAPER = Settings(**BudgetReward().model_dump())
TEXT = "Start with 2, then a*3. What is the last digit?"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Replies of two difficulties, two of them wrong."""
    path = tmp_path / "data.jsonl"
    shown = [
        (2, "Start with 2, then a*3 b+1. What is the last digit?", "2 6 7", "7", True),
        (2, "Start with 2, then a*3 b+1. What is the last digit?", "2 a*3=6 b+1=7", "7", True),
        (2, "Start with 2, then a*3 b+2. What is the last digit?", "2 6 5", "5", False),
        (3, "Start with 1, then a+1 b+1 c+1. What is the last digit?", "1 2 3 4", "4", True),
        (3, "Start with 1, then a+1 b+1 c+1. What is the last digit?", "1 a+1=2 b+1=3 c+1=4", "4", True),
        (3, "Start with 1, then a+1 b+1 c+2. What is the last digit?", "1 2 3 4", "4", False),
    ]
    budget_data.write(
        [Observed(text, d, FORM.solution(thought, answer), right) for d, text, thought, answer, right in shown], path
    )
    return path


def start_recipe(tmp_path: Path, data: Path | None) -> BudgetSft:
    return BudgetSft.model_validate(
        {
            "model": MODEL,
            "task": TASK,
            "optimizer": {"lr": 1e-2, "matrix_lr": 0.02},
            "run": {"out": str(tmp_path / "start"), "log_every": 1},
            "steps": 4,
            "questions": 4,
            "micro_batch": 4,
            "data": data,
        }
    )


def grpo_recipe(tmp_path: Path, data: Path, **more: object) -> SelfBudgeter:
    return SelfBudgeter.model_validate(
        {
            "model": MODEL,
            "task": TASK,
            "optimizer": {"lr": 1e-3},
            "run": {"out": str(tmp_path / "grpo"), "log_every": 1},
            "steps": 2,
            "questions": 2,
            "replies": 4,
            "micro_batch": 8,
            "max_new_tokens": 8,
            "data": data,
            **more,
        }
    )


def test_the_trained_budgets_are_the_lengths_of_right_replies(data):
    observed = budget_data.read(data)
    lengths = {d: [len(one.solution) for one in observed if one.correct and one.difficulty == d] for d in (2, 3)}
    assert budget_data.ranges(observed) == {d: (min(found), min(found)) for d, found in lengths.items()}


def test_the_base_learns_replies_without_tags(tmp_path):
    recipe = start_recipe(tmp_path, None)
    rows = list(budget_sft.written_replies(recipe, FORM))
    assert len(rows) == recipe.steps * recipe.questions
    replies = [[label for label in row["labels"] if label >= 0] for row in rows]
    assert all(FORM.read_plain(reply).complete for reply in replies)


def test_the_cold_start_learns_right_replies_alone_each_behind_its_length(tmp_path, data):
    rows = list(budget_sft.own_replies(start_recipe(tmp_path, data), FORM))
    replies = [FORM.read([label for label in row["labels"] if label >= 0]) for row in rows]
    assert all(reply.complete and reply.budget == reply.tokens for reply in replies)
    assert {reply.answer for reply in replies} <= {"7", "4"}


def test_a_cold_start_without_a_right_reply_is_refused(tmp_path, data):
    wrong = tmp_path / "wrong.jsonl"
    budget_data.write([one for one in budget_data.read(data) if not one.correct], wrong)
    with pytest.raises(ValueError, match="no right reply"):
        list(budget_sft.own_replies(start_recipe(tmp_path, wrong), FORM))


def test_a_reply_earns_what_the_formula_says():
    task, right = TASKS["checked"], FORM.write(FORM.solution("2 a*3=6", "6"))
    length = len(FORM.solution("2 a*3=6", "6"))
    # a budget of exactly the length: half of the way to the edge at any tolerance, so 0.75; 0.4 less above b_max
    scored = selfbudgeter.score(FORM, task, TEXT, right, length, 0.5, PAPER)
    assert (scored.correct, scored.declared, scored.tokens) == (True, length, length)
    assert scored.reward == pytest.approx(0.75)
    assert selfbudgeter.score(FORM, task, TEXT, right, length - 1, 0.5, PAPER).reward == pytest.approx(0.35)
    wrong = FORM.write(FORM.solution("2 a*3=6", "7"))
    assert selfbudgeter.score(FORM, task, TEXT, wrong, None, 0.5, PAPER).reward == pytest.approx(-0.25)
    assert selfbudgeter.score(FORM, task, TEXT, right[:-1], None, 0.5, PAPER).reward == -1


def test_prefilled_questions_carry_the_servers_own_field_and_no_limit(tmp_path, data):
    tokenizer = AutoTokenizer.from_pretrained("demo/tokenizer")
    rows = list(selfbudgeter.questions(grpo_recipe(tmp_path, data, prefilled_share=1.0, steps=8), FORM, tokenizer))
    assert len(rows) == 16
    ranges = budget_data.ranges(budget_data.read(data))
    for row in rows:
        assert row["most"] is None
        assert any(low <= row["prefilled"] <= high for low, high in ranges.values())
        ids = tokenizer(row["prompt"])["input_ids"]
        assert ids == [*FORM.prompt(row["question"]), *FORM.prefill(row["prefilled"])]


def test_own_budgets_are_limited_by_right_replies_of_the_base(tmp_path, data):
    tokenizer = AutoTokenizer.from_pretrained("demo/tokenizer")
    rows = list(selfbudgeter.questions(grpo_recipe(tmp_path, data, steps=3), FORM, tokenizer))
    wrong = {one.text for one in budget_data.read(data) if not one.correct}
    assert {row["question"] for row in rows} > wrong
    assert all((row["most"] is None) == (row["question"] in wrong) for row in rows)


def test_the_base_is_sampled_into_a_file(tmp_path):
    budget_sft.train(start_recipe(tmp_path, None))
    base = {"path": str(tmp_path / "start"), "family": "selfbudgeter"}
    sampled = tmp_path / "sampled.jsonl"
    recipe = BudgetData.model_validate(
        {"model": base, "task": TASK, "out": str(sampled), "questions": 4, "max_new_tokens": 8}
    )
    assert "4 replies" in budget_data.main(recipe)
    assert len(budget_data.read(sampled)) == 4


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_grpo_runs_logs_and_shrinks_its_tolerance(tmp_path, data, share):
    recipe = grpo_recipe(tmp_path, data, prefilled_share=share)
    selfbudgeter.train(recipe)
    lines = [json.loads(line) for line in (recipe.run.out / "metrics.jsonl").read_text().splitlines()]
    assert [line["budget/tolerance"] for line in lines if "reward" in line] == [6.0, 3.05]
    assert (recipe.run.out / "model.safetensors").exists()
    assert (recipe.run.out / "metrics.png").stat().st_size > 1000
    assert list((recipe.run.out / "tensorboard").glob("events.*"))


def test_an_evaluation_compares_three_ways_of_asking(tmp_path, data):
    budget_sft.train(start_recipe(tmp_path, data))
    trained = {"path": str(tmp_path / "start"), "family": "selfbudgeter"}
    recipe = EvaluateBudget.model_validate(
        {
            "model": trained,
            "base": trained,
            "data": str(data),
            "task": TASK,
            "out": str(tmp_path / "evaluation"),
            "questions": 4,
            "max_new_tokens": 40,
            "resamples": 10,
        }
    )
    with pytest.raises(ValueError, match="two different budgets"):
        evaluate_budget.main(recipe)  # the data's ranges hold one length each: there is no slope to measure
    more = [one for one in budget_data.read(data) for _ in range(30)]
    longer = [Observed(one.text, one.difficulty, [*one.solution, *one.solution], True) for one in more]
    budget_data.write([*more, *longer], data)
    table = evaluate_budget.main(recipe)
    result = json.loads((recipe.out / "evaluation.json").read_text())
    assert [cell["difficulty"] for cell in result["by_difficulty"]] == [2, 3]
    assert {"base", "own", "prefilled", "compression"} <= result["overall"].keys()
    assert table in (recipe.out / "evaluation.md").read_text()
    assert (recipe.out / "evaluation.png").stat().st_size > 1000

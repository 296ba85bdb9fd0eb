"""SelfBudgeter from its base to its evaluation, a few steps each on a micro model; and what single replies earn."""

import json
from pathlib import Path

import pytest

from models.text.tokenizer import HubTokenizer
from tests.training.conftest import SCRATCH, material, sampled, train
from training.algorithms import selfbudgeter
from training.algorithms.parts import CheckedReply
from training.algorithms.selfbudgeter import BudgetReward, BudgetSftRecipe, SelfBudgeterRecipe
from training.config.sections import EvaluateBudgetRecipe, SampleRecipe
from training.data.budget_replies import budget_format_of
from training.data.errors import UserError
from training.data.questions import TrainingQuestion
from training.data.samples import budget_ranges, read_samples
from training.evaluation import budgets as evaluate_budget
from training.sampling import sample

MODEL = {"path": "demo/tokenizer", "family": "selfbudgeter", "scratch": SCRATCH}
TASK = {"task": "demo.tasks.checked:Checked", "difficulties": [2, 3]}
FORM = budget_format_of("selfbudgeter", HubTokenizer("demo/tokenizer"))
PAPER = BudgetReward()
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
    write(
        path,
        [
            sampled(TrainingQuestion(text, thought, answer, d), FORM.solution(thought, answer), right)
            for d, text, thought, answer, right in shown
        ],
    )
    return path


def write(path: Path, samples: list) -> None:
    path.write_text("".join(one.line() for one in samples))


def start_recipe(tmp_path: Path, data: Path | None) -> BudgetSftRecipe:
    return BudgetSftRecipe.model_validate(
        {
            "model": MODEL,
            "optimizer": {"lr": 1e-2, "matrix_lr": 0.02},
            "run": {"out": str(tmp_path / "start"), "log_every": 1},
            "steps": 4,
            "questions": 4,
            "micro_batch": 4,
            **({"data": TASK} if data is None else {"samples": data}),
        }
    )


def grpo_recipe(tmp_path: Path, data: Path, **more: object) -> SelfBudgeterRecipe:
    return SelfBudgeterRecipe.model_validate(
        {
            "model": MODEL,
            "data": {"task": TASK["task"]},
            "optimizer": {"lr": 1e-3},
            "run": {"out": str(tmp_path / "grpo"), "log_every": 1},
            "steps": 2,
            "questions": 2,
            "replies": 4,
            "micro_batch": 8,
            "max_new_tokens": 8,
            "samples": data,
            **more,
        }
    )


def test_the_trained_budgets_are_the_lengths_of_right_replies(data):
    samples = read_samples(data)
    lengths = {d: [one.tokens for one in samples if one.right and one.question.difficulty == d] for d in (2, 3)}
    assert budget_ranges(samples) == {d: (min(found), min(found)) for d, found in lengths.items()}


def test_the_base_learns_replies_without_tags(tmp_path):
    recipe = start_recipe(tmp_path, None)
    rows = list(selfbudgeter.written_replies(recipe, FORM, material(recipe)))
    assert len(rows) == recipe.steps * recipe.questions
    replies = [[label for label in row["labels"] if label >= 0] for row in rows]
    assert all(FORM.read_plain(reply).complete for reply in replies)


def test_the_cold_start_learns_right_replies_alone_each_behind_its_length(tmp_path, data):
    rows = list(selfbudgeter.own_replies(start_recipe(tmp_path, data), FORM))
    replies = [FORM.read([label for label in row["labels"] if label >= 0]) for row in rows]
    assert all(reply.complete and reply.budget == reply.tokens for reply in replies)
    assert {reply.answer for reply in replies} <= {"7", "4"}


def test_a_cold_start_without_a_right_reply_is_refused(tmp_path, data):
    write(tmp_path / "wrong.jsonl", [one for one in read_samples(data) if not one.right])
    with pytest.raises(UserError, match="no right reply"):
        list(selfbudgeter.own_replies(start_recipe(tmp_path, tmp_path / "wrong.jsonl"), FORM))


def test_a_reply_earns_what_the_formula_says(tmp_path, data):
    recipe = grpo_recipe(tmp_path, data)
    length = len(FORM.solution("2 a*3=6", "6"))

    def earned(ids, limit):
        made = selfbudgeter.parts(recipe, material(recipe))
        read = FORM.read(ids)
        question = TrainingQuestion(TEXT, limit=limit)
        score = made.source.scores([(question, read.answer)])[0] if read.complete else 0.0
        return selfbudgeter.earned(CheckedReply(question, read, score), 0.5, PAPER)

    right = FORM.write(FORM.solution("2 a*3=6", "6"))
    # a budget of exactly the length: half of the way to the edge at any tolerance, so 0.75; 0.4 less above b_max
    assert earned(right, length) == pytest.approx(0.75)
    assert earned(right, length - 1) == pytest.approx(0.35)
    assert earned(FORM.write(FORM.solution("2 a*3=6", "7")), None) == pytest.approx(-0.25)
    assert earned(right[:-1], None) == -1


def test_prefilled_questions_carry_the_servers_own_field_and_no_limit(tmp_path, data):
    recipe = grpo_recipe(tmp_path, data, prefilled_share=1.0, steps=8)
    made = selfbudgeter.parts(recipe, material(recipe))
    assert len(made.questions) == 16
    ranges = budget_ranges(read_samples(data))
    for question in made.questions:
        assert question.limit is None
        assert any(low <= question.budget <= high for low, high in ranges.values())
        ids = made.render(made.messages(question))
        assert ids == [*FORM.prompt(question.text), *FORM.prefill(question.budget)]


def test_own_budgets_are_limited_by_right_replies_of_the_base(tmp_path, data):
    questions = selfbudgeter.questions(grpo_recipe(tmp_path, data, steps=3))
    wrong = {one.question.text for one in read_samples(data) if not one.right}
    assert {question.text for question in questions} > wrong
    assert all((question.limit is None) == (question.text in wrong) for question in questions)


def test_the_base_is_sampled_into_a_file(tmp_path):
    train(start_recipe(tmp_path, None))
    base = {"path": str(tmp_path / "start"), "family": "selfbudgeter"}
    out = tmp_path / "sampled.jsonl"
    recipe = SampleRecipe.parse({"model": base, "data": TASK, "out": str(out), "questions": 4, "max_new_tokens": 8})
    assert "4 replies" in sample.main(recipe)
    kept = read_samples(out)
    assert [len(one.ids(FORM.tokenizer)) for one in kept] == [one.tokens for one in kept]


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_grpo_runs_logs_and_shrinks_its_tolerance(tmp_path, data, share):
    recipe = grpo_recipe(tmp_path, data, prefilled_share=share)
    train(recipe)
    lines = [json.loads(line) for line in (recipe.run.out / "metrics.jsonl").read_text().splitlines()]
    assert [line["budget/tolerance"] for line in lines if "reward" in line] == [6.0, 3.05]
    assert (recipe.run.out / "model.safetensors").exists()
    assert (recipe.run.out / "metrics.png").stat().st_size > 1000
    assert list((recipe.run.out / "tensorboard").glob("events.*"))


def test_an_evaluation_compares_three_ways_of_asking(tmp_path, data):
    train(start_recipe(tmp_path, data))
    trained = {"path": str(tmp_path / "start"), "family": "selfbudgeter"}
    recipe = EvaluateBudgetRecipe.model_validate(
        {
            "model": trained,
            "base": trained,
            "samples": str(data),
            "data": TASK,
            "out": str(tmp_path / "evaluation"),
            "questions": 4,
            "max_new_tokens": 40,
            "resamples": 10,
        }
    )
    with pytest.raises(ValueError, match="two different budgets"):
        evaluate_budget.main(recipe)  # the data's ranges hold one length each: there is no slope to measure
    more = [one for one in read_samples(data) for _ in range(30)]
    longer = [sampled(one.question, [*one.token_ids, *one.token_ids], True) for one in more]
    write(data, [*more, *longer])
    table = evaluate_budget.main(recipe)
    result = json.loads((recipe.out / "evaluation.json").read_text())
    assert [cell["difficulty"] for cell in result["by_difficulty"]] == [2, 3]
    assert {"base", "own", "prefilled", "compression"} <= result["overall"].keys()
    assert table in (recipe.out / "evaluation.md").read_text()
    assert (recipe.out / "evaluation.png").stat().st_size > 1000

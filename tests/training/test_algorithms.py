"""Algorithms beside HGPO: their rewards and advantages by hand, and a few steps of each on a micro model."""

import json
import math
from pathlib import Path
from random import Random

import pytest
import torch
from torch.testing import assert_close

from demo.tasks import TASKS
from models.text.tokenizer import HubTokenizer
from tests.training.conftest import SCRATCH, TASK, material, train
from tests.training.test_runs import metrics
from training.algorithms import adaptthink, l1, preferences, thinkless
from training.algorithms.curriculum import Curriculum
from training.algorithms.parts import CheckedReply
from training.config.sections import CurriculumSection
from training.data.errors import UserError
from training.data.questions import GeneratedQuestions, TrainingQuestion
from training.data.replies import ParsedReply, format_of
from training.data.rows import IGNORED
from training.data.samples import SampledReply

QUIET = lambda name, value: None  # noqa: E731
MODEL = {"path": "demo/tokenizer", "scratch": SCRATCH}
FORM = format_of("lhrm", HubTokenizer("demo/tokenizer"))


def reply(question: str, mode: str, score: float, tokens: int, answer: str = "6") -> SampledReply:
    thought = "2 a*3=6" if mode == "think" else ""
    return SampledReply(
        TrainingQuestion(question, difficulty=1), mode, mode, None, thought, answer, tokens, True, score
    )


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """At A thinking is better, at B both are right and the direct one shorter, at C neither is right."""
    found = [
        *(reply("A", "think", 1.0, 9), reply("A", "think", 1.0, 7), reply("A", "no_think", 0.0, 3, "7")),
        *(reply("A", "no_think", 0.0, 5, "8"), reply("B", "think", 1.0, 9), reply("B", "no_think", 1.0, 3)),
        *(reply("C", "think", 0.0, 9, "1"), reply("C", "no_think", 0.0, 3, "1")),
    ]
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(one.line() for one in found))
    return path


def row_recipe(kind, tmp_path: Path, **more: object):
    shared = {"model": MODEL, "optimizer": {"lr": 1e-3}, "run": {"out": str(tmp_path / "run"), "log_every": 1}}
    return kind.parse({**shared, "steps": 2, "questions": 2, "micro_batch": 2, **more})


def policy_recipe(kind, tmp_path: Path, **more: object):
    sizes = {"replies": 4, "micro_batch": 8, "max_new_tokens": 8, "data": TASK}
    return row_recipe(kind, tmp_path, **{**sizes, **more})


def test_rft_learns_the_shortest_of_the_best_replies_and_leaves_out_what_nobody_got_right(tmp_path, samples):
    recipe = row_recipe(preferences.RftRecipe, tmp_path, samples=str(samples))
    rows = list(preferences.rft_rows(recipe, material(recipe)))
    assert len(rows) == 4
    learned = {tuple(token for token in row["labels"] if token != IGNORED) for row in rows}
    assert learned == {tuple(FORM.write("think", "2 a*3=6", "6")), tuple(FORM.write("no_think", "", "6"))}
    train(recipe)
    assert (recipe.run.out / "model.safetensors").exists()


def test_rft_without_a_right_reply_is_refused(tmp_path, samples):
    recipe = row_recipe(preferences.RftRecipe, tmp_path, samples=str(samples), min_score=1.5)
    with pytest.raises(UserError, match=r"no reply that scores 1\.5"):
        list(preferences.rft_rows(recipe, material(recipe)))


def test_a_pair_is_the_best_in_the_better_mode_and_the_worst_in_the_other():
    think = [reply("A", "think", 1.0, 9), reply("A", "think", 0.0, 7)]
    direct = [reply("A", "no_think", 0.0, 3), reply("A", "no_think", 0.0, 5)]
    assert preferences.mode_pair([*think, *direct]) == (think[0], direct[1])
    assert preferences.mode_pair(think) is None
    equal = [reply("B", "think", 1.0, 9), reply("B", "no_think", 1.0, 3)]
    assert preferences.mode_pair(equal) == (equal[1], equal[0]), "of equal scores the shorter mode is the better"
    same = [reply("C", "think", 0.0, 3), reply("C", "no_think", 0.0, 3)]
    assert preferences.mode_pair(same) is None


@pytest.mark.parametrize("sft", [0.0, 0.5])
def test_dpo_learns_from_samples(tmp_path, samples, sft):
    recipe = row_recipe(preferences.DpoRecipe, tmp_path, samples=str(samples), sft=sft)
    rows = list(preferences.dpo_rows(recipe, material(recipe)))
    assert len(rows) == 4
    assert {tuple(row["chosen_ids"]) for row in rows} >= {tuple(FORM.write("no_think", "", "6"))}
    train(recipe)
    lines = [line for line in metrics(recipe.run.out) if "rewards/margins" in line]
    assert [line["step"] for line in lines] == [1, 2]
    assert (lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)) == (sft == 0)
    assert lines[0]["loss"] > math.log(2) + sft - 1e-3, "the loss of a random model over 768 tokens is above 1"


def test_dpo_learns_from_the_pairs_of_a_file(tmp_path):
    file = tmp_path / "pairs.jsonl"
    row = {"prompt": "2+2?", "chosen": "<no_think>4</no_think>", "rejected": "<think>2+2=5</think>5"}
    file.write_text(json.dumps(row) + "\n")
    recipe = row_recipe(preferences.DpoRecipe, tmp_path, data={"file": str(file), "test_share": 0})
    (first, *_) = preferences.dpo_rows(recipe, material(recipe))
    assert first["chosen_ids"] == FORM.write("no_think", "", "4")
    assert first["rejected_ids"] == FORM.write("think", "2+2=5", "5")


def test_dpo_takes_one_source(tmp_path, samples):
    with pytest.raises(UserError, match="either from samples or from data"):
        row_recipe(preferences.DpoRecipe, tmp_path, samples=str(samples), data=TASK)


def test_adaptthinks_advantage_is_the_gain_and_a_bonus_for_not_thinking():
    mask = torch.tensor([[[1, 1], [1, 0], [1, 1], [1, 1]]])
    found = adaptthink.token_advantages(torch.tensor([[1.0, 0.0, 1.0, 0.0]]), mask, 0.05, relative=True)
    assert_close(found, torch.tensor([[[0.5, 0.5], [-0.5, 0.0], [0.55, 0.55], [-0.45, -0.45]]]))


def test_adaptthink_takes_the_references_accuracy_off(tmp_path, samples):
    known = adaptthink.reference_scores(samples)
    assert known == {"A": 0.5, "B": 1.0, "C": 0.0}
    read = ParsedReply("think", "", "6", True, 4)
    assert adaptthink.gain([CheckedReply(TrainingQuestion("A"), read, 1.0)], 0.0, QUIET, known) == [0.5]
    with pytest.raises(UserError, match="holds no reply to the question 'D'"):
        adaptthink.gain([CheckedReply(TrainingQuestion("D"), read, 1.0)], 0.0, QUIET, known)


def test_thinkless_rewards_a_right_direct_answer_most():
    cases = [("no_think", 1.0, 1.0), ("think", 1.0, 0.5), ("think", 0.0, -1.0), (None, 0.0, -1.0)]
    replies = [
        CheckedReply(TrainingQuestion("q"), ParsedReply(mode, "", "6", True, 4), score) for mode, score, _ in cases
    ]
    logged: dict[str, float] = {}
    assert thinkless.reward(replies, 0.0, logged.__setitem__, 0.5) == [earned for *_, earned in cases]
    assert logged == {"thinkless/think_ratio": 0.5}


def test_thinkless_weighs_the_mode_token_apart_from_the_mean_of_the_others():
    mask = torch.tensor([[[1, 1, 1], [1, 1, 0]]])
    found = thinkless.token_advantages(torch.tensor([[1.0, -1.0]]), mask, 0.1, 0)
    # the mean over a reply of 3 tokens: (0.3 + 1.5 + 1.5) / 3 = 0.1 + 1, alpha x the mode token's and the others' mean
    assert_close(found, torch.tensor([[[0.3, 1.5, 1.5], [-0.2, -2.0, 0.0]]]))


@pytest.mark.parametrize(
    ("goal", "tokens", "score", "earned"),
    [
        ("exact", 90, 1.0, 0.9),
        ("exact", 110, 0.0, -0.1),
        ("max", 90, 1.0, 0.6),
        ("max", 200, 1.0, 0.0),
        ("max", 9, 0.0, 0.0),
    ],
)
def test_l1_rewards_a_length_that_is_kept(tmp_path, goal, tokens, score, earned):
    recipe = policy_recipe(l1.L1Recipe, tmp_path, goal=goal, alpha=0.01)
    one = CheckedReply(TrainingQuestion("q", budget=100), ParsedReply("think", "", "6", True, tokens), score)
    assert l1.reward([one], 0.0, QUIET, recipe) == [pytest.approx(earned)]


def test_l1_names_the_length_behind_the_question(tmp_path):
    recipe = policy_recipe(l1.L1Recipe, tmp_path, goal="max", shortest=5, longest=9)
    made = l1.parts(recipe, material(recipe))
    assert {one.budget for one in made.questions} <= set(range(5, 10))
    (message,) = made.messages(made.questions[0])
    assert message["content"] == f"{made.questions[0].text} Think for at most {made.questions[0].budget} tokens."
    with pytest.raises(UserError, match="instruction needs"):
        policy_recipe(l1.L1Recipe, tmp_path, instruction="Be brief.")


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (adaptthink.AdaptThinkRecipe, {}),
        (thinkless.ThinklessRecipe, {}),
        (l1.L1Recipe, {"loss": "dr_grpo", "scale_rewards": "none"}),  # Dr. GRPO
        (l1.L1Recipe, {"goal": "max", "loss": "grpo", "importance": "sequence"}),  # GSPO
        (thinkless.ThinklessRecipe, {"curriculum": {}}),
    ],
    ids=["adaptthink", "thinkless", "l1-exact", "l1-max", "curriculum"],
)
def test_a_few_steps_of_each(tmp_path, kind, more):
    recipe = policy_recipe(kind, tmp_path, **more)
    train(recipe)
    assert len([line for line in metrics(recipe.run.out) if "reward" in line]) == recipe.steps


def test_a_curriculum_asks_more_often_where_replies_disagree():
    stream = Curriculum(CurriculumSection(rate=0.5), GeneratedQuestions(TASKS["chain"]), [1, 2, 2], 400, 0)
    early = [stream[i].difficulty for i in range(100)]
    assert 30 < early.count(1) < 70
    for i in range(100):
        stream.observe([i] * 4, [1.0, 0.0, 1.0, 0.0] if stream[i].difficulty == 2 else [1.0] * 4)
    assert stream.weights[1] == pytest.approx(0.05, abs=0.01)
    assert stream.weights[2] == pytest.approx(0.5, abs=0.01)
    late = [stream[i].difficulty for i in range(100, 200)]
    assert late.count(2) > 80
    assert [stream[i].difficulty for i in range(100)] == early, "what was asked stays as it was"


def test_a_curriculum_needs_a_choice():
    with pytest.raises(UserError, match="several"):
        Curriculum(CurriculumSection(), GeneratedQuestions(TASKS["chain"]), [1, 1], 4, 0)


def test_data_without_an_end_is_dealt_in_whole_rounds(tmp_path, samples):
    recipe = row_recipe(preferences.RftRecipe, tmp_path, samples=str(samples), steps=3, questions=2)
    dealt = [one for step in preferences._dealt(["a", "b", "c"], recipe) for one in step]
    assert sorted(dealt[:3]) == sorted(dealt[3:]) == ["a", "b", "c"]
    assert Random(recipe.run.seed).sample(["a", "b", "c"], 3) == dealt[:3]

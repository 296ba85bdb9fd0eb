"""Judging: prompts as they are served, verdicts that verify, and GRPO with the rule reward."""

import json
from random import Random

import pytest

from controllers.judging.verdicts import verdict_in
from demo.tasks import TASKS
from demo.tasks.chain import solve
from demo.tasks.judging import corrupted
from models.judge_prompts.families import JUDGE_FAMILIES, load_forms
from models.text.tokenizer import HubTokenizer
from tests.training.conftest import material, train
from training.algorithms import grpo
from training.algorithms.grpo import GrpoRecipe, rule
from training.algorithms.parts import CheckedReply
from training.config.source import DataSection
from training.data.questions import TrainingQuestion, draw_many
from training.data.replies import format_of

JUDGING = TASKS["judging"]
FORMS = load_forms(JUDGE_FAMILIES["rrm_short"], {})
QUERY = "Start with 2, then a*3 b-2 c-8 d-7. What is the last digit?"
SOLUTION = "2 a*3=6 b-2=4 c-8=6 d-7=9"


def asked(kind: str, **values: str) -> str:
    (message,) = FORMS[kind].messages({"query": QUERY, **values})
    return message["content"]


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [("9", "4", 1), ("4", "9", 2), (f"9 for {SOLUTION}", "4", 1), ("4 for 2 a*3=6 b-2=9", f"9 for {SOLUTION}", 2)],
)
def test_the_right_reply_of_a_pair_is_known_from_the_prompt_alone(first, second, verdict):
    text = asked("pair", first=first, second=second)
    assert JUDGING.is_correct(text, f"\\boxed{{Assistant {verdict}}}")
    assert not JUDGING.is_correct(text, f"\\boxed{{Assistant {3 - verdict}}}")
    assert not JUDGING.is_correct(text, "9")


@pytest.mark.parametrize(("reply", "verdict"), [("9", "Correct"), ("8", "Incorrect"), (f"9 for {SOLUTION}", "Correct")])
def test_a_single_reply_is_held_against_the_right_answer(reply, verdict):
    text = asked("reference", reference="9", reply=reply)
    assert JUDGING.is_correct(text, f"\\boxed{{{verdict}}}")
    assert not JUDGING.is_correct(text, "\\boxed{Assistant 1}")


@pytest.mark.parametrize("text", ["Which is better?", asked("pair", first="1", second="2").replace("Start with", "Go")])
def test_what_is_no_question_of_this_task_is_an_error(text):
    with pytest.raises(ValueError, match="not a question"):
        JUDGING.is_correct(text, "\\boxed{Assistant 1}")


def test_every_question_is_answered_by_its_own_thought():
    questions = draw_many(JUDGING, [1, 4, 8], 600, "train", Random(0))
    assert all(JUDGING.is_correct(question.text, question.answer) for question in questions)
    for question in questions:
        marked = [line.split()[-1] for line in question.thought.split("\n") if line.endswith(("right", "wrong"))]
        side = 0 if question.answer in ("\\boxed{Assistant 1}", "\\boxed{Correct}") else 1
        assert marked[0] == ("right", "wrong")[side]
        assert len(marked) == 1 or sorted(marked) == ["right", "wrong"]


def test_neither_place_nor_form_tells_which_reply_is_right():
    questions = draw_many(JUDGING, [4], 2000, "train", Random(1))
    pairs = [question for question in questions if "### Assistant 2" in question.text]
    assert 0.8 < len(pairs) / len(questions) < 0.9
    first = sum(question.answer == "\\boxed{Assistant 1}" for question in pairs) / len(pairs)
    assert 0.46 < first < 0.54
    worked = {"right": 0, "wrong": 0}
    for question in pairs:
        one, two = (part.split("\n\n")[0] for part in question.text.split("### Assistant ")[1:])
        right, wrong = (one, two) if question.answer.endswith("1}") else (two, one)
        worked["right"] += " for " in right
        worked["wrong"] += " for " in wrong
    assert abs(worked["right"] - worked["wrong"]) < 0.06 * len(pairs)


def test_a_corrupted_chain_has_one_wrong_step_and_a_wrong_answer():
    for seed in range(200):
        wrong = corrupted(SOLUTION, Random(seed))
        start, *steps = wrong.split()
        assert start == "2"
        values = [2, *(int(step[-1]) for step in steps)]
        right = [solve(value, [step[:3]])[1] for value, step in zip(values, steps, strict=False)]
        assert sum(step[-1] != digit for step, digit in zip(steps, right, strict=True)) == 1
        assert wrong[-1] != "9"


def test_a_verdict_is_learned_as_the_one_token_that_is_served():
    tokenizer = HubTokenizer("demo/tokenizer")
    form = format_of("lhrm", tokenizer)
    ids = form.write("think", "9=9 right", "\\boxed{Assistant 1}")
    assert tokenizer.control_id("\\boxed{Assistant 1}") in ids
    assert verdict_in(form.read(ids).answer, JUDGE_FAMILIES["rrm_short"], "pair") == 1
    text = asked("pair", first="9", second="4")
    assert form.prompt(text) == tokenizer.render([{"role": "user", "content": text}]), "as it is served"


def test_the_rule_reward_is_one_for_a_right_verdict_and_minus_one_for_all_else():
    replies = [CheckedReply(TrainingQuestion(""), None, score) for score in (1.0, 0.0)]
    assert rule(replies, 0.0, lambda name, value: None) == [1.0, -1.0]


def test_the_forced_opening_is_not_learned_from(hgpo_recipe):
    recipe = GrpoRecipe(**shared(hgpo_recipe))
    made = grpo.parts(recipe, material(recipe))
    assert [len(prefix) for prefix in made.prefixes] == [1]
    assert made.mode_position is None


def shared(recipe):
    names = GrpoRecipe.model_fields.keys() - {"method"}
    return {name: getattr(recipe, name) for name in names & recipe.model_fields_set}


def test_grpo_runs_and_logs_its_reward(hgpo_recipe):
    data = DataSection(task="demo.tasks.judging:Judging", difficulties=(1, 2))
    recipe = GrpoRecipe(**{**shared(hgpo_recipe), "data": data})
    train(recipe)
    lines = [json.loads(line) for line in (recipe.run.out / "metrics.jsonl").read_text().splitlines()]
    rewards = [line["reward"] for line in lines if "reward" in line]
    assert len(rewards) == recipe.steps
    assert all(-1 <= reward <= 1 for reward in rewards)
    assert (recipe.run.out / "model.safetensors").exists()

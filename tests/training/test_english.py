"""Everyday English: every question is solved from its text, and the steps are those of a hand that writes them."""

import json
import re
from fractions import Fraction
from pathlib import Path
from random import Random

import pytest

from demo.tasks import TASKS
from demo.tasks.english import English, clock, digest
from demo.tasks.english.numerals import stated, write
from demo.tasks.english.steps import NotWhole, work
from demo.tasks.english.templates import Wording
from training.data.questions import draw

ENGLISH = TASKS["english"]


@pytest.mark.parametrize(
    ("formula", "values", "thought"),
    [
        ("a+b", {"a": 7, "b": 5}, "7+5=12"),
        ("a+b", {"a": 347, "b": 285}, "347+285\n7+5=12:2\n4+8+1=13:32\n3+2+1=6:632"),
        ("a+b", {"a": 97, "b": 5}, "97+5\n7+5=12:2\n9+1=10:102"),
        ("a-b", {"a": 1005, "b": 997}, "1005-997\n15-7=8:8\n10-1-9=0:08\n10-1-9=0:008\n1-1=0:8"),
        ("a*b", {"a": 6, "b": 347}, "347*6\n7*6=42:2\n4*6+4=24+4=28:82\n3*6+2=18+2=20:2082"),
        (
            "a*b",
            {"a": 47, "b": 26},
            "47*26\n47*6\n7*6=42:2\n4*6+4=24+4=28:282\n47*20\n7*2=14:4\n4*2+1=8+1=9:940\n"
            "282+940\n2+0=2:2\n8+4=12:22\n2+9+1=12:1222",
        ),
        ("a/b", {"a": 932, "b": 4}, "932/4\n9/4=2 r1:2\n13/4=3 r1:23\n12/4=3:233"),
        ("a/b", {"a": 96, "b": 12}, "96/12\n12*8=96:8"),
        ("a*4+b*2", {"a": 3, "b": 4}, "3*4+4*2\n3*4=12\n4*2=8\n12+8=20"),
    ],
)
def test_a_thought_goes_digit_by_digit_and_ends_with_the_result(formula, values, thought):
    written, value = work(formula, values)
    assert written == thought
    assert re.findall(r"\d+", written)[-1] == str(value)


def test_what_is_not_a_whole_number_is_refused():
    with pytest.raises(NotWhole):
        work("a-b", {"a": 3, "b": 5})
    with pytest.raises(NotWhole):
        work("a/b", {"a": 7, "b": 2})


@pytest.mark.parametrize(
    ("formula", "a", "b", "said"),
    [
        ("later", "7:45", "1:50", "9:35"),
        ("later", "11:30", "2:15", "1:45"),
        ("earlier", "9:20", "0:35", "8:45"),
    ],
)
def test_times_of_day_go_on_past_the_hour_and_past_noon(formula, a, b, said):
    minutes = [60 * int(hours) + int(rest) for hours, rest in (text.split(":") for text in (a, b))]
    assert write(clock.FORMULAS[formula]({"a": minutes[0], "b": minutes[1]})[1], "clock") == said


def test_the_time_between_two_times_may_go_past_noon():
    assert write(clock.between({"a": 9 * 60 + 40, "b": 11 * 60 + 15})[1], "span") == "1 hour 35 minutes"
    assert write(clock.between({"a": 11 * 60 + 30, "b": 2 * 60 + 15})[1], "span") == "2 hours 45 minutes"


@pytest.mark.parametrize(
    ("answer", "values"),
    [
        ("12", {12}),
        ("She has 1,250 stamps.", {1250}),
        ("3 and 4 make 7", {7}),
        ("$4.50", {Fraction(9, 2)}),
        ("at 9:35", {575}),
        ("1 hour and 35 minutes", {95}),
        ("3 hours", {180, 3}),
        ("twelve", {12}),
        ("I don't know", set()),
    ],
)
def test_an_answer_states_its_last_number(answer, values):
    assert stated(answer) == values


def test_a_wording_reads_back_the_numbers_that_it_was_filled_with():
    wording = Wording("{n} [has|owns] {a} {things}[ and| and also] {b} more[ now|]?", {"a": "count", "b": "count"})
    for seed in range(20):
        text = wording.fill({"a": 12, "b": 1250}, {"n": "Ann", "things": "pens"}, Random(seed))
        assert wording.values(text.lower().rstrip("?")) == {"a": 12, "b": 1250}
    assert wording.values("ann has 12 pens") is None


def test_every_wording_holds_every_number_of_its_formula_outside_of_its_alternatives():
    for family in ENGLISH.families:
        needed = set(re.findall(r"\b[a-d]\b", family.formula)) or {"a", "b"}
        for wording in family.wordings:
            assert set(re.findall(r"\{([a-d])\}", re.sub(r"\[[^\]]*\]", "", wording.text))) == needed, wording.text


@pytest.mark.parametrize("level", ENGLISH.difficulties)
def test_every_question_is_solved_from_its_text_alone(level):
    rng = Random(level)
    for _ in range(400):
        question = draw(ENGLISH, level, "train", rng)
        assert ENGLISH.solve(question.text) == (question.answer if level else None), question.text
        assert ENGLISH.is_correct(question.text, question.answer)
        assert not ENGLISH.is_correct(question.text, "")
        assert not level or not ENGLISH.is_correct(question.text, question.answer + " and 12345")


def test_another_text_is_an_error_and_not_wrong():
    with pytest.raises(ValueError, match="not a question of this task"):
        ENGLISH.is_correct("Why?", "42")


HELD_OUT = Path(__file__).parents[1] / "accept"


def judged_by() -> list[str]:
    phrasings = json.loads((HELD_OUT / "english_phrasings.json").read_text())
    samples: list[str] = json.loads((HELD_OUT / "english_everyday.json").read_text())
    return [entry["question"] for part in phrasings.values() for entry in part] + samples


def test_what_the_demo_is_judged_by_is_never_drawn(monkeypatch):
    assert {digest(text) for text in judged_by()} == ENGLISH.held_out
    drawn = iter([("Hello, Half of 86", "", "43"), ("half of 88?", "", "44")])
    monkeypatch.setattr(English, "_draw", lambda *_: next(drawn))
    assert ENGLISH.draw(1, Random(0))[0] == "half of 88?"


def test_everything_is_said_once():
    said = [text.text.lower() for text, _ in ENGLISH.talk]
    assert len(set(said)) == len(said)

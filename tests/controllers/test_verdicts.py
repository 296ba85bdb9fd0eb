"""What is asked of a judge, and how its answer is read."""

from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.judging.verdicts import JudgeComparison, digest, final_answer, last_boxed, verdict_in
from models.judge_prompts.families import BOXED, FIELDS, JUDGE_FAMILIES, JudgeFamily, Kind, load_forms, parse_form

RRM = JUDGE_FAMILIES["rrm"]


@pytest.mark.parametrize(
    ("answer", "share"),
    [
        (r"\boxed{Assistant 1}", 1),
        (r"so \boxed{Assistant 2}.", 0),
        (r"\boxed{Assistant 1} no: \boxed{Assistant 2}", 0),
        (r"I think \boxed{Assistant 1}</think>\boxed{Assistant 2}", 0),
        (r"\boxed{Assistant 1}</think>none", None),
        (r"a</think>\boxed{Assistant 1}</think>b", 1),
        (r"\boxed{Assistant 2} and \boxed{Assistant 1", 0),  # the last balanced one
        (r"\boxed{assistant 1}", None),
        (r"\boxed{ Assistant 1 }", None),
        (r"\boxed{Assistant 3}", None),
        (r"\boxed{\text{Assistant 1}}", None),
        (r"\boxed{}", None),
        ("Assistant 1", None),
        ("", None),
        ("[[A]]", None),
    ],
)
def test_a_boxed_verdict_is_the_last_balanced_box_behind_the_thinking_and_matches_exactly(answer, share):
    assert verdict_in(answer, RRM, "pair") == share


# As the models write: from their cards, papers and evaluation code.
WRITTEN: list[tuple[str, Kind, str, float | None]] = [
    ("brackets", "pair", "[[A]]", 1),
    ("brackets", "pair", "A is good. [[B]]", 0),
    ("brackets", "pair", "[[A]] or rather [[B]]", 0),
    ("brackets", "pair", "[[C]]", None),
    ("brackets", "pair", "[A]", None),
    ("brackets", "pair", "[[a]]", None),
    ("brackets", "pair", "[[a[A]]]", None),
    ("brackets", "pair", "[[A]]</think>undecided", None),
    ("brackets", "pair", "[[A]][[tie]]", None),
    ("prometheus", "pair", "Feedback: Response A is shorter, but only Response B is right. [RESULT] B", 0),
    ("prometheus", "pair", "Both are clear. [RESULT] (A)", 1),
    ("prometheus", "pair", "Both responses are clear... [Result] Response B", 0),
    ("prometheus", "pair", "Response A is better.", None),
    ("prometheus", "pair", "[RESULT] 4", None),
    ("prometheus", "rubric", "Feedback: It is polite, but it misses a step. [RESULT] 4", 0.75),
    ("prometheus", "rubric", "Excellent. [RESULT] 5 out of 5", 1),
    ("prometheus", "reference", "Feedback: Another answer. [RESULT] 1\n", 0),
    ("prometheus", "reference", "Average. [Result] 4/5", 0.75),
    ("prometheus", "reference", "Good job. [RESULT] (3)", 0.5),
    ("prometheus", "rubric", "[RESULT] 4.5", 0.875),
    ("prometheus", "rubric", "[RESULT] 6", None),
    ("prometheus", "rubric", "[RESULT] 0", None),
    ("prometheus", "rubric", "[RESULT] A", None),
    ("selene", "pair", "**Reasoning:** Response B misreads the question.\n\n**Result:** A", 1),
    ("selene", "pair", "**Reasoning:** Response A stops early.\n\n**Result:** B", 0),
    ("selene", "pair", "**Reasoning:** Both are fine.\n\n**Result:** C", None),
    ("selene", "reference", "**Reasoning:** It gives the same sum.\n\n**Result:** Yes", 1),
    ("selene", "rubric", "**Reasoning:** It is rude.\n\n**Result:** No", 0),
    ("selene", "rubric", "Result: Yes", None),
    ("judgelm", "pair", "8 6\nAssistant 1's answer is more detailed, 9 of 10 readers would say.", 1),
    ("judgelm", "pair", "7 9", 0),
    ("judgelm", "pair", "8.5 8.5\nBoth answers are right.", 0.5),
    ("judgelm", "pair", "9, 7\nAssistant 1 is better.", 1),
    ("judgelm", "pair", "hm</think>\n\n3 10\n", 0),
    ("judgelm", "pair", "8 6 7\nThree.", None),
    ("judgelm", "pair", "8\n6\n", None),
    ("judgelm", "pair", "11 6\n", None),
    ("judgelm", "pair", "Scores: 8 6\n", None),
]


@pytest.mark.parametrize(("family", "kind", "answer", "share"), WRITTEN)
def test_verdicts_are_read_as_each_family_writes_them(family, kind, answer, share):
    assert verdict_in(answer, JUDGE_FAMILIES[family], kind) == share


def test_a_family_is_data_that_a_table_takes_at_run_time():
    stars = JudgeFamily("stars", r"(\*+) stars", {"pair": ("***", "*")})
    assert [verdict_in(text, stars, "pair") for text in ("*** stars", "* stars", "** stars")] == [1, 0, None]


@pytest.mark.parametrize("family", JUDGE_FAMILIES.values(), ids=lambda family: family.name)
@pytest.mark.parametrize("text", ["[[", "[RESULT] ", "[RESULT](", "**Result:** ", "8 ", " ", "8.", "\\boxed{"])
def test_verdicts_that_never_end_are_read_once(family, text):
    began = process_time()
    verdict_in(text * 50_000, family, "pair")
    assert process_time() - began < 2, "seconds"


def test_boxes_nest():
    assert last_boxed(r"\boxed{\frac{1}{2}} then") == r"\frac{1}{2}"
    assert last_boxed(r"\boxed{a \boxed{b}}") == "b"
    assert last_boxed(r"\boxed{a") is None


def balanced(text: str) -> str | None:
    """The same by its definition: the last box, by where it begins, whose braces balance."""
    for opening in reversed(range(len(text))):
        if text.startswith("\\boxed{", opening):
            begin = opening + len("\\boxed{")
            for end in range(begin, len(text)):
                inside = text[begin:end]
                if (
                    text[end] == "}"
                    and all(inside[:k].count("{") >= inside[:k].count("}") for k in range(len(inside) + 1))
                    and inside.count("{") == inside.count("}")
                ):
                    return inside
    return None


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from(["\\boxed{", "{", "}", "a"]), max_size=14).map("".join))
def test_the_last_balanced_box_is_found_in_any_nesting(text):
    assert last_boxed(text) == balanced(text)


def test_boxes_that_never_close_are_read_once():
    text = "\\boxed{" * 200_000
    began = process_time()
    assert last_boxed(text) is None
    assert process_time() - began < 2, "seconds; each box read to the end of the text would take hours"


def test_replies_are_of_one_team_by_their_box_or_their_whole_text():
    assert final_answer(r"first \boxed{1} then \boxed{ x + 1 }") == "x+1"
    assert final_answer(" 42\n") == "42"


def test_a_pair_has_one_key_whichever_way_round_and_a_single_reply_its_own():
    a, b = JudgeComparison("pair", "q", "a", "b"), JudgeComparison("pair", "q", "b", "a")
    assert a.key == b.key
    assert (a.turned, b.turned) == (False, True)
    assert (
        JudgeComparison("reference", "q", "a", against="b").key
        != JudgeComparison("reference", "q", "b", against="a").key
    )
    assert (
        JudgeComparison("reference", "q", "a", against="b").key != JudgeComparison("rubric", "q", "a", against="b").key
    )
    assert digest("ab", "c") != digest("a", "bc")
    assert JudgeComparison("pair", "q", "a", "a").identical


@pytest.mark.parametrize("family", JUDGE_FAMILIES.values(), ids=lambda family: family.name)
def test_every_shipped_template_has_its_places_and_names_its_verdicts(family):
    forms = load_forms(family, {})
    for kind, form in forms.items():
        messages = form.messages({field: f"<{field}>" for field in FIELDS[kind]})
        text = "\n".join(message["content"] for message in messages)
        assert [message["role"] for message in messages] in (["system", "user"], ["user"])
        outcomes = [f"{it}" for it in (family.outcomes[kind][0], family.outcomes[kind][-1])]
        written = {BOXED: "\\boxed{{{}}}", JUDGE_FAMILIES["brackets"].syntax: "[[{}]]"}.get(family.syntax, "{}")
        assert all(written.format(outcome) in text for outcome in outcomes)
        assert all(f"<{field}>" in text for field in FIELDS[kind])


def test_what_is_judged_is_not_looked_at_for_places():
    form = parse_form("pair", "[user]\n{query}|{first}|{second}|{other}|\\boxed{x}\n")
    comparison = JudgeComparison("pair", "{first}", "{second}", "{query}")
    (message,) = form.messages(comparison.values(swapped=False))
    assert message == {"role": "user", "content": "{first}|{second}|{query}|{other}|\\boxed{x}"}
    (message,) = form.messages(comparison.values(swapped=True))
    assert message["content"].startswith("{first}|{query}|{second}|")


def test_a_wrong_template_is_refused_with_what_it_lacks(tmp_path):
    with pytest.raises(ValueError, match=r"needs a \[user\] part"):
        parse_form("pair", "[system]\n{query} {first} {second}")
    with pytest.raises(ValueError, match=r"pair needs \{second\}"):
        parse_form("pair", "[user]\n{query} {first}")
    file = tmp_path / "own.txt"
    file.write_text("[user]\n{query} {reply} {rubric} own words")
    forms = load_forms(JUDGE_FAMILIES["rrm"], {"rubric": str(file)})
    assert "own words" in forms["rubric"].user
    assert "own words" not in forms["pair"].user

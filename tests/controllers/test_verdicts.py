"""What is asked of a judge, and how its answer is read."""

from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.judging.verdicts import JudgeComparison, digest, final_answer, last_boxed, last_bracketed, verdict_in
from models.judge_prompts.families import FIELDS, JUDGE_FAMILIES, load_forms, parse_form

ASSISTANTS = ("Assistant 1", "Assistant 2")


@pytest.mark.parametrize(
    ("answer", "side"),
    [
        (r"\boxed{Assistant 1}", 0),
        (r"so \boxed{Assistant 2}.", 1),
        (r"\boxed{Assistant 1} no: \boxed{Assistant 2}", 1),
        (r"I think \boxed{Assistant 1}</think>\boxed{Assistant 2}", 1),
        (r"\boxed{Assistant 1}</think>none", None),
        (r"a</think>\boxed{Assistant 1}</think>b", 0),
        (r"\boxed{Assistant 2} and \boxed{Assistant 1", 1),  # the last balanced one
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
def test_a_boxed_verdict_is_the_last_balanced_box_behind_the_thinking_and_matches_exactly(answer, side):
    assert verdict_in(answer, "boxed", ASSISTANTS) == side


@pytest.mark.parametrize(
    ("answer", "side"),
    [
        ("[[A]]", 0),
        ("A is good. [[B]]", 1),
        ("[[A]] or rather [[B]]", 1),
        ("[[C]]", None),
        ("[A]", None),
        ("[[a]]", None),
        ("[[A]]</think>undecided", None),
        ("[[A]][[tie]]", None),
    ],
)
def test_a_bracketed_verdict_is_the_last_one(answer, side):
    assert verdict_in(answer, "brackets", ("A", "B")) == side


def test_boxes_nest_and_brackets_hold_no_brackets():
    assert last_boxed(r"\boxed{\frac{1}{2}} then") == r"\frac{1}{2}"
    assert last_boxed(r"\boxed{a \boxed{b}}") == "b"
    assert last_boxed(r"\boxed{a") is None
    assert last_bracketed("[[a[b]]]") is None


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
        written = [{"boxed": f"\\boxed{{{v}}}", "brackets": f"[[{v}]]"}[family.syntax] for v in family.verdicts[kind]]
        assert all(verdict in text for verdict in written)
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

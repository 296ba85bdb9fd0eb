import json
import re
from collections import Counter
from pathlib import Path

import pytest

from loadtest import Variant, crossed, last_digit, load_requests, mixed, repeated


def solved(question: str) -> int:
    """Reads the question as a person would."""
    start, steps = re.fullmatch(r"Start with (\d), then (.+)\. What is the last digit\?", question).groups()  # type: ignore[union-attr]
    value = int(start)
    for step in steps.split():
        sign, operand = step[1], int(step[2:])
        value = value + operand if sign == "+" else value - operand if sign == "-" else value * operand
    return value % 10


def test_generated_questions_have_the_answer_that_they_are_said_to_have() -> None:
    for request in last_digit(200, seed=5):
        question = request.messages[0]["content"]
        assert request.answer == str(solved(question)), question
        assert request.difficulty == len(re.findall(r" [a-z][-+*]\d", question))


def test_the_question_is_spelled_as_documented() -> None:
    question = last_digit(1, seed=0, depths=[3])[0].messages[0]["content"]
    assert re.fullmatch(r"Start with \d, then a[-+*]\d b[-+*]\d c[-+*]\d\. What is the last digit\?", question)


def test_multipliers_lose_nothing() -> None:
    operands = re.findall(r"\*(\d)", " ".join(one.messages[0]["content"] for one in last_digit(300)))
    assert set(operands) == {"3", "7", "9"}


def test_a_seed_gives_the_same_questions_again() -> None:
    assert last_digit(20, seed=1) == last_digit(20, seed=1) != last_digit(20, seed=2)


def test_a_file_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    lines = [
        {"messages": [{"role": "user", "content": "hi"}], "answer": 4, "difficulty": 2, "at": 0.5},
        {"id": "mine", "prompt": "2+2?", "body": {"max_tokens": 9}, "route": "fast"},
    ]
    path.write_text("\n\n".join(map(json.dumps, lines)))
    first, second = load_requests(path, {"max_tokens": 5, "seed": 1})
    assert (first.id, first.answer, first.difficulty, first.at) == ("chat-1", "4", 2, 0.5)
    assert first.body == {"max_tokens": 5, "seed": 1}
    assert (second.id, second.route, second.answer) == ("mine", "fast", None)
    assert second.body == {"max_tokens": 9, "seed": 1}
    assert second.messages == ({"role": "user", "content": "2+2?"},)


@pytest.mark.parametrize("line", ['{"prompt": "a", "answr": 1}', "{}", '{"prompt": "a", "messages": []}', "not json"])
def test_a_line_that_cannot_be_meant_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"prompt": "fine"}\n' + line)
    with pytest.raises(ValueError, match=r"bad\.jsonl, line 2"):
        load_requests(path)


def test_a_mix_is_drawn_by_weight_and_lays_its_fields_over() -> None:
    variants = [Variant("often", 3, {"thinking_token_budget": 64}), Variant("seldom", 1, route="other")]
    found = mixed(last_digit(2000, body={"max_tokens": 7}), variants, seed=1)
    counts = Counter(request.variant for request in found)
    assert counts["often"] / 2000 == pytest.approx(0.75, abs=0.04)
    often = next(request for request in found if request.variant == "often")
    assert often.body == {"max_tokens": 7, "thinking_token_budget": 64} and often.route is None
    assert next(request for request in found if request.variant == "seldom").route == "other"


def test_a_cross_asks_every_question_in_every_way() -> None:
    found = crossed(last_digit(3), [Variant("a"), Variant("b")])
    assert [request.id for request in found] == [f"digit-{n}/{v}" for n in range(3) for v in "ab"]


def test_a_short_workload_is_repeated() -> None:
    assert [request.id for request in repeated(last_digit(2), 5)] == ["digit-0", "digit-1"] * 2 + ["digit-0"]

"""The SelfBudgeter format, written and read as token ids."""

import pytest

from models.text.tokenizer import HubTokenizer
from training.data.budget_replies import BudgetReply, budget_format_of

TOKENIZER = HubTokenizer("demo/tokenizer")
FORM = budget_format_of("selfbudgeter", TOKENIZER)
SOLUTION = FORM.solution("2 a*3=6", "6")


def read(text: str) -> BudgetReply:
    return FORM.read(TOKENIZER.encode_control(text))


def test_a_reply_declares_the_length_of_its_own_solution():
    ids = FORM.write(SOLUTION)
    spelled = f"<budget>{len(SOLUTION)}</budget><solution>2 a*3=6\nThe final answer is 6</solution><|im_end|>"
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == spelled
    assert FORM.read(ids) == BudgetReply(len(SOLUTION), len(SOLUTION), "6", True)


def test_a_prefilled_reply_is_read_with_its_prefill():
    ids = [*FORM.prefill(40), *SOLUTION, FORM.controls[-1], FORM.end]
    assert FORM.read(ids) == BudgetReply(40, len(SOLUTION), "6", True)


def test_a_plain_reply_has_no_budget():
    assert FORM.read_plain(FORM.plain(SOLUTION)) == BudgetReply(None, len(SOLUTION), "6", True)
    assert not FORM.read_plain(SOLUTION).complete
    assert not FORM.read_plain(FORM.write(SOLUTION)).complete


@pytest.mark.parametrize(
    "text",
    [
        "<budget>9</budget><solution>\nThe final answer is 6</solution>",
        "<budget>9</budget><solution>\nThe final answer is 6<|im_end|>",
        "<budget>9</budget>\nThe final answer is 6</solution><|im_end|>",
        "<solution>\nThe final answer is 6</solution><|im_end|>",
        "6<budget>9</budget><solution>\nThe final answer is 6</solution><|im_end|>",
        "<budget>9</budget><solution>\nThe final answer is 6</solution>6<|im_end|>",
        "<|im_end|>",
        "",
    ],
)
def test_a_reply_that_is_not_in_the_format_is_not_complete(text):
    assert not read(text).complete


@pytest.mark.parametrize("field", ["", "0", "many", "-5"])
def test_a_budget_that_is_no_number_above_0_is_none(field):
    assert read(f"<budget>{field}</budget><solution>\nThe final answer is 6</solution><|im_end|>").budget is None


def test_the_answer_stands_behind_the_last_phrase():
    twice = "\nThe final answer is 5\nThe final answer is 6"
    assert read(f"<budget>9</budget><solution>{twice}</solution><|im_end|>").answer == "6"
    assert read("<budget>9</budget><solution>6</solution><|im_end|>").answer == ""


def test_a_family_without_budgets_is_refused():
    with pytest.raises(ValueError, match="selfbudgeter"):
        budget_format_of("lhrm", TOKENIZER)

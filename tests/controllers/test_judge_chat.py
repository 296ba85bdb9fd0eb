"""A judge that is chatted with in MT-Bench's form."""

import pytest

from controllers import CONTROLLERS
from controllers.judge_chat import Asked, answering, asked_in
from controllers.policy import fold
from controllers.reply import Chunk, Finished, Request
from controllers.verdicts import Comparison
from models.engine import Sampling
from tests.judging import boxed

pytestmark = pytest.mark.anyio

ASKED = (
    "[User Question]\nWhich is larger?\n\n"
    "[The Start of Assistant A's Answer]\n{first}\n[The End of Assistant A's Answer]"
    "\n\n[The Start of Assistant B's Answer]\n{second}\n[The End of Assistant B's Answer]"
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def asking(first: str, second: str) -> Request:
    return Request([{"role": "user", "content": ASKED.format(first=first, second=second)}])


async def said(judge, request: Request) -> tuple[str, list]:
    controller = answering(judge.family, judge.forms, CONTROLLERS["mode"])
    policy = fold({}, judge.route.family, judge.route.defaults)
    events = [event async for event in controller(judge.route, request, policy, Sampling(max_tokens=400))]
    answer = "".join(event.text for event in events if isinstance(event, Chunk) and event.kind == "answer")
    return answer, events


@pytest.mark.parametrize(("first", "second", "verdict"), [("3", "8", "[[B]]"), ("8", "3", "[[A]]")])
async def test_the_verdict_ends_the_answer_as_the_caller_reads_it_and_its_tokens_are_counted(
    make_judge, first, second, verdict
):
    judge, reader = make_judge()
    answer, events = await said(judge, asking(first, second))
    assert answer.endswith("\n\n" + verdict)
    assert reader.asked == [(first, second)]
    written, end = events[-2:]
    assert written.forced
    assert isinstance(end, Finished)
    assert end.completion_tokens == sum(len(event.token_ids) for event in events if isinstance(event, Chunk))
    assert end.answer_tokens >= len(written.token_ids)


async def test_without_a_verdict_none_is_written(make_judge):
    judge, _ = make_judge(lambda first, second: boxed("neither"))
    answer, _ = await said(judge, asking("3", "8"))
    assert "[[" not in answer


async def test_another_conversation_and_a_judge_that_writes_brackets_are_left_alone(make_judge):
    judge, reader = make_judge(lambda first, second: "<no_think>as it is</no_think>")
    answer, _ = await said(judge, Request([{"role": "user", "content": "## Query\nx"}]))
    assert answer == "as it is"
    brackets, reader = make_judge(lambda first, second: "<no_think>[[A]]</no_think>", family="brackets")
    answer, _ = await said(brackets, asking("3", "8"))
    assert answer == "[[A]]"
    assert "[The Start of Assistant A's Answer]" in reader.prompts[0]


REFERENCE = (
    "Given a task, a reference answer, and a response, determine if the response is correct.\n\n"
    "Task:\n```\n2 + 3?\n```\n\nReference answer:\n```\n5\n```\n\nResponse:\n```\n{reply}\n```\n\n"
    'Respond either "{yes}" or "{no}" only.'
)


@pytest.mark.parametrize(("reply", "verdict"), [("5", "yes"), ("6", "no")])
async def test_a_reply_beside_a_reference_is_judged_in_the_judges_own_words(make_judge, reply, verdict):
    judge, reader = make_judge(single=lambda reply, against: boxed("Correct" if reply == against else "Incorrect"))
    request = Request([{"role": "user", "content": REFERENCE.format(reply=reply, yes="yes", no="no")}])
    answer, _ = await said(judge, request)
    assert answer.endswith(f"\n\nFinal verdict: {verdict}")
    assert "## Reference answer" in reader.prompts[0]


async def test_a_judge_that_writes_brackets_still_judges_references_itself(make_judge):
    judge, reader = make_judge(lambda first, second: "<no_think>[[incorrect]]</no_think>", family="brackets")
    request = Request([{"role": "user", "content": REFERENCE.format(reply="6", yes="yes", no="no")}])
    answer, _ = await said(judge, request)
    assert answer == "[[incorrect]]\n\nFinal verdict: no"
    assert "[End of the reference answer]" in reader.prompts[0]


async def test_a_judge_without_prompts_for_references_leaves_them_to_the_model(make_judge):
    judge, _ = make_judge(lambda first, second: "<no_think>yes</no_think>")
    judge.forms = {"pair": judge.forms["pair"]}
    answer, _ = await said(judge, Request([{"role": "user", "content": REFERENCE.format(reply="5", yes="y", no="n")}]))
    assert answer == "yes"


def test_a_judgement_is_found_only_in_one_question_without_earlier_replies():
    assert asked_in(asking("3", "8").messages) == Asked(
        Comparison("pair", "Which is larger?", "3", "8"), ("[[A]]", "[[B]]")
    )
    reference = [{"role": "user", "content": REFERENCE.format(reply="a\nb", yes="A", no="B")}]
    assert asked_in(reference) == Asked(
        Comparison("reference", "2 + 3?", "a\nb", against="5"), ("Final verdict: A", "Final verdict: B")
    )
    assert asked_in([{"role": "user", "content": "Which is larger?"}]) is None
    assert asked_in([{"role": "assistant", "content": "Hi"}, *asking("3", "8").messages]) is None

"""A judge that is chatted with in MT-Bench's form."""

import asyncio
from dataclasses import replace
from time import process_time

import pytest

from controllers.generation.events import Conversation, Finished, Interrupt
from controllers.judging.chat import JudgeRequest, chat_controller, judge_request_in
from controllers.judging.verdicts import JudgeComparison
from controllers.policy.fold import fold
from models.engines.base import Sampling
from models.formats.chunks import Chunk
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


def asking(first: str, second: str) -> Conversation:
    return Conversation([{"role": "user", "content": ASKED.format(first=first, second=second)}])


async def said(judge, request: Conversation, sampling: Sampling | None = None, **controls) -> tuple[str, list]:
    policy = fold(controls, judge.route.family, judge.route.defaults)
    run = chat_controller(judge)(judge.route, request, policy, sampling or Sampling(max_tokens=400))
    events = [event async for event in run]
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


async def test_a_reply_without_a_verdict_is_tried_once_more_and_its_tokens_are_not_charged(make_judge):
    verdicts = []
    lines = iter(["<think>hm</think>neither", "<think>hm hm</think>\\boxed{Assistant 2}"])
    judge, reader = make_judge(lambda first, second: next(lines), on_verdict=verdicts.append)
    answer, events = await said(judge, asking("3", "8"), Sampling(max_tokens=400, seed=5))
    assert answer == "neither\n\n[[B]]"
    assert reader.sampled[0].seed != reader.sampled[1].seed
    assert [sampling.whole for sampling in reader.sampled] == [False, True], "nobody reads the second along"
    end = events[-1]
    assert end.more["judge"] == {
        "winner": 1,
        "votes": {"first": 0, "second": 1, "abstained": 0, "of": 1},
        "replies": 2,
    }
    assert end.completion_tokens == sum(len(event.token_ids) for event in events if isinstance(event, Chunk))
    assert end.completion_tokens + end.discarded_tokens > verdicts[0].votes[0].completion_tokens
    assert verdicts[0].votes[0].unparsable == 1, "comparisons over chat are counted like all others"


async def test_the_routes_votes_are_cast_and_the_majority_is_written(make_judge):
    lines = iter([boxed("Assistant 1"), boxed("Assistant 2"), boxed("Assistant 2")])
    judge, reader = make_judge(lambda first, second: next(lines), votes=3)
    answer, events = await said(judge, asking("3", "8"))
    assert answer == "\\boxed{Assistant 1}\n\n[[B]]", "the first vote is read, the majority counts"
    assert reader.asked == [("3", "8")] * 3, "always in the caller's order"
    assert events[-1].more["judge"]["votes"] == {"first": 1, "second": 2, "abstained": 0, "of": 3}


async def test_the_verdict_fits_into_max_tokens(make_judge):
    judge, _ = make_judge(lambda first, second: "<no_think>" + "hm " * 100)
    for most in (1, 3, 40):
        answer, events = await said(judge, asking("3", "8"), Sampling(max_tokens=most))
        assert "[[" not in answer
        assert events[-1].completion_tokens <= most
    judge, _ = make_judge(lambda first, second: boxed("Assistant 1"))
    _, events = await said(judge, asking("3", "8"))
    needed = events[-1].completion_tokens
    answer, events = await said(judge, asking("3", "8"), Sampling(max_tokens=needed))
    assert answer.endswith("[[A]]")
    assert events[-1].completion_tokens == needed


async def test_the_verdict_fits_into_the_context(make_judge):
    judge, _ = make_judge(lambda first, second: boxed("Assistant 1"))
    _, events = await said(judge, asking("3", "8"), Sampling())
    length = events[-1].prompt_tokens + events[-1].completion_tokens
    for context_length, fits in ((length, True), (length - 1, False)):
        judge, _ = make_judge(lambda first, second: boxed("Assistant 1"), engine={"context_length": context_length})
        answer, _ = await said(judge, asking("3", "8"), Sampling())
        assert answer.endswith("[[A]]") == fits


@pytest.mark.parametrize("room", [0, 40])
async def test_the_verdict_fits_into_a_replys_budget(make_judge, make_route, room):
    judge, _ = make_judge()
    line = "\\boxed{Assistant 1}</solution>"
    judge.route = make_route(lambda prompt, sampling: line, "selfbudgeter", "think")
    _, events = await said(judge, asking("3", "8"), thinking_token_budget=200)
    used = events[-1].budget.used
    answer, events = await said(judge, asking("3", "8"), thinking_token_budget=used - 1 + room)
    assert answer.endswith("[[A]]") == bool(room)
    assert events[-1].budget.used <= events[-1].budget.enforced


async def test_whoever_cancels_waits_for_no_second_try(make_judge):
    interrupt = Interrupt()
    judge, reader = make_judge(lambda first, second: "<think>" + "hm " * 50, engine={"token_delay": 0.001})
    request = replace(asking("3", "8"), interrupt=interrupt)
    policy = fold({}, judge.route.family, judge.route.defaults)
    async for event in chat_controller(judge)(judge.route, request, policy, Sampling(max_tokens=400)):
        if isinstance(event, Chunk):
            interrupt.ask("cancel")
    assert isinstance(event, Finished)
    assert len(reader.asked) == 1


async def test_the_same_text_twice_is_judged_all_the_same(make_judge):
    judge, _ = make_judge(lambda first, second: boxed("Assistant 2"))
    answer, _ = await said(judge, asking("5", "5"))
    assert answer.endswith("[[B]]"), "a conversation wants a reply"


async def test_without_a_seed_each_reply_is_its_own_and_with_one_the_same(make_judge):
    judge, reader = make_judge()
    for seed in (None, None, 7, 7):
        await said(judge, asking("3", "8"), Sampling(max_tokens=400, seed=seed))
    first, second, third, fourth = (sampling.seed for sampling in reader.sampled)
    assert len({first, second, third}) == 3
    assert third == fourth


async def test_a_controller_that_never_ends_its_reply_is_an_error(make_judge):
    judge, _ = make_judge()

    async def silent(route, request, policy, sampling):
        return
        yield

    judge.controller = silent
    with pytest.raises(AssertionError, match="ends with Finished"):
        await said(judge, asking("3", "8"))


async def test_another_conversation_and_a_judge_that_writes_brackets_are_left_alone(make_judge):
    judge, reader = make_judge(lambda first, second: "<no_think>as it is</no_think>")
    answer, _ = await said(judge, Conversation([{"role": "user", "content": "## Query\nx"}]))
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
    request = Conversation([{"role": "user", "content": REFERENCE.format(reply=reply, yes="yes", no="no")}])
    answer, _ = await said(judge, request)
    assert answer.endswith(f"\n\nFinal verdict: {verdict}")
    assert "## Reference answer" in reader.prompts[0]


async def test_a_judge_that_writes_brackets_still_judges_references_itself(make_judge):
    judge, reader = make_judge(lambda first, second: "<no_think>[[incorrect]]</no_think>", family="brackets")
    request = Conversation([{"role": "user", "content": REFERENCE.format(reply="6", yes="yes", no="no")}])
    answer, _ = await said(judge, request)
    assert answer == "[[incorrect]]\n\nFinal verdict: no"
    assert "[End of the reference answer]" in reader.prompts[0]


async def test_a_judge_without_prompts_for_references_leaves_them_to_the_model(make_judge):
    judge, _ = make_judge(lambda first, second: "<no_think>yes</no_think>")
    judge.forms = {"pair": judge.forms["pair"]}
    answer, _ = await said(
        judge, Conversation([{"role": "user", "content": REFERENCE.format(reply="5", yes="y", no="n")}])
    )
    assert answer == "yes"


def test_a_judgement_is_found_only_in_one_question_without_earlier_replies():
    assert judge_request_in(asking("3", "8").messages) == JudgeRequest(
        JudgeComparison("pair", "Which is larger?", "3", "8"), ("[[A]]", "[[B]]")
    )
    reference = [{"role": "user", "content": REFERENCE.format(reply="a\nb", yes="A", no="B")}]
    assert judge_request_in(reference) == JudgeRequest(
        JudgeComparison("reference", "2 + 3?", "a\nb", against="5"), ("Final verdict: A", "Final verdict: B")
    )
    assert judge_request_in([{"role": "user", "content": "Which is larger?"}]) is None
    for start in ("[Question]", "[The Start", "[The End of Assistant B", "Reference answer", "Response:", "Respond"):
        for whole in (ASKED, REFERENCE):
            if start in whole:
                assert judge_request_in([{"role": "user", "content": whole.replace(start, "")}]) is None


@pytest.mark.parametrize(
    "text",
    [
        "[Question]" + " " * 200_000,
        "[Question]" * 20_000 + "[The Start of Assistant A's Answer]" * 20_000,
        "[Question][The Start of Assistant A's Answer]" + "[The End of Assistant A's Answer] \n" * 20_000,
        "Task:\n```\n" * 20_000 + "\n```\n\nReference answer:\n```\n" * 20_000,
        "Task:\n```\na\n```\n\nReference answer:\n```\nb\n```\n\nResponse:\n```\nc"
        + '\n```\n\nRespond either "' * 20_000,
    ],
)
def test_a_form_that_is_never_complete_is_read_once(text):
    began = process_time()
    assert judge_request_in([{"role": "user", "content": text}]) is None
    assert process_time() - began < 2, "seconds"
    assert judge_request_in([{"role": "assistant", "content": "Hi"}, *asking("3", "8").messages]) is None


async def test_whoever_cancels_ends_every_vote_and_changes_no_later_seed(make_judge):
    interrupt = Interrupt()
    judge, reader = make_judge(lambda first, second: "<think>" + "hm " * 200, votes=5, engine={"token_delay": 0.01})
    policy = fold({}, judge.route.family, judge.route.defaults)

    async def chat(request: Conversation) -> list[int | None]:
        reader.sampled.clear()
        async for event in chat_controller(judge)(judge.route, request, policy, Sampling(max_tokens=400, seed=7)):
            if isinstance(event, Chunk):
                interrupt.ask("cancel")
        return [sampling.seed for sampling in reader.sampled]

    async with asyncio.timeout(2):  # a whole vote takes four seconds
        seeds = await chat(replace(asking("3", "8"), interrupt=interrupt))
    assert len(seeds) == 3, "the first wave, and no vote more"
    async with asyncio.timeout(2):
        assert await chat(replace(asking("3", "8"), interrupt=interrupt)) == []
        interrupt = Interrupt()
        assert sorted(await chat(replace(asking("3", "8"), interrupt=interrupt))) == sorted(seeds)

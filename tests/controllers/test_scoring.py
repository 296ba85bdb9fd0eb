"""Graded rewards: a group against each other, a single reply against what came with it."""

import pytest

from controllers.ranking import Rules
from controllers.scoring import NothingToJudgeBy, Yardstick, score
from tests.judging import boxed

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def scored(judge, replies, yardstick, votes=1):
    return await score(judge, "Which is larger?", replies, judge.terms(votes=votes), Rules(), yardstick)


async def test_a_group_gets_chances_against_each_other(make_judge):
    judge, reader = make_judge()
    scores = await scored(judge, ["5", "9", "1"], Yardstick())
    low, middle, high = sorted(scores.values)
    assert [middle, high, low] == scores.values
    assert 0 < low < 0.5 == pytest.approx(middle) and 0.5 < high < 1
    assert (scores.basis, scores.verdicts, len(scores.ballots), len(reader.asked)) == ("group", [], 3, 3)


async def test_against_a_reference_or_a_rubric_the_score_is_the_share_of_votes_that_were_cast(make_judge):
    said = iter([boxed("Correct"), boxed("Incorrect"), boxed("Correct"), boxed("?"), boxed("?")])
    judge, _ = make_judge(single=lambda reply, against: next(said))
    scores = await scored(judge, ["4"], Yardstick("reference", "4"), votes=4)
    assert scores.values == [pytest.approx(2 / 3)]
    assert [ballot.side for ballot in scores.ballots] == [0, 1, 0, None]
    judge, _ = make_judge(single=lambda reply, against: boxed("Pass" if against in reply else "Fail"))
    assert (await scored(judge, ["polite", "rude"], Yardstick("rubric", "polite"))).values == [1.0, 0.0]


async def test_against_a_rival_it_is_whether_the_reply_won(make_judge):
    judge, _ = make_judge()
    assert (await scored(judge, ["9", "3", "5"], Yardstick("rival", "5"))).values == [1.0, 0.0, 0.5]


async def test_a_judge_that_never_says_leaves_no_score(make_judge):
    judge, _ = make_judge(single=lambda reply, against: boxed("?"))
    assert (await scored(judge, ["4"], Yardstick("reference", "4"))).values == [None]


async def test_nothing_to_judge_by_is_an_error_and_nothing_to_judge_is_not(make_judge):
    judge, reader = make_judge()
    with pytest.raises(NothingToJudgeBy, match="send a reference"):
        await scored(judge, ["4"], Yardstick())
    scores = await scored(judge, [], Yardstick())
    assert (scores.values, scores.ballots, reader.asked) == ([], [], [])

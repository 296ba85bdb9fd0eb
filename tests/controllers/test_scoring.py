"""Graded rewards: a group against each other, a single reply against what came with it."""

import pytest

from controllers.judging.ranking import TournamentRules
from controllers.judging.scoring import Criterion, NothingToJudgeBy, score
from tests.judging import boxed, larger_number

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def scored(judge, replies, criterion, votes=1):
    return await score(judge, "Which is larger?", replies, judge.params(votes=votes), TournamentRules(), criterion)


async def test_a_group_gets_chances_against_each_other(make_judge):
    judge, reader = make_judge()
    scores = await scored(judge, ["5", "9", "1"], Criterion())
    low, middle, high = sorted(scores.values)
    assert [middle, high, low] == scores.values
    assert 0 < low < 0.5 == pytest.approx(middle) and 0.5 < high < 1
    assert (scores.basis, scores.verdicts, len(scores.votes), len(reader.asked)) == ("group", [], 3, 3)


async def test_against_a_reference_or_a_rubric_the_score_is_the_share_of_votes_that_were_cast(make_judge):
    said = iter([boxed("Correct"), boxed("Incorrect"), boxed("Correct"), boxed("?"), boxed("?")])
    judge, _ = make_judge(single=lambda reply, against: next(said))
    scores = await scored(judge, ["4"], Criterion("reference", "4"), votes=4)
    assert scores.values == [pytest.approx(2 / 3)]
    assert [vote.side for vote in scores.votes] == [0, 1, 0, None]
    judge, _ = make_judge(single=lambda reply, against: boxed("Pass" if against in reply else "Fail"))
    assert (await scored(judge, ["polite", "rude"], Criterion("rubric", "polite"))).values == [1.0, 0.0]


async def test_against_a_rival_it_is_whether_the_reply_won(make_judge):
    judge, _ = make_judge()
    assert (await scored(judge, ["9", "3", "5"], Criterion("rival", "5"))).values == [1.0, 0.0, 0.5]


@pytest.mark.parametrize(
    ("criterion", "values"),
    [(Criterion("rival", "5"), [None, 0.5]), (Criterion(), [None, None])],
    ids=["rival", "group"],
)
async def test_where_no_vote_held_a_verdict_no_score_is_made_up(make_judge, criterion, values):
    judge, _ = make_judge(lambda first, second: boxed("neither"))
    assert (await scored(judge, ["9", "5"], criterion, votes=3)).values == values


async def test_one_match_without_a_verdict_counts_half_beside_others_that_have_one(make_judge):
    judge, _ = make_judge(
        lambda first, second: boxed("neither") if {first, second} == {"1", "5"} else larger_number(first, second)
    )
    low, same, high = (await scored(judge, ["1", "5", "9"], Criterion())).values
    assert low == pytest.approx(same)
    assert 0 < low < high < 1


async def test_replies_that_are_all_the_same_are_equals(make_judge):
    judge, reader = make_judge()
    assert (await scored(judge, ["5", "5", "5"], Criterion())).values == pytest.approx([0.5] * 3)
    assert reader.asked == []


@pytest.mark.parametrize(("basis", "against"), [("reference", "4"), ("rubric", "even"), ("rival", "5")])
async def test_progress_is_told_on_every_basis(make_judge, basis, against):
    judge, _ = make_judge(single=lambda reply, against: boxed("Correct" if against == "4" else "Pass"))
    heard = []
    await score(judge, "q", ["4", "6"], judge.params(), TournamentRules(), Criterion(basis, against), heard.append)
    assert [(said.done, said.of, said.verdict.count.k) for said in heard] == [(1, 2, 1), (2, 2, 1)]
    assert {said.replies for said in heard} == {(0,), (1,)}


async def test_a_judges_own_rubric_is_for_single_replies_that_come_without_anything(make_judge):
    judge, reader = make_judge(single=lambda reply, against: boxed("Pass"), rubric="Be right.")
    assert (await scored(judge, ["4"], Criterion())).values == [1.0]
    assert (await scored(judge, ["4"], Criterion("rubric", "Be brief."))).values == [1.0]
    assert [against for _, against in reader.asked] == ["Be right.", "Be brief."]
    assert (await scored(judge, ["4", "9"], Criterion())).basis == "group"


def test_of_several_criterions_the_first_that_says_something_counts():
    assert Criterion.of(None, None, None) == Criterion.of("", " ", "") == Criterion()
    assert Criterion.of(" ", "be brief", "5") == Criterion("rubric", "be brief")
    assert Criterion.of("4", "be brief", "5") == Criterion("reference", "4")
    assert Criterion.of(None, None, "5").kind == "pair"


async def test_a_judge_that_never_says_leaves_no_score(make_judge):
    judge, _ = make_judge(single=lambda reply, against: boxed("?"))
    assert (await scored(judge, ["4"], Criterion("reference", "4"))).values == [None]


async def test_nothing_to_judge_by_is_an_error_and_nothing_to_judge_is_not(make_judge):
    judge, reader = make_judge()
    with pytest.raises(NothingToJudgeBy, match="send a reference"):
        await scored(judge, ["4"], Criterion())
    scores = await scored(judge, [], Criterion())
    assert (scores.values, scores.votes, reader.asked) == ([], [], [])

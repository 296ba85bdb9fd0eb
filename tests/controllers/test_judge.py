"""A judge over a script: order, votes, retries, the cache, and everything in flight together."""

import asyncio
from dataclasses import replace

import pytest

from controllers.concurrency import gather, gather_bounded
from controllers.generation.events import Conversation
from controllers.judging.judge import CannotJudge, Judge, wider
from controllers.judging.ranking import TournamentRules, rank
from controllers.judging.settings import JudgeConfig
from controllers.judging.tournament import Match, VoteCount
from controllers.judging.verdicts import JudgeComparison
from controllers.policy.fold import BudgetSettings, Defaults, KeyLimits, fold
from models.engines.base import EngineDead, Sampling
from models.engines.scripted import ScriptedReply
from tests.judging import boxed, larger_number

pytestmark = pytest.mark.anyio

PAIR = JudgeComparison("pair", "Which is larger?", "3", "8")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_verdict_names_the_better_reply_whichever_way_round_the_judge_read_them(make_judge):
    judge, reader = make_judge()
    for seed in range(8):
        verdict = await judge.compare(PAIR, judge.params(seed=seed))
        assert (verdict.winner, verdict.share) == (1, 0.0)
        back = await judge.compare(JudgeComparison("pair", PAIR.query, "8", "3"), judge.params(seed=seed))
        assert (back.winner, back.share) == (0, 1.0)
        assert verdict.votes[0].swapped == (reader.asked[-1] == ("8", "3"))
    assert set(reader.asked) == {("3", "8"), ("8", "3")}


async def test_the_order_alternates_between_votes_so_that_a_biased_judge_is_found_out(make_judge):
    judge, reader = make_judge(lambda first, second: boxed("Assistant 1"))
    verdict = await judge.compare(PAIR, judge.params(votes=4))
    assert verdict.winner is None
    assert (verdict.count.first, verdict.count.second) == (2, 2)
    assert [vote.swapped for vote in verdict.votes[::2]] == [verdict.votes[0].swapped] * 2
    assert reader.asked[0] == reader.asked[2] != reader.asked[1]


async def test_votes_are_sampled_with_seeds_of_their_own_and_the_same_again_for_the_same_seed(make_judge):
    judge, reader = make_judge(cache_size=0)
    params = judge.params(votes=5, seed=1)
    await judge.compare(PAIR, params)
    once = [sampling.seed for sampling in reader.sampled]
    assert len(once) == 3, "three of five agree: the other two are not asked"
    assert len(set(once)) == 3
    await judge.compare(PAIR, params)
    assert [sampling.seed for sampling in reader.sampled[3:]] == once
    await judge.compare(PAIR, replace(params, seed=2))
    assert not {sampling.seed for sampling in reader.sampled[6:]} & set(once)


async def test_a_reply_without_a_verdict_is_tried_once_more_longer_and_with_another_seed(make_judge):
    said = iter(["<think>hm</think>neither", boxed("Assistant 1")])
    judge, reader = make_judge(lambda first, second: next(said))
    params = replace(judge.params(), sampling=Sampling(max_tokens=100, temperature=0.6), keep_reasoning=True)
    verdict = await judge.compare(PAIR, params)
    (vote,) = verdict.votes
    assert (vote.tries, vote.unparsable) == (2, 1)
    assert [sampling.max_tokens for sampling in reader.sampled] == [100, 200]
    assert reader.sampled[0].seed != reader.sampled[1].seed
    assert vote.reasoning == "\\boxed{Assistant 1}"
    assert vote.completion_tokens > vote.reasoning_tokens > 0, "both tries count"


@pytest.mark.parametrize(("budget", "mode"), [(None, "auto"), (None, "think"), (200, "think")])
async def test_a_judges_reply_comes_at_once_unless_its_thinking_may_have_to_be_cut(make_judge, budget, mode):
    judge, reader = make_judge(
        lambda first, second: "<think>hm hm</think>\\boxed{Assistant 1}"[7 * (mode == "think") :]
    )
    params = judge.params(votes=3)
    verdict = await judge.compare(PAIR, replace(params, policy=replace(params.policy, budget=budget, mode=mode)))
    assert {sampling.whole for sampling in reader.sampled} == {budget is None}
    assert {vote.reasoning_tokens for vote in verdict.votes} == {4}


async def test_a_judge_that_never_says_abstains_and_says_so(make_judge):
    judge, reader = make_judge(lambda first, second: "<think>cannot decide</think>")
    verdict = await judge.compare(PAIR, judge.params(votes=3))
    assert (verdict.winner, verdict.share) == (None, 0.5)
    assert verdict.count.abstained == 3
    assert len(reader.asked) == 6
    assert {(vote.side, vote.tries, vote.unparsable) for vote in verdict.votes} == {(None, 2, 2)}
    assert len(judge.cache) == 0, "an abstention is no verdict"
    assert not verdict.known


async def test_an_abstention_that_is_asked_again_is_asked_with_other_seeds(make_judge):
    judge, reader = make_judge(lambda first, second: boxed("neither"), cache_size=0)
    for _ in range(3):
        await judge.compare(PAIR, judge.params())
    seeds = [sampling.seed for sampling in reader.sampled]
    assert len(seeds) == len(set(seeds)) == 6
    reader.rule = lambda first, second: boxed("Assistant 1")
    assert (await judge.compare(PAIR, judge.params())).known


async def test_a_draw_is_an_outcome_and_so_are_equal_replies(make_judge):
    judge, _ = make_judge(lambda first, second: boxed("Assistant 1"))
    draw = await judge.compare(PAIR, judge.params(votes=2))
    assert (draw.winner, draw.known) == (None, True)
    assert (await judge.compare(JudgeComparison("pair", "q", "5", "5"), judge.params())).known


async def test_who_follows_a_comparison_hears_every_vote(make_judge):
    judge, _ = make_judge()
    heard: list[VoteCount] = []
    verdict = await judge.compare(PAIR, judge.params(votes=5), heard.append)
    assert heard == [VoteCount(5, 0, 1), VoteCount(5, 0, 2), VoteCount(5, 0, 3)]
    assert heard[-1] == verdict.count


async def test_a_verdict_inside_thinking_that_was_cut_is_none(make_judge):
    judge, _ = make_judge(lambda first, second: "<think>\\boxed{Assistant 1} or perhaps not, let me see again")
    verdict = await judge.compare(PAIR, replace(judge.params(), sampling=Sampling(max_tokens=8)))
    assert verdict.winner is None


def test_a_second_try_has_wider_limits_where_there_are_any(make_judge):
    judge, _ = make_judge()
    params = replace(judge.params(), sampling=Sampling())
    assert wider(params, 2.0) == (params.policy, Sampling())
    limited = replace(params, policy=replace(params.policy, budget=100), sampling=Sampling(max_tokens=150))
    policy, sampling = wider(limited, 1.5)
    assert (policy.budget, sampling.max_tokens) == (150, 225)


@pytest.mark.parametrize(
    ("budget", "cap", "longer"), [(1, None, 2), (16, 16, 16), (12, 16, 16), (0, 0, 0), (0, None, 1)]
)
def test_a_second_try_gets_more_if_only_a_token_and_never_more_than_the_cap(make_judge, budget, cap, longer):
    judge, _ = make_judge()
    params = judge.params()
    for prefill in (None, budget):
        limited = replace(params.policy, budget=budget, prefill=prefill, cap=cap)
        policy, _ = wider(replace(params, policy=limited), 1.5)
        assert policy.budget == longer
        assert policy.prefill in (None, longer)
        assert (policy.prefill is None) == (prefill is None)


def test_a_second_try_gets_no_more_of_what_the_caller_named_itself(make_judge):
    judge, _ = make_judge()
    named = fold({"thinking_token_budget": 8, "reasond": {"cut": "hard"}}, judge.route.family, judge.route.defaults)
    params = replace(judge.params(), policy=named, sampling=Sampling(max_tokens=64), fixed_length=True)
    assert wider(params, 2.0) == (named, Sampling(max_tokens=64))


async def test_the_cap_of_a_key_holds_for_a_second_try(make_judge):
    judge, _ = make_judge(lambda first, second: f"<think>{'hm ' * 50}</think>neither")
    hard = Defaults("think", budgets=BudgetSettings(graceful=False))
    judge.route = replace(judge.route, defaults=hard)
    verdict = await judge.compare(PAIR, judge.params(key=KeyLimits(cap=8)))
    (vote,) = verdict.votes
    assert (vote.tries, vote.reasoning_tokens) == (2, 2 * 8)


async def test_replies_with_the_same_text_are_equal_and_nobody_is_asked(make_judge):
    judge, reader = make_judge()
    verdict = await judge.compare(JudgeComparison("pair", "q", "5", "5"), judge.params(votes=5))
    assert (verdict.identical, verdict.winner, verdict.share, reader.asked) == (True, None, 0.5, [])


async def test_a_single_reply_is_held_against_a_reference_or_a_rubric_with_all_votes_cast(make_judge):
    said = iter([boxed("Correct"), boxed("Correct"), boxed("Incorrect"), boxed("Pass"), boxed("Fail"), boxed("Pass")])
    judge, _ = make_judge(single=lambda reply, against: next(said))
    verdict = await judge.compare(JudgeComparison("reference", "q", "a", against="b"), judge.params(votes=3))
    assert (verdict.count.first, verdict.count.second) == (2, 1)
    assert not any(vote.swapped for vote in verdict.votes)
    verdict = await judge.compare(JudgeComparison("rubric", "q", "a", against="be brief"), judge.params(votes=3))
    assert (verdict.count.first, verdict.count.second) == (2, 1)


async def test_a_comparison_asked_again_is_answered_by_the_cache_even_the_other_way_round(make_judge):
    seen = []
    judge, reader = make_judge(on_verdict=seen.append)
    await judge.compare(PAIR, judge.params(votes=3))
    asked = len(reader.asked)
    again = await judge.compare(JudgeComparison("pair", PAIR.query, "8", "3"), judge.params(votes=3))
    assert len(reader.asked) == asked
    assert again.winner == 0
    assert all(vote.cached for vote in again.votes)
    assert [[vote.cached for vote in verdict.votes] for verdict in seen] == [[False] * asked, [True] * asked]


class KeptElsewhere(dict[bytes, float]):
    """What judges of several replicas remember together."""

    async def get(self, key: bytes) -> float | None:
        return super().get(key)

    def put(self, key: bytes, share: float) -> None:
        self[key] = share


async def test_what_another_judge_remembers_is_not_asked_again_but_for_another_key(make_judge):
    kept = KeptElsewhere()
    first, first_reader = make_judge(shared=kept)
    await first.compare(PAIR, first.params(votes=3))
    assert len(kept) == len(first_reader.asked)
    second, reader = make_judge(shared=kept)
    for _ in range(2):  # the second time it knows by itself
        verdict = await second.compare(PAIR, second.params(votes=3))
        assert verdict.winner == 1 and all(vote.cached for vote in verdict.votes)
        assert not reader.asked
        kept.clear()
    await second.compare(PAIR, second.params(votes=3, key=KeyLimits(name="other")))
    assert reader.asked


async def test_the_cache_never_answers_one_vote_with_another_of_the_same_comparison(make_judge):
    judge, reader = make_judge()
    for votes in (1, 3, 5):
        await judge.compare(PAIR, judge.params(votes=votes))
    assert len(reader.asked) == 3, "votes 0, 1 and 2: each asked once, each known from then on"
    assert len(judge.cache) == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda params: replace(params, seed=9),
        lambda params: replace(params, sampling=Sampling(temperature=0.1)),
        lambda params: replace(params, policy=replace(params.policy, mode="think")),
        lambda params: replace(params, keep_reasoning=True),
    ],
)
async def test_other_terms_are_another_question(make_judge, change):
    judge, reader = make_judge()
    await judge.compare(PAIR, judge.params())
    verdict = await judge.compare(PAIR, change(judge.params()))
    assert len(reader.asked) == 2
    assert verdict.winner == 1


async def test_the_cache_holds_so_many_and_forgets_what_was_longest_unused(make_judge):
    judge, reader = make_judge(cache_size=2)
    for first in ("1", "2", "1", "3", "1", "2"):
        await judge.compare(JudgeComparison("pair", "q", first, "9"), judge.params())
    asked = [next(number for number in pair if number != "9") for pair in reader.asked]
    assert asked == ["1", "2", "3", "2"]


@pytest.mark.parametrize("cache_size", [0, 10])
async def test_neither_verdicts_nor_abstentions_are_known_to_another_key_or_under_another_salt(make_judge, cache_size):
    judge, reader = make_judge(lambda first, second: boxed("neither"), cache_size=cache_size)
    mine = judge.params(key=KeyLimits(name="mine"))
    theirs = judge.params(key=KeyLimits(name="theirs"))
    salted = replace(mine, request=Conversation((), cache_salt="s"))
    for params in (mine, mine, theirs, salted):
        await judge.compare(PAIR, params)
    seeds = [sampling.seed for sampling in reader.sampled]
    assert seeds[4:6] == seeds[6:8] == seeds[:2] != seeds[2:4], "asked for the first time, each of them"
    reader.rule = larger_number
    for params in (mine, theirs, salted, mine, theirs, salted):
        verdict = await judge.compare(PAIR, params)
    assert len(reader.asked) - 8 == (3 if cache_size else 6)
    assert verdict.votes[0].cached == bool(cache_size)


async def test_every_engine_request_of_a_judge_carries_salt_and_priority_and_neither_changes_a_verdict(make_judge):
    judge, reader = make_judge(cache_size=0)
    plain = judge.params(votes=3)
    sampling = replace(plain.sampling, priority=-7)
    await judge.compare(PAIR, plain)
    await judge.compare(PAIR, replace(plain, sampling=sampling, request=Conversation((), cache_salt="s")))
    assert [sampling.priority for sampling in reader.sampled] == [0] * 2 + [-7] * 2
    assert reader.salts == [None] * 2 + ["s"] * 2
    assert reader.asked[:2] == reader.asked[2:]
    assert [sampling.seed for sampling in reader.sampled[:2]] == [sampling.seed for sampling in reader.sampled[2:]]


async def most_in_flight(judge: Judge, work) -> int:
    """The most requests that the engine held at once while `work` ran."""
    working = asyncio.ensure_future(work)
    most = 0
    while not working.done():
        most = max(most, judge.route.engine.running())
        await asyncio.sleep(0)
    await working
    return most


async def test_all_comparisons_of_a_round_and_of_several_callers_are_in_flight_together(make_judge):
    judge, _ = make_judge(engine={"first_token_delay": 0.05})
    callers = [
        rank(
            judge,
            "Which is larger?",
            [str(10 * caller + i) for i in range(8)],
            judge.params(votes=3),
            TournamentRules(),
        )
        for caller in range(2)
    ]
    assert await most_in_flight(judge, gather(callers)) == 2 * 28 * 2


async def test_no_more_are_in_flight_than_the_setting_allows(make_judge):
    judge, _ = make_judge(engine={"first_token_delay": 0.01}, concurrency=5)
    work = rank(judge, "Which is larger?", [str(i) for i in range(6)], judge.params(), TournamentRules())
    assert await most_in_flight(judge, work) == 5


async def test_a_caller_with_little_to_ask_is_not_kept_waiting_by_one_with_much(make_judge):
    judge, reader = make_judge(engine={"first_token_delay": 0.01}, concurrency=2)
    replies = [str(i) for i in range(10)]
    much = asyncio.ensure_future(rank(judge, "much", replies, judge.params(), TournamentRules()))
    while len(reader.asked) < 2:  # noqa: ASYNC110 - the script has no event for it
        await asyncio.sleep(0)
    await judge.compare(JudgeComparison("pair", "little", "3", "8"), judge.params())
    asked = len(reader.asked)
    await much
    assert asked < 10 < len(reader.asked) == 46


async def test_a_large_tournament_is_not_begun_all_at_once(make_judge):
    judge, _ = make_judge(engine={"first_token_delay": 0.02}, concurrency=8)
    before = len(asyncio.all_tasks())
    params = judge.params(votes=16)
    working = asyncio.ensure_future(rank(judge, "q", [str(i) for i in range(64)], params, TournamentRules()))
    while judge.route.engine.running() < 8:  # noqa: ASYNC110 - the engine has no event for it
        await asyncio.sleep(0)
    assert judge.max_comparisons(params, "pair") == 1
    assert len(asyncio.all_tasks()) - before < 40, "2,016 comparisons of 16 votes"
    working.cancel()
    await asyncio.wait((working,))


async def test_a_caller_that_leaves_takes_its_comparisons_with_it(make_judge):
    judge, _ = make_judge(engine={"first_token_delay": 5.0})
    working = asyncio.ensure_future(rank(judge, "q", ["1", "2", "3", "4"], judge.params(votes=3), TournamentRules()))
    while judge.route.engine.running() < 12:  # noqa: ASYNC110 - the engine has no event for it
        await asyncio.sleep(0)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert judge.route.engine.running() == 0


async def test_an_engine_that_fails_ends_the_tournament_with_its_error(make_judge):
    judge, _ = make_judge(
        lambda first, second: ScriptedReply("<think>", error=EngineDead("gone")), engine={"token_delay": 0.01}
    )
    with pytest.raises(EngineDead):
        await rank(judge, "q", ["1", "2", "3"], judge.params(), TournamentRules())
    assert judge.route.engine.running() == 0


async def test_a_controller_that_never_ends_its_reply_is_an_error(make_judge):
    judge, _ = make_judge()

    async def silent(route, request, policy, sampling):
        return
        yield

    broken = Judge(judge.route, silent, judge.forms, judge.settings)
    with pytest.raises(AssertionError, match="ends with Finished"):
        await broken.compare(PAIR, judge.params())


async def test_a_round_robin_rates_every_reply_and_tells_of_its_progress(make_judge):
    judge, _ = make_judge()
    heard = []

    def listen(progress):
        heard.append((progress.round, progress.done, progress.of))
        assert len(progress.replies) == 2

    ranking = await rank(judge, "Which is larger?", ["5", "9", "1", "7"], judge.params(), TournamentRules(), listen)
    assert ranking.order == [1, 3, 0, 2]
    assert heard == [(1, done, 6) for done in range(1, 7)]
    assert sorted(ranking.scores, reverse=True) == [ranking.scores[i] for i in ranking.order]
    assert all(0 < score < 1 for score in ranking.scores)
    assert sum(ranking.ratings) == pytest.approx(0)


async def test_elo_rates_by_the_settings(make_judge):
    judge, _ = make_judge()
    rules = TournamentRules(rating="elo", elo_k=10, elo_start=100)
    ranking = await rank(judge, "Which is larger?", ["5", "9", "1"], judge.params(), rules)
    assert ranking.ratings == [100, 110, 90]
    assert ranking.scores == pytest.approx([0.5, 1 - ranking.scores[2], ranking.scores[2]])
    assert ranking.scores[2] < 0.5


async def test_a_knockout_finds_the_best_in_rounds_and_rates_nobody(make_judge):
    judge, reader = make_judge()
    ranking = await rank(
        judge, "q", ["5", "9", "1", "7", "2", "8", "3", "6"], judge.params(), TournamentRules("knockout")
    )
    assert ranking.order[0] == 1
    assert [len(played) for played in ranking.rounds] == [4, 2, 1]
    assert len(reader.asked) == 7
    assert ranking.ratings is ranking.scores is None


async def test_a_knockouts_progress_counts_through_all_its_rounds(make_judge):
    judge, _ = make_judge()
    heard = []
    replies = ["5", "9", "1", "7", "2", "8"]
    await rank(judge, "q", replies, judge.params(), TournamentRules("knockout"), heard.append)
    assert [(said.done, said.of) for said in heard] == [(done, 5) for done in range(1, 6)]
    assert [said.round for said in heard] == [1, 1, 2, 2, 3]


@pytest.mark.parametrize("rating", ["bradley_terry", "elo"])
async def test_ratings_of_teams_do_not_depend_on_the_order_of_the_replies(make_judge, rating):
    """A judge that goes by the wording, so that it matters who plays for a team."""
    replies = [f"{'so ' * length}\\boxed{{{answer}}}" for length, answer in ((1, 4), (5, 4), (2, 9), (4, 9), (3, 1))]
    ratings = []
    for moved in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [1, 3, 4, 0, 2]):
        judge, _ = make_judge(lambda first, second: boxed(f"Assistant {1 + (len(second) > len(first))}"))
        told = await rank(
            judge, "q", [replies[i] for i in moved], judge.params(seed=3), TournamentRules(rating=rating, teams=True)
        )
        ratings.append([told.ratings[moved.index(i)] for i in range(5)])
    assert ratings[1] == pytest.approx(ratings[0])
    assert ratings[2] == pytest.approx(ratings[0])


async def test_a_reply_of_which_no_vote_said_anything_has_no_rating_and_comes_last(make_judge):
    judge, _ = make_judge(
        lambda first, second: boxed("neither") if "1" in (first, second) else larger_number(first, second)
    )
    ranking = await rank(judge, "q", ["1", "5", "9"], judge.params(), TournamentRules())
    assert ranking.order == [2, 1, 0]
    assert ranking.ratings[0] is ranking.scores[0] is None
    assert ranking.scores[2] > ranking.scores[1] > 0
    twice = await rank(judge, "q", ["1", "1", "5"], judge.params(), TournamentRules())
    assert twice.scores[:2] == [None, None], "to be equal to a reply that was not judged says nothing"
    assert twice.scores[2] is None


async def test_a_knockout_that_nobody_wins_is_drawn_by_lot_and_says_so(make_judge):
    judge, _ = make_judge(lambda first, second: "<no_think>either</no_think>")
    ranking = await rank(judge, "q", ["1", "2"], judge.params(), TournamentRules("knockout"))
    assert ranking.rounds[0][0].match == Match(*ranking.order, 0.5, by_lot=True) or ranking.rounds[0][0].match == Match(
        *reversed(ranking.order), 0.5, by_lot=True
    )


@pytest.mark.parametrize("method", ["round_robin", "knockout"])
async def test_replies_with_the_same_answer_play_as_one_team_and_share_its_place(make_judge, method):
    judge, reader = make_judge()
    replies = ["4", "9", "4", " 9", "1"]
    ranking = await rank(judge, "Which is larger?", replies, judge.params(), TournamentRules(method, teams=True))
    assert ranking.teams == [(0, 2), (1, 3), (4,)]
    assert ranking.order == [1, 3, 0, 2, 4]
    assert len(reader.asked) == {"round_robin": 3, "knockout": 2}[method]
    if ranking.ratings:
        assert ranking.ratings[1] == ranking.ratings[3] > ranking.ratings[0] == ranking.ratings[2]
    named = {number for played in ranking.rounds for one in played for number in (one.match.first, one.match.second)}
    assert len(named) == 3
    assert 4 in named


async def test_a_group_of_one_team_is_a_group_of_equals(make_judge):
    judge, reader = make_judge()
    ranking = await rank(judge, "q", ["4", "4"], judge.params(), TournamentRules(teams=True))
    assert (ranking.scores, ranking.order, reader.asked) == ([0.5, 0.5], [0, 1], [])


async def test_a_judge_without_a_prompt_for_rubrics_says_so(make_judge):
    judge, reader = make_judge(family="rrm_short")
    with pytest.raises(CannotJudge, match="cannot hold a reply against a rubric"):
        await judge.compare(JudgeComparison("rubric", "q", "a", against="be brief"), judge.params())
    assert reader.asked == []


async def test_nothing_to_do_together_is_done_at_once():
    assert await gather([]) == []
    assert await gather_bounded(5, []) == []


def test_a_judge_s_family_and_its_own_templates_are_known_when_its_settings_are_read(tmp_path):
    own = tmp_path / "own.txt"
    own.write_text("[user]\n{query} {first} {second}")
    assert JudgeConfig(templates={"pair": str(own)}).templates == {"pair": str(own.resolve())}
    for wrong in ({"family": "oracle"}, {"templates": {"pair": str(tmp_path / "none.txt")}}):
        with pytest.raises(ValueError, match=r"oracle|exist"):
            JudgeConfig(**wrong)

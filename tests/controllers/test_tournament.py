"""Tournament mathematics: worked examples, and properties over every size."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.judging.tournament import (
    ELO_SCALE,
    Bracket,
    Match,
    VoteCount,
    best_first,
    bradley_terry,
    captain,
    elo,
    knockout,
    matches_of,
    max_parallel,
    round_robin,
    teams,
    win_rates,
)


def played(bracket: Bracket, better) -> Bracket:
    """The knockout played to its end; `better(i, j)` is the share of i."""
    while bracket.pairings:
        bracket = bracket.after([better(i, j) for i, j in bracket.pairings])
    return bracket


def perfect(strength):
    return lambda i, j: 1.0 if strength[i] > strength[j] else 0.0


@pytest.mark.parametrize("n", range(2, 65))
def test_a_perfect_judge_recovers_the_total_order_of_any_number_of_replies(n):
    strength = random.Random(n).sample(range(1000), n)
    order = sorted(range(n), key=lambda i: -strength[i])
    matches = [Match(i, j, perfect(strength)(i, j)) for i, j in round_robin(n)]
    assert best_first(bradley_terry(n, matches)) == order
    assert best_first(elo(n, matches)) == order
    assert len(matches) == n * (n - 1) // 2


@pytest.mark.parametrize("n", range(1, 65))
@pytest.mark.parametrize("seed", [0, 1])
def test_a_perfect_judges_knockout_finds_the_best_in_few_rounds(n, seed):
    strength = random.Random(n).sample(range(1000), n)
    bracket = played(knockout(n, seed), perfect(strength))
    assert strength[bracket.standing[0]] == max(strength)
    assert len(bracket.rounds) == math.ceil(math.log2(n))
    assert sum(map(len, bracket.rounds)) == n - 1
    assert sorted(bracket.order) == list(range(n))
    assert bracket.order[0] == bracket.standing[0]


def test_eight_replies_take_seven_comparisons_in_three_rounds_and_six_have_two_byes():
    assert [len(played) for played in played(knockout(8, 0), lambda i, j: 1.0).rounds] == [4, 2, 1]
    six = knockout(6, seed=3)
    assert len(six.byes) == 2
    assert len(six.pairings) == 2
    assert [len(played) for played in played(six, lambda i, j: 1.0).rounds] == [2, 2, 1]


def test_the_draw_depends_on_the_seed_and_on_nothing_else():
    assert knockout(16, 7) == knockout(16, 7)
    assert len({knockout(16, seed).standing for seed in range(10)}) == 10
    with_bye = {knockout(3, seed).byes[0] for seed in range(30)}
    assert with_bye == {0, 1, 2}


def test_a_bracket_orders_losers_by_the_round_and_by_whom_they_lost_to():
    bracket = Bracket((3, 1, 0, 2), seed=0)
    assert bracket.pairings == [(3, 1), (0, 2)]
    bracket = bracket.after([0.0, 0.8])
    assert bracket.pairings == [(1, 0)]
    bracket = bracket.after([1.0])
    assert bracket.pairings == []
    assert bracket.order == [1, 0, 3, 2], "3 lost to the winner, 2 to the second"
    assert [match.share for match in bracket.rounds[0]] == [0.0, 0.8]


def test_where_nobody_won_the_seed_decides_and_the_match_says_so():
    ends = {played(knockout(2, seed), lambda i, j: 0.5).standing[0] for seed in range(30)}
    assert ends == {0, 1}
    (match,) = played(knockout(2, 4), lambda i, j: 0.5).rounds[0]
    assert match.by_lot
    assert match.share == 0.5
    assert played(knockout(5, 4), lambda i, j: 0.5) == played(knockout(5, 4), lambda i, j: 0.5)


def test_elo_of_one_game_between_equals_moves_half_of_k():
    assert elo(2, [Match(0, 1, 1.0)], k=32, start=1500) == [1516, 1484]
    assert elo(2, [Match(0, 1, 0.5)]) == [1000, 1000]


def test_elo_of_three_by_hand():
    # 0 beats 1, 0 beats 2, 1 against 2 is 3 votes to 2: gains 16 + 16, -16 + 20 * 0.1 ...
    matches = [Match(0, 1, 1.0), Match(0, 2, 1.0), Match(1, 2, 0.6)]
    assert elo(3, matches, k=20, start=0) == pytest.approx([20, -8, -12])


def test_bradley_terry_of_two_by_hand():
    # 0 won once. By symmetry r1 = -r0; the slope is 0 where 1 + 1/2 = 1/(1+e^(-2r)) + 1/(1+e^(-r)).
    first, second = bradley_terry(2, [Match(0, 1, 1.0)])
    assert first == pytest.approx(-second)
    assert 1 / (1 + math.exp(-2 * first)) + 1 / (1 + math.exp(-first)) == pytest.approx(1.5)


def test_equals_rate_equal_and_nobody_rates_nothing():
    assert bradley_terry(3, [Match(0, 1, 1.0), Match(1, 2, 1.0), Match(2, 0, 1.0)]) == pytest.approx([0, 0, 0])
    assert bradley_terry(1, []) == [0.0]
    assert bradley_terry(0, []) == []


def test_win_rates_are_chances_against_the_others():
    # Against one equal and one that loses three times of four: (1/2 + 3/4) / 2.
    assert win_rates([0.0, 0.0, -math.log(3)])[0] == pytest.approx(0.625)
    assert win_rates([1400.0, 1000.0], ELO_SCALE) == pytest.approx([10 / 11, 1 / 11])
    assert win_rates([-2000.0, 2000.0]) == [0.0, 1.0]


shares = st.sampled_from([0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0])


@settings(deadline=None)
@given(st.integers(2, 12), st.data())
def test_ratings_depend_neither_on_the_order_of_replies_nor_on_that_of_matches(n, data):
    matches = [Match(i, j, data.draw(shares)) for i, j in round_robin(n)]
    moved = data.draw(st.permutations(range(n)))
    other = [
        Match(moved[m.first], moved[m.second], m.share)
        if data.draw(st.booleans())
        else Match(moved[m.second], moved[m.first], 1 - m.share)
        for m in data.draw(st.permutations(matches))
    ]
    for rate in (bradley_terry, elo):
        before, after = rate(n, matches), rate(n, other)
        assert [after[moved[i]] for i in range(n)] == pytest.approx(before, abs=1e-8)


@settings(deadline=None)
@given(st.integers(2, 12), st.data())
def test_who_has_the_larger_share_of_a_round_robin_has_the_higher_rating(n, data):
    matches = [Match(i, j, data.draw(shares)) for i, j in round_robin(n)]
    won = [sum(m.share if m.first == i else 1 - m.share for m in matches if i in (m.first, m.second)) for i in range(n)]
    ratings = bradley_terry(n, matches)
    for i, j in round_robin(n):
        if won[i] > won[j] + 1e-6:
            assert ratings[i] > ratings[j]
    rates = win_rates(ratings)
    assert all(0 <= rate <= 1 for rate in rates)
    assert sum(rates) == pytest.approx(n / 2)


def test_a_vote_of_five_by_hand():
    vote = VoteCount(5)
    assert vote.needed == 3
    for share in (1, 1, 0):
        assert vote.needed
        vote = vote.counted(share)
    assert (vote.needed, vote.winner) == (1, 0)
    vote = vote.counted(0)
    assert (vote.needed, vote.winner) == (1, None)
    vote = vote.counted(None)
    assert (vote.needed, vote.winner) == (0, None)
    assert (vote.first, vote.second, vote.abstained) == (2, 2, 1)


shares_of_votes = st.lists(st.sampled_from([0, 1, None, 0.5, 0.25]), min_size=1, max_size=17)


@settings(deadline=None)
@given(shares_of_votes)
def test_a_vote_is_decided_exactly_when_the_rest_can_no_longer_change_it(cast):
    k = len(cast)
    vote = VoteCount(k)
    for count, verdict in enumerate(cast, 1):
        vote = vote.counted(verdict)
        rest = [None] * (k - count)
        ends = {ended(vote, [side] * len(rest)) for side in (0, 1, None)}
        assert (not vote.needed) == (len(ends) == 1), (vote, ends)


def ended(vote: VoteCount, rest) -> int | None:
    for verdict in rest:
        vote = vote.counted(verdict)
    return vote.winner


@settings(deadline=None)
@given(shares_of_votes)
def test_waves_draw_the_votes_up_to_the_deciding_one_and_not_one_more(cast):
    one_by_one, drawn = VoteCount(len(cast)), 0
    while one_by_one.needed:
        one_by_one, drawn = one_by_one.counted(cast[drawn]), drawn + 1
    in_waves, taken = VoteCount(len(cast)), 0
    while wave := in_waves.needed:
        for verdict in cast[taken : taken + wave]:
            in_waves = in_waves.counted(verdict)
        taken += wave
    assert taken == drawn
    assert in_waves == one_by_one
    assert in_waves.winner == ended(VoteCount(len(cast)), cast)


def test_replies_with_the_same_answer_form_a_team_and_a_drawn_member_plays():
    assert teams(["4", "5", "4", "6", "5"]) == [(0, 2), (1, 4), (3,)]
    assert {captain((0, 2), ["so 4", "5", "it is 4"], seed) for seed in range(20)} == {0, 2}
    assert captain((0, 2), ["4", "5", "4"], 1) == 0, "the same text is the same player"


@settings(deadline=None)
@given(st.integers(0, 2**63), st.permutations(range(6)))
def test_who_plays_for_a_team_does_not_depend_on_the_order_of_its_members(seed, moved):
    texts = [f"because {i}: 4" for i in range(6)]
    other = [texts[i] for i in moved]
    assert texts[captain(range(6), texts, seed)] == other[captain(range(6), other, seed)]


@pytest.mark.parametrize("method", ["knockout", "round_robin"])
def test_how_many_matches_there_are_is_known_beforehand(method):
    for n in range(1, 20):
        if method == "knockout":
            rounds = [len(games) for games in played(knockout(n, 0), lambda i, j: 1.0).rounds]
        else:
            rounds = [len(round_robin(n))]
        assert sum(rounds) == matches_of(method, n)
        assert max(rounds, default=0) <= max_parallel(method, n)
    assert max_parallel(method, 8) == {"knockout": 4, "round_robin": 28}[method]
    assert matches_of(method, 0) == max_parallel(method, 0) == 0

from itertools import pairwise
from statistics import fmean, stdev

import pytest

from loadtest import Concurrent, Constant, Gamma, LoadRequest, Trace, poisson, synchronous
from loadtest.load.arrivals import describe


def asked(count: int) -> list[LoadRequest]:
    return [LoadRequest(str(number), ()) for number in range(count)]


def gaps(plan: Constant | Gamma, count: int = 20_000) -> list[float]:
    return [later - earlier for earlier, later in pairwise(plan.offsets(asked(count)))]


def test_constant_arrivals_are_evenly_spread_from_zero() -> None:
    assert Constant(4).offsets(asked(4)) == [0, 0.25, 0.5, 0.75]


def test_poisson_gaps_have_mean_and_deviation_of_one_over_the_rate() -> None:
    found = gaps(poisson(50, seed=1))
    assert fmean(found) == pytest.approx(0.02, rel=0.03)
    assert stdev(found) == pytest.approx(0.02, rel=0.03)


@pytest.mark.parametrize("burstiness", [0.25, 4.0])
def test_gamma_gaps_vary_as_their_burstiness_says(burstiness: float) -> None:
    found = gaps(Gamma(50, burstiness, seed=1))
    assert fmean(found) == pytest.approx(0.02, rel=0.05)
    assert stdev(found) / fmean(found) == pytest.approx(burstiness**-0.5, rel=0.05)


def test_the_same_seed_arrives_at_the_same_times() -> None:
    assert poisson(5, seed=3).offsets(asked(9)) == poisson(5, seed=3).offsets(asked(9))
    assert poisson(5, seed=3).offsets(asked(9)) != poisson(5, seed=4).offsets(asked(9))


def test_a_trace_replays_its_own_gaps_at_the_speed_asked_for() -> None:
    timed = [LoadRequest(str(at), (), at=at) for at in (100.0, 101.0, 103.0)]
    assert Trace().offsets(timed) == [0, 1, 3]
    assert Trace(speed=2).offsets(timed) == [0, 0.5, 1.5]


def test_a_trace_without_times_or_with_falling_times_is_refused() -> None:
    with pytest.raises(ValueError, match="1 requests have no time"):
        Trace().offsets([LoadRequest("a", (), at=1.0), LoadRequest("b", ())])
    with pytest.raises(ValueError, match="must rise"):
        Trace().offsets([LoadRequest("a", (), at=2.0), LoadRequest("b", (), at=1.0)])


def test_no_requests_arrive_never() -> None:
    assert poisson(1).offsets([]) == Constant(1).offsets([]) == Trace().offsets([]) == []


def test_a_ramp_spreads_the_first_starts() -> None:
    assert Concurrent(4, ramp=2).first_starts() == [0, 0.5, 1, 1.5]
    assert Concurrent(2).first_starts() == [0, 0]


def test_every_plan_says_in_words_what_it_is() -> None:
    plans = [synchronous(), Concurrent(8), Constant(2.5), poisson(3), Gamma(3, 0.5), Trace(), Trace(2)]
    assert [describe(plan) for plan in plans] == [
        "synchronous",
        "8 concurrent",
        "constant 2.5/s",
        "Poisson 3/s",
        "gamma 3/s, burstiness 0.5",
        "trace",
        "trace at 2x",
    ]

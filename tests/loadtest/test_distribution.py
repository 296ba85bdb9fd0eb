"""Numbers worked by hand."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.analysis.distribution import Interval, distribution, front, mean_ratio, t95, wilson


def test_a_percentile_between_two_samples_is_on_the_line_between_them() -> None:
    found = distribution([30.0, 10.0, 50.0, 20.0, 40.0])  # in order, at positions 0 to 4
    assert found is not None
    assert (found.min, found.p25, found.p50, found.max) == (10, 20, 30, 50)
    assert found.p90 == pytest.approx(46)  # position 3.6: 40 + 0.6 * 10
    assert found.p99 == pytest.approx(49.6)  # position 3.96


def test_every_percentile_of_one_sample_is_that_sample() -> None:
    found = distribution([7.0])
    assert found is not None
    assert (found.p25, found.p50, found.p99, found.std) == (7, 7, 7, 0)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_percentiles_rise_and_stay_within_the_sample(values: list[float]) -> None:
    found = distribution(values)
    assert found is not None
    rising = [found.min, found.p25, found.p50, found.p90, found.p95, found.p99, found.max]
    assert all(later >= earlier - 1e-6 for earlier, later in itertools.pairwise(rising))


def test_a_distribution_tells_mean_and_sample_deviation() -> None:
    found = distribution([4.0, 2.0, 6.0])
    assert found is not None
    assert (found.count, found.mean, found.min, found.p50, found.max) == (3, 4, 2, 4, 6)
    assert found.std == pytest.approx(2)  # sqrt((4 + 0 + 4) / 2)


def test_nothing_has_no_distribution_and_no_share() -> None:
    assert distribution([]) is None
    assert wilson(0, 0) is None


def test_the_wilson_interval_of_one_in_ten() -> None:
    """z = 1.96, z² = 3.8415: centre (0.1 + 0.19207) / 1.38415 = 0.21101, half 1.96 sqrt(0.009 + 0.009604) / 1.38415."""
    found = wilson(1, 10)
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.1, 0.01787, 0.40415), abs=1e-4)


def test_a_share_of_all_or_none_lies_within_its_interval() -> None:
    none, every = wilson(0, 20), wilson(20, 20)
    assert none is not None and every is not None
    assert (none.low, none.value, every.value, every.high) == (0, 0, 1, 1)
    assert none.high == pytest.approx(0.1611, abs=1e-4)  # z² / (n + z²) = 3.8415 / 23.8415


def test_ratios_average_geometrically() -> None:
    """Logs of 1, 2, 4 times: mean ln 2, deviation ln 2; half width 4.303 ln 2 / sqrt 3 = 1.7220."""
    found = mean_ratio([1.0, 2.0, 4.0])
    assert found.value == pytest.approx(2)
    assert math.log(found.high) - math.log(2) == pytest.approx(1.7220, abs=1e-4)
    assert math.log(2) - math.log(found.low) == pytest.approx(1.7220, abs=1e-4)


def test_one_ratio_alone_has_no_interval() -> None:
    found = mean_ratio([1.5])
    assert found.value == pytest.approx(1.5) and math.isnan(found.low) and math.isnan(found.high)


def test_students_t_comes_from_the_tables() -> None:
    assert t95(1) == 12.706
    assert t95(5) == 2.571
    assert t95(30) == pytest.approx(2.042, abs=3e-3)
    assert t95(100) == pytest.approx(1.984, abs=1e-3)


def test_the_front_keeps_what_nothing_cheaper_beats() -> None:
    points = [(10, 0.5), (20, 0.4), (30, 0.8), (30, 0.7), (40, 0.8), (5, 0.1)]
    assert front(points) == [(5, 0.1), (10, 0.5), (30, 0.8)]
    assert front([]) == []


def test_an_interval_is_plain_data() -> None:
    assert Interval(1, 0, 2) == Interval(value=1, low=0, high=2)

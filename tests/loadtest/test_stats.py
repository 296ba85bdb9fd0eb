"""Figures of records made by hand, worked by hand."""

from dataclasses import replace

import pytest

from loadtest import Goal, RequestRecord, RunResult, summarise
from loadtest.analysis import measures
from loadtest.analysis.comparison import compared
from loadtest.analysis.goals import goodput, is_good, parse_goal
from loadtest.analysis.summary import max_in_flight
from tests.loadtest.made import made, result

THINKING = made(scheduled=5, start=10, end=62, reasoning=[30, 40], answer=[50, 60])


def test_latencies_are_those_of_the_field() -> None:
    assert measures.time_to_first_token(THINKING) == 20
    assert measures.time_to_first_output_token(THINKING) == 40
    assert measures.inter_token_latency(THINKING) == 10  # (60 - 30) / 3
    assert measures.time_per_output_token(THINKING) == 12.5  # (60 - 10) / 4
    assert measures.inter_chunk_latencies(THINKING) == [10, 10, 10]
    assert measures.request_latency(THINKING) == 52
    assert measures.request_scheduled_latency(THINKING) == 57
    assert measures.request_dispatch_delay(THINKING) == 5


def test_the_servers_usage_counts_before_the_number_of_events() -> None:
    counted = made(reasoning=[10], answer=[30], completion_tokens=11, reasoning_tokens=8)
    assert (counted.output_tokens, counted.thinking_tokens) == (11, 8)
    assert measures.answer_tokens(counted) == 3
    assert measures.inter_token_latency(counted) == 2  # (30 - 10) / 10
    assert measures.reasoning_share(counted) == pytest.approx(8 / 11)


def test_what_a_whole_reply_cannot_tell_is_unknown_not_zero() -> None:
    whole = made(end=80, completion_tokens=4)
    assert measures.time_to_first_token(whole) is None
    assert measures.inter_token_latency(whole) is None
    assert measures.answer_tokens(whole) is None
    assert measures.time_per_output_token(whole) == 20


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ("The last digit is 7.", "7", True),
        ("7 or 8", "7", False),
        ("\\boxed{7} since 8", "7", True),
        ("1,234", "1234", True),
        ("4.0", "4", True),
        ("-3", "3", False),
        ("", "7", False),
        (" Paris ", "paris", True),
        ("It is Paris", "Paris", False),
    ],
)
def test_an_answer_is_right_when_it_says_what_was_expected(answer: str, expected: str, right: bool) -> None:
    assert measures.correct(said(answer, expected)) is right


def said(answer: str, expected: str | None, error: str | None = None) -> RequestRecord:
    return replace(made(request={"answer": expected}, error=error), answer=answer)


def test_nothing_is_right_or_wrong_where_nothing_is_known_or_came() -> None:
    assert measures.correct(said("7", None)) is None
    assert measures.correct(said("7", "7", error="timeout")) is None


def test_the_budget_is_what_the_server_says_it_understood() -> None:
    decision = {"budget": {"requested": 64, "enforced": 60, "used": 70}, "cut": "hard"}
    told = made(decision=decision, request={"body": {"thinking_token_budget": 99}})
    assert (measures.budget_asked(told), measures.budget_used(told), measures.was_cut(told)) == (64, 70, True)


def test_without_a_record_the_budget_is_what_the_request_asked() -> None:
    assert measures.budget_asked(made(request={"body": {"thinking_token_budget": 32}})) == 32
    assert measures.budget_asked(made(request={"body": {"reasond": {"budget": 16}}})) == 16
    assert measures.budget_asked(made(request={"body": {"thinking_token_budget": -1}})) is None
    assert measures.budget_asked(made()) is None
    assert measures.budget_used(made(reasoning=[1, 2, 3], answer=[4])) == 3


def test_a_summary_counts_what_there_was() -> None:
    records = [
        made(0, reasoning=[10, 20], answer=[30], decision={"mode": "think", "chosen_by": "model", "target_tokens": 1}),
        made(1, answer=[20], decision={"mode": "no_think", "chosen_by": "client", "target_tokens": 0}),
        made(2, error="http_429", status=429),
        made(3, error="http_429", status=429),
    ]
    found = summarise(result(records, seconds=2))
    assert (found.requests, found.succeeded, found.errors) == (4, 2, {"http_429": 2})
    assert (found.requests_per_second, found.output_tokens_per_second, found.reasoning_tokens_per_second) == (1, 2, 1)
    assert found.modes == {"think, chosen by model": 1, "no_think, chosen by client": 1}
    assert found.think_ratio is not None and found.think_ratio.value == 0.5
    assert found.target_share == 0.25  # 1 of 4 tokens
    assert found.empty_answers is not None and found.empty_answers.value == 1  # no text was kept
    assert found.measures["time_to_first_token_ms"].mean == 15
    assert found.accuracy is None and found.budgets is None and found.goodput is None


def test_budgets_are_held_against_what_was_used() -> None:
    def spent(asked: int, used: int, cut: str | None = None) -> RequestRecord:
        return made(decision={"budget": {"requested": asked, "used": used}, "cut": cut})

    found = summarise(result([spent(10, 5), spent(10, 10, "hard"), spent(10, 12, "wrap-up"), spent(0, 0)])).budgets
    assert found is not None
    assert (found.replies, found.exceeded.value, found.cut.value) == (4, 0.25, 0.5)
    assert (found.asked.mean, found.used.mean) == (7.5, 6.75)
    assert found.used_ratio is not None and found.used_ratio.mean == pytest.approx((0.5 + 1 + 1.2) / 3)


def test_variants_and_difficulties_are_figures_of_their_own() -> None:
    def asked(variant: str, difficulty: float, right: bool, tokens: int, end: float) -> RequestRecord:
        request = {"variant": variant, "difficulty": difficulty, "answer": "1"}
        return replace(made(request=request, completion_tokens=tokens, end=end), answer="1" if right else "2")

    records = [
        asked("short", 10, False, 2, 10),
        asked("short", 2, True, 4, 20),
        asked("long", 10, True, 30, 90),
        asked("long", 2, True, 10, 70),
        asked("waste", 2, True, 50, 60),
        asked("waste", 10, False, 50, 60),
    ]
    found = summarise(result(records))
    assert [group.name for group in found.variants] == ["short", "long", "waste"]
    assert [group.name for group in found.difficulties] == ["2", "10"]
    assert found.difficulties[0].accuracy is not None and found.difficulties[0].accuracy.value == 1
    assert found.accuracy_tokens_front is not None and found.accuracy_latency_front is not None
    assert found.accuracy_tokens_front.names == ("short", "long")
    assert found.accuracy_tokens_front.points == ((3, 0.5), (20, 1.0))
    assert found.accuracy_latency_front.points == ((15, 0.5), (80, 1.0))


def test_without_variants_replies_are_told_apart_by_route_or_mode() -> None:
    thought, direct = made(decision={"mode": "think"}), made(decision={"mode": "no_think"})
    assert [group.name for group in summarise(result([thought, direct])).variants] == ["think", "no_think"]
    assert [group.name for group in summarise(result([made(request={"route": "fast"}), made()])).variants] == [
        "fast",
        "all",
    ]


def test_requests_in_flight_are_counted_at_their_most() -> None:
    spans = [(0, 10), (5, 15), (10, 20), (30, 40)]  # the first ends as the third starts
    assert max_in_flight([made(start=start, end=end) for start, end in spans]) == 2


def test_a_request_is_good_when_it_meets_every_goal() -> None:
    goals = [Goal("time_to_first_token_ms", 25), Goal("request_latency_ms", 60)]
    assert is_good(THINKING, goals)
    assert not is_good(THINKING, [*goals, Goal("inter_token_latency_ms", 9)])
    assert not is_good(made(reasoning=[1], error="disconnect"), goals)
    assert not is_good(made(end=1), goals)  # no token, so no time to it


def test_a_late_start_counts_against_the_goals() -> None:
    """5 ms late, 52 ms long: 57 from when it was due."""
    assert is_good(THINKING, [Goal("request_latency_ms", 57)])
    assert not is_good(THINKING, [Goal("request_latency_ms", 56)])


def test_goodput_is_the_rate_of_good_requests() -> None:
    found = goodput(result([THINKING, THINKING, made(error="timeout"), made()], seconds=4), [parse_goal("ttft:25")])
    assert found is not None
    assert (found.fraction.value, found.requests_per_second) == (0.5, 0.5)


def test_goals_are_written_as_for_vllms_benchmark() -> None:
    assert parse_goal("tpot:50") == Goal("time_per_output_token_ms", 50)
    assert parse_goal("ttfot:1500.5") == Goal("time_to_first_output_token_ms", 1500.5)
    for wrong in ("ttft", "speed:3", "ttft:fast"):
        with pytest.raises(ValueError):
            parse_goal(wrong)


def test_ratios_are_taken_round_by_round() -> None:
    """A's latencies 10 and 40, B's 20 and 20: ratios 1/2 and 2, whose geometric mean is 1."""
    a = [result([made(end=end, answer=[end])], name="A") for end in (10, 40)]
    b = [result([made(end=end, answer=[end])], name="B") for end in (20, 20)]
    found = compared(("A", a), ("B", b)).ratios[0]["request_latency_ms mean"]
    assert (found.a, found.b, found.rounds) == (25, 20, (0.5, 2.0))
    assert found.ratio.value == pytest.approx(1)


def test_a_figure_that_a_round_lacks_has_no_ratio() -> None:
    found = compared(("A", [result([made(answer=[1])])]), ("B", [result([made()])])).ratios[0]
    assert "time_to_first_token_ms mean" not in found
    assert "request_latency_ms mean" in found


def test_sides_are_groups_over_all_rounds_and_the_front_leaves_out_who_is_beaten() -> None:
    """Of three sides, `slow` is as right as `best` at twice the latency; `cheap` is wrong and quicker than both."""

    def rounds(latency: int, answer: str) -> list[RunResult]:
        reply = made(end=latency, request={"answer": "7"}, completion_tokens=latency)
        return [result([replace(reply, answer=answer)])] * 2

    found = compared(("best", rounds(20, "7")), ("slow", rounds(40, "7")), ("cheap", rounds(10, "3")))
    assert [(group.name, group.replies) for group in found.groups] == [("best", 2), ("slow", 2), ("cheap", 2)]
    for front in (found.accuracy_tokens_front, found.accuracy_latency_front):
        assert front is not None and front.names == ("cheap", "best")
        assert front.points == ((10, 0), (20, 1))
    assert [ratios["request_latency_ms mean"].ratio.value for ratios in found.ratios] == pytest.approx([0.5, 2])


def test_variants_split_a_side_and_one_side_is_no_comparison() -> None:
    mixed = result([made(request={"variant": "short"}), made(request={"variant": "long"}), made(error="timeout")])
    found = compared(("A", [mixed]), ("B", [result([made()])]))
    assert [group.name for group in found.groups] == ["A, short", "A, long", "B"]
    with pytest.raises(ValueError, match="two sides"):
        compared(("A", [mixed]))

"""The classifier of texts, what its scores are compared with, and replies that are thought through unseen."""

import asyncio
import json
import math
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controllers.deciders import load_decider, read_decider
from controllers.deciders.classifier import BUCKETS, COUNTS, text_features
from controllers.deciders.drift import ENOUGH, Drift
from controllers.deciders.shadow import Shadow
from controllers.generation.answer_format import AnswerFormat
from controllers.generation.route import Route
from models.engines.base import EngineDead, Prompt, Sampling
from models.engines.scripted import Line
from tests.controllers.test_driver import CALL
from tests.controllers.test_within import DIRECT, TOKENIZER, Script, chain, collect, record, route_of, run
from tests.formats import HERMES

ZERO = [0.0] * (1 + COUNTS + BUCKETS)


def weights(tmp_path: Path, think: list[float], direct: list[float], **more: Any) -> str:
    file = tmp_path / "classifier.json"
    file.write_text(json.dumps({"think": think, "no_think": direct, **more}), "utf-8")
    return str(file)


def test_the_difference_of_two_rates_is_held_against_the_threshold_of_the_file(tmp_path: Path) -> None:
    digits = [0.0] * len(ZERO)
    digits[1 + 2] = 40.0  # the share of digits speaks for thinking
    file = weights(tmp_path, digits, ZERO, threshold=0.1)
    route = route_of(Script(DIRECT), {"decider": "classifier", "weights": file})
    plain = record(run(route, messages=[{"role": "user", "content": "hello you"}]))
    hard = record(run(route, messages=[{"role": "user", "content": [{"type": "text", "text": "1234 * 5678"}]}]))
    assert (plain["mode"], plain["p_think"], plain["threshold"], plain["chosen_by"]) == (
        "no_think",
        0.0,
        0.1,
        "classifier",
    )
    assert (hard["mode"], hard["p_think"]) == ("think", 0.5)
    assert "decision_tokens" not in hard


def test_words_count_by_their_bucket_and_a_long_text_by_its_end() -> None:
    turn = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Prove 2+2=4?\n- a\n```x```"}]
    features = text_features(turn, 3)
    assert len(features.counts) == COUNTS
    assert sum(weight**2 for weight in features.words.values()) == pytest.approx(1.0)
    assert features.counts[5] == 1.0  # a fence of code
    assert features.counts[12] == math.log1p(3)
    assert text_features([], 0).words == {}
    long = "word " * 10_000
    assert text_features([{"role": "user", "content": f"first {long}"}], 0) == text_features(
        [{"role": "user", "content": long}], 0
    )


def test_a_decision_takes_about_a_millisecond() -> None:
    turns = [{"role": "user", "content": "What is 17*23, and why? " * 40}]
    best = math.inf
    for _ in range(20):
        began = time.perf_counter()
        text_features(turns, 0)
        best = min(best, time.perf_counter() - began)
    assert best < 0.01


def test_a_file_of_something_else_stops_the_server(tmp_path: Path) -> None:
    config = read_decider({"decider": "classifier", "weights": weights(tmp_path, ZERO, ZERO[1:])})
    with pytest.raises(ValueError, match="two heads"):
        load_decider(config, TOKENIZER)


def test_drift_is_the_distance_of_what_is_served_from_what_was_calibrated() -> None:
    drift = Drift([1, 1, 0, 0])
    for number in range(ENOUGH):
        assert math.isnan(drift.distance())
        drift.saw(0.1 if number % 2 else 0.3)
    assert drift.distance() == pytest.approx(0.0, abs=0.01)
    for _ in range(20 * ENOUGH):
        drift.saw(1.0)
    assert drift.distance() > 0.8


def test_every_calibrated_decider_of_a_chain_is_watched(tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    own = {"points": [[0.0, 0.0], [1.0, 1.0]], "scores": [1, 1]}
    file.write_text(json.dumps({"deciders": {"ask": own}}), "utf-8")
    links = ({"decider": "ask", "calibration": str(file)}, {"decider": "never"})
    decider = load_decider(read_decider(chain(*links)), TOKENIZER)
    route = replace(route_of(Script(DIRECT), {"decider": "never"}), decider=decider)
    for _ in range(ENOUGH):
        run(route, sampling=Sampling(max_tokens=1))
    ((name, drift),) = decider.drifts()
    assert name == "ask"
    assert drift.distance() == pytest.approx(0.5, abs=0.01)


class Broken(Script):
    def __call__(self, prompt: Prompt, sampling: Sampling) -> Line:
        line = super().__call__(prompt, sampling)
        if isinstance(line, str):
            raise EngineDead("gone")
        return line


async def shadowed(route: Route, rate: float, told: list[bool], **request: Any) -> None:
    shadow = Shadow(route.controller, rate, "number", set(), told.append)
    await collect(replace(route, controller=shadow), **request)
    await asyncio.gather(*shadow.running)


@pytest.mark.parametrize(
    ("script", "decider", "rate", "expected"),
    [
        (Script(DIRECT), "never", 1.0, [True]),
        (Script("7"), "never", 1.0, [False]),
        (Script(DIRECT), "always", 1.0, []),
        (Script(DIRECT), "never", 0.0, []),
        (Broken(DIRECT), "never", 1.0, []),
    ],
)
def test_a_direct_reply_is_held_against_a_thoughtful_one(
    script: Script, decider: str, rate: float, expected: list[bool]
) -> None:
    told: list[bool] = []
    asyncio.run(shadowed(route_of(script, {"decider": decider}), rate, told))
    assert told == expected


def test_calls_are_compared_too_and_a_thought_that_does_not_end_tells_nothing() -> None:
    told: list[bool] = []
    route = route_of(Script(CALL), {"decider": "never"})
    asyncio.run(shadowed(route, 1.0, told, shape=AnswerFormat(None, HERMES)))
    assert told == [False]
    asyncio.run(shadowed(route_of(Script("7"), {"decider": "never"}), 1.0, told, sampling=Sampling(max_tokens=9)))
    assert told == [False]


def test_only_one_is_thought_through_at_a_time_and_none_while_the_engine_is_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.0)
    told: list[bool] = []

    async def replies(pressure: float) -> None:
        route = route_of(Script(DIRECT), {"decider": "never"})
        route.pace.token, route.pace.quiet = 1.0 + 3.0 * pressure, 1.0
        monkeypatch.setattr(type(route.pace), "wrote", lambda *told: None)
        shadow = Shadow(route.controller, 0.1, "number", set(), told.append)
        watched = replace(route, controller=shadow)
        await asyncio.gather(collect(watched), collect(watched))
        await asyncio.gather(*shadow.running)

    asyncio.run(replies(0.0))
    assert told == [True]
    asyncio.run(replies(1.0))
    assert told == [True]

"""A thousand requests at concurrency 64, a third of which leave midway, over a scripted engine."""

import asyncio

from tests.wire.storm import MIB, nothing_left, reasond_serve, weathered

SETTINGS = """
[server]
drain_seconds = 1

[engines.demo]
kind = "scripted"
model = "demo/tokenizer"
replies = ["<think>first add the two and look again</think>so it is seven</no_think>"]
token_delay = 0.02

[routes.demo]
engine = "demo"
family = "lhrm"

[routes.demo-threshold]
engine = "demo"
family = "lhrm"
think_threshold = 0.5

[routes.demo-think]
engine = "demo"
family = "lhrm"
mode = "think"

[routes.demo-direct]
engine = "demo"
family = "lhrm"
mode = "no_think"
"""


def test_a_storm_of_requests_and_departures_leaves_nothing_behind(tmp_path):
    (tmp_path / "settings.toml").write_text(SETTINGS)
    with reasond_serve(tmp_path / "settings.toml") as server:
        before, outcomes, after = asyncio.run(weathered(server, requests=1000, warm_up=200, tokens=40))
    nothing_left(before, outcomes, after, requests=1000, memory=8 * MIB)

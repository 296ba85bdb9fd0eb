"""Best of n in chat: replies drawn, ranked by a judge route's knockout, the winner given with its bracket."""

import asyncio
import json
from itertools import count
from typing import Any

import pytest

from models.engines.base import EngineDead
from models.engines.scripted import ScriptedEngine, ScriptedReply
from tests.judging import boxed
from tests.server.judges import JudgeServer

pytestmark = pytest.mark.anyio

ROUTE = """
[engines.policy]
kind = "scripted"
model = "demo/tokenizer"

[routes.solver]
engine = "policy"
family = "lhrm"
judged_by = "judge"

[routes.best]
engine = "policy"
family = "lhrm"
judged_by = "judge"
best_of = 4

[routes.alone]
engine = "policy"
family = "lhrm"
"""

ASK = {"messages": [{"role": "user", "content": "A large number?"}]}


class Server(JudgeServer):
    def __init__(self, tokenizer, numbers, rule=None, delay=0.0, token_delay=0.0, **options) -> None:
        self.seeds: list[int | None] = []
        said = count()

        def write(prompt, sampling):
            self.seeds.append(sampling.seed)
            line = numbers[next(said) % len(numbers)]
            return line if isinstance(line, ScriptedReply) else f"<think>hm {line}</think>{line}"

        policy = ScriptedEngine(tokenizer, write, name="policy", token_delay=delay)
        more = {"rule": rule} if rule else {}
        settings = ROUTE + options.pop("settings", "")
        super().__init__(tokenizer, settings=settings, engines={"policy": policy}, token_delay=token_delay, **more)
        self.policy = policy

    async def chat(self, model: str, **fields: Any) -> Any:
        answer = await self.post("/v1/chat/completions", {"model": model, **ASK, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()


async def test_the_best_of_n_replies_is_the_answer_with_the_bracket_in_its_record(tokenizer):
    server = Server(tokenizer, ["31", "75", "12", "50"])
    reply = await server.chat("solver", reasond={"best_of": 4}, seed=10)
    message = reply["choices"][0]["message"]
    assert (message["content"], message["reasoning"]) == ("75", "hm 75")
    record = reply["reasond"]["best_of"]
    assert (record["n"], record["winner"], record["judge"]) == (4, 1, "judge")
    assert [len(played) for played in record["bracket"]] == [2, 1]
    assert 1 in record["bracket"][1][0]["replies"]
    assert reply["reasond"]["mode"] == "think"
    assert server.seeds == [10, 138, 266, 394]
    assert "## Query\nA large number?\n" in server.reader.prompts[0]


async def test_the_winners_tokens_are_charged_and_the_others_are_counted_apart(tokenizer):
    server = Server(tokenizer, ["31", "75", "12", "50"])
    reply = await server.chat("best")
    alone = await Server(tokenizer, ["75"]).chat("alone")
    assert reply["usage"]["completion_tokens"] == alone["usage"]["completion_tokens"]
    record = reply["reasond"]["best_of"]
    assert record["discarded_tokens"] == 3 * alone["usage"]["completion_tokens"]
    assert record["judge_tokens"] > 0


async def test_a_route_may_have_it_by_default_and_a_request_may_do_without(tokenizer):
    server = Server(tokenizer, ["31", "75", "12", "50"])
    assert (await server.chat("best"))["choices"][0]["message"]["content"] == "75"
    plain = await server.chat("best", reasond={"best_of": 1})
    assert "best_of" not in plain["reasond"]
    assert len(server.seeds) == 5


async def test_a_stream_gives_progress_and_then_the_winner(tokenizer):
    server = Server(tokenizer, ["31", "75", "12", "50"])
    answer = await server.post("/v1/chat/completions", {"model": "best", "stream": True, **ASK})
    frames = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: {")]
    told = [frame["reasond"]["progress"] for frame in frames if "progress" in frame.get("reasond", {})]
    assert told[:4] == [{"drawn": drawn, "of": 4} for drawn in (1, 2, 3, 4)]
    assert told[4:] == [
        {"round": 1, "compared": 1, "of": 3},
        {"round": 1, "compared": 2, "of": 3},
        {"round": 2, "compared": 3, "of": 3},
    ]
    assert frames.index(next(frame for frame in frames if frame["choices"][0]["delta"].get("role"))) == 7
    content = "".join(frame["choices"][0]["delta"].get("content", "") for frame in frames)
    assert content == "75"
    assert frames[-1]["reasond"]["best_of"]["winner"] == 1


async def test_several_choices_are_each_the_best_of_their_own(tokenizer):
    server = Server(tokenizer, ["31", "75", "12", "50"])
    reply = await server.chat("solver", reasond={"best_of": 2}, n=2, seed=0)
    assert len(reply["choices"]) == 2
    assert len(set(server.seeds)) == 4


async def test_a_reply_without_an_answer_cannot_be_the_best(tokenizer):
    server = Server(tokenizer, [ScriptedReply("<think>"), "5", ScriptedReply("<think>"), "7"])
    reply = await server.chat("best")
    assert reply["choices"][0]["message"]["content"] == "7"
    assert reply["reasond"]["best_of"]["bracket"][0][0]["replies"] in ([1, 3], [3, 1])
    empty = Server(tokenizer, [ScriptedReply("<think>")])
    assert (await empty.chat("best"))["reasond"]["best_of"]["winner"] == 0
    assert empty.reader.asked == []


async def test_a_judge_that_cannot_decide_leaves_it_to_the_seed_and_the_bracket_says_so(tokenizer):
    server = Server(tokenizer, ["1", "2"], rule=lambda first, second: boxed("?"))
    reply = await server.chat("solver", reasond={"best_of": 2})
    assert reply["reasond"]["best_of"]["bracket"][0][0]["by_lot"]


async def test_a_conversation_of_several_turns_is_shown_to_the_judge_whole(tokenizer):
    server = Server(tokenizer, ["1", "2"])
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, *ASK["messages"]]
    await server.chat("solver", messages=turns, reasond={"best_of": 2})
    assert "User: Hi\n\nAssistant: Hello\n\nUser: A large number?" in server.reader.prompts[0]


async def cancel_when(server: Server, engine: ScriptedEngine) -> Any:
    """A request for the best of four that is cancelled as soon as `engine` works for it."""
    body = {"model": "best", "stream": True, **ASK}
    asked = asyncio.ensure_future(server.client.post("/v1/chat/completions", json=body, headers={"x-request-id": "b"}))
    while not engine.running():  # noqa: ASYNC110 - the engine has no event for it
        await asyncio.sleep(0)
    assert (await server.post("/v1/reasoning/b/cancel", {})).status_code == 200
    answer = await asked
    return [json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: {")]


async def test_a_request_cancelled_while_replies_are_drawn_is_over_without_a_judge(tokenizer):
    server = Server(tokenizer, ["75"], delay=0.01)
    frames = await cancel_when(server, server.policy)
    assert frames[-1]["choices"][0]["stop_reason"] == "cancelled"
    assert (frames[-1]["reasond"]["best_of"]["bracket"], server.reader.asked) == ([], [])


async def test_a_request_cancelled_while_replies_are_judged_ends_with_one_of_them(tokenizer):
    server = Server(tokenizer, ["31", "75", "12", "50"], token_delay=0.005)
    frames = await cancel_when(server, server.engine)
    assert "".join(frame["choices"][0]["delta"].get("content", "") for frame in frames) == "31"
    assert frames[-1]["reasond"]["best_of"]["bracket"] == []
    assert len(server.reader.asked) == 2
    assert server.engine.running() == 0


async def test_the_winner_tells_nothing_of_the_time_that_its_reply_took(tokenizer):
    server = Server(tokenizer, ["1" * 60, "2" * 60], delay=0.03)
    body = {"model": "solver", **ASK, "reasond": {"best_of": 2}, "thinking_token_budget": 200, "stream": True}
    answer = await server.post("/v1/chat/completions", body)
    assert '"budget":{' in answer.text
    assert "seconds_to_answer" not in answer.text


@pytest.mark.parametrize("failing", ["policy", "judge"])
async def test_a_dead_engine_is_an_error(tokenizer, failing):
    broken = ScriptedReply("<think>", error=EngineDead("gone"))
    if failing == "policy":
        server = Server(tokenizer, ["1", broken])
    else:
        server = Server(tokenizer, ["1", "2"], rule=lambda first, second: broken)
    answer = await server.post("/v1/chat/completions", {"model": "best", **ASK})
    assert answer.status_code == 503
    assert server.policy.running() == server.engine.running() == 0


@pytest.mark.parametrize(
    ("model", "asked"), [("alone", 2), ("judge", 2), ("solver", 0), ("solver", 65), ("solver", "4"), ("solver", True)]
)
async def test_what_cannot_be_honoured_is_refused(tokenizer, model, asked):
    server = Server(tokenizer, ["1"])
    answer = await server.post("/v1/chat/completions", {"model": model, **ASK, "reasond": {"best_of": asked}})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "reasond.best_of")


async def test_the_model_list_says_which_routes_have_a_judge(tokenizer):
    server = Server(tokenizer, ["1"])
    cards = {card["id"]: card["reasond"] for card in (await server.client.get("/v1/models")).json()["data"]}
    assert {name: card["best_of"] for name, card in cards.items()} == {
        "judge": None,
        "solver": 1,
        "best": 4,
        "alone": None,
    }

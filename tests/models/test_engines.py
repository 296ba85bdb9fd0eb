"""One conformance suite for every engine. The two real ones are the session's shared ones, marked e2e."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from models.engines import RemoteEngineConfig, load
from models.engines.base import (
    Delta,
    Engine,
    EngineDead,
    EngineError,
    Grammar,
    InvalidRequest,
    Prompt,
    PromptTooLong,
    Sampling,
)
from models.engines.scripted import ScriptedEngine, ScriptedReply, babble, held_to_budget
from models.text.tokenizer import HubTokenizer
from tests.conftest import TAGS, Run

REAL = [pytest.param("vllm", marks=pytest.mark.e2e), pytest.param("remote", marks=pytest.mark.e2e)]


@dataclass(frozen=True)
class Driver:
    """An engine, the loop it lives in, and short ways to ask it something."""

    engine: Engine
    run: Run

    def deltas(self, prompt: Prompt, sampling: Sampling) -> list[Delta]:
        return self.run(collect(self.engine, prompt, sampling))

    def reply(self, sampling: Sampling, text: str = "What is 2 + 2?") -> "Whole":
        return whole(self.deltas(self.prompt(text), sampling))

    def prompt(self, text: str) -> Prompt:
        return Prompt(self.engine.tokenizer.encode(text))

    def id(self, text: str) -> int:
        (token_id,) = self.engine.tokenizer.encode_control(text)
        return token_id


@dataclass(frozen=True)
class Whole:
    token_ids: tuple[int, ...]
    text: str
    last: Delta


async def collect(engine: Engine, prompt: Prompt, sampling: Sampling) -> list[Delta]:
    return [delta async for delta in engine.generate(prompt, sampling)]


def whole(deltas: list[Delta]) -> Whole:
    token_ids = tuple(token_id for delta in deltas for token_id in delta.token_ids)
    return Whole(token_ids, "".join(delta.text for delta in deltas), deltas[-1])


@pytest.fixture(params=["scripted", *REAL])
def driver(request: pytest.FixtureRequest, run: Run) -> Driver:
    return Driver(request.getfixturevalue(f"{request.param}_engine"), run)


@pytest.fixture(params=REAL)
def real(request: pytest.FixtureRequest, run: Run) -> Driver:
    return Driver(request.getfixturevalue(f"{request.param}_engine"), run)


@pytest.fixture(scope="module")
def scripted_engine(tokenizer: HubTokenizer) -> ScriptedEngine:
    return ScriptedEngine(tokenizer, babble(64, range(20, 600)), context_length=1024, thinking=TAGS, token_delay=0.001)


@pytest.fixture(scope="module")
def remote_engine(run: Run, vllm_server: str, model_folder: Path) -> Iterator[Engine]:
    engine = run(load("remote", RemoteEngineConfig(model=str(model_folder), url=vllm_server)))
    yield engine
    run(engine.close())


def test_every_delta_but_the_last_is_unfinished_and_pieces_match_tokens(driver: Driver) -> None:
    deltas = driver.deltas(driver.prompt("Hello"), Sampling(max_tokens=20, ignore_eos=True, seed=1))
    assert [delta.finish for delta in deltas] == [None] * (len(deltas) - 1) + ["length"]
    assert all(len(delta.pieces) == len(delta.token_ids) > 0 for delta in deltas)


def test_the_text_is_what_the_tokenizer_makes_of_the_ids(driver: Driver) -> None:
    reply = driver.reply(Sampling(max_tokens=60, ignore_eos=True, seed=2))
    decoded = driver.engine.tokenizer.decode(reply.token_ids)
    assert decoded.startswith(reply.text)
    assert set(decoded[len(reply.text) :]) <= {"�"}  # a character that the reply's end cut


def test_max_tokens_is_exact(driver: Driver) -> None:
    for count in (1, 7):
        reply = driver.reply(Sampling(max_tokens=count, ignore_eos=True))
        assert len(reply.token_ids) == count
        assert reply.last.finish == "length"


def test_without_max_tokens_the_reply_goes_to_the_end_of_the_context(driver: Driver) -> None:
    prompt = Prompt([driver.id("a")] * (driver.engine.context_length - 5))
    reply = whole(driver.deltas(prompt, Sampling(ignore_eos=True)))
    assert len(reply.token_ids) == 5
    assert reply.last.finish == "length"


def test_the_end_of_sequence_stops_and_has_no_text(driver: Driver) -> None:
    (eos,) = driver.engine.tokenizer.eos_ids
    reply = driver.reply(Sampling(max_tokens=5, allowed_token_ids=(eos,)))
    assert reply.token_ids == (eos,)
    assert (reply.text, reply.last.finish, reply.last.stopped_by) == ("", "stop", None)


def test_ignore_eos_goes_on_behind_it(driver: Driver) -> None:
    (eos,) = driver.engine.tokenizer.eos_ids
    reply = driver.reply(Sampling(max_tokens=5, allowed_token_ids=(eos,), ignore_eos=True))
    assert reply.token_ids == (eos,) * 5
    assert reply.last.finish == "length"


def test_min_tokens_keeps_the_end_away(driver: Driver) -> None:
    (eos,) = driver.engine.tokenizer.eos_ids
    letter = driver.id("a")
    sampling = Sampling(max_tokens=20, min_tokens=6, allowed_token_ids=(eos, letter), logit_bias={eos: 50.0})
    assert driver.reply(sampling).token_ids == (letter,) * 6 + (eos,)


def test_a_stop_id_ends_the_reply_and_is_its_last_token(driver: Driver) -> None:
    letter = driver.id("a")
    reply = driver.reply(Sampling(max_tokens=5, allowed_token_ids=(letter,), stop_token_ids=(letter,)))
    assert reply.token_ids == (letter,)
    assert (reply.text, reply.last.finish, reply.last.stopped_by) == ("", "stop", letter)


def test_a_stop_string_over_several_tokens_is_not_part_of_the_text(driver: Driver) -> None:
    letter = driver.id("a")
    reply = driver.reply(Sampling(max_tokens=9, allowed_token_ids=(letter,), stop=("zz", "aaa")))
    assert reply.token_ids == (letter,) * 3
    assert (reply.text, reply.last.finish, reply.last.stopped_by) == ("", "stop", "aaa")


def test_a_stop_string_can_be_included(driver: Driver) -> None:
    reply = driver.reply(Sampling(max_tokens=9, allowed_token_ids=(driver.id("a"),), stop=("aaa",), include_stop=True))
    assert (reply.text, reply.last.stopped_by) == ("aaa", "aaa")


def test_text_held_for_a_stop_string_comes_with_the_last_token(driver: Driver) -> None:
    reply = driver.reply(Sampling(max_tokens=2, allowed_token_ids=(driver.id("a"),), stop=("aaa",)))
    assert (reply.text, reply.last.finish, reply.last.pieces) == ("aa", "length", ("aa",))


def test_a_stop_string_aborts_the_request(driver: Driver) -> None:
    driver.reply(Sampling(max_tokens=500, allowed_token_ids=(driver.id("a"),), stop=("aaa",)))
    assert driver.engine.running() == 0


def test_a_reply_that_nobody_reads_along_comes_at_once_and_is_the_same(driver: Driver) -> None:
    for more in ({}, {"logprobs": 1}):
        sampling = Sampling(max_tokens=12, seed=5, ignore_eos=True, **more)
        growing, at_once = (driver.deltas(driver.prompt("2"), replace(sampling, whole=way)) for way in (False, True))
        assert len(growing) > len(at_once) == 1
        assert whole(at_once).token_ids == whole(growing).token_ids
        assert whole(at_once).text == whole(growing).text
        assert at_once[0].finish == "length"
        assert len(at_once[0].logprobs or ()) == (12 if more else 0)
    stopped = Sampling(max_tokens=9, allowed_token_ids=(driver.id("a"),), stop=("aaa",), whole=True)
    assert driver.reply(stopped).token_ids == (driver.id("a"),) * 3, "a stop string is matched while the reply grows"


def test_the_same_seed_gives_the_same_tokens_and_another_gives_others(driver: Driver) -> None:
    def tokens(seed: int) -> tuple[int, ...]:
        sampling = Sampling(max_tokens=24, seed=seed, temperature=1.0, top_k=0, top_p=1.0, ignore_eos=True)
        return driver.reply(sampling).token_ids

    assert tokens(1) == tokens(1)
    assert len({tokens(seed) for seed in range(4)}) > 1


def test_everything_left_open_is_served(driver: Driver) -> None:
    assert driver.reply(Sampling(max_tokens=3)).last.finish in ("stop", "length")


def test_closing_the_generator_aborts_the_request(driver: Driver) -> None:
    async def first_delta_only() -> int:
        stream = driver.engine.generate(driver.prompt("Hello"), Sampling(ignore_eos=True))
        await anext(stream)
        held = driver.engine.running()
        await stream.aclose()
        return held

    assert driver.run(first_delta_only()) == 1
    assert driver.engine.running() == 0


def test_cancelling_the_reader_aborts_the_request(driver: Driver) -> None:
    async def cancelled() -> None:
        task = asyncio.create_task(collect(driver.engine, driver.prompt("Hello"), Sampling(ignore_eos=True)))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    driver.run(cancelled())
    assert driver.engine.running() == 0


def test_thirty_two_requests_at_once_do_not_mix(driver: Driver) -> None:
    letters = [driver.id(letter) for letter in "abcdefgh"]

    async def together() -> list[list[Delta]]:
        samplings = [Sampling(max_tokens=10 + i, allowed_token_ids=(letters[i % 8],)) for i in range(32)]
        return await asyncio.gather(*(collect(driver.engine, driver.prompt("Hello"), each) for each in samplings))

    for index, deltas in enumerate(driver.run(together())):
        assert whole(deltas).token_ids == (letters[index % 8],) * (10 + index)


def test_a_prompt_longer_than_the_context_is_refused_before_anything(driver: Driver) -> None:
    with pytest.raises(PromptTooLong) as refusal:
        driver.deltas(Prompt([driver.id("a")] * driver.engine.context_length), Sampling())
    assert refusal.value.field == "messages"
    assert driver.engine.running() == 0


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        (Sampling(temperature=2.5), "temperature"),
        (Sampling(top_p=0.0), "top_p"),
        (Sampling(max_tokens=0), "max_tokens"),
        (Sampling(max_tokens=3, min_tokens=4), "min_tokens"),
        (Sampling(stop=("",)), "stop"),
        (Sampling(stop_token_ids=(10**6,)), "stop_token_ids"),
        (Sampling(logit_bias={-1: 1.0}), "logit_bias"),
        (Sampling(bad_words=("",)), "bad_words"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(driver: Driver, sampling: Sampling, field: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        driver.reply(sampling)
    assert refusal.value.field == field


def test_an_unknown_adapter_is_refused(driver: Driver) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        driver.deltas(Prompt([1], adapter="nobody"), Sampling())
    assert refusal.value.field == "model"


def test_logprobs_have_one_position_a_token_and_the_best_first(driver: Driver) -> None:
    deltas = driver.deltas(driver.prompt("Hello"), Sampling(max_tokens=5, logprobs=3, ignore_eos=True))
    for delta in deltas:
        assert delta.logprobs is not None
        assert [position.sampled.token_id for position in delta.logprobs] == list(delta.token_ids)
        for position in delta.logprobs:
            values = [entry.logprob for entry in position.top]
            assert len(values) == 3
            assert values == sorted(values, reverse=True)
            assert position.sampled.logprob <= 0.0


def test_logprobs_zero_means_the_sampled_token_alone(driver: Driver) -> None:
    last = driver.reply(Sampling(max_tokens=1, logprobs=0)).last
    assert last.logprobs is not None
    assert last.logprobs[0].top == ()


def test_without_logprobs_there_are_none(driver: Driver) -> None:
    assert driver.reply(Sampling(max_tokens=1)).last.logprobs is None


def test_a_probe_gives_the_log_probabilities_of_exactly_the_mode_tokens(driver: Driver) -> None:
    modes = (driver.id("<think>"), driver.id("<no_think>"))
    reply = driver.reply(Sampling(max_tokens=1, allowed_token_ids=modes, logprob_token_ids=modes))
    assert reply.token_ids[0] in modes
    assert reply.last.logprobs is not None
    assert {entry.token_id for entry in reply.last.logprobs[0].top} == set(modes)


def test_a_thinking_budget_forces_the_closing_tag(driver: Driver) -> None:
    closing = driver.id(TAGS[1])
    prompt = Prompt([*driver.prompt("What is 2 + 2?").token_ids, driver.id(TAGS[0])])
    unlikely = {closing: -100.0, driver.id(TAGS[0]): -100.0}
    sampling = Sampling(max_tokens=8, ignore_eos=True, thinking_budget=4, logit_bias=unlikely)
    reply = whole(driver.deltas(prompt, sampling))
    assert reply.token_ids.index(closing) == 4


def test_a_live_engine_passes_its_check(driver: Driver) -> None:
    driver.run(driver.engine.check())


def test_a_grammar_holds_from_the_first_token(real: Driver) -> None:
    reply = real.reply(Sampling(max_tokens=20, grammar=Grammar("choice", ["yes", "no"])))
    assert reply.text in ("yes", "no")
    assert reply.last.finish == "stop"


def test_a_broken_grammar_is_the_clients_mistake(real: Driver) -> None:
    with pytest.raises(InvalidRequest):
        real.reply(Sampling(grammar=Grammar("json", '{"type": ')))
    assert real.engine.running() == 0


def test_too_many_logprobs_are_the_clients_mistake(real: Driver) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        real.reply(Sampling(logprobs=500))
    assert refusal.value.field == "logprobs"


@pytest.mark.e2e
def test_a_repeated_prompt_comes_from_the_cache(vllm_engine: Engine, run: Run) -> None:
    driver = Driver(vllm_engine, run)
    prompt = Prompt([driver.id("q")] * 100)
    driver.deltas(prompt, Sampling(max_tokens=1))
    assert driver.deltas(prompt, Sampling(max_tokens=2))[0].cached_tokens == 96  # whole blocks of 32


@pytest.mark.e2e
def test_an_adapter_is_another_model(vllm_engine: Engine, run: Run) -> None:
    async def tokens(adapter: str | None) -> tuple[int, ...]:
        prompt = Prompt(vllm_engine.tokenizer.encode("What is 2 + 2?"), adapter=adapter)
        return whole(await collect(vllm_engine, prompt, sampling)).token_ids

    sampling = Sampling(max_tokens=16, temperature=0.0, ignore_eos=True)
    assert vllm_engine.adapters == {"other"}
    assert run(tokens("other")) != run(tokens(None))


@pytest.mark.e2e
def test_a_server_aborts_what_its_reader_left(remote_engine: Engine, vllm_server: str, run: Run) -> None:
    async def leave() -> None:
        stream = remote_engine.generate(Prompt([1, 2, 3]), Sampling(ignore_eos=True))
        await anext(stream)
        await stream.aclose()

    run(leave())
    deadline = time.monotonic() + 5
    while (running := running_on(vllm_server)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running == 0


def running_on(server: str) -> float:
    """Requests that a vLLM server holds, by its own metrics."""
    lines = httpx.get(f"{server}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running"))


@pytest.mark.e2e
def test_the_models_own_defaults_fill_what_a_request_leaves_open() -> None:
    from models.engines.vllm import sampling_params

    defaults = {"temperature": 0.6, "top_k": 20, "max_tokens": 50}
    open_request = sampling_params(Sampling(), 1000, defaults)
    assert (open_request.temperature, open_request.top_k, open_request.max_tokens) == (0.6, 20, 50)
    stated = sampling_params(Sampling(temperature=1.0, top_k=0, max_tokens=70), 70, defaults)
    assert (stated.temperature, stated.top_k, stated.max_tokens) == (1.0, 0, 70)


@pytest.mark.e2e
def test_an_unknown_engine_argument_is_refused_before_loading() -> None:
    from models.engines.vllm import engine_arguments

    with pytest.raises(ValueError, match=r"max_model_length.*max_model_len"):
        engine_arguments("nowhere", {"max_model_length": 5}, {}, None)


def test_a_closed_script_is_a_dead_engine(run: Run, tokenizer: HubTokenizer) -> None:
    engine = ScriptedEngine(tokenizer, ["hello"])
    run(engine.close())
    with pytest.raises(EngineDead):
        run(collect(engine, Prompt([1]), Sampling()))
    with pytest.raises(EngineDead):
        run(engine.check())


def test_a_script_can_fail_behind_its_last_token(run: Run, tokenizer: HubTokenizer) -> None:
    engine = ScriptedEngine(tokenizer, [ScriptedReply("hello", error=EngineError("broken"))])

    async def read() -> str:
        text = ""
        with pytest.raises(EngineError, match="broken"):
            async for delta in engine.generate(Prompt([1]), Sampling()):
                text += delta.text
        return text

    assert run(read()) == "hello"
    assert engine.running() == 0


def test_a_list_of_replies_is_given_in_turn(run: Run, tokenizer: HubTokenizer) -> None:
    engine = ScriptedEngine(tokenizer, ["one", "two"])
    texts = [whole(run(collect(engine, Prompt([1]), Sampling()))).text for _ in range(3)]
    assert texts == ["one", "two", "one"]


@pytest.mark.parametrize(
    ("prompt", "spoken", "held"),
    [  # 8 opens and 9 closes
        ([1], [8, 1, 2, 3, 9, 4], [8, 1, 2, 9, 4]),  # two thinking tokens, the answer follows
        ([1, 8, 1], [2, 3, 9, 4], [2, 9, 4]),  # thinking in the prompt counts
        ([8, 1, 9], [1, 2, 3], [1, 2, 3]),  # closed thinking does not
        ([8], [1, 2, 9, 4], [1, 2, 9, 4]),  # closed in time
        ([8], [1, 2, 3], [1, 2, 9]),  # nothing behind the tag: the reply ends there
        ([8, 1, 2, 3], [4, 9, 5], [9, 5]),  # used up before it begins
    ],
)
def test_a_script_is_held_to_a_budget_of_two(prompt: list[int], spoken: list[int], held: list[int]) -> None:
    assert held_to_budget(prompt, spoken, 2, opening=8, closing=9) == held


def test_a_script_keeps_its_pace_without_drift(run: Run, tokenizer: HubTokenizer) -> None:
    engine = ScriptedEngine(tokenizer, babble(50, range(20, 600)), first_token_delay=0.05, token_delay=0.004)

    async def timed() -> float:
        begin = asyncio.get_running_loop().time()
        await asyncio.gather(*(collect(engine, Prompt([1, 2]), Sampling()) for _ in range(20)))
        return asyncio.get_running_loop().time() - begin

    assert 0.25 <= run(timed()) < 0.6  # 0.05 + 50 * 0.004


@pytest.mark.parametrize(("tokens", "seed"), [(1, None), (3, None), (4, 1), (4, 2)])
def test_a_script_gives_as_many_tokens_a_step_as_it_is_told(
    run: Run, tokenizer: HubTokenizer, tokens: int, seed: int | None
) -> None:
    script = ScriptedReply("one two three four five six", error=EngineError("broken"))
    engine = ScriptedEngine(tokenizer, [script], tokens_per_step=tokens, step_seed=seed)
    told: list[Delta] = []

    async def read(sampling: Sampling) -> None:
        with pytest.raises(EngineError, match="broken"):
            async for delta in engine.generate(Prompt([1]), sampling):
                told.append(delta)

    run(read(Sampling(logprobs=0)))
    *sizes, last = [len(delta.token_ids) for delta in told]
    assert "".join(delta.text for delta in told) == script.content
    assert all(len(delta.logprobs or ()) == len(delta.token_ids) for delta in told)
    assert 1 <= last <= tokens
    assert set(sizes) == ({tokens} if seed is None else set(sizes) & set(range(1, tokens + 1)))
    if seed is not None:
        again = list(told)
        told.clear()
        run(read(Sampling(logprobs=0)))
        assert told == again, "the same request is cut in the same way"


def test_a_random_step_is_not_always_the_same(run: Run, tokenizer: HubTokenizer) -> None:
    engine = ScriptedEngine(tokenizer, babble(64, range(20, 600)), tokens_per_step=4, step_seed=1)
    sizes = {len(delta.token_ids) for delta in run(collect(engine, Prompt([1]), Sampling()))}
    assert len(sizes) > 1


def test_a_stop_string_in_the_middle_of_a_step_drops_the_tokens_behind_it(run: Run, tokenizer: HubTokenizer) -> None:
    engine = ScriptedEngine(tokenizer, ["aaaaaaaaaaaa"], tokens_per_step=5)
    (letter,) = tokenizer.encode_control("b")
    sampling = Sampling(allowed_token_ids=(letter,), stop=("bbbbbbb",), logprobs=0)
    first, last = run(collect(engine, Prompt([1]), sampling))
    assert (len(first.token_ids), len(last.token_ids), len(last.logprobs or ())) == (5, 2, 2)
    assert (last.finish, last.stopped_by) == ("stop", "bbbbbbb")

"""What is kept of /v1/responses, and what is forgotten for it."""

import random
from collections import Counter

import orjson
import pytest

from controllers.generation.events import Interrupt
from server.stores.responses import ResponseStore, Stored


def response(name: str, text: str = "", *, runs: bool = False) -> Stored:
    return Stored({"id": name, "output": text}, [], [], Interrupt() if runs else None)


def kept(store: ResponseStore, names: str, key: str | None = None) -> str:
    return "".join(name for name in names if store.find(key, name))


def size(stored: Stored) -> int:
    return len(orjson.dumps([stored.body, [], []]))


def test_the_oldest_goes_first_and_a_new_state_makes_a_response_young() -> None:
    store = ResponseStore(2, 10_000)
    for name in "aba":
        assert store.put(None, response(name))
    assert store.put(None, response("c"))
    assert kept(store, "abc") == "ac"


def test_a_response_that_is_larger_than_the_store_pushes_nothing_out() -> None:
    store = ResponseStore(10, 300)
    for name in "ab":
        store.put("one", response(name))
    assert not store.put("two", response("c", "x" * 300))
    assert not store.has_room(301)
    assert kept(store, "ab", "one") == "ab"
    grown = response("a")
    store.put("one", grown)
    grown.body["output"] = "x" * 300
    assert not store.put("one", grown)
    assert kept(store, "ab", "one") == "b"
    assert store.size == size(response("b"))


def test_a_store_of_none_keeps_nothing() -> None:
    store = ResponseStore(0, 1000)
    assert not store.put(None, response("a"))
    assert not store.has_room(0)
    assert len(store) == 0


@pytest.mark.parametrize("bound", ["number", "bytes"])
def test_a_key_that_keeps_much_does_not_push_out_anothers(bound: str) -> None:
    each = size(response("a"))
    store = ResponseStore(4, 10_000) if bound == "number" else ResponseStore(100, 4 * each)
    store.put("modest", response("m"))
    for name in "abcdefgh":
        assert store.put("greedy", response(name))
    assert kept(store, "m", "modest") == "m"
    assert kept(store, "abcdefgh", "greedy") == "fgh"


def test_a_response_that_runs_is_not_forgotten_and_may_leave_no_room() -> None:
    store = ResponseStore(2, 10_000)
    running = response("a", runs=True)
    store.put(None, running)
    for name in "bc":
        assert store.put(None, response(name))
    assert kept(store, "abc") == "ac"
    store.put(None, response("d", runs=True))
    assert kept(store, "acd") == "ad"
    assert not store.put(None, response("e"))
    assert not store.put(None, response("f", runs=True))
    assert kept(store, "adef") == "ad"
    small = ResponseStore(10, 3 * size(response("a")))
    assert small.put("one", response("b", runs=True)) and small.put("two", response("c"))
    assert not small.put("one", response("d", "x" * 2 * size(response("a")), runs=True))
    assert kept(small, "c", "two") == "c", "nothing is forgotten for one that has no room"
    running.interrupt = None
    assert store.put(None, response("g"))
    assert kept(store, "adg") == "dg"


def test_no_order_of_events_passes_the_bounds_or_loses_what_runs() -> None:
    rng = random.Random(7)
    store = ResponseStore(8, 1500)
    running: dict[str, tuple[str, Stored]] = {}
    seen: Counter[bool] = Counter()
    for number in range(800):
        key = rng.choice("xyz")
        if running and rng.random() < 0.4:
            name = rng.choice(list(running))
            key, stored = running.pop(name)
            assert store.find(key, name) is stored
            stored.interrupt = None
            store.put(key, stored)
        elif rng.random() < 0.1:
            store.delete(key, str(rng.randrange(number + 1)))
            running = {name: (key, stored) for name, (key, stored) in running.items() if store.find(key, name)}
        else:
            stored = response(str(number), "x" * rng.randrange(400), runs=rng.random() < 0.5)
            put = store.put(key, stored)
            seen[put] += 1
            if put and stored.interrupt is not None:
                running[stored.id] = (key, stored)
        shelves = [(key, str(n)) for key in "xyz" for n in range(number + 1) if store.find(key, str(n))]
        assert len(shelves) == len(store) <= 8
        assert store.size == sum(store.find(*at).size for at in shelves) <= 1500  # type: ignore[union-attr]
    assert min(seen[True], seen[False]) > 20

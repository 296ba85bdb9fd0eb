"""The house keeps its goals; where it does not yet, a figure may only fall. `python -m tests.docs.measures` prints all.

Whoever lowers a figure lowers its entry in `LIMITS`, and drops the entry when the goal is met.
"""

import logging
from pathlib import Path

import pytest

from tests.docs import structure, traces
from tests.docs.files import FOLDERS, ROOT

GOALS = {
    "files of a chat request": 15,
    "files of a Speculative request": 18,
    "files of a chat token": 15,
    "files of a Speculative token": 18,
    "files of an HGPO step": 10,
    "async generators over the engine": 3,
    "floors": 4,
    "class names that stand twice": 0,
    "lines": 17_500,
    "chat files that ARCHITECTURE.md does not name in order": 0,
}
LIMITS = {
    "files of a chat request": 49,
    "files of a Speculative request": 52,
    "files of a Speculative token": 23,
    "floors of controllers": 6,
    "floors of controllers/generation": 5,
    "floors of models": 6,
    "floors of training": 5,
    "lines": 29_730,
    "chat files that ARCHITECTURE.md does not name in order": 5,
}
"""Goals that are not met today, with today's figure."""

SPINE = "server"
"""Its modules stand on one another by design, from cli to edges."""


def limit(name: str) -> int:
    """What a figure may be today."""
    return LIMITS.get(name, goal(name))


def goal(name: str) -> int:
    return GOALS["floors" if name.startswith("floors of ") else name]


@pytest.fixture(scope="module", autouse=True)
def quiet() -> None:
    logging.getLogger("reasond").setLevel(logging.ERROR)


@pytest.fixture(scope="module")
def chat() -> traces.Trace:
    return traces.request(traces.CHAT)


@pytest.fixture(scope="module")
def speculative() -> traces.Trace:
    return traces.request(traces.SPECULATIVE)


def test_few_files_run_for_a_chat_request(chat: traces.Trace) -> None:
    assert "models/engines/scripted.py" in chat.files
    assert len(chat.files) <= limit("files of a chat request"), chat.files


def test_few_files_run_for_a_speculative_request(speculative: traces.Trace) -> None:
    assert any(file.startswith("controllers/speculative/") for file in speculative.files)
    assert len(speculative.files) <= limit("files of a Speculative request"), speculative.files


def test_few_files_run_for_one_token(chat: traces.Trace, speculative: traces.Trace) -> None:
    for trace, name in ((chat, "files of a chat token"), (speculative, "files of a Speculative token")):
        assert len(trace.tokens) > 10
        token = trace.of_one_token()
        assert 5 < len(token) <= limit(name), token


def test_a_token_passes_few_async_generators(chat: traces.Trace, speculative: traces.Trace) -> None:
    assert 0 < chat.generators <= limit("async generators over the engine")
    assert 0 < speculative.generators <= limit("async generators over the engine")


def test_few_files_run_for_an_hgpo_step(tmp_path: Path) -> None:
    files = traces.hgpo_step(tmp_path).files
    assert "training/advantages.py" in files or "training/algorithms/hgpo.py" in files
    assert len(files) <= limit("files of an HGPO step"), files


@pytest.mark.parametrize("folder", [folder for folder in structure.folders() if folder != SPINE])
def test_a_folder_has_few_floors(folder: str) -> None:
    assert structure.floors(structure.rooms(folder)) <= limit(f"floors of {folder}")


def test_no_class_name_stands_in_two_files() -> None:
    twice = structure.class_names_twice()
    assert len(twice) <= limit("class names that stand twice"), twice


def test_the_packages_stay_small() -> None:
    assert sum(map(structure.lines, FOLDERS)) <= limit("lines")


def test_the_architecture_page_names_the_files_of_a_chat_request_in_order(chat: traces.Trace) -> None:
    """Each after the one before, by its path in backticks."""
    page, at, missing = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), 0, []
    for file in chat.files:
        found = page.find(f"`{file}`", at)
        at, missing = (found, missing) if found >= 0 else (at, [*missing, file])
    assert len(missing) <= limit("chat files that ARCHITECTURE.md does not name in order"), missing


def test_a_limit_stands_only_where_a_goal_is_missed() -> None:
    assert all(figure > goal(name) for name, figure in LIMITS.items())


def test_a_chain_of_imports_is_counted_in_floors_and_a_circle_floor_by_floor() -> None:
    chain = {"a": frozenset({"b", "c"}), "b": frozenset({"c"}), "c": frozenset[str](), "d": frozenset[str]()}
    assert (structure.floors(chain), structure.circles(chain)) == (3, [])
    circle = {**chain, "c": frozenset({"b"})}
    assert (structure.floors(circle), structure.circles(circle)) == (3, ["b", "c"])

"""How the house stands: `python -m tests.docs.measures [--hgpo]`. The goals are held by `test_house.py`."""

import argparse
import contextlib
import io
import logging
import tempfile
from pathlib import Path

from tests.docs import structure, traces
from tests.docs.files import FOLDERS

REQUESTS = {
    "a streamed chat reply": traces.CHAT,
    "a streamed Speculative reply": traces.SPECULATIVE,
    "/v1/rewards/rank": traces.RANK,
}
TALL = 4


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.docs.measures", description=__doc__)
    parser.add_argument("--hgpo", action="store_true", help="trace a training step as well (a minute)")
    options = parser.parse_args()
    logging.disable()
    found = {words: traces.request(name) for words, name in REQUESTS.items()}
    if options.hgpo:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            found["an HGPO step"] = traces.hgpo_step(Path(folder))
    print_traces(found)
    print_folders()
    print_lines()
    for name, paths in structure.class_names_twice().items():
        print(f"class {name} stands in {', '.join(paths)}")
    print("\nlongest functions, in lines")
    for length, where in structure.longest_functions(10):
        print(f"{length:5}  {where}")


def print_traces(found: dict[str, traces.Trace]) -> None:
    print(f"{'what runs':32} {'own files':>9} {'of one token':>12} {'own async generators over the engine':>38}")
    for words, trace in found.items():
        print(f"{words:32} {len(trace.files):9} {len(trace.of_one_token()) or '-':>12} {trace.generators:38}")
    for words, trace in found.items():
        print(f"\n{words}, in the order of first calls:\n  " + "\n  ".join(trace.files))


def print_folders() -> None:
    print(f"\n{'folder':32} {'files':>5} {'rooms':>5} {'floors':>6}  circles")
    for folder in structure.folders():
        rooms = structure.rooms(folder)
        floors, circles = structure.floors(rooms), " ".join(structure.circles(rooms))
        mark = "  <- over the goal" if floors > TALL else ""
        print(f"{folder:32} {structure.files_flat(folder):5} {len(rooms):5} {floors:6}  {circles}{mark}")


def print_lines() -> None:
    counted = {package: structure.lines(package) for package in FOLDERS}
    print("\nlines: " + ", ".join(f"{package} {count:,}" for package, count in counted.items()), end="")
    print(f"; together {sum(counted.values()):,}\n")


if __name__ == "__main__":
    main()

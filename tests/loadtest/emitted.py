"""The bare emitter as tests use it: started in its own process, asked for its log."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from loadtest import LoadRequest, LoadTarget


class Emitted:
    def __init__(self, port: int) -> None:
        self.target = LoadTarget(f"http://127.0.0.1:{port}", "emitter")

    def log(self) -> dict[str, tuple[int, list[int]]]:
        with urllib.request.urlopen(f"{self.target.url}/log") as response:
            return dict(json.load(response))


@contextmanager
def emitter() -> Iterator[Emitted]:
    command = [sys.executable, "-m", "tests.loadtest.emitter"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield Emitted(int(process.stdout.readline()))
        finally:
            process.stdin.close()


_PROBE = """
import select, sys, time
late = []
while True:
    began = time.perf_counter()
    if select.select([sys.stdin], [], [], 0.001)[0]:
        break
    late.append(1000 * (time.perf_counter() - began - 0.001))
print(sorted(late)[int(0.95 * len(late))])
"""


@contextmanager
def lateness() -> Iterator[list[float]]:
    """Afterwards the list holds by how many milliseconds a third process woke up late (95th percentile) meanwhile.

    On a machine whose cores are all taken, a reader does not run when its data is there, whoever wrote it.
    """
    found: list[float] = []
    with subprocess.Popen(
        [sys.executable, "-c", _PROBE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield found
        found.append(float(process.communicate()[0]))


def asking(number: int, plan: Mapping[str, Any], **request: Any) -> LoadRequest:
    """A request for which the emitter does what `plan` says."""
    name = str(number)
    body = {"emit": {"id": name, "reasoning": 5, "answer": 5, **plan}, **request.pop("body", {})}
    return LoadRequest(name, ({"role": "user", "content": "go"},), body=body, **request)


def all_asking(count: int, plan: Mapping[str, Any], **request: Any) -> Sequence[LoadRequest]:
    return [asking(number, plan, **request) for number in range(count)]

"""What vLLM, transformers and torch write, in this process and in those that it starts: lines of our own log, below
`warning`.

Everything that is written to standard output and error is read from a pipe; the server itself writes to the terminal.
"""

import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import TextIO
from uuid import uuid4

log = logging.getLogger(__name__)

FAILURE = re.compile(r"(\([^)]*\) )?(ERROR|CRITICAL)\b")  # of vLLM's log, behind the process that writes it
EXCEPTION = re.compile(r"(?:[\w.]+\.)?\w*(?:Error|Exception)(?:\[\w+\])?: \S.*")
DRAIN_SECONDS = 1.0
STREAMS = (1, 2)


class ForeignOutput:
    """`out` and `err` are where standard output and error went before. `cause` is what the last exception said that a
    process wrote. While engines are `starting`, their failures are below `warning` as well: whoever started them says
    in one line what went wrong."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self.out, self.err = out, err
        self.starting = True
        self._cause = ""
        self._mark = ""
        self._drained = Event()

    def started(self) -> None:
        self.starting = False

    def cause(self) -> str:
        self.drain()
        return self._cause

    def drain(self) -> None:
        """Returns when all is read that has been written until now."""
        self._mark = uuid4().hex
        self._drained.clear()
        os.write(STREAMS[1], f"\n{self._mark}\n".encode())
        self._drained.wait(DRAIN_SECONDS)

    def read(self, pipe: int) -> None:
        with open(pipe, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                self._take(line.strip())

    def _take(self, line: str) -> None:
        if line == self._mark:
            self._drained.set()
            return
        if (said := EXCEPTION.search(line)) and "root cause" not in line:  # which vLLM says of another process
            self._cause = said[0]
        fails = FAILURE.match(line) or EXCEPTION.match(line)
        if line:
            log.log(logging.ERROR if fails and not self.starting else logging.DEBUG, "%s", line)


@contextmanager
def diverted() -> Iterator[ForeignOutput]:
    """Standard output and error lead to the log until the block ends."""
    kept = [os.dup(stream) for stream in STREAMS]
    # Never closed: the log may still be written to.
    foreign = ForeignOutput(*(open(stream, "w", encoding="utf-8", closefd=False) for stream in kept))  # noqa: SIM115
    source, sink = os.pipe()
    Thread(target=foreign.read, args=(source,), name="foreign output", daemon=True).start()
    _lead([sink, sink])
    os.close(sink)
    try:
        yield foreign
    finally:
        foreign.drain()
        _lead(kept)


def _lead(targets: Sequence[int]) -> None:
    """Standard output and error to these."""
    for python, stream, target in zip((sys.stdout, sys.stderr), STREAMS, targets, strict=True):
        python.flush()
        os.dup2(target, stream)

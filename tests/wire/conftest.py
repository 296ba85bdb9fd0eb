"""Servers for the tests of the wire."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import pytest

from models.text.tokenizer import HubTokenizer
from tests.wire.served import DIRECT, THINKING, Served, served

Serve = Callable[..., Served]


@pytest.fixture
def serve(tokenizer: HubTokenizer, stepping: Mapping[str, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """`serve(script, **delays)`: a server that runs until the test ends."""
    monkeypatch.delenv("REASOND_API_KEYS", raising=False)
    with ExitStack() as stack:
        yield lambda script, **delays: stack.enter_context(served(tokenizer, script, **stepping, **delays))


@pytest.fixture
def thinking(serve: Serve) -> Served:
    """A server whose model thinks before its answer."""
    return serve([THINKING])


@pytest.fixture
def direct(serve: Serve) -> Served:
    """A server whose model answers at once."""
    return serve([DIRECT])

"""Servers for the tests of the wire."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import pytest

from models.text.tokenizer import HubTokenizer
from tests.wire.conversations import Asked, ask
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


@pytest.fixture(params=[False, True], ids=["whole", "stream"])
def asks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Asked]:
    """`asks(path, body, template)`: the request, whole and as a stream, to a server of its own."""
    monkeypatch.delenv("REASOND_API_KEYS", raising=False)
    return lambda path, body, *args, **options: ask(path, {**body, "stream": request.param}, *args, **options)

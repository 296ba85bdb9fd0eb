from collections.abc import Iterator

import pytest

from tests.loadtest.emitted import Emitted, emitter


@pytest.fixture(scope="session")
def emitted() -> Iterator[Emitted]:
    with emitter() as running:
        yield running

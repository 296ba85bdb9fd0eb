"""Each model of the corpus in turn, with all tests that ask for it, since loading its vocabulary takes seconds."""

import pytest

from tests.families.corpus import ALL, corpus


@pytest.fixture(scope="session", params=ALL)
def name(request: pytest.FixtureRequest) -> str:
    if isinstance(reason := corpus(), str):
        pytest.skip(reason)
    return str(request.param)

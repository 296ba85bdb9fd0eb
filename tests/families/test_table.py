"""The table of models in docs/families.md is what a run of each says."""

import pytest

from tests.families.corpus import MODELS, corpus
from tests.families.table import DOCUMENT, row

pytestmark = pytest.mark.skipif(isinstance(corpus(), str), reason=str(corpus()))


@pytest.mark.parametrize("name", MODELS)
def test_a_models_row_is_what_its_run_says(name: str) -> None:
    assert row(name) in DOCUMENT.read_text("utf-8").splitlines()

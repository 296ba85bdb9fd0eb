"""The server says what it said when the replies were recorded. `differences.md` has what was changed on purpose."""

from difflib import unified_diff
from itertools import islice

import pytest

from tests.recorded.cases import CASES
from tests.recorded.replay import REPLIES, Case, replay

SHOWN_LINES = 40
SHOWN_COLUMNS = 200


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_reply_is_the_recorded_one(case: Case) -> None:
    recorded, told = case.file.read_bytes(), replay(case)
    if recorded != told:
        pytest.fail(f"{case.name} is not what was recorded:\n{_difference(recorded, told)}", pytrace=False)


def test_every_recording_has_its_case() -> None:
    assert {case.file for case in CASES} == set(REPLIES.rglob("*.txt"))
    assert len({case.name for case in CASES}) == len(CASES)


def _difference(recorded: bytes, told: bytes) -> str:
    """The lines that differ; JSON is taken apart at its commas."""
    before, after = (
        text.decode("utf-8", "backslashreplace").replace(',"', ',\n"').replace("},{", "},\n{").split("\n")
        for text in (recorded, told)
    )
    lines = unified_diff(before, after, "recorded", "now", n=2, lineterm="")
    return "\n".join(line[:SHOWN_COLUMNS] for line in islice(lines, SHOWN_LINES))

"""The table of controls in the documents is the one in the code."""

import re

from controllers.policy.controls import EFFORTS, control_names
from tests.docs.files import ROOT

PAGE = (ROOT / "docs" / "controls.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([a-z_.]+)` \|", re.MULTILINE)


def test_the_published_table_lists_every_control_and_no_other() -> None:
    table = PAGE.partition("## Controls")[2].partition("## ")[0]
    assert sorted(ROW.findall(table)) == sorted(control_names())


def test_the_published_efforts_are_the_codes() -> None:
    assert all(re.search(rf"{tokens}\s+\(`{effort}`\)", PAGE) for effort, tokens in EFFORTS.items())

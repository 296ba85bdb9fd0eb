"""The table of controls in the documents is the one in the code."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from controllers.policy.controls import CONTROLS, EFFORTS, control_schema
from tests.docs.files import ROOT

PAGE = (ROOT / "docs" / "controls.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([a-z_.]+)` \|", re.MULTILINE)


def names(path: str, schema: Mapping[str, Any]) -> Iterator[str]:
    """A control with its path; of an object, those of its fields."""
    own, _null = schema["anyOf"]
    if own.get("type") != "object":
        yield path
        return
    for field, inner in own["properties"].items():
        yield from names(f"{path}.{field}", inner)


def test_the_published_table_lists_every_control_and_no_other() -> None:
    table = PAGE.partition("## Controls")[2].partition("## ")[0]
    known = [name for field in CONTROLS for name in names(field, control_schema(field))]
    assert sorted(ROW.findall(table)) == sorted(known)


def test_the_published_efforts_are_the_codes() -> None:
    assert all(re.search(rf"{tokens}\s+\(`{effort}`\)", PAGE) for effort, tokens in EFFORTS.items())

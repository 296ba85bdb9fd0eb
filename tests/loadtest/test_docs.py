"""The example in docs/loadtest.md runs as it stands there."""

import ast
import re
from pathlib import Path

import pytest
import uvloop

from tests.loadtest.emitted import Emitted

PAGE = Path(__file__).parents[2] / "docs" / "loadtest.md"


def test_the_notebook_example_runs_and_has_at_most_ten_lines(
    emitted: Emitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.+?)```", PAGE.read_text(), re.DOTALL)
    assert len([line for line in example.splitlines() if line]) <= 10
    here = example.replace("http://127.0.0.1:8000", emitted.target.url).replace("rate=5", "rate=500")
    code = compile(here, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    uvloop.run(eval(code, {}))
    assert "as it likes Interval(" in capsys.readouterr().out
    assert "Accuracy against tokens" in (tmp_path / "report.html").read_text()

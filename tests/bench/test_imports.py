"""What the benches, the long criteria and the demo's scripts import is there: no other test runs most of them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.files import FOLDERS, ROOT

SCRIPTS = sorted(path for folder in ("tests/accept", "tests/bench") for path in (ROOT / folder).glob("*.py"))
OURS = (*FOLDERS, "tests")


def missing(tree: ast.AST) -> Iterator[str]:
    """What a module imports of ours and does not find, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in OURS:
            yield from (f"{node.module}.{alias.name}" for alias in node.names if not exists(node.module, alias.name))


def exists(module: str, name: str) -> bool:
    if any(file(f"{module}.{name}")):
        return True
    return any(name in names(ast.parse(path.read_text(encoding="utf-8"))) for path in file(module))


def file(module: str) -> list[Path]:
    path = ROOT / module.replace(".", "/")
    return [found for found in (path.with_suffix(".py"), path / "__init__.py") if found.exists()]


def names(tree: ast.Module) -> set[str]:
    """What a module defines or imports, at its top or within a condition there."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=[f"{path.parent.name}/{path.name}" for path in SCRIPTS])
def test_a_script_imports_what_is_there(script: Path) -> None:
    assert not list(missing(ast.parse(script.read_text(encoding="utf-8"))))


def test_an_import_of_what_is_not_there_is_found() -> None:
    code = "from loadtest.records import LoadTarget, Nobody\nfrom loadtest.nowhere import run\nfrom loadtest import cli"
    assert list(missing(ast.parse(code))) == ["loadtest.records.Nobody", "loadtest.nowhere.run"]

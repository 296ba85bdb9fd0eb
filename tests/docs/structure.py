"""How the five packages are built, read from their source: lines, imports, class names, functions."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from tests.docs.files import FOLDERS, ROOT

Rooms = Mapping[str, frozenset[str]]


@cache
def sources() -> dict[str, ast.Module]:
    """Every module by its path from the root."""
    paths = (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def lines(package: str) -> int:
    """Of Python, blank ones and comments included."""
    return sum(len((ROOT / path).read_text("utf-8").splitlines()) for path in sources() if _within(path, package))


def class_names_twice() -> dict[str, list[str]]:
    """Class names that stand in several files, and the files."""
    found: dict[str, list[str]] = {}
    for path, tree in sources().items():
        for name in {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}:
            found.setdefault(name, []).append(path)
    return {name: paths for name, paths in sorted(found.items()) if len(paths) > 1}


def longest_functions(count: int) -> list[tuple[int, str]]:
    """Lines, and where."""
    found = [
        ((node.end_lineno or node.lineno) - node.lineno + 1, f"{path}:{node.lineno} {node.name}")
        for path, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return sorted(found, reverse=True)[:count]


def folders() -> list[str]:
    return sorted({parent.as_posix() for path in sources() for parent in Path(path).parents} - {"."})


def files_flat(folder: str) -> int:
    """Python files directly in a folder, beside its `__init__.py`."""
    return sum(Path(path).parent.as_posix() == folder and not path.endswith("__init__.py") for path in sources())


def rooms(folder: str) -> Rooms:
    """The files and folders directly in a folder, and which of their sisters each imports.

    The folder's own `__init__.py` is its door, not a room. Imports for type checking alone do not count.
    """
    found: dict[str, set[str]] = {}
    for path, tree in sources().items():
        if (room := _room(path, folder)) is not None:
            imported = {_room(target, folder) for target in _imports(tree)}
            found.setdefault(room, set()).update(name for name in imported if name not in (None, room))
    return {name: frozenset(others & found.keys()) for name, others in found.items()}


def floors(graph: Rooms) -> int:
    """The longest chain of imports, in rooms. Rooms that import each other in a circle count one floor each."""
    reached = {room: _reached(graph, room) for room in graph}
    circles = {room: frozenset({room} | {other for other in reached[room] if room in reached[other]}) for room in graph}

    @cache
    def height(circle: frozenset[str]) -> int:
        below = {circles[other] for room in circle for other in graph[room]} - {circle}
        return len(circle) + max(map(height, below), default=0)

    return max((height(circle) for circle in circles.values()), default=0)


def circles(graph: Rooms) -> list[str]:
    """Rooms that import each other, however far around."""
    return sorted(room for room in graph if room in _reached(graph, room))


def _reached(graph: Rooms, room: str) -> set[str]:
    found: set[str] = set()
    waiting = list(graph[room])
    while waiting:
        if (one := waiting.pop()) not in found:
            found.add(one)
            waiting += graph[one]
    return found


def _within(path: str, folder: str) -> bool:
    return path.startswith(f"{folder}/")


def _room(path: str, folder: str) -> str | None:
    rest = path.removeprefix(f"{folder}/")
    return None if rest in (path, "__init__.py") else rest.split("/")[0].removesuffix(".py")


def _imports(tree: ast.AST) -> Iterator[str]:
    """The files of ours that a module imports, wherever in it."""
    for node in _nodes(tree):
        if isinstance(node, ast.Import):
            yield from _files(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield from list(_files([f"{node.module}.{alias.name}"])) or _files([node.module])


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield node
            yield from _nodes(node)


def _files(modules: Iterable[str]) -> Iterator[str]:
    for module in modules:
        path = module.replace(".", "/")
        yield from (file for file in (f"{path}.py", f"{path}/__init__.py") if file in sources())

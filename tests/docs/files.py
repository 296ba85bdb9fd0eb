"""The list of files in docs/files.md, made from each module's first docstring line. `make docs` writes it."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "files.md"
FOLDERS = ("models", "controllers", "server", "training", "loadtest")
LIST = re.compile(r"(<!-- files -->\n).*?(<!-- end of files -->)", re.DOTALL)


def first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not text:
        raise ValueError(f"{path.relative_to(ROOT)} has no docstring")
    return text.split("\n\n")[0].replace("\n", " ")


def listing() -> str:
    """Every module, folder by folder, with its first paragraph."""
    lines: list[str] = []
    for folder in FOLDERS:
        package = ROOT / folder
        lines += [f"### {folder}/", "", first_line(package / "__init__.py"), ""]
        modules = sorted(path for path in package.rglob("*.py") if path.read_text().strip())
        lines += [
            f"- `{path.relative_to(package)}`: {first_line(path)}"
            for path in modules
            if path.parent != package or path.name != "__init__.py"
        ]
        lines.append("")
    return "\n".join(lines)


def in_step(page: str) -> str:
    """The page with the list as it should be."""
    return LIST.sub(lambda found: found[1] + "\n" + listing() + found[2], page)


if __name__ == "__main__":
    PAGE.write_text(in_step(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

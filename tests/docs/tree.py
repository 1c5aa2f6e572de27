"""The tree of rooms and files in docs/architecture.md, made from the first line of each module's docstring.

`python -m tests.docs.tree` writes it into the page anew.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "mcp_multi_server"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- tree: begin -->\n", "<!-- tree: end -->\n"
ORDER = ["cli", "library", "daemon", "clients", "calls", "servers", "transport", "processes", "telemetry", "core"]
"""The rooms from the top of the import law down."""


def rooms() -> list[Path]:
    """The folders of the package, from the top of the import law down. Raises ValueError for one that has no place."""
    found = [each.parent for each in SOURCE.glob("*/__init__.py")]
    return sorted(found, key=lambda room: ORDER.index(room.name))


def tree() -> str:
    """The block between the marks: a heading and a table a room."""
    return "".join(_room(room) for room in rooms())


def written() -> str:
    """The block that the page has now."""
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0]


def _room(room: Path) -> str:
    rows = "".join(f"| `{each.relative_to(room)}` | {_says(each)} |\n" for each in _files(room))
    return f"\n### {room.name}/\n\n{_says(room / '__init__.py')}\n\n| file | what it says |\n|---|---|\n{rows}"


def _files(room: Path) -> Iterator[Path]:
    """The modules of a room, those in its subfolders last."""
    modules = (each for each in room.rglob("*.py") if each.name != "__init__.py")
    return iter(sorted(modules, key=lambda each: (len(each.parts), each)))


def _says(module: Path) -> str:
    """The first paragraph of the module's docstring, on one line."""
    doc = ast.get_docstring(ast.parse(module.read_text())) or ""
    return " ".join(doc.partition("\n\n")[0].split()).replace("|", r"\|")


def main() -> None:
    """Write the block anew."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + tree() + "\n" + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()

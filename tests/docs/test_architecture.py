"""docs/architecture.md names what is there: every file of the tree, and each function and test that it points to."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .tree import PAGE, ROOT, SOURCE, rooms, tree, written

REFERENCE = re.compile(r"`(?P<file>[\w/]+\.(?:py|md|toml|json|yml))(?:::?(?P<name>[\w.]+))?`")
"""A file, from the top of the repository or of the package, and maybe a function, class, constant or test in it."""


def references() -> list[tuple[str, str]]:
    text = PAGE.read_text()
    prose = text.replace(written(), "")
    return sorted({(found["file"], found["name"] or "") for found in REFERENCE.finditer(prose)})


def found(file: str) -> Path:
    return next((path for path in (SOURCE / file, ROOT / file) if path.exists()), SOURCE / file)


def names(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    """Every name that these statements define, those in classes with the class's name and a dot in front."""
    for node in body:
        match node:
            case ast.ClassDef():
                yield prefix + node.name
                yield from names(node.body, f"{prefix}{node.name}.")
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield prefix + node.name
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield prefix + name
            case ast.Assign():
                yield from (
                    prefix + name.id
                    for target in node.targets
                    for name in ast.walk(target)
                    if isinstance(name, ast.Name)
                )


def test_the_tree_is_the_one_that_is_there() -> None:
    assert written().strip() == tree().strip(), "python -m tests.docs.tree writes it anew"


def test_every_room_says_in_one_line_what_it_is_for() -> None:
    for room in rooms():
        doc = ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
        assert doc, room
        assert "\n" not in doc.partition("\n\n")[0], room


@pytest.mark.parametrize(("file", "name"), references())
def test_what_the_page_points_to_is_there(file: str, name: str) -> None:
    path = found(file)
    assert path.exists()
    if name:
        assert name in set(names(ast.parse(path.read_text()).body))


def test_every_word_of_the_glossary_is_explained_once() -> None:
    glossary = PAGE.read_text().partition("## Glossary")[2].partition("\n## ")[0]
    words = re.findall(r"^\| \*\*(.+?)\*\*", glossary, re.MULTILINE)
    assert len(words) > 20
    assert len(words) == len(set(words))

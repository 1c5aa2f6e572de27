"""The pages of the documentation, and what is in them: tables, links, headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CODE_BLOCK = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def page(name: str) -> str:
    """The text of a page in docs/."""
    return (DOCS / f"{name}.md").read_text()


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one of its level."""
    found = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^\1 |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"no heading {heading!r}"
    return found[2]


def rows(text: str) -> Iterator[list[str]]:
    """The rows of the first table of a text, without its head, cell by cell."""
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table, "no table"
    for line in table[0].splitlines()[2:]:
        yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def codes(cell: str) -> list[str]:
    """What a cell has in code quotes."""
    return re.findall(r"`([^`]+)`", cell)


def anchors(text: str) -> set[str]:
    """The anchors that the headings of a page have, on the site and where Markdown is shown."""
    headings = re.findall(r"^#+ (.*)$", CODE_BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def links(text: str) -> list[str]:
    """The targets of all links and pictures, but for those that lead elsewhere."""
    found = re.findall(r"\]\(([^)\s]+)\)", CODE_BLOCK.sub("", text))
    return [target for target in found if not re.match(r"[a-z]+:", target)]

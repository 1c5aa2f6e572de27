"""Every link in the documentation leads to something, and the README names every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .pages import DOCS, ROOT, anchors, links

PAGES = sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md")])
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    text = path.read_text()
    for link in links(text):
        target, _, anchor = link.partition("#")
        leads_to = (path.parent / target).resolve() if target else path
        assert leads_to.is_file(), f"{link} leads to no file"
        if anchor:
            assert anchor in anchors(leads_to.read_text()), f"{link} leads to no heading"


def test_the_readme_leads_to_every_page() -> None:
    assert {path.name for path in DOCS.glob("*.md")} <= {Path(link).name for link in links(README)}


def test_the_readme_is_read_in_three_minutes() -> None:
    assert len(README.splitlines()) <= 200


def test_every_page_is_in_the_sites_navigation() -> None:
    listed = set(re.findall(r"([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert {path.name for path in DOCS.glob("*.md")} <= listed


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for path in PAGES for name in re.findall(r"`make ([a-z-]+)`", path.read_text())}
    assert named <= targets

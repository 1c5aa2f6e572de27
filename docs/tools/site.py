"""A hook of MkDocs: gives the site what its pages link to outside of docs/.

README.md, CONTRIBUTING.md and CHANGELOG.md become pages; other files are copied into files/. So the same links work in
a checkout and on the site.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages of the site by their files at the root."""
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)#\s]+)")
_FOREIGN = re.compile(
    r"""<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>|url\(["']?(?:https?:)?//"""
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from the root, and the files that any page links to."""
    for source, page in PAGES.items():
        if (ROOT / source).exists():
            files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for target in sorted({target for page in files.documentation_pages() for target in _outside(page)}):
        files.append(File.generated(config, f"files/{target}", abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Have the links of a page lead to the places that their files have on the site."""
    return _LINK.sub(lambda link: _on_site(link[1], page.file), markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that a browser would need the network for. Raises PluginError."""
    if found := _FOREIGN.search(output):
        raise PluginError(f"{page.file.src_uri} loads something from elsewhere: {found[0]}")
    return output


def _outside(page: File) -> Iterator[str]:
    """The files outside of docs/ that a page links to, by their paths from the root."""
    for link in _LINK.findall(page.content_string):
        target = _from_root(link, page)
        if target not in PAGES and not target.startswith("docs/") and (ROOT / target).is_file():
            yield target


def _on_site(link: str, page: File) -> str:
    target = _from_root(link, page)
    if target in PAGES:
        return PAGES[target]
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return f"files/{target}" if (ROOT / target).is_file() else link


def _from_root(link: str, page: File) -> str:
    """Where a link leads, as a path from the root."""
    directory = "" if page.src_uri in PAGES.values() else "docs"
    return posixpath.normpath(posixpath.join(directory, link))

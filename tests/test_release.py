"""`make release` refuses what is not ready, and tags what is."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

ROOT = Path(__file__).parent.parent
MAINTAINER = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"} | {
    f"GIT_{role}_{what}": f"{role.lower()}@example.org"
    for role in ("AUTHOR", "COMMITTER")
    for what in ("NAME", "EMAIL")
}
CHANGELOG = "# Changelog\n\n## 1.2 · 2026-01-02\n\n- Newer.\n- `# not a comment`\n\n## 1.1 · 2026-01-01\n\n- Older.\n"
Run: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command in a project of version 1.2 that has nothing but what a release needs; it builds an empty file."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/release", tmp_path / ".ci")
    package = tmp_path / "src/mcp_multi_server"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "1.2"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / "Makefile").write_text("dist:\n\ttouch .git/built\n")

    def in_project(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, cwd=tmp_path, env=os.environ | MAINTAINER, capture_output=True, text=True, timeout=30, check=False
        )

    in_project("git", "init", "-q")
    commit(in_project)
    return in_project


def commit(run: Run) -> None:
    run("git", "add", "-A")
    assert run("git", "commit", "-q", "-m", "change").returncode == 0


def test_the_tag_is_annotated_with_the_changes_once_the_packages_are_built(run: Run, tmp_path: Path) -> None:
    done = run(".ci/release")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".git/built").exists()
    assert run("git", "cat-file", "-t", "v1.2").stdout == "tag\n"
    told = run("git", "tag", "-l", "--format=%(contents)", "v1.2").stdout
    assert told.rstrip() == "mcp-multi-server 1.2\n\n- Newer.\n- `# not a comment`"


def test_packages_that_do_not_hold_up_are_not_tagged(run: Run, tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("dist:\n\tfalse\n")
    commit(run)
    assert run(".ci/release").returncode != 0
    assert run("git", "tag").stdout == ""


@pytest.mark.parametrize(
    ("file", "old", "new", "why"),
    [
        ("src/mcp_multi_server/__init__.py", "1.2", "1.3", "CHANGELOG.md has no section '## 1.3 · DATE'"),
        ("CHANGELOG.md", "- Newer.\n- `# not a comment`\n", "", "CHANGELOG.md has no section '## 1.2 · DATE'"),
        ("CHANGELOG.md", "## 1.2", "## Unreleased\n\n- Newest.\n\n## 1.2", "entries under 'Unreleased'"),
    ],
)
def test_a_changelog_that_does_not_tell_of_the_version_stops_it(
    run: Run, tmp_path: Path, file: str, old: str, new: str, why: str
) -> None:
    path = tmp_path / file
    path.write_text(path.read_text().replace(old, new))
    commit(run)
    refused(run, why)


def test_what_is_not_committed_stops_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    refused(run, "changes that are not committed")


def test_a_version_is_released_once(run: Run) -> None:
    assert run(".ci/release").returncode == 0
    done = run(".ci/release")
    assert "v1.2 has been released" in done.stderr
    assert done.returncode == 1


def refused(run: Run, why: str) -> None:
    done = run(".ci/release")
    assert why in done.stderr
    assert done.returncode == 1
    assert run("git", "tag").stdout == ""

"""Continuous integration finds a newer Python or fails, and fails where too little is tested."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NONE = "exit 127"


def newer_python(
    tmp_path: Path, *, own: int, minors: dict[int, str], uv: str = "exit 2", pyenv: str = "exit 0"
) -> tuple[int, str, str]:
    """Exit code and output of .ci/newer-python where python3 is 3.`own` and the others are those shell scripts."""
    scripts = {"python3": f"echo {own}", "uv": uv, "pyenv": pyenv} | {f"python3.{n}": NONE for n in range(11, 20)}
    for name, script in (scripts | {f"python3.{minor}": script for minor, script in minors.items()}).items():
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run([ROOT / ".ci/newer-python"], env=environment, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout.strip(), done.stderr


def test_the_newest_python_is_taken(tmp_path: Path) -> None:
    both = {12: "echo /opt/12", 13: "echo /opt/13"}
    assert newer_python(tmp_path, own=11, minors=both)[:2] == (0, "/opt/13")
    assert newer_python(tmp_path, own=11, minors={12: "echo /opt/12"})[:2] == (0, "/opt/12")


def test_pythons_that_uv_knows_count(tmp_path: Path) -> None:
    uv = 'case "$*" in *find*3.12) echo /uv/12;; *) exit 2;; esac'
    assert newer_python(tmp_path, own=11, minors={}, uv=uv)[:2] == (0, "/uv/12")


def test_a_command_of_pyenv_runs_in_the_versions_that_pyenv_has(tmp_path: Path) -> None:
    shim = f'[ "$PYENV_VERSION" = 3.11.7:3.13.0 ] && echo /pyenv/13 || {NONE}'
    pyenv = "echo 3.11.7; echo 3.13.0"
    assert newer_python(tmp_path, own=11, minors={13: shim}, pyenv=pyenv)[:2] == (0, "/pyenv/13")


def test_where_there_is_none_uv_downloads_one(tmp_path: Path) -> None:
    uv = f'case "$*" in *install*) touch {tmp_path}/got;; *) [ -e {tmp_path}/got ] && echo /uv/13;; esac'
    assert newer_python(tmp_path, own=11, minors={}, uv=uv)[:2] == (0, "/uv/13")


def test_where_none_can_be_had_it_fails_and_says_what_to_do(tmp_path: Path) -> None:
    code, found, told = newer_python(tmp_path, own=11, minors={})
    assert (code, found) == (1, "")
    assert "no Python newer than 3.11 is here" in told
    assert "install one" in told


@pytest.mark.parametrize("own", [12, 13, 14])
def test_a_python3_that_is_newer_itself_is_enough(tmp_path: Path, own: int) -> None:
    assert newer_python(tmp_path, own=own, minors={12: "echo /opt/12"})[:2] == (0, "")


def floors(tmp_path: Path, core: int, others: int) -> subprocess.CompletedProcess[str]:
    """Where so many of a hundred branches are taken in `core`, and so many of nine hundred elsewhere."""
    files = {
        f"src/mcp_multi_server/{name}": {
            "summary": {"covered_lines": 1, "num_statements": 1, "covered_branches": covered, "num_branches": branches}
        }
        for name, covered, branches in (("core/a.py", core, 100), ("calls/b.py", others, 900))
    }
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"files": files}))
    words = [sys.executable, str(ROOT / ".ci/coverage_floors.py"), str(report)]
    return subprocess.run(words, env=os.environ, capture_output=True, text=True, timeout=30)


def test_enough_is_tested_at_the_floors(tmp_path: Path) -> None:
    done = floors(tmp_path, 98, 822)
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()[1:]] == [
        ["calls", "100.0", "91.3"],
        ["core", "100.0", "98.0", "98.0"],
        ["all", "100.0", "92.0", "92.0"],
    ]


@pytest.mark.parametrize(("core", "others", "room"), [(97, 900, "core"), (98, 821, "all")])
def test_too_little_is_tested_below_a_floor(tmp_path: Path, core: int, others: int, room: str) -> None:
    done = floors(tmp_path, core, others)
    assert done.returncode == 1
    assert done.stderr.startswith(f"too few branches of {room} are tested")

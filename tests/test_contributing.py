"""What CONTRIBUTING.md names exists, and the code that it quotes is ours."""

import re
from pathlib import Path

import pytest
from benchmarks.faults import FAULTS

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
SOURCES = [path.read_text() for place in ("src", "tests") for path in (ROOT / place).rglob("[!.]*.py")]


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make(?: [A-Z]\S+)* ([a-z-]+)", TEXT, re.MULTILINE))
    assert "release" in named
    assert named <= targets


def test_every_path_exists() -> None:
    named = {path.rstrip(".") for path in re.findall(r"(?:src|tests|benchmarks|config|\.ci)/[\w./-]+", TEXT)}
    assert "tests/fleet.py" in named
    assert [path for path in named - {"tests/node_modules"} if not (ROOT / path).exists()] == []


def test_every_fault_exists() -> None:
    named = set(re.findall(r"--fault (\S+)", TEXT))
    assert named
    assert named <= FAULTS.keys()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```|`(test_\w+)`", TEXT, re.DOTALL))
def test_the_code_is_quoted_as_it_is(code: tuple[str, str]) -> None:
    assert any("".join(code) in source for source in SOURCES)

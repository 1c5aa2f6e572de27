"""The file of children: the next daemon, and nobody else, can read what one wrote; what others wrote is ignored."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mcp_multi_server.core.processes import Identity
from mcp_multi_server.files import UnusableFile
from mcp_multi_server.processes import procfs
from mcp_multi_server.processes.children_file import SIZE_CAP, ChildrenFile, read

RUN, NEXT_RUN = "a" * 32, "b" * 32
CHILDREN = (Identity(1234, 567), Identity(1235, 568))


@pytest.fixture
def doubts() -> list[str]:
    return []


@pytest.fixture
def file(tmp_path: Path, doubts: list[str]) -> ChildrenFile:
    made = ChildrenFile(str(tmp_path / "mcp.sock"), doubts.append)
    assert made.take_over(RUN) is None
    return made


def test_what_one_daemon_wrote_the_next_one_reads(file: ChildrenFile, doubts: list[str]) -> None:
    file.note(CHILDREN)
    file.note(CHILDREN[:1])
    left = file.take_over(NEXT_RUN)
    assert left is not None
    assert (left.boot, left.run, left.children) == (procfs.boot_id(), RUN, CHILDREN[:1])
    file.note(())
    left = file.take_over(NEXT_RUN)
    assert left is not None
    assert (left.run, left.children) == (NEXT_RUN, ())
    assert doubts == []


def test_nobody_else_can_read_it_and_nothing_stays_beside_it(file: ChildrenFile) -> None:
    old = os.umask(0)
    try:
        file.note(CHILDREN)
    finally:
        os.umask(old)
    path = Path(file.path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == [path.name]
    file.remove()
    file.remove()
    assert os.listdir(path.parent) == []


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def replace_by_link(path: Path) -> None:
    path.rename(path.with_suffix(".else"))
    path.symlink_to(path.with_suffix(".else"))


def link_hard(path: Path) -> None:
    path.with_suffix(".else").hardlink_to(path)


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def let_all_write(path: Path) -> None:
    path.chmod(0o622)


def inflate(path: Path) -> None:
    with path.open("ab") as file:
        file.truncate(SIZE_CAP + 1)


@pytest.mark.parametrize("spoil", [damage, replace_by_link, link_hard, replace_by_pipe, let_all_write, inflate])
def test_a_file_that_others_may_have_written_is_reported_ignored_and_replaced(
    spoil: Callable[[Path], None], file: ChildrenFile, doubts: list[str]
) -> None:
    path = Path(file.path)
    file.note(CHILDREN)
    spoil(path)
    with pytest.raises(UnusableFile):
        read(file.path)
    assert file.take_over(NEXT_RUN) is None
    assert len(doubts) == 1
    assert doubts[0].startswith(f"{path} is ignored: ")
    other = path.with_suffix(".else")
    before = other.read_bytes() if other.exists() else b""
    file.note(())
    assert read(file.path)
    assert path.is_file()
    assert not path.is_symlink()
    assert (other.read_bytes() if other.exists() else b"") == before


def test_a_file_of_another_user_is_ignored(file: ChildrenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.note(CHILDREN)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(match="belongs to user"):
        read(file.path)


def test_a_file_that_cannot_be_written_is_told_of_once_and_the_old_one_stays(
    file: ChildrenFile, doubts: list[str]
) -> None:
    file.note(CHILDREN)
    Path(f"{file.path}.new").mkdir()
    file.note(())
    file.note(())
    assert len(doubts) == 1
    assert "cannot be written" in doubts[0]
    left = read(file.path)
    assert left is not None
    assert left.children == CHILDREN
    Path(f"{file.path}.new").rmdir()
    file.note(())
    Path(f"{file.path}.new").mkdir()
    file.note(())
    assert len(doubts) == 2

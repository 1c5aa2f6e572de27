"""Every way in which editors, tools and Kubernetes change a file is seen."""

import os
from collections.abc import Callable, Hashable
from pathlib import Path

import anyio
import pytest

from mcp_multi_server.daemon import watcher
from mcp_multi_server.daemon.watcher import identity, watch

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def by_the_watch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No look of its own comes before a test is over, and a burst of changes is short."""
    monkeypatch.setattr(watcher, "LOOK_EVERY", 60)
    monkeypatch.setattr(watcher, "QUIET_MS", watcher.QUIET_MS // 20)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The path, once for each look that the watch took."""
    taken: list[str] = []

    def look(path: str) -> Hashable:
        taken.append(path)
        return identity(path)

    monkeypatch.setattr(watcher, "identity", look)
    return taken


async def until_watched(directory: Path, looks: list[str]) -> None:
    """A watch takes a moment to be there: something stirs until it is noticed."""
    with anyio.fail_after(20):
        while not looks:
            (directory / "beside").write_text("")
            await anyio.sleep(0.01)


def in_place(path: Path) -> None:
    path.write_text(path.read_text() + " ")


def atomic_replace(path: Path) -> None:
    new = path.with_suffix(".tmp")
    new.write_text(path.read_text() + " ")
    os.replace(new, path)


def rename_away_and_write(path: Path) -> None:
    """As vim does with `backupcopy=no`."""
    text = path.read_text()
    path.rename(path.with_name(path.name + "~"))
    path.write_text(text + " ")
    path.with_name(path.name + "~").unlink()


def remove(path: Path) -> None:
    path.unlink()


def create(path: Path) -> None:
    path.write_text("{}")


def make_unreadable(path: Path) -> None:
    path.chmod(0o200)


class Seen:
    """How often a change was told."""

    def __init__(self) -> None:
        self.times = 0
        self._told = anyio.Event()

    async def changed(self) -> None:
        self.times += 1
        self._told.set()

    async def again(self, change: Callable[[], None]) -> None:
        """Make the change and wait until it is told."""
        self._told = anyio.Event()
        change()
        with anyio.fail_after(20):
            await self._told.wait()


async def test_each_kind_of_change_is_told_one_after_the_other(tmp_path: Path, looks: list[str]) -> None:
    path = tmp_path / "mcp_servers.json"
    path.write_text("{}")
    seen = Seen()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, str(path), identity(str(path)), seen.changed)
        await until_watched(tmp_path, looks)
        for change in (
            in_place,
            atomic_replace,
            atomic_replace,
            rename_away_and_write,
            in_place,
            remove,
            create,
            make_unreadable,
        ):
            await seen.again(lambda change=change: change(path))  # type: ignore[misc]  # bound at once
        tasks.cancel_scope.cancel()


async def test_a_link_that_is_swapped_beside_the_file_is_followed(tmp_path: Path, looks: list[str]) -> None:
    """As Kubernetes updates a ConfigMap: `..data` is a link to a directory and is replaced by another."""
    for version in ("1", "2", "3"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "mcp_servers.json").write_text(version)
    data, path = tmp_path / "..data", tmp_path / "mcp_servers.json"
    data.symlink_to("1")
    path.symlink_to("..data/mcp_servers.json")

    def swap(version: str) -> None:
        new = tmp_path / "..new"
        new.symlink_to(version)
        os.replace(new, data)

    seen = Seen()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, str(path), identity(str(path)), seen.changed)
        await until_watched(tmp_path, looks)
        await seen.again(lambda: swap("2"))
        await seen.again(lambda: swap("3"))
        await seen.again(lambda: in_place(tmp_path / "3" / "mcp_servers.json"))
        tasks.cancel_scope.cancel()


async def test_what_happens_beside_the_file_is_not_told(tmp_path: Path, looks: list[str]) -> None:
    path = tmp_path / "mcp_servers.json"
    path.write_text("{}")
    seen = Seen()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, str(path), identity(str(path)), seen.changed)
        await until_watched(tmp_path, looks)
        for number in range(20):
            (tmp_path / f"log{number}").write_text("x")
        await seen.again(lambda: in_place(path))
        assert seen.times == 1
        tasks.cancel_scope.cancel()


async def test_cancelling_does_not_wait_for_the_watching_thread(tmp_path: Path) -> None:
    path = tmp_path / "mcp_servers.json"
    path.write_text("{}")
    seen = Seen()
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch, str(path), identity(str(path)), seen.changed)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()


async def test_a_directory_that_is_missing_is_watched_once_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "LOOK_EVERY", 0.05)
    path = tmp_path / "later" / "mcp_servers.json"
    seen = Seen()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, str(path), identity(str(path)), seen.changed)
        await anyio.wait_all_tasks_blocked()

        def appear() -> None:
            path.parent.mkdir()
            path.write_text("{}")

        await seen.again(appear)
        tasks.cancel_scope.cancel()

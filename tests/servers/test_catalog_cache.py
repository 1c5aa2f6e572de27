"""The catalogs that outlive the daemon: what is offered before a server is there, and the file they are kept in."""

from __future__ import annotations

import json
import os
import resource
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path

import anyio
import pytest

from mcp_multi_server.core.catalog.cache import MAX_BYTES, Remembered, dump, fingerprint, load
from mcp_multi_server.core.catalog.catalog import Catalog, Kind, read_page
from mcp_multi_server.core.config.config import Config
from mcp_multi_server.core.events import DaemonWarning, InternalError
from mcp_multi_server.core.lifecycle import Failure, Lost, Reason
from mcp_multi_server.core.protocol import Era, Negotiated
from mcp_multi_server.files import MissingFile
from mcp_multi_server.servers import catalog_cache as module
from mcp_multi_server.servers.catalog_cache import CatalogCache, read, write
from mcp_multi_server.servers.status import server_status

from ..scripted import Machine, Scripted, item, legacy, modern, silence, tools
from .supervised import TOOL, TWO, Supervised, config_of, entry, two

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("real_time")]  # files are written in a thread

NOBODY = 65534
DAY = 86400.0
UNREACHABLE = Lost(Failure(Reason.UNREACHABLE, "nobody there"))
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


@pytest.fixture(autouse=True)
def no_descriptor_is_left_open() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "catalogs"


@asynccontextmanager
async def remembering(
    path: Path, machine: Machine, config: Config, *, trouble: bool = False
) -> AsyncIterator[tuple[Supervised, CatalogCache]]:
    """A fleet with a memory, read before it starts and written at its end, as the daemon has it."""
    fleet = Supervised(machine, config, prepare=lambda server: catalog_cache.offer_to(server))
    catalog_cache = CatalogCache(str(path), lambda: fleet.snapshot, tell=fleet.log)
    catalog_cache.read()
    fleet.listeners.append(catalog_cache.published)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(catalog_cache.run)
        await tasks.start(fleet.supervisor.run)
        yield fleet, catalog_cache
        await catalog_cache.close()
        tasks.cancel_scope.cancel()
    assert bool(fleet.log.of(InternalError)) is trouble, fleet.log.of(InternalError)


def warnings(fleet: Supervised) -> list[str]:
    return [warning.message for warning in fleet.log.of(DaemonWarning)]


def known(config: Config, name: str, *tool_names: str, age: float = 0.0) -> Remembered:
    """What a daemon before would have written of this server."""
    items = b",".join(json.dumps(item(tool)).encode() for tool in tool_names)
    catalog = Catalog.of({Kind.TOOL: [read_page(Kind.TOOL, b'{"tools":[%b]}' % items)]})
    negotiated = Negotiated(Era.LEGACY, "2025-11-25", {"tools": {"listChanged": True}}, "")
    return Remembered(fingerprint(config.servers[name]), negotiated, catalog, time.time() - age)


def store(path: Path, **servers: Remembered) -> None:
    write(str(path), dump(servers)[0])


def stored(path: Path) -> dict[str, list[str]]:
    """The tools in the file, by server."""
    return {name: [item.name for item in one.catalog.items[Kind.TOOL]] for name, one in load(read(str(path))).items()}


def remembered_two(path: Path, **fields: float) -> Config:
    """A config of two servers, of which the first is remembered."""
    config = config_of({"a": entry("a", **fields), "b": entry("b")})
    store(path, a=known(config, "a", "ta", age=DAY))
    return config


# --- what is offered before a server is there ------------------------------------------------------------------------


async def test_the_first_snapshot_already_lists_what_is_remembered_and_says_that_it_is_stale(path: Path) -> None:
    config = remembered_two(path)
    machine = two()
    machine["a"].openings[0] = None
    async with remembering(path, machine, config) as (fleet, _):
        assert fleet.changes[0].snapshot.generation == 1
        assert [item.name for item in fleet.changes[0].snapshot.index.listed(Kind.TOOL)] == ["ta"]
        assert fleet.listed() == ["ta (connecting)"]
        assert fleet["a"].stale
        row = server_status(fleet.snapshot, "a")
        assert (row["state"], row["stale"], row["tools"]) == ("connecting", True, 1)
        assert time.time() - DAY - 60 < _seconds(row["refreshedAt"]) < time.time() - DAY + 60
        assert server_status(fleet.snapshot, "b")["stale"] is False


def _seconds(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()


@pytest.mark.parametrize(("now", "told"), [(("ta",), []), (("ta", "new"), [TOOL]), ((), [TOOL])])
async def test_the_real_lists_are_a_change_only_where_they_differ(
    path: Path, now: tuple[str, ...], told: list[frozenset[Kind]]
) -> None:
    config = config_of({"a": entry("a")})
    store(path, a=known(config, "a", "ta"))
    async with remembering(path, Machine(a=Scripted(legacy(tools_list=tools(*now)))), config) as (fleet, _):
        await fleet.until(a="ready")
        assert fleet.listed() == list(now)
        assert fleet.told(since=1) == told
        assert server_status(fleet.snapshot, "a")["stale"] is False


async def test_a_server_that_changed_its_era_is_found_out_as_if_nothing_were_remembered(path: Path) -> None:
    config = config_of({"a": entry("a")})
    store(path, a=known(config, "a", "ta"))
    async with remembering(path, Machine(a=Scripted(modern(tools_list=tools("ta")))), config) as (fleet, _):
        await fleet.until(a="ready")
        assert server_status(fleet.snapshot, "a")["protocolVersion"] == "2026-07-28"
        assert fleet["a"].status.failures == 0


async def test_the_grace_begins_with_the_first_failure(path: Path) -> None:
    config = remembered_two(path, grace=0)
    machine = two()
    machine["a"].openings[0] = None
    async with remembering(path, machine, config) as (fleet, _):
        await fleet.until(b="ready")
        assert fleet.withdrawals() == {}
        assert fleet.listed() == ["ta (connecting)", "tb"]


@pytest.mark.usefixtures("long_backoff")
async def test_names_go_once_a_grace_after_the_first_failure_and_stay_in_the_file(path: Path) -> None:
    config = remembered_two(path, grace=0.05)
    machine = two()
    machine["a"].openings[0] = UNREACHABLE
    async with remembering(path, machine, config) as (fleet, _):
        await fleet.until(a="backoff", b="ready")
        await fleet.log.until(lambda: fleet.listed() == ["tb"])
        assert fleet.told(since=1) == [TOOL, TOOL], "b came, a went"
        assert server_status(fleet.snapshot, "a")["tools"] == 0
    assert stored(path) == {"a": ["ta"], "b": ["tb"]}


async def test_what_defined_the_server_must_be_the_same(path: Path) -> None:
    remembered_two(path)
    config = config_of({"a": entry("a", args=["--other"]), "b": entry("b")})
    machine = two()
    machine["a"].openings[0] = None
    async with remembering(path, machine, config) as (fleet, _):
        assert fleet.listed() == []
        assert server_status(fleet.snapshot, "a")["stale"] is False
        await fleet.until(b="ready")
    assert stored(path) == {"b": ["tb"]}


async def test_filters_and_other_settings_may_change_meanwhile(path: Path) -> None:
    plain = config_of({"a": entry("a")})
    store(path, a=known(plain, "a", "ta", "hidden"))
    config = config_of({"a": entry("a", exclude=["hid*"], timeout=7)})
    async with remembering(path, Machine(a=Scripted(None)), config) as (fleet, _):
        assert fleet.listed() == ["ta (connecting)"]


async def test_a_clock_that_was_set_back_makes_no_list_younger_than_now(path: Path) -> None:
    config = config_of({"a": entry("a")})
    store(path, a=known(config, "a", "ta", age=-DAY))
    async with remembering(path, Machine(a=Scripted(None)), config) as (fleet, _):
        assert _seconds(server_status(fleet.snapshot, "a")["refreshedAt"]) <= time.time() + 1


# --- what is written -------------------------------------------------------------------------------------------------


async def test_a_change_is_written_soon_and_without_those_that_are_not_there_yet_being_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEBOUNCE", 0.02)
    config = remembered_two(path)
    machine = two()
    machine["a"].openings[0] = None
    async with remembering(path, machine, config) as (fleet, _):
        await fleet.until(b="ready")
        await _eventually(lambda: stored(path) == {"a": ["ta"], "b": ["tb"]})
        machine["b"].server.answers["tools/list"] = tools("tb", "more")
        machine["b"].server.say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        await _eventually(lambda: stored(path) == {"a": ["ta"], "b": ["tb", "more"]})


async def _eventually(check: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while True:
            try:
                if check():
                    return
            except MissingFile:
                pass
            await anyio.sleep(0.02)


async def test_lists_that_stay_the_same_are_not_written_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEBOUNCE", 0.0)
    config = config_of(TWO)
    machine = two()
    async with remembering(path, machine, config) as (fleet, catalog_cache):
        await fleet.until(a="ready", b="ready")
        await _eventually(lambda: stored(path) == {"a": ["ta"], "b": ["tb"]} and not catalog_cache._changed.is_set())
        inode = path.stat().st_ino
        machine["a"].server.die()
        await fleet.log.until(lambda: len(machine["a"].scripts) == 2)
        await fleet.until(a="ready")
        assert not catalog_cache._changed.is_set()
        assert path.stat().st_ino == inode


async def test_the_last_write_says_when_the_lists_were_last_read(path: Path) -> None:
    config = config_of({"a": entry("a")})
    store(path, a=known(config, "a", "ta", age=DAY))
    async with remembering(path, Machine(a=Scripted(legacy(tools_list=tools("ta")))), config) as (fleet, _):
        await fleet.until(a="ready")
    assert time.time() - load(read(str(path)))["a"].refreshed_at < 60


async def test_a_removed_server_is_forgotten_and_a_disabled_or_broken_one_is_not(path: Path) -> None:
    servers = {name: entry(name) for name in ("kept", "off", "broken", "gone")}
    machine = Machine(**{name: Scripted(legacy(tools_list=tools(f"t-{name}"))) for name in servers})
    async with remembering(path, machine, config_of(servers)) as (fleet, catalog_cache):
        await fleet.until(kept="ready", off="ready", broken="ready", gone="ready")
        del servers["gone"]
        servers |= {"off": {"disabled": True, "command": 5}, "broken": {"command": 5}}
        config = config_of(servers)
        assert list(config.broken) == ["broken"]
        await fleet.apply(config.keeping(fleet.snapshot.config))
        assert catalog_cache._changed.is_set()
    assert set(stored(path)) == {"kept", "off", "broken"}
    async with remembering(path, machine, config) as (fleet, _):
        await fleet.until(kept="ready")
    assert set(stored(path)) == {"kept", "off", "broken"}
    async with remembering(path, machine, config_of({"off": entry("off"), "broken": entry("broken")})) as (fleet, _):
        assert fleet.listed() == ["t-off (connecting)", "t-broken (connecting)"]


async def test_what_a_replacement_took_over_is_not_taken_for_its_own(path: Path) -> None:
    machine = Machine(a=Scripted(legacy(tools_list=tools("ta"))), other=Scripted(None))
    async with remembering(path, machine, config_of({"a": entry("a")})) as (fleet, _):
        await fleet.until(a="ready")
        fleet.supervisor.apply(config_of({"a": entry("other", replace="stop-first")}))
        assert fleet.listed() == ["ta (connecting)"]
    assert stored(path) == {}


async def test_a_replacement_is_remembered_once_it_serves_and_until_then_the_one_that_does(path: Path) -> None:
    machine = Machine(a=Scripted(legacy(tools_list=tools("ta"))), other=Scripted(legacy(tools_list=silence)))
    after = config_of({"a": entry("other")})
    async with remembering(path, machine, config_of({"a": entry("a")})) as (fleet, catalog_cache):
        await fleet.until(a="ready")
        _, (replacement,) = fleet.supervisor.apply(after)
        await fleet.log.until(lambda: machine["other"].scripts)
        request = await machine["other"].server.request("tools/list")
        await catalog_cache.close()
        assert stored(path) == {"a": ["ta"]}
        machine["other"].server.answer(request, result={"tools": [{"name": "tb"}]})
        with anyio.fail_after(10):
            await replacement.decided.wait()
    assert stored(path) == {"a": ["tb"]}
    assert load(read(str(path)))["a"].fingerprint == fingerprint(after.servers["a"])


async def test_a_daemon_that_knows_nothing_leaves_no_file(path: Path) -> None:
    async with remembering(path, Machine(a=Scripted(None)), config_of({"a": entry("a")})):
        pass
    assert not path.parent.exists()


# --- a disk that fails -----------------------------------------------------------------------------------------------


@contextmanager
def no_file_grows_over(size: int) -> Iterator[None]:
    """A disk that is full, for this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_costs_one_warning_however_often_it_is_written_to(path: Path) -> None:
    config = remembered_two(path)
    async with remembering(path, two(), config) as (fleet, catalog_cache):
        await fleet.until(a="ready", b="ready")
        with no_file_grows_over(100):
            for _ in range(3):
                await catalog_cache.close()
        assert len(warnings(fleet)) == 1
        assert f"cannot write {path}: File too large" in warnings(fleet)[0]
        assert os.listdir(path.parent) == [path.name]
        await catalog_cache.close()
        assert stored(path) == {"a": ["ta"], "b": ["tb"]}
        with no_file_grows_over(100):
            await catalog_cache.close()
        assert len(warnings(fleet)) == 2, "what is broken anew is told anew"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(path: Path) -> None:
    write(str(path), b"old")
    with no_file_grows_over(100), pytest.raises(OSError, match="too large"):
        write(str(path), bytes(1000))
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]


def test_a_directory_that_cannot_be_written_is_an_error_of_the_system(path: Path) -> None:
    path.parent.write_text("a file where the directory should be")
    with pytest.raises(OSError, match="exists"):
        write(str(path), b"x")


async def test_a_disk_that_hangs_does_not_keep_the_daemon_from_ending(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, freed, ended = threading.Event(), threading.Event(), threading.Event()

    def hang(path: str, data: bytes) -> None:
        stuck.set()
        freed.wait(30)
        ended.set()

    monkeypatch.setattr(module, "write", hang)
    monkeypatch.setattr(module, "LAST_WRITE_WITHIN", 0.05)
    try:
        with anyio.fail_after(10):
            async with remembering(path, two(), config_of(TWO)) as (fleet, _):
                await fleet.until(a="ready", b="ready")
        assert stuck.is_set()
        assert not ended.is_set()
    finally:
        freed.set()


async def test_a_bug_in_writing_is_contained_and_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(path: str, data: bytes) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(module, "write", bug)
    monkeypatch.setattr(module, "DEBOUNCE", 0.0)
    async with remembering(path, two(), config_of(TWO), trouble=True) as (fleet, _):
        await fleet.log.until(lambda: fleet.log.of(InternalError))
        monkeypatch.undo()
        await fleet.until(a="ready", b="ready")
    assert {error.where for error in fleet.log.of(InternalError)} == {"memory"}
    assert stored(path) == {"a": ["ta"], "b": ["tb"]}


async def test_a_catalog_that_has_no_room_is_named_once(path: Path) -> None:
    config = config_of(TWO)
    store(path, b=known(config, "b", "tb"))
    async with remembering(path, Machine(a=Scripted(None), b=Scripted(None)), config) as (fleet, catalog_cache):
        catalog_cache._known["a"] = known(config, "a", "x" * MAX_BYTES)
        for _ in range(2):
            await catalog_cache.close()
        assert warnings(fleet) == [f"{path} may have 64 MiB and holds no catalog of a"]
    assert stored(path) == {"b": ["tb"]}


# --- the file --------------------------------------------------------------------------------------------------------


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_file_and_directory_are_made_for_their_user_alone(path: Path, mask: int) -> None:
    with umask(mask):
        write(str(path), b"x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert read(str(path)) == b"x"


def test_what_a_killed_daemon_left_half_written_is_replaced(path: Path) -> None:
    write(str(path), b"old")
    path.with_name("catalogs.new").write_bytes(b"half")
    write(str(path), b"new")
    assert os.listdir(path.parent) == ["catalogs"]
    assert path.read_bytes() == b"new"


def test_a_link_in_the_place_of_the_new_file_is_not_followed(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    path.parent.mkdir()
    path.with_name("catalogs.new").symlink_to(target)
    write(str(path), b"x")
    assert target.read_bytes() == b"precious"


def _open_to_all(path: Path) -> None:
    path.chmod(0o602)


def _open_to_group(path: Path) -> None:
    path.chmod(0o620)


def _strange(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)


def _huge(path: Path) -> None:
    os.truncate(path, MAX_BYTES + 1)


def _damaged(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _a_link(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to("other")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_open_to_all, "others can write it"),
        (_open_to_group, "others can write it"),
        pytest.param(_strange, f"it belongs to user {NOBODY}", marks=as_root),
        (_huge, "larger than 64 MiB"),
        (_damaged, "it is damaged"),
        (_a_directory, "it is a directory"),
        (_a_pipe, "no regular file"),
        (_a_link, "symbolic link"),
    ],
)
async def test_a_file_that_cannot_be_used_costs_one_warning(
    path: Path, spoil: Callable[[Path], None], why: str
) -> None:
    config = remembered_two(path)
    spoil(path)
    machine = two()
    machine["a"].openings[0] = None
    async with remembering(path, machine, config) as (fleet, _):
        assert fleet.listed() == []
        await fleet.until(b="ready")
        assert len(warnings(fleet)) == 1
        assert warnings(fleet)[0].startswith(f"{path} is not used: ")
        assert why in warnings(fleet)[0]


def test_a_file_that_is_not_there_is_no_trouble(path: Path) -> None:
    told: list[object] = []
    CatalogCache(str(path), lambda: pytest.fail("not yet"), tell=told.append).read()
    assert told == []

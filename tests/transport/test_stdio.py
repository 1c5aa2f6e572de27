"""Servers as child processes: how they start, what they say, how they end, and that nothing of them stays behind."""

import asyncio
import ctypes
import errno
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

import anyio
import pytest

from mcp_multi_server.core.lifecycle import Failure, Lost, Reason
from mcp_multi_server.core.lines import Oversize
from mcp_multi_server.core.processes import MARK
from mcp_multi_server.processes import child, spawn
from mcp_multi_server.processes.procfs import read_usage
from mcp_multi_server.processes.reaper import Reaper
from mcp_multi_server.transport import Receiver
from mcp_multi_server.transport.link import Flusher
from mcp_multi_server.transport.stderr import CUT, LINE_BYTES
from mcp_multi_server.transport.stdio import StdioSpec, StdioTransport, open_stdio
from tests.polling import until

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
PROGRAM = str(Path(__file__).parents[1] / "fixtures" / "bad_stdio.py")
PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(scope="module", autouse=True)
def subreaper() -> Iterator[None]:
    """As in the daemon, orphans come to us."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.fixture(autouse=True)
async def nothing_stays() -> AsyncIterator[None]:
    """Every test leaves the descriptors and children as it found them."""
    before = descriptors(), children()
    yield
    assert (descriptors(), children()) == before


def descriptors() -> set[str]:
    return {name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}


def children() -> set[str]:
    """Our children, zombies included."""
    found: set[str] = set()
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children") as listed:
            found |= set(listed.read().split())
    return found


def lives(pid: int) -> bool:
    """Whether the process runs; one that waits to be reaped does not."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Recorder:
    """A receiver that keeps what it is told, in order."""

    def __init__(self) -> None:
        self.lines: list[bytes | Oversize] = []
        self.stderr: list[str] = []
        self.losses: list[Failure] = []
        self.after_loss: list[object] = []
        self.on_line: Callable[[bytes | Oversize], None] = lambda _: None
        self._changed = anyio.Event()
        self.receiver = Receiver(line=self._line, stderr=self._stderr, failed=self._failed, lost=self._lost)

    async def until(self, happened: Callable[[], bool], *, seconds: float = 10) -> None:
        with anyio.fail_after(seconds):
            while not happened():
                self._changed = anyio.Event()
                await self._changed.wait()

    async def line(self) -> bytes:
        """The next line."""
        await self.until(lambda: bool(self.lines))
        line = self.lines.pop(0)
        assert isinstance(line, bytes)
        return line

    async def ready(self) -> None:
        await self.until(lambda: "ready" in self.stderr)

    async def loss(self) -> Failure:
        await self.until(lambda: bool(self.losses))
        return self.losses[0]

    def _note(self, what: object) -> None:
        if self.losses:
            self.after_loss.append(what)
        self._changed.set()

    def _line(self, line: bytes | Oversize) -> None:
        self._note(line)
        self.lines.append(line)
        self.on_line(line)

    def _stderr(self, line: str) -> None:
        self._note(line)
        self.stderr.append(line)

    def _failed(self, id: int, failure: Failure) -> None:
        raise AssertionError("a byte stream knows of no requests")

    def _lost(self, failure: Failure) -> None:
        self._note(failure)
        self.losses.append(failure)


def opened(
    recorder: Recorder,
    *mode: str,
    spec: StdioSpec | None = None,
    stop_timeout: float = 2.0,
    line_cap: int = MIB,
    out_cap: int = MIB,
    environ: Mapping[str, str] = os.environ,
) -> AbstractAsyncContextManager[StdioTransport]:
    """The transport to `bad_stdio.py` in a mode, or to what `spec` says."""
    spec = spec or StdioSpec(sys.executable, ("-IS", PROGRAM, *mode), stop_timeout=stop_timeout)
    flusher = Flusher()
    return open_stdio(
        spec,
        recorder.receiver,
        flusher=flusher,
        line_cap=line_cap,
        out_cap=out_cap,
        environ=environ,
        reaper=Reaper(),
    )


async def ending(*mode: str, **options: int) -> tuple[Recorder, Failure]:
    """What a child in this mode brought until it was lost."""
    recorder = Recorder()
    async with opened(recorder, *mode, line_cap=options.get("line_cap", MIB)) as transport:
        transport.send([b"go\n"])
        failure = await recorder.loss()
        await anyio.wait_all_tasks_blocked()
    assert recorder.losses == [failure]
    assert recorder.after_loss == []
    return recorder, failure


async def leaving(*mode: str, stop_timeout: float) -> tuple[Recorder, float]:
    """What a child in this mode brought, and how long it took to stop once it was ready."""
    recorder = Recorder()
    async with opened(recorder, *mode, stop_timeout=stop_timeout) as transport:
        await recorder.ready()
        pid = transport.pid
        began = time.monotonic()
    assert pid is not None
    assert not lives(pid)
    assert recorder.losses == []
    return recorder, time.monotonic() - began


# --- what passes ---


async def test_what_is_sent_is_read_by_the_child_and_what_it_writes_comes_line_by_line() -> None:
    recorder = Recorder()
    async with opened(recorder, "echo") as transport:
        assert transport.kind == "stdio"
        assert transport.pid is not None
        transport.send([b'{"a":1}', b"\n"])
        transport.send([b'{"b":2}\n'])
        assert [await recorder.line(), await recorder.line()] == [b'{"a":1}', b'{"b":2}']
    assert recorder.losses == []


async def test_junk_is_passed_on_as_lines_and_blank_ones_are_left_out() -> None:
    recorder = Recorder()
    async with opened(recorder, "junk") as transport:
        transport.send([b"end\n"])
        found = [await recorder.line() for _ in range(5)]
    assert found == [b"Welcome!", b"[]", b"\xff\xfe", b'{"jsonrpc":"2.0"}\r', b"end"]


async def test_a_line_over_the_cap_leaves_its_ends_and_the_next_line_whole() -> None:
    recorder = Recorder()
    async with opened(recorder, "big_line", str(20 * MIB), line_cap=16 * MIB):
        await recorder.until(lambda: len(recorder.lines) == 2)
    over, following = recorder.lines
    assert isinstance(over, Oversize)
    assert over.size > 20 * MIB
    assert over.head.startswith(b'{"jsonrpc":"2.0","id":7,')
    assert over.tail.endswith(b'x"}')
    assert following == b'"next"'


async def test_the_time_of_a_long_line_grows_with_its_length_not_with_its_square() -> None:
    """The SDK's client took 24 ms for 1 MB and 28 s for 64 MB."""

    async def seconds(size: int) -> float:
        recorder = Recorder()
        async with opened(recorder, "big_line", str(size), line_cap=64 * MIB):
            began = time.process_time()
            await recorder.until(lambda: len(recorder.lines) == 2, seconds=30)
            spent = time.process_time() - began
        assert isinstance(recorder.lines[0], bytes)
        assert len(recorder.lines[0]) > size
        return spent

    short = min([await seconds(8 * MIB) for _ in range(3)])
    long = min([await seconds(32 * MIB) for _ in range(3)])
    assert long < 8 * short


async def test_a_line_without_an_end_is_a_protocol_violation() -> None:
    recorder, failure = await ending("endless", line_cap=MIB)
    assert failure.reason is Reason.PROTOCOL
    assert "without an end of line" in failure.message
    assert recorder.lines == []


async def test_a_child_that_does_not_read_is_cut_off_at_the_cap() -> None:
    recorder = Recorder()
    async with opened(recorder, "never_read", stop_timeout=0.2) as transport:
        await recorder.ready()
        for _ in range(64):
            transport.send([b"x" * 32 * 1024, b"\n"])
        assert recorder.losses == []
        failure = await recorder.loss()
        transport.send([b"dropped\n"])
    assert failure.reason is Reason.PROTOCOL
    assert failure.message.startswith("does not read its stdin: ")
    assert recorder.losses == [failure]


# --- stderr ---


async def test_stderr_comes_as_clean_lines() -> None:
    recorder = Recorder()
    async with opened(recorder, "odd_stderr"):
        await recorder.until(lambda: "after" in recorder.stderr)
    long = recorder.stderr.pop(-2)
    assert recorder.stderr == ["red", "10%", "20%", "done", "��", "a\\x00b\\x07c\td", "\\u202eevil", "after"]
    assert long == "l" * LINE_BYTES + CUT


async def test_a_flood_of_stderr_delays_neither_answers_nor_the_loop() -> None:
    recorder = Recorder()
    longest = 0.0
    async with opened(recorder, "flood_stderr") as transport:
        await recorder.until(lambda: len(recorder.stderr) > 1000)
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            began = time.thread_time()
            await anyio.sleep(0)
            longest = max(longest, time.thread_time() - began)
        transport.send([b"ping\n"])
        assert await recorder.line() == b"ping"
        before = time.process_time()
        await anyio.sleep(0.5)
        busy = time.process_time() - before
    assert longest < 0.03
    assert busy < 0.25


async def test_the_last_words_of_a_child_come_before_its_end() -> None:
    recorder, failure = await ending("exit_with", "3")
    assert recorder.stderr == ["about to exit", "last words without a line end"]
    assert failure == Failure(Reason.EXIT, "exited with code 3")


# --- how a child ends by itself ---


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (("exit_with", "0"), Failure(Reason.EXIT, "exited with code 0")),
        (("exit_with", "127"), Failure(Reason.EXIT, "exited with code 127", permanent=True)),
        (("die_by", "9"), Failure(Reason.SIGNAL, "killed by signal 9 (SIGKILL)")),
        (("die_by", "11"), Failure(Reason.SIGNAL, "killed by signal 11 (SIGSEGV)")),
        (("die_by", "40"), Failure(Reason.SIGNAL, "killed by signal 40")),
        (("close_stdout",), Failure(Reason.CLOSED, "closed its stdout")),
        (("close_stdout_then_exit",), Failure(Reason.EXIT, "exited with code 3")),
        (("close_stdin",), Failure(Reason.CLOSED, "closed its stdin")),
    ],
    ids=str,
)
async def test_an_end_is_told_once_with_its_cause(mode: tuple[str, ...], expected: Failure) -> None:
    recorder = Recorder()
    async with opened(recorder, *mode, stop_timeout=0.2) as transport:
        if mode[0] == "close_stdin":
            await recorder.line()
            transport.send([b"into the void\n"])
        assert await recorder.loss() == expected
        await anyio.wait_all_tasks_blocked()
    assert recorder.losses == [expected]


async def test_all_that_was_written_before_the_exit_comes_before_its_news() -> None:
    recorder, failure = await ending("exit_after_line", "3")
    assert recorder.lines == [b'"first"'] * 50_000 + [b'"last"']
    assert failure.message == "exited with code 3"


async def test_a_partial_last_line_is_no_message() -> None:
    recorder, failure = await ending("partial")
    assert recorder.lines == [b'"whole"']
    assert failure.message == "exited with code 0"


async def test_what_a_child_answers_after_it_closed_its_stdin_still_comes() -> None:
    recorder = Recorder()
    async with opened(recorder, "close_stdin_then_answer") as transport:
        assert await recorder.line() == b'"deaf"'
        transport.send([b"into the void\n"])
        failure = await recorder.loss()
    assert recorder.lines == [b'"answer"']
    assert failure.message == "exited with code 0"


async def test_an_exit_is_seen_though_a_grandchild_holds_the_pipes_open() -> None:
    recorder = Recorder()
    async with opened(recorder, "grandchild_holds_stdout"):
        failure = await recorder.loss()
        grandchild = int(await recorder.line())
        assert recorder.stderr == ["last words without a line end"]
        assert lives(grandchild)
    assert failure == Failure(Reason.SIGNAL, "killed by signal 9 (SIGKILL)")
    assert not lives(grandchild)


async def test_an_exit_is_seen_though_a_grandchild_never_stops_writing() -> None:
    recorder = Recorder()
    async with opened(recorder, "grandchild_floods") as transport:
        await recorder.line()
        transport.send([b"die\n"])
        failure = await recorder.loss()
    assert failure == Failure(Reason.SIGNAL, "killed by signal 9 (SIGKILL)")
    assert recorder.after_loss == []


async def test_a_receiver_that_raises_does_not_hide_the_exit() -> None:
    recorder = Recorder()
    loop = asyncio.get_running_loop()
    errors: list[object] = []
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: errors.append(context.get("exception")))
    bug = RuntimeError("a bug in a receiver")

    def raise_it(_: bytes | Oversize) -> None:
        raise bug

    recorder.on_line = raise_it
    try:
        async with opened(recorder, "exit_after_line", "3") as transport:
            transport.send([b"go\n"])
            assert (await recorder.loss()).message == "exited with code 3"
    finally:
        loop.set_exception_handler(handler)
    assert set(errors) == {bug}


# --- how it is ended ---


async def test_a_polite_child_ends_at_the_end_of_stdin_without_a_signal() -> None:
    recorder = Recorder()
    async with opened(recorder, "last_will", stop_timeout=20):
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert recorder.stderr[-1] == "goodbye"
    assert recorder.lines == []
    assert recorder.losses == []


@pytest.mark.parametrize(
    ("mode", "stop_timeout", "at_least", "at_most"),
    [
        ("ignore_eof", 2.0, 1.0, 2.0),
        ("stop_self", 2.0, 1.0, 2.0),
        ("ignore_sigterm", 1.0, 1.0, 2.5),
        ("ignore_sigterm", 0.0, 0.0, 1.5),
    ],
)
async def test_a_stubborn_child_is_ended_step_by_step(
    mode: str, stop_timeout: float, at_least: float, at_most: float
) -> None:
    _, seconds = await leaving(mode, stop_timeout=stop_timeout)
    assert at_least <= seconds < at_most


async def test_what_a_polite_child_leaves_in_its_group_is_told_to_go() -> None:
    recorder = Recorder()
    async with opened(recorder, "grandchild_stays"):
        grandchild = int(await recorder.line())
        assert lives(grandchild)
    assert not lives(grandchild)
    assert recorder.stderr == ["told to go"]


async def test_what_a_polite_child_leaves_in_its_group_is_killed_if_it_does_not_go() -> None:
    recorder = Recorder()
    async with opened(recorder, "grandchild_ignores_sigterm", stop_timeout=20):
        grandchild = int(await recorder.line())
        assert lives(grandchild)
        began = time.monotonic()
    assert not lives(grandchild)
    assert 0.5 <= time.monotonic() - began < 10


@pytest.mark.parametrize("mode", ["grandchild_detached", "grandchild_orphaned", "grandchild_without_environment"])
async def test_a_process_that_left_the_group_is_told_to_go_as_well(mode: str) -> None:
    recorder = Recorder()
    async with opened(recorder, mode, stop_timeout=20):
        detached = int(await recorder.line())
        assert lives(detached)
        began = time.monotonic()
    assert not lives(detached)
    assert time.monotonic() - began < 10


async def test_a_process_that_left_the_group_and_ignores_sigterm_is_killed() -> None:
    recorder = Recorder()
    async with opened(recorder, "grandchild_orphaned", "stubborn", stop_timeout=20):
        detached = int(await recorder.line())
        began = time.monotonic()
    assert not lives(detached)
    assert 0.5 <= time.monotonic() - began < 10


async def test_what_a_crashed_child_left_outside_of_its_group_is_ended() -> None:
    recorder = Recorder()
    async with opened(recorder, "grandchild_outlives", stop_timeout=20):
        failure = await recorder.loss()
        detached = int(await recorder.line())
        assert lives(detached)
    assert failure == Failure(Reason.SIGNAL, "killed by signal 9 (SIGKILL)")
    assert not lives(detached)


async def test_children_of_the_program_itself_are_left_alone_and_unreaped() -> None:
    """A library stops its servers beside whatever else its program runs."""
    nothing = subprocess.DEVNULL
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=nothing) as own:
        ended = subprocess.Popen(["sh", "-c", "exit 7"])
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        recorder = Recorder()
        async with opened(recorder, "grandchild_orphaned"):
            await recorder.line()
        assert own.poll() is None
    assert ended.wait() == 7
    assert own.returncode == 0


async def test_a_cancelled_owner_still_ends_its_child_gently() -> None:
    recorder = Recorder()
    with anyio.CancelScope() as scope:
        async with opened(recorder, "last_will", stop_timeout=20) as transport:
            transport.send([b"started\n"])
            await recorder.line()
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert recorder.stderr[-1] == "goodbye"


async def test_an_owner_whose_stop_is_cut_short_leaves_nothing_either() -> None:
    """asyncio's own cancel passes through anyio's shield."""
    recorder = Recorder()
    pids: list[int | None] = []

    async def own() -> None:
        async with opened(recorder, "ignore_sigterm", stop_timeout=60) as transport:
            pids.append(transport.pid)
            await anyio.sleep_forever()

    task = asyncio.create_task(own())
    await recorder.ready()
    for _ in range(2):
        task.cancel()
        await anyio.wait_all_tasks_blocked()
    with anyio.fail_after(5), suppress(asyncio.CancelledError):
        await task
    assert pids[0] is not None
    assert not lives(pids[0])


async def test_a_stop_cut_short_after_the_leader_s_end_still_ends_its_group() -> None:
    recorder = Recorder()
    leaders: list[int | None] = []
    leave = anyio.Event()

    async def own() -> None:
        async with opened(recorder, "grandchild_ignores_sigterm") as transport:
            leaders.append(transport.pid)
            await leave.wait()

    task = asyncio.create_task(own())
    grandchild = int(await recorder.line())
    leave.set()
    with anyio.fail_after(10):
        while os.path.exists(f"/proc/{leaders[0]}"):
            await anyio.sleep(0)
    assert lives(grandchild)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert os.waitpid(grandchild, 0) == (grandchild, signal.SIGKILL)


async def test_an_exit_whose_code_another_took_is_told_all_the_same() -> None:
    """A launcher may have left SIGCHLD ignored: the kernel then reaps for us."""
    old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        _, failure = await ending("exit_with", "3")
    finally:
        signal.signal(signal.SIGCHLD, old)
    assert failure == Failure(Reason.EXIT, "exited, with a code that another process took")


async def test_an_exception_of_the_owner_passes_through() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with opened(Recorder(), "echo"):
            raise KeyError("mine")


async def test_fifty_cycles_leak_nothing() -> None:
    before = descriptors()
    for number in range(50):
        recorder = Recorder()
        async with opened(recorder, spec=StdioSpec("cat")) as transport:
            transport.send([b"%d\n" % number])
            assert await recorder.line() == b"%d" % number
        assert (descriptors(), children()) == (before, set())


async def test_a_child_dies_with_the_daemon() -> None:
    """A killed daemon cannot stop anyone: the kernel does."""
    owner = f"""
import asyncio, sys
from mcp_multi_server.processes.spawn import spawn
async def main():
    child = spawn(sys.executable, ["-IS", {PROGRAM!r}, "ignore_sigterm"], cwd=None, env={{}})
    print(child.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        pid = int(daemon.stdout.readline())
        child = os.pidfd_open(pid)
        daemon.kill()
        try:
            assert select.select([child], [], [], 10)[0] == [child]
        finally:
            signal.pidfd_send_signal(child, signal.SIGKILL)
            os.close(child)
    os.waitpid(pid, 0)


# --- how it starts ---


async def test_a_child_leads_its_own_session_and_gets_nothing_of_ours_but_three_pipes() -> None:
    inherited, other = os.pipe()
    os.set_inheritable(inherited, True)
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    old_handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    recorder = Recorder()
    try:
        async with opened(recorder, "state") as transport:
            state = json.loads(await recorder.line())
            assert (state["pid"], state["group"], state["session"]) == (transport.pid,) * 3
    finally:
        signal.signal(signal.SIGHUP, old_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
        os.close(inherited)
        os.close(other)
    assert state["fds"] == [0, 1, 2]
    assert int(state["blocked"], 16) == 0
    python_itself = {signal.SIGPIPE, signal.SIGXFSZ}
    ours_to_set = sum(1 << (number - 1) for number in signal.valid_signals())
    assert int(state["ignored"], 16) & ours_to_set == sum(1 << (number - 1) for number in python_itself)


async def test_the_environment_is_the_allow_list_what_is_asked_for_and_the_entry_s_own() -> None:
    daemon = {"HOME": "/h", "PATH": os.environ["PATH"], "TOKEN": "t", "SECRET": "s", "NOTIFY_SOCKET": "/run/x"}
    spec = StdioSpec(sys.executable, ("-IS", PROGRAM, "environment"), env={"MINE": "é"}, inherit_env=("TOK*",))
    recorder = Recorder()
    async with opened(recorder, spec=spec, environ=daemon):
        found = json.loads(await recorder.line())
    found.pop("LC_CTYPE", None)  # set by Python itself in the C locale
    assert found.pop(MARK).endswith(".1")
    assert found == {"HOME": "/h", "PATH": os.environ["PATH"], "TOKEN": "t", "MINE": "é"}


async def test_a_command_is_looked_up_on_the_path_of_the_child(tmp_path: Path) -> None:
    make_script(tmp_path / "bin" / "my-server", "#!/bin/sh\necho found $1; cat")
    recorder = Recorder()
    spec = StdioSpec("my-server", ("me",), env={"PATH": f"/nowhere:{tmp_path}/bin:/usr/bin:/bin"})
    async with opened(recorder, spec=spec):
        assert await recorder.line() == b"found me"


@pytest.mark.parametrize("command", ["./bin/my-server", "bin/my-server"])
async def test_a_command_with_a_slash_is_relative_to_the_entry_s_cwd(tmp_path: Path, command: str) -> None:
    make_script(tmp_path / "bin" / "my-server", "#!/bin/sh\npwd; cat")
    recorder = Recorder()
    async with opened(recorder, spec=StdioSpec(command, cwd=str(tmp_path))):
        assert await recorder.line() == str(tmp_path).encode()


async def test_a_relative_cwd_is_the_daemon_s_and_the_command_is_found_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_script(tmp_path / "bin" / "my-server", "#!/bin/sh\npwd; cat")
    monkeypatch.chdir(tmp_path)
    recorder = Recorder()
    async with opened(recorder, spec=StdioSpec("./my-server", cwd="bin")):
        assert await recorder.line() == f"{tmp_path}/bin".encode()


WHOLE_LINE = ": it looks like a whole command line, whose arguments belong into args"


def make_script(path: Path, text: str, mode: int = 0o755) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (StdioSpec("no-such-server"), "command 'no-such-server' not found on PATH"),
        (StdioSpec("npx -y x"), f"command 'npx -y x' not found on PATH{WHOLE_LINE}"),
        (StdioSpec("/bin/sh -c x"), f"command '/bin/sh -c x' not found{WHOLE_LINE}"),
        (StdioSpec("./no-such-server"), "command './no-such-server' not found"),
        (StdioSpec("/etc"), "command '/etc' is a directory"),
        (StdioSpec("./plain"), "command './plain' is not executable"),
        (StdioSpec("plain", env={"PATH": "."}), "command 'plain' is not executable"),
        (StdioSpec("./no-interpreter"), "command './no-interpreter' names an interpreter that does not exist"),
        (StdioSpec("./no-program"), "command './no-program' is no program: a script needs a #! line"),
        (StdioSpec("./plain/x"), "command './plain/x' not found"),
        (StdioSpec(""), "command is empty or holds a NUL"),
        (StdioSpec("c\0at"), "command is empty or holds a NUL"),
        (StdioSpec("cat", ("a\0b",)), "command, args or env holds what no program can be given: a NUL, or = in a name"),
        (
            StdioSpec("cat", env={"A=B": "c"}),
            "command, args or env holds what no program can be given: a NUL, or = in a name",
        ),
        (
            StdioSpec("cat", ("\ud800",)),
            "command, args or env holds what no program can be given: a NUL, or = in a name",
        ),
        (StdioSpec("cat", cwd="/no/such/place"), "cwd '/no/such/place' does not exist"),
        (StdioSpec("cat", cwd="/etc/passwd"), "cwd '/etc/passwd' is not a directory"),
        (StdioSpec("cat", cwd="a\0b"), "cwd 'a\\x00b' does not exist"),
        (StdioSpec("cat", ("x" * 3 * MIB,)), "command 'cat' cannot be executed: Argument list too long"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_cannot_be_started_is_named_and_not_tried_again_soon(
    spec: StdioSpec, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_script(tmp_path / "plain", "text", 0o644)
    make_script(tmp_path / "no-interpreter", "#!/no/such/interpreter\n")
    make_script(tmp_path / "no-program", "\x7fELF is not what this is")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Lost) as caught:
        async with opened(Recorder(), spec=spec):
            pass
    assert caught.value.failure == Failure(Reason.SPAWN, message, permanent=True)


async def test_a_relative_cwd_is_missed_where_the_daemon_s_own_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(Lost, match="cwd 'here' does not exist"):
        async with opened(Recorder(), spec=StdioSpec("cat", cwd="here")):
            pass


async def test_a_child_that_cannot_be_prepared_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawn, "_preparation", lambda: lambda: 1 / 0)
    with pytest.raises(Lost, match="command 'cat' could not be set up") as caught:
        async with opened(Recorder(), spec=StdioSpec("cat")):
            pass
    assert not caught.value.failure.permanent


async def test_a_shortage_of_descriptors_is_transient_at_whatever_step_it_shows() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    failures: list[Failure] = []
    before = descriptors()
    try:
        for limit in range(3, soft):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            try:
                async with opened(Recorder(), spec=StdioSpec("/bin/cat")):
                    break
            except Lost as lost:
                failures.append(lost.failure)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(failures) > 5
    assert set(failures) == {Failure(Reason.SPAWN, "command '/bin/cat' could not be started: Too many open files")}
    assert descriptors() == before


async def test_a_shortage_of_processes_is_transient() -> None:
    """A user may run only so many; root may always run more, so that this is tried as nobody."""
    script = """
import asyncio, ctypes, os, resource  # all that nobody may not be able to read afterwards
from mcp_multi_server.core.lifecycle import Lost
from mcp_multi_server.processes.spawn import spawn
async def main():
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    before = os.listdir("/proc/self/fd")
    try:
        spawn("/bin/cat", [], cwd="/", env={})
    except Lost as lost:
        print(lost.failure.permanent, lost.failure.message, os.listdir("/proc/self/fd") == before)
asyncio.run(main())
"""
    done = await anyio.run_process([sys.executable, "-c", script], cwd="/")
    assert done.stdout == b"False command '/bin/cat' could not be started: Resource temporarily unavailable True\n"


async def test_a_child_that_cannot_be_watched_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> int:
        raise OSError(errno.ENFILE, "table full")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(Lost) as caught:
        async with opened(Recorder(), "ignore_sigterm"):
            pass
    assert not caught.value.failure.permanent


# --- what it uses ---


async def test_the_usage_of_a_server_includes_what_works_below_it() -> None:
    recorder = Recorder()
    async with opened(recorder, "burn_below") as transport:
        assert transport.pid is not None
        await recorder.line()
        pid = transport.pid
        await until(lambda: (found := read_usage(pid)) and found.cpu_seconds >= 0.1)
        usage = read_usage(pid)
        assert usage is not None
        assert usage.runnable
        assert usage.resident_bytes > MIB
    assert read_usage(pid) is None


async def test_a_server_that_waits_is_not_runnable() -> None:
    recorder = Recorder()
    async with opened(recorder, "never_read", stop_timeout=0.1) as transport:
        await recorder.ready()
        assert transport.pid is not None
        pid = transport.pid
        await until(lambda: (found := read_usage(pid)) and not found.runnable)


async def test_signals_reach_the_group_on_kernels_without_group_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux before 6.9 refuses the flag."""
    monkeypatch.setattr(child, "PIDFD_SIGNAL_PROCESS_GROUP", 1 << 30)
    recorder = Recorder()
    async with opened(recorder, "grandchild_ignores_sigterm"):
        grandchild = int(await recorder.line())
    assert not lives(grandchild)

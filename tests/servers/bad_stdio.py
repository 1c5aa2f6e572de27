"""A child process that misbehaves on request: `bad_stdio.py MODE [ARGUMENT]`. Runs with the standard library alone."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable

SLEEPER = [sys.executable, "-ISc", "import signal; signal.pause()"]


def say(text: bytes) -> None:
    while text:
        text = text[os.write(1, text) :]


def complain(text: bytes) -> None:
    while text:
        text = text[os.write(2, text) :]


def echo() -> None:
    """Send every line back; ends at the end of stdin."""
    while data := os.read(0, 65536):
        say(data)


def wait_forever() -> None:
    while True:
        signal.pause()


def exit_with(code: str) -> None:
    complain(b"about to exit\nlast words without a line end")
    os._exit(int(code))


def exit_after_line(code: str) -> None:
    """Answer one line with more than one read takes, and exit before anyone can have read it."""
    fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 1024 * 1024)
    os.read(0, 65536)
    say(b'"first"\n' * 50_000 + b'"last"\n')
    os._exit(int(code))


def die_by(number: str) -> None:
    os.kill(os.getpid(), int(number))


def partial() -> None:
    say(b'"whole"\n{"jsonrpc":"2.0","id":1,"result":{"par')


def close_stdout() -> None:
    os.close(1)
    wait_forever()


def close_stdout_then_exit() -> None:
    os.close(1)
    os._exit(3)


def close_stdin() -> None:
    """Stop reading for good, but answer on."""
    os.close(0)
    say(b'"deaf"\n')
    wait_forever()


def close_stdin_then_answer() -> None:
    """Close stdin, and a moment later say something and exit."""
    os.close(0)
    say(b'"deaf"\n')
    signal.sigtimedwait([], 0.05)
    say(b'"answer"\n')
    os._exit(0)


def grandchild_holds_stdout() -> None:
    """Die of SIGKILL while a process of the same group keeps the pipes open."""
    say(b"%d\n" % subprocess.Popen(SLEEPER).pid)
    complain(b"last words without a line end")
    os.kill(os.getpid(), signal.SIGKILL)


def grandchild_floods() -> None:
    """Die while a process of the same group writes to stdout as fast as it can."""
    subprocess.Popen([sys.executable, "-IS", __file__, "flood_stdout"])
    os.read(0, 65536)
    os.kill(os.getpid(), signal.SIGKILL)


def flood_stdout() -> None:
    while True:
        say(b'"flood"\n' * 1000)


def grandchild_stays() -> None:
    """Leave politely at the end of stdin; a process of the same group stays, and says so when it is told to go."""
    subprocess.Popen([sys.executable, "-IS", __file__, "obey"], stdin=subprocess.DEVNULL)
    echo()


def obey() -> None:
    def go(*_: object) -> None:
        complain(b"told to go\n")
        os._exit(0)

    signal.signal(signal.SIGTERM, go)
    say(b"%d\n" % os.getpid())
    wait_forever()


def grandchild_ignores_sigterm() -> None:
    """Leave politely; what stays, with pipes of its own, takes SIGKILL."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    started = start_aside()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    say(b"%d\n" % started.pid)
    echo()


def grandchild_detached() -> None:
    """Leave politely; a process in a session of its own stays."""
    say(b"%d\n" % start_aside(new_session=True).pid)
    echo()


def grandchild_orphaned(how: str = "") -> None:
    """Leave politely; a process of a session of its own stays, whose parent is gone already."""
    say(b"%d\n" % start_orphan(how))
    echo()


def grandchild_without_environment() -> None:
    """Leave politely; a process in a session of its own stays, in which nothing tells where it comes from."""
    nothing = subprocess.DEVNULL
    alien = subprocess.Popen(SLEEPER, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True, env={})
    say(b"%d\n" % alien.pid)
    echo()


def grandchild_outlives() -> None:
    """Die of SIGKILL; a process in a session of its own stays, whose parent is gone already."""
    say(b"%d\n" % start_orphan(""))
    os.kill(os.getpid(), signal.SIGKILL)


def start_orphan(how: str) -> int:
    """The daemons' way: fork, setsid, fork; only the last one stays. It holds on to what it is given."""
    reader, writer = os.pipe()
    if middle := os.fork():
        os.close(writer)
        os.waitpid(middle, 0)
        return int(os.read(reader, 32))
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if how == "stubborn" else signal.SIG_DFL)
    os.write(writer, b"%d" % os.getpid())
    wait_forever()
    return 0


def start_aside(new_session: bool = False) -> "subprocess.Popen[bytes]":
    nothing = subprocess.DEVNULL
    return subprocess.Popen(SLEEPER, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=new_session)


def ignore_eof() -> None:
    complain(b"ready\n")
    wait_forever()


def ignore_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ignore_eof()


def last_will() -> None:
    """At the end of stdin write more than a pipe holds, to both, then exit; blocks unless both are read."""
    echo()
    say(b'"late"\n' * 20_000)
    complain(b"late\n" * 20_000 + b"goodbye\n")


def stop_self() -> None:
    complain(b"ready\n")
    os.kill(os.getpid(), signal.SIGSTOP)
    wait_forever()


def never_read() -> None:
    complain(b"ready\n")
    wait_forever()


def junk() -> None:
    say(b"Welcome!\n\n   \n[]\n\xff\xfe\n" + b'{"jsonrpc":"2.0"}\r\n')
    echo()


def big_line(size: str) -> None:
    """One line of so many bytes, then echo."""
    say(b'{"jsonrpc":"2.0","id":7,"result":"' + b"x" * int(size) + b'"}\n"next"\n')
    echo()


def endless() -> None:
    while True:
        say(b"x" * 65536)


def flood_stderr() -> None:
    """Echo while another process of the group writes tiny lines to stderr as fast as it can."""
    subprocess.Popen([sys.executable, "-IS", __file__, "only_flood_stderr"], stdin=subprocess.DEVNULL)
    echo()


def only_flood_stderr() -> None:
    while True:
        complain(b"y\n" * 32_000)


def odd_stderr() -> None:
    """Everything that a log should not hold as it is."""
    complain(b"\x1b[31mred\x1b[0m\n\n10%\r20%\rdone\r\n\xff\xfe\na\x00b\x07c\td\n" + "\u202eevil\n".encode())
    complain(b"l" * 100_000 + b"\nafter\n")
    echo()


def environment() -> None:
    say(json.dumps(dict(os.environ)).encode() + b"\n")
    echo()


def state() -> None:
    """What the child got from its parent besides arguments."""
    with open("/proc/self/status", encoding="ascii") as status:
        fields = dict(line.split(":\t") for line in status.read().splitlines() if line.startswith("Sig"))
    descriptors = [int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")]
    ids = {"pid": os.getpid(), "group": os.getpgrp(), "session": os.getsid(0), "cwd": os.getcwd(), "argv": sys.argv}
    say(
        json.dumps({"blocked": fields["SigBlk"], "ignored": fields["SigIgn"], "fds": descriptors, **ids}).encode()
        + b"\n"
    )
    echo()


def burn() -> None:
    while True:
        pass


def burn_below() -> None:
    """Wait, as `npx` does, for a child that works."""
    subprocess.Popen([sys.executable, "-IS", __file__, "burn"], stdin=subprocess.DEVNULL)
    say(b'"started"\n')
    wait_forever()


if __name__ == "__main__":
    mode: Callable[..., None] = globals()[sys.argv[1]]
    mode(*sys.argv[2:])

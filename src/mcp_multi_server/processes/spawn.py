"""Starts a child process: finds the program, makes the pipes, and says why if it could not be started."""

from __future__ import annotations

import errno
import functools
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from ..core.lifecycle import Failure, Lost, Reason
from ..core.processes import MARK
from .child import Child

TRANSIENT = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETXTBSY})
"""Errors that may be over the next time; any other one would come again."""
PR_SET_PDEATHSIG = 1


def spawn(command: str, args: Sequence[str], *, cwd: str | None, env: Mapping[str, str]) -> Child:
    """Start a program in a session and group of its own, with three pipes.

    The kernel kills it when the *thread* that calls this ends (PR_SET_PDEATHSIG), so call it on the thread of the event
    loop: the main one in the daemon, the client's in the library. A worker thread would end too early.

    Raises:
        Lost: the reason is `spawn`. It is permanent unless the machine was short of memory, processes or files.

    """
    directory = _find_directory(cwd)
    # By the PATH of the child, which its entry can set; not by that of the daemon.
    program = find_program(command, cwd=directory, path=env.get("PATH", os.defpath))
    try:
        return _start([command, *args], program, cwd=directory, env=env)
    except OSError as failure:
        raise _refused(command, failure) from None
    except ValueError:
        raise _lost("command, args or env holds what no program can be given: a NUL, or = in a name") from None
    except subprocess.SubprocessError:  # something failed between fork and exec; Python does not say what
        raise _lost(f"command {command!r} could not be set up", permanent=False) from None


def find_program(command: str, *, cwd: str, path: str) -> str:
    """The file that `command` means: with a slash, relative to `cwd`; else the first executable one on `path`.

    Raises:
        Lost: there is none, or it is not executable.

    """
    if "\0" in command or not command:
        raise _lost("command is empty or holds a NUL")
    directories = [""] if "/" in command else path.split(os.pathsep)
    candidates = [os.path.join(cwd, directory, command) for directory in directories]
    for candidate in candidates:
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    if any(map(os.path.isfile, candidates)):
        raise _lost(f"command {command!r} is not executable")
    if "/" not in command:
        raise _lost(f"command {command!r} not found on PATH{_hint(command)}")
    if os.path.isdir(candidates[0]):
        raise _lost(f"command {command!r} is a directory")
    raise _lost(f"command {command!r} not found{_hint(command)}")


def _hint(command: str) -> str:
    """What to say of a whole command line: no shell splits it, and a file may have such a name."""
    return ": it looks like a whole command line, whose arguments belong into args" if len(command.split()) > 1 else ""


def _find_directory(cwd: str | None) -> str:
    """`cwd` as an absolute path; "" if the child runs in the daemon's own. Raises Lost if it cannot be entered."""
    if not cwd:
        return ""
    try:
        directory = os.path.abspath(cwd)
    except OSError:  # it is relative, and the daemon's own is gone
        raise _lost(f"cwd {cwd!r} does not exist") from None
    if not os.path.exists(directory):
        raise _lost(f"cwd {cwd!r} does not exist")
    if not os.path.isdir(directory):
        raise _lost(f"cwd {cwd!r} is not a directory")
    if not os.access(directory, os.X_OK):
        raise _lost(f"cwd {cwd!r} may not be entered")
    return directory


def _start(argv: list[str], program: str, *, cwd: str, env: Mapping[str, str]) -> Child:
    with ExitStack() as undo:
        stdin, to_child = _pipe(undo)
        from_child, stdout = _pipe(undo)
        errors_from_child, stderr = _pipe(undo)
        popen = subprocess.Popen(
            argv,
            executable=program,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd or None,
            env=env,
            start_new_session=True,
            preexec_fn=_preparation(),
        )
        # Undone in reverse order: first killed, then reaped, then the pipes are closed.
        undo.callback(popen.wait)
        undo.callback(popen.kill)
        child = Child(
            popen,
            os.pidfd_open(popen.pid),
            stdin=to_child,
            stdout=from_child,
            stderr=errors_from_child,
            mark=env.get(MARK, ""),
        )
        undo.pop_all()
    # The child has copies of its ends. As long as we held them open, no pipe would ever end.
    for descriptor in (stdin, stdout, stderr):
        os.close(descriptor)
    return child


def _pipe(undo: ExitStack) -> tuple[int, int]:
    reader, writer = os.pipe()
    undo.callback(os.close, reader)
    undo.callback(os.close, writer)
    return reader, writer


def _preparation() -> Callable[[], None]:
    """What the child does between fork and exec. What it needs is looked up before: other threads may hold locks."""
    control, parent = prctl(), os.getpid()
    ignored = [number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN]

    def prepare() -> None:
        control(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the line above
            os._exit(1)
        for number in ignored:  # exec would keep them ignored
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    return prepare


@functools.cache
def prctl() -> Callable[..., int]:
    """The C function prctl, which Python does not offer."""
    import ctypes

    found = ctypes.CDLL(None).prctl
    found.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    return found


def _refused(command: str, failure: OSError) -> Lost:
    """Why a command could not be started that was found and is executable."""
    if failure.errno in TRANSIENT:
        return _lost(f"command {command!r} could not be started: {_reason(failure)}", permanent=False)
    if failure.errno == errno.ENOEXEC:
        return _lost(f"command {command!r} is no program: a script needs a #! line")
    if failure.errno == errno.ENOENT:
        return _lost(f"command {command!r} names an interpreter that does not exist")
    return _lost(f"command {command!r} cannot be executed: {_reason(failure)}")


def _reason(failure: OSError) -> str:
    return os.strerror(failure.errno) if failure.errno else "unknown error"


def _lost(message: str, *, permanent: bool = True) -> Lost:
    return Lost(Failure(Reason.SPAWN, message, permanent))

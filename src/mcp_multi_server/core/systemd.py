"""What systemd says to a service in its environment (sd_listen_fds(3), sd_watchdog_enabled(3)), and its status line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from .errors import Problem
from .lifecycle import State

FIRST_PASSED = 3
"""Descriptors that systemd passes come right after stderr."""
MOST_PASSED = 1024
STATUS_LONGEST = 300
"""Characters of a status line; `systemctl status` shows it on one line."""
_TOLD = (State.DEGRADED, State.CONNECTING, State.BACKOFF, State.PARKED, State.STOPPING)
"""States that the status line counts, in this order. Disabled servers are not counted: their owner wants them off."""


def passed_descriptors(environ: Mapping[str, str], pid: int) -> dict[int, str]:
    """The descriptors that systemd passed to this very process, and their names."""
    # The variables may be inherited from a process that systemd passed descriptors to.
    if environ.get("LISTEN_PID") != str(pid):
        return {}
    count = min(_whole(environ.get("LISTEN_FDS")), MOST_PASSED)
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    return {FIRST_PASSED + at: names[at] if at < len(names) else "" for at in range(count)}


def watchdog_seconds(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds that systemd waits for a sign of life before it ends this process; None if it does not."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return _whole(environ.get("WATCHDOG_USEC")) / 1e6 or None


def status_line(states: Iterable[State], wait: float | None, trouble: str = "") -> str:
    """The fleet in a few words: `12/14 ready, 1 degraded, 1 backoff, next 34 s`.

    `wait`: seconds to the next attempt that is planned. `trouble`: what the owner should know besides.
    """
    counts = Counter(states)
    total = counts.total() - counts[State.DISABLED]
    words = [f"{counts[State.READY]}/{total} ready" if total else "no servers"]
    words += [f"{counts[state]} {state}" for state in _TOLD if counts[state]]
    if wait is not None:
        words.append(f"next {max(round(wait), 0)} s")
    line = ", ".join(words) + (f"; {trouble}" if trouble else "")
    return line if len(line) <= STATUS_LONGEST else line[: STATUS_LONGEST - 1] + "…"


def reload_trouble(outcome: str, problems: Sequence[Problem]) -> str:
    """What was wrong with the config when it was last read; "" if nothing was."""
    if not problems:
        return ""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"config {outcome}: {problems[0]}{more}"


def _whole(text: str | None) -> int:
    """A number as systemd writes it; 0 for anything else."""
    # Twenty digits are more than 64 bits hold, and `int` takes long for thousands.
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 20 else 0

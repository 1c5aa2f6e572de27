"""What can go wrong with one server: each fault a name, how it begins and, where it does not pass by itself, ends."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial

from .disturb import Act, Fault
from .stage import Victim

CALL_TIMEOUT = 2.0
"""Seconds that a call to a server that hangs may take."""
PROBED_WITHIN = 40.0
HANGS = 60.0
RETRIED = 45.0
"""Seconds of patience with what only a probe finds out, and with a server that is tried again every half minute."""


def by_signal(number: int) -> Act:
    """The fault is a signal."""
    return lambda victim: victim.signal(number)


def by_order(word: str) -> Act:
    """The fault is done by the running server."""
    return lambda victim: victim.fail(word)


def when_started(word: str) -> Act:
    """The fault shows when the server is started again."""

    async def begin(victim: Victim) -> None:
        victim.order(word)
        await victim.signal(signal.SIGKILL)

    return begin


def while_asked(word: str) -> Act:
    """The fault lasts as long as the order stands."""

    async def begin(victim: Victim) -> None:
        victim.order(word)

    return begin


async def heal(victim: Victim) -> None:
    victim.order("")


async def own_program(victim: Victim) -> None:
    victim.own_program()


async def take_program(victim: Victim) -> None:
    os.unlink(victim.command)
    await victim.signal(signal.SIGKILL)


async def give_program(victim: Victim) -> None:
    os.symlink(sys.executable, victim.command)


async def refuse(victim: Victim) -> None:
    victim.end()


async def listen(victim: Victim) -> None:
    await victim.listen()


async def start_again(victim: Victim) -> None:
    victim.end()
    await victim.listen()


dies = partial(Fault, detect_aim=1.0, recover_aim=1.0)
hang = partial(Fault, together=True, timeout=CALL_TIMEOUT, patience=HANGS)
remote = partial(Fault, http=True, timeout=CALL_TIMEOUT)

SERVER_FAULTS = (
    dies("kill-9", by_signal(signal.SIGKILL)),
    dies("exit-3", by_order("exit-3")),
    hang("stopped", by_signal(signal.SIGSTOP), detect_aim=CALL_TIMEOUT + 1),
    hang("stopped-idle", by_signal(signal.SIGSTOP), idle=True, detect_aim=PROBED_WITHIN),
    hang("stdin-not-read", by_order("deaf"), detect_aim=CALL_TIMEOUT + 1),
    Fault("stdout-closed", by_order("close-stdout")),
    dies("grandchild-holds-stdout", by_order("grandchild")),
    Fault("garbage-flood", by_order("garbage")),
    Fault("line-20-MiB", by_order("long-line")),
    Fault("line-endless", by_order("endless-line")),
    dies("line-partial", by_order("partial-line")),
    Fault("stderr-flood", by_order("stderr-flood"), stays=True, lasts=2),
    Fault("list-slow", when_started("slow-list"), heal, lasts=0.5),
    Fault("list-endless", when_started("endless-list"), heal, lasts=3, patience=RETRIED),
    Fault("crash-at-start", when_started("crash"), heal, lasts=3, patience=RETRIED),
    Fault("flapping", when_started("crash-soon"), heal, lasts=7, patience=RETRIED, together=True),
    Fault(
        "command-missing",
        take_program,
        give_program,
        lasts=2,
        prepare=own_program,
        patience=RETRIED,
        together=True,
    ),
    remote("http-refuses", refuse, listen, lasts=3, patience=RETRIED, together=True),
    remote(
        "http-never-answers",
        by_signal(signal.SIGSTOP),
        by_signal(signal.SIGCONT),
        lasts=3,
        together=True,
        patience=HANGS,
        detect_aim=CALL_TIMEOUT + 1,
    ),
    remote("http-session-lost", start_again, recover_aim=1.0),
    remote("http-500", while_asked("500"), heal, lasts=3, together=True, patience=RETRIED),
    remote("http-half-open", while_asked("half-open"), stays=True, lasts=CALL_TIMEOUT + 1),
)

"""How long the machine was suspended: meanwhile the monotonic clock stands still, and the boot-time clock goes on."""

from __future__ import annotations

from dataclasses import dataclass

NOTICED = 5.0
"""Seconds above which a suspension matters; a shorter one is within what our deadlines allow."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """Both clocks, read at the same moment, in seconds."""

    boottime: float
    monotonic: float


def slept(before: Clocks, now: Clocks) -> float:
    """Seconds for which the machine was suspended between two moments; 0 if that is too short to matter."""
    seconds = (now.boottime - now.monotonic) - (before.boottime - before.monotonic)
    return seconds if seconds > NOTICED else 0.0

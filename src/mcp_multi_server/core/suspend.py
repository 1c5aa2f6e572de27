"""How long the machine slept, from two clocks: the monotonic one stands still meanwhile, the boot-time one goes on."""

from __future__ import annotations

from dataclasses import dataclass

NOTICED = 5.0
"""Seconds of sleep that matter: shorter ones no deadline of ours would notice."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """Both clocks at one moment, in seconds."""

    boottime: float
    monotonic: float


def slept(before: Clocks, now: Clocks) -> float:
    """Seconds that the machine was suspended between two moments; 0 for a time too short to matter."""
    seconds = (now.boottime - now.monotonic) - (before.boottime - before.monotonic)
    return seconds if seconds > NOTICED else 0.0

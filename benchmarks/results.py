"""What is kept of each fault, and what is watched while one is on: a neighbour's calls, and what the daemon uses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from . import processes
from .clients import Caller
from .ledger import Ending, Outcome, seen
from .measure import Aim, quantile
from .stage import NEIGHBOUR, Stage

CALM = 1.5
"""Seconds of the same traffic before each fault, and the least that one is watched for."""
SETTLE = 0.5
NEIGHBOUR_EVERY = 0.003
"""Seconds between calls to a neighbour, one at a time."""
AS_USUAL = 2.0
"""Times its undisturbed p99 that a neighbour's may be."""


@dataclass
class Result:
    """A fault's figures. Times in seconds, from the fault or from its end where it was ended."""

    fault: str
    detected: list[float] = field(default_factory=list)
    recovered: list[float] = field(default_factory=list)
    made: int = 0
    failed: int = 0
    saw: str = ""
    reasons: list[str] = field(default_factory=list)
    """Why, for each detection."""
    list_changed: int = 0
    calm: list[float] = field(default_factory=list)
    disturbed: list[float] = field(default_factory=list)
    """How long the neighbour's calls took."""
    rss_kib: int = 0
    descriptors: int = 0
    wrongs: list[str] = field(default_factory=list)
    aims: list[Aim] = field(default_factory=list)
    note: str = ""

    def count(self, calls: Sequence[Outcome]) -> None:
        """Take up how calls that the fault concerns ended."""
        self.made, self.failed = len(calls), sum(call.ending is not Ending.ANSWERED for call in calls)
        self.saw = seen(calls)

    def neighbour_p99(self) -> tuple[float, float] | None:
        """Undisturbed and disturbed."""
        if not self.calm or not self.disturbed:
            return None
        return quantile(self.calm, 0.99), quantile(self.disturbed, 0.99)

    def slower(self) -> Aim:
        """How the neighbour's p99 went up."""
        calm, disturbed = self.neighbour_p99() or (1.0, float("nan"))
        return Aim(f"{self.fault}: a neighbour's p99 ÷ undisturbed", disturbed / calm, AS_USUAL)


@asynccontextmanager
async def growing(on: Stage, result: Result) -> AsyncIterator[None]:
    """See what the daemon uses more in the end than in the beginning."""
    before = processes.resident_kib(on.daemon.pid), processes.descriptors(on.daemon.pid)
    yield
    await asyncio.sleep(SETTLE)
    result.rss_kib = processes.resident_kib(on.daemon.pid) - before[0]
    result.descriptors = processes.descriptors(on.daemon.pid) - before[1]


@asynccontextmanager
async def beside(on: Stage, result: Result, neighbour: Caller) -> AsyncIterator[None]:
    """Call the neighbour, in calm and then for as long as the block, the fault, takes."""
    since = time.monotonic()
    neighbour.start(every=NEIGHBOUR_EVERY, patient=True)
    try:
        await asyncio.sleep(CALM)
        fault_at = time.monotonic()
        yield
        await asyncio.sleep(max(SETTLE, fault_at + CALM - time.monotonic()))
        until = time.monotonic()
    finally:
        await neighbour.stop()
    watched = on.ledger.of(NEIGHBOUR, since, until)
    result.calm += [o.took for o in watched if o.ended < fault_at]
    result.disturbed += [o.took for o in watched if o.ended >= fault_at]
    result.list_changed += sum(fault_at <= at <= until for at in on.watch.list_changes)

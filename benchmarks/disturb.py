"""One fault tried on servers, again and again, while clients call them and a neighbour; and what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from .clients import Caller
from .ledger import Ending, Outcome
from .measure import Aim, quantile
from .results import Result, beside, growing
from .stage import NEIGHBOUR, Stage, Victim, Wrapper, stage
from .wire import WireError

VICTIM_EVERY = 0.025
"""Seconds between calls to a victim, whatever becomes of them."""
CALL_MS = 5.0
Act: TypeAlias = Callable[[Victim], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong with a server. `end`: what puts it right again, `lasts` seconds after its detection."""

    name: str
    begin: Act
    end: Act | None = None
    lasts: float = 0
    prepare: Act | None = None
    """Done before the daemon starts."""
    http: bool = False
    stays: bool = False
    """The server goes on serving: nothing is to be detected, calls are watched for as long as it `lasts`."""
    together: bool = False
    """All repetitions at once, each on a server of its own: it takes long to be detected."""
    idle: bool = False
    """Nobody calls the server until the fault is detected."""
    timeout: float = 10
    """The deadline of calls."""
    patience: float = 20
    """Seconds within which it is detected, and within which the server recovers."""
    check: Callable[[Stage], Awaitable[list[str]]] | None = None
    """What must never happen beside what every fault is judged by."""
    wrapper: Wrapper | None = None
    detect_aim: float | None = None
    recover_aim: float | None = None
    """Seconds; a server's own start-up comes on top of the latter."""


@dataclass
class Trial:
    """One repetition."""

    victim: Victim
    caller: Caller
    begun: float = 0
    detected: float | None = None
    reason: str = ""
    base: float = 0
    """From when on recovery counts."""
    recovered: float | None = None


class Bench:
    """A fault, the stage it is tried on, and its result."""

    def __init__(self, fault: Fault, on: Stage) -> None:
        self.fault = fault
        self.stage = on
        self.result = Result(fault.name)

    async def run(self) -> Result:
        """All repetitions."""
        on, result = self.stage, self.result
        trials = [Trial(victim, Caller(await on.client(), on.ledger, victim.name)) for victim in on.victims]
        neighbour = Caller(await on.client(), on.ledger, NEIGHBOUR)
        async with growing(on, result):
            for group in [trials] if self.fault.together else [[trial] for trial in trials]:
                await self._repeat(group, neighbour)
            await on.all_ready()
        self._account(trials)
        if self.fault.check is not None:
            result.wrongs += await self.fault.check(on)
        result.wrongs += await on.wrongs()
        return result

    async def _repeat(self, group: list[Trial], neighbour: Caller) -> None:
        self._call(group, idle=self.fault.idle)
        async with beside(self.stage, self.result, neighbour):
            await asyncio.gather(*map(self._try, group))
        await asyncio.gather(*(trial.caller.stop() for trial in group))

    def _call(self, group: Iterable[Trial], *, idle: bool) -> None:
        if not idle:
            for trial in group:
                trial.caller.start(every=VICTIM_EVERY, ms=CALL_MS)

    async def _try(self, trial: Trial) -> None:
        fault, name, watch = self.fault, trial.victim.name, self.stage.watch
        trial.begun = trial.base = time.monotonic()
        await fault.begin(trial.victim)
        if not fault.stays:
            event = await watch.await_event(
                lambda event: event.server == name and event.state != "ready",
                since=trial.begun,
                seconds=fault.patience,
            )
            if event is not None:
                trial.detected, trial.reason = event.at, event.reason or event.state
        if fault.idle:
            self._call([trial], idle=False)
        if fault.end is not None or fault.stays:
            await asyncio.sleep(fault.lasts)
        if fault.end is not None:
            trial.base = time.monotonic()
            await fault.end(trial.victim)
        if not fault.stays:
            trial.recovered = await self._recovery(trial)

    async def _recovery(self, trial: Trial) -> float | None:
        """When the first call was answered that shows the server to be back."""
        deadline = time.monotonic() + self.fault.patience
        while time.monotonic() < deadline:
            for each in self.stage.ledger.of(trial.victim.name, trial.base):
                late = trial.base > trial.begun or each.begun > trial.begun
                if each.ending is Ending.ANSWERED and late and each.ended > (trial.detected or trial.begun):
                    return each.ended
            await asyncio.sleep(0.01)
        return None

    def _account(self, trials: list[Trial]) -> None:
        result, fault = self.result, self.fault
        calls: list[Outcome] = []
        for trial in trials:
            calls += self.stage.ledger.of(trial.victim.name, trial.begun)
            if trial.detected is not None:
                result.detected.append(trial.detected - trial.begun)
                result.reasons.append(trial.reason)
            if trial.recovered is not None:
                result.recovered.append(trial.recovered - trial.base)
        result.count(calls)
        if not fault.stays:
            self._tell_missed("not detected", len(trials) - len(result.detected))
            self._tell_missed("not recovered", len(trials) - len(result.recovered))
        result.aims.append(result.slower())

    def _tell_missed(self, what: str, times: int) -> None:
        if times:
            self.result.note += f"{what} within {self.fault.patience:g} s: {times}×. "


async def disturb(fault: Fault, command: str, repeat: int, start_up: list[float]) -> Result:
    """Try the fault; `start_up`: how long a server takes to start by itself."""
    async with stage(
        command,
        repeat,
        http=repeat if fault.http else 0,
        prepare=fault.prepare,
        wrapper=fault.wrapper,
        timeout=fault.timeout,
    ) as on:
        result = await Bench(fault, on).run()
    if fault.detect_aim is not None:
        worst = max(result.detected, default=float("inf"))
        result.aims.append(Aim(f"{fault.name}: detected, s (worst)", worst, fault.detect_aim))
    if fault.recover_aim is not None:
        p95 = quantile(result.recovered, 0.95) if result.recovered else float("inf")
        limit = fault.recover_aim + quantile(start_up, 0.95)
        result.aims.append(Aim(f"{fault.name}: callable again, s (p95)", p95, limit))
    return result


async def start_up(victim: Victim) -> float:
    """Seconds from starting a server with nothing in front of it until it has answered `initialize`."""
    begun = time.monotonic()
    child = await asyncio.create_subprocess_exec(
        *victim.argv(), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}\n')
    answered = await child.stdout.readline()
    took = time.monotonic() - begun
    child.stdin.close()
    await child.wait()
    if not answered:
        raise WireError("a server does not start")
    return took

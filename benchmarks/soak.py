"""Many clients, many servers, and all the time something goes wrong: the daemon has to stay what it was.

At the end, with all servers ready, it is compared with what it was after the first minute. The exit status is 1 where a
call was lost or carried out twice, an error does not say whose fault it is, a process was left behind, the daemon went.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import cast

from . import processes
from .clients import Client
from .disturb import Act
from .fleet import add_daemon_option
from .ledger import Ending, Ledger, seen
from .measure import Aim, save, surroundings, table
from .server_faults import by_order, by_signal, heal, start_again, while_asked
from .stage import NEIGHBOUR, Stage, Victim, stage

STDIO, HTTP = 8, 2
CLIENTS = 50
FIRST = 60.0
FAULT_EVERY = 4.0
CALL_PAUSE = 0.2
CALL_MS = 20.0
PASSES_AFTER = 1.0
"""Seconds until a fault that does not pass by itself is ended."""
VANISHING_CALLS = 20
CALL_TIMEOUT = 3.0
SETTLE = 2.0
GROWTH = 0.05
"""Part of what it was by which a figure may have grown."""
ON_STDIO: dict[str, Act] = {
    "kill-9": by_signal(9),
    "stopped": by_signal(19),
    **{
        order: by_order(order)
        for order in (
            "exit-3",
            "deaf",
            "close-stdout",
            "grandchild",
            "garbage",
            "long-line",
            "endless-line",
            "partial-line",
            "stderr-flood",
        )
    },
}
ON_HTTP: dict[str, Act] = {"http-session-lost": start_again, "http-500": while_asked("500")}


@dataclass(frozen=True)
class Sample:
    """What the daemon uses; its asyncio tasks cannot be seen from outside."""

    rss_kib: int
    descriptors: int
    threads: int
    children: int

    @classmethod
    def of(cls, pid: int) -> Sample:
        """By now."""
        return cls(
            processes.resident_kib(pid),
            processes.descriptors(pid),
            processes.threads(pid),
            len(processes.descendants(pid)),
        )


class Soak:
    """One run."""

    def __init__(self, on: Stage, seed: int) -> None:
        self.on = on
        self.vanished = Ledger("v")
        """Calls of clients that left before the answer."""
        self.faults: Counter[str] = Counter()
        self._luck = random.Random(seed)
        self._stop = asyncio.Event()

    async def run(self, minutes: float) -> tuple[Sample, Sample]:
        """Serve and suffer; what the daemon used after the first minute, and in the end."""
        end = time.monotonic() + 60 * minutes
        clients = [await self.on.client() for _ in range(CLIENTS)]
        callers = [asyncio.create_task(self._call(client, random.Random(n))) for n, client in enumerate(clients)]
        await self._suffer(min(end, time.monotonic() + FIRST))
        first = await self._sample()
        await self._suffer(end)
        last = await self._sample()
        self._stop.set()
        await asyncio.gather(*callers)
        return first, last

    async def _call(self, client: Client, luck: random.Random) -> None:
        servers = [*(victim.name for victim in self.on.victims), NEIGHBOUR]
        while not self._stop.is_set() and not client.cut:
            await client.call(self.on.ledger, luck.choice(servers), ms=luck.choice((0, luck.random() * CALL_MS)))
            await asyncio.sleep(luck.random() * CALL_PAUSE)

    async def _suffer(self, end: float) -> None:
        """One fault after another until `end`."""
        while time.monotonic() < end:
            await asyncio.sleep(self._luck.random() * 2 * FAULT_EVERY)
            rows = await self.on.status()
            ready = [victim for victim in self.on.victims if rows[victim.name]["state"] == "ready"]
            if self._luck.random() < 0.1 or not ready:
                await self._vanish(self._luck.choice(self.on.victims))
            else:
                await self._fail(self._luck.choice(ready))

    async def _fail(self, victim: Victim) -> None:
        acts = ON_HTTP if victim.port else ON_STDIO
        name = self._luck.choice(list(acts))
        self.faults[name] += 1
        with suppress(ProcessLookupError):  # what happened to it before may have ended it just now
            await acts[name](victim)
        if victim.port:
            await asyncio.sleep(PASSES_AFTER)
            await heal(victim)

    async def _vanish(self, victim: Victim) -> None:
        self.faults["client-vanishes"] += 1
        client = await Client.connect(self.on.daemon.socket)
        calls = [asyncio.create_task(client.call(self.vanished, victim.name, ms=1000)) for _ in range(VANISHING_CALLS)]
        await asyncio.sleep(self._luck.random() * 0.1)
        await client.close()
        await asyncio.gather(*calls)

    async def _sample(self) -> Sample:
        """What the daemon uses when every server answers."""
        while True:
            await self.on.all_ready()
            calls = [self.on.watch.call(self.on.ledger, victim.name) for victim in self.on.victims]
            if all(call.ending is Ending.ANSWERED for call in await asyncio.gather(*calls)):
                break
        await asyncio.sleep(SETTLE)
        return Sample.of(self.on.daemon.pid)


def growth(first: Sample, last: Sample) -> list[Aim]:
    """Each figure beside what it was after the first minute."""
    before, after = asdict(first), asdict(last)
    return [Aim(f"{name}: {before[name]} → {after[name]}", after[name] / before[name], 1 + GROWTH) for name in before]


async def soak(command: str, minutes: float, seed: int) -> tuple[list[Aim], list[str]]:
    """Run, and tell: the aims, and all that must never happen."""
    async with stage(command, HTTP + STDIO, http=HTTP, timeout=CALL_TIMEOUT) as on:
        run = Soak(on, seed)
        first, last = await run.run(minutes)
        aims, ledger = growth(first, last), on.ledger
        executed = on.executed()
        wrongs = run.vanished.wrongs(executed, may_cut=True)
        wrongs += await on.wrongs()
    failed = sum(each.ending is not Ending.ANSWERED for each in ledger.outcomes)
    unsent = sum(each.ending is not Ending.ANSWERED and not executed[each.id] for each in ledger.outcomes)
    print(
        f"{run.faults.total()} faults: {', '.join(f'{count} × {name}' for name, count in sorted(run.faults.items()))}"
    )
    print(f"{ledger.made} calls of {CLIENTS} clients: {ledger.made - failed} answered, {failed} failed,")
    print(f"of which {unsent} were not carried out; clients saw {seen(ledger.outcomes)}\n")
    return aims, wrongs


class Options(argparse.Namespace):
    """The command line."""

    daemon: str
    minutes: float
    seed: int
    json: str | None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_daemon_option(parser)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1, help="the same seed has the same faults in the same order")
    parser.add_argument("--json", metavar="FILE", help="append the results as one line")
    options = cast("Options", parser.parse_args(arguments))
    print(", ".join(f"{name} {value}" for name, value in surroundings().items()), end="\n\n", flush=True)
    aims, wrongs = asyncio.run(soak(options.daemon, options.minutes, options.seed))
    print(table(("at the end ÷ after a minute", "measured", "aim", "met"), [aim.cells() for aim in aims]))
    print("\n".join(f"WRONG: {wrong}" for wrong in wrongs))
    save(options.json, benchmark="soak", command=sys.argv, aims=aims, wrongs=wrongs)
    sys.exit(bool(wrongs))


if __name__ == "__main__":
    main()

"""What clients can do wrong, and many of them at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TypeAlias

from .clients import Caller, Client
from .results import Result, beside, growing
from .stage import NEIGHBOUR, Stage, stage

MIB = 1024 * 1024
GREEDY_CALLS = 200
VANISHING_CALLS = 100
CROWD = 200
CALLS_EACH = 10
TAKES_MS = 2000
PATIENCE = 30.0
Misdeed: TypeAlias = Callable[[Stage, Result], Awaitable[None]]


async def never_reads(on: Stage, result: Result) -> None:
    """A client asks for 200 MiB and reads none of it: it is cut off, which ends the memory it costs."""
    begun = time.monotonic()
    client = await Client.connect(on.daemon.socket)
    client.stop_reading()
    for number in range(GREEDY_CALLS):
        arguments = {"id": f"greedy-{number}-{begun}", "bytes": MIB}
        client.post("tools/call", {"name": "victim0__work", "arguments": arguments}, id=1000 + number)
    gone = await on.watch.await_event(lambda event: event.kind == "client_gone", since=begun, seconds=PATIENCE)
    await client.close()
    if gone is None:
        result.wrongs.append(f"a client that reads nothing was not cut off within {PATIENCE:g} s")
    else:
        result.detected.append(gone.at - begun)
        result.reasons.append("cut off" if "does not read" in gone.reason else gone.reason)


async def vanishes(on: Stage, result: Result) -> None:
    """A client goes while 100 of its calls are with a server: the server is told, nothing is kept."""
    client = await Client.connect(on.daemon.socket)
    calls = [asyncio.create_task(client.call(on.ledger, "victim0", ms=TAKES_MS)) for _ in range(VANISHING_CALLS)]
    await on.shows(lambda rows: rows["victim0"]["inFlight"] >= VANISHING_CALLS, "all calls are with the server")
    begun = time.monotonic()
    await client.close()
    await asyncio.gather(*calls)
    await on.shows(lambda rows: not rows["victim0"]["inFlight"], "no call is left")
    result.detected.append(time.monotonic() - begun)


async def crowd(on: Stage, result: Result) -> None:
    """200 clients connect at once and call: everybody is answered."""
    begun = time.monotonic()

    async def one() -> None:
        client = await Client.connect(on.daemon.socket)
        for _ in range(CALLS_EACH):
            await client.call(on.ledger, "victim0")
        await client.close()

    await asyncio.gather(*(one() for _ in range(CROWD)))
    result.recovered.append(time.monotonic() - begun)


async def misbehave(misdeed: Misdeed, name: str, command: str, repeat: int, alone: list[float]) -> Result:
    """Have clients do so, again and again."""
    result = Result(name)
    async with stage(command, 1) as on:
        neighbour = Caller(await on.client(), on.ledger, NEIGHBOUR)
        async with growing(on, result):
            for _ in range(repeat):
                async with beside(on, result, neighbour):
                    await misdeed(on, result)
        result.count(on.ledger.of("victim0", 0))
        result.wrongs += await on.wrongs(may_cut=misdeed is vanishes)
    return result


CLIENT_FAULTS: Mapping[str, Callable[[str, int, list[float]], Awaitable[Result]]] = {
    name: partial(misbehave, misdeed, name)
    for name, misdeed in (("client-never-reads", never_reads), ("client-vanishes", vanishes), ("200-clients", crowd))
}

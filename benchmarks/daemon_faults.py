"""What can go wrong with the daemon itself and the machine it runs on, and what its owner can do to it."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from . import processes
from .clients import Caller, Client
from .disturb import Fault
from .ledger import Ending
from .measure import Aim
from .results import CALM, Result, beside, growing
from .stage import NEIGHBOUR, Stage, Victim, read, stage, until
from .wire import WireError

CALL_EVERY = 0.01
CALL_MS = 15.0
"""Seconds between calls, milliseconds that each takes: at any moment one or two are with a server."""
UNDER_WAY = 0.1
"""Seconds of traffic before the next thing happens."""
OUTCOME_WITHIN = 20.0
BLOCK = 4096
"""Bytes that tmpfs takes at once."""
SEED = 4
RELOADS = {"invalid": 10, "touch": 30, "replace": 30, "timeout": 30}

# -- reloads -----------------------------------------------------------------------------------------------------------

BROKEN = (
    "{",
    '{"mcpServers": {"a": {"command": "x"}, "a": {"command": "y"}}}',
    '{"mcpServers": {}, "daemon": {"naming": 7}}',
    "",
    "[]",
)
REPLACED, TOUCHED, TIMED = "victim0", "victim1", "victim2"


@dataclass(frozen=True)
class Edit:
    """One new config, and what has to come of it."""

    kind: str
    text: str
    outcome: str
    changed: Mapping[str, Sequence[str]]


def edits(on: Stage) -> list[Edit]:
    """All edits, in an order that looks random and is not."""
    kinds = [kind for kind, times in RELOADS.items() for _ in range(times)]
    random.Random(SEED).shuffle(kinds)
    entries, made = on.entries(), list[Edit]()
    for number, kind in enumerate(kinds):
        if kind == "invalid":
            made.append(broken(on, entries, number))
            continue
        server, key, value = {
            "replace": (REPLACED, "env", {"GENERATION": str(number)}),
            "touch": (TOUCHED, "exclude", [f"none_such_{number}"]),
            "timeout": (TIMED, "timeout", 10 + number),
        }[kind]
        entries[server][key] = value
        step = "replace" if kind == "replace" else "update"
        made.append(Edit(kind, on.daemon.config_text(entries), "applied", {step: [server]}))
    return made


def broken(on: Stage, entries: Mapping[str, Mapping[str, object]], number: int) -> Edit:
    """A file that is refused as a whole, or one of whose entries is; what runs goes on either way."""
    if number % 2:
        return Edit("invalid", BROKEN[number % len(BROKEN)], "rejected", {})
    server = on.victims[number % len(on.victims)].name
    text = on.daemon.config_text({**entries, server: {**entries[server], "timeout": "soon"}})
    return Edit("invalid", text, "partial", {})


async def apply(on: Stage, edit: Edit) -> str:
    """Write the file and have it read; what was wrong about the outcome, if anything."""
    since = time.monotonic()
    on.daemon.write(edit.text)
    await on.watch.request("daemon/reload")
    await on.watch.await_event(
        lambda event: event.kind == "config" and event.outcome == edit.outcome, since=since, seconds=OUTCOME_WITHIN
    )
    told = [event for event in on.watch.events if event.kind == "config" and event.at >= since]
    found = {(event.outcome, str(dict(event.changed))) for event in told if event.outcome != "unchanged"}
    if found == {(edit.outcome, str(dict(edit.changed)))}:
        return ""
    return f"reload ({edit.kind}): expected {edit.outcome} {edit.changed}, got {sorted(found) or 'unchanged'}"


async def reloads(command: str, repeat: int, alone: list[float]) -> Result:
    """100 edits under load: none fails a call, none touches another server, each has the outcome it must have."""
    result = Result("100-reloads")
    async with stage(command, 3) as on:
        callers = [Caller(await on.client(), on.ledger, victim.name) for victim in on.victims]
        neighbour = Caller(await on.client(), on.ledger, NEIGHBOUR)
        before = {name: row["pid"] for name, row in (await on.status()).items()}
        async with growing(on, result):
            for caller in callers:
                caller.start(every=CALL_EVERY, ms=CALL_MS)
            async with beside(on, result, neighbour):
                for edit in edits(on):
                    begun = time.monotonic()
                    result.wrongs += filter(None, [await apply(on, edit)])
                    result.recovered.append(time.monotonic() - begun)
                    await on.all_ready()
                    await asyncio.sleep(UNDER_WAY)
            await asyncio.gather(*(caller.stop() for caller in callers))
            await on.all_ready()
        after = {name: row["pid"] for name, row in (await on.status()).items()}
        result.wrongs += [
            f"{name} was not touched and has another process"
            for name in before
            if name != REPLACED and before[name] != after[name]
        ]
        result.count(on.ledger.outcomes)
        result.wrongs += await on.wrongs()
    result.aims.append(Aim("100-reloads: failed calls", result.failed, 0))
    return result


# -- the daemon itself -------------------------------------------------------------------------------------------------


async def have_child(victim: Victim) -> None:
    victim.order("child")


async def killed(command: str, repeat: int, alone: list[float]) -> Result:
    """The daemon is killed under load and started again: calls are cut, none is doubled, no server is left over."""
    result = Result("daemon-killed")
    listed: list[float] = []
    async with stage(command, 2, prepare=have_child) as on:
        for victim in on.victims:
            victim.order("")
        for _ in range(repeat):
            callers = [Caller(await on.client(), on.ledger, victim.name) for victim in (*on.victims, on.neighbour)]
            for caller in callers:
                caller.start(every=CALL_EVERY, ms=CALL_MS)
            await asyncio.sleep(CALM)
            old = set(on.servers())
            await asyncio.sleep(UNDER_WAY)  # looking stopped the traffic
            begun = time.monotonic()
            on.daemon.kill()
            await on.restart()
            listed.append(await all_listed(on, on.watch) - begun)
            answered = [call for call in [await on.watch.call(on.ledger, "victim0")] if call.ending is Ending.ANSWERED]
            result.recovered += [call.ended - begun for call in answered]
            await asyncio.gather(*(caller.stop() for caller in callers))
            await on.all_ready()
            with suppress(WireError):
                await until(lambda old=old: not old & set(on.servers()), "gone")  # type: ignore[misc]  # bound early
            result.wrongs += [f"process {pid} outlived its daemon" for pid in old & set(on.servers())]
        result.count(on.ledger.outcomes)
        result.wrongs += await on.wrongs(may_cut=True)
    result.note = f"all names listed again after {max(listed):.2f} s at worst"
    return result


async def all_listed(on: Stage, client: Client) -> float:
    """When every server's tool is listed."""
    wanted = {f"{each.name}__work" for each in (*on.victims, on.neighbour)}
    while True:
        found = await client.request("tools/list")
        if wanted <= {tool["name"] for tool in found["tools"]}:
            return time.monotonic()
        await asyncio.sleep(0.005)


async def exhaust_descriptors(victim: Victim) -> None:
    """Leave the daemon no descriptor, then make it need three."""
    daemon = victim.stage.daemon.pid
    pid = await victim.stage.pid_of(victim.name)
    _, hard = resource.prlimit(daemon, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon, resource.RLIMIT_NOFILE, (processes.descriptors(daemon) - 4, hard))
    os.kill(pid, signal.SIGKILL)


async def give_descriptors(victim: Victim) -> None:
    daemon = victim.stage.daemon.pid
    _, hard = resource.prlimit(daemon, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon, resource.RLIMIT_NOFILE, (hard, hard))


def small_disk(directory: str) -> list[str]:
    """Have state and log on a file system of 256 KiB, in a mount namespace that ends with the daemon."""
    script = 'mkdir "$0" && mount -t tmpfs -o size=256k tmpfs "$0" && exec "$@" 2>>"$0/log"'
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    return [*namespace, "sh", "-c", script, os.path.join(directory, "state")]


def on_small_disk(on: Stage, name: str) -> str:
    """A file there, as seen from here."""
    return f"/proc/{on.daemon.pid}/root{os.path.join(on.directory, 'state', name)}"


async def fill_disk(victim: Victim) -> None:
    """Leave no free block, nor room in the last one of the log, then give the daemon something to log and save."""
    fill(on_small_disk(victim.stage, "filler"), 1 << 20)
    log = on_small_disk(victim.stage, "log")
    fill(log, -os.stat(log).st_size % BLOCK)
    await victim.signal(signal.SIGKILL)


def fill(path: str, size: int) -> None:
    """Append so many bytes, or as many as there is room for."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        with suppress(OSError):
            while size > 0:
                size -= os.write(descriptor, b"\n" * min(size, BLOCK))
    finally:
        os.close(descriptor)


async def empty_disk(victim: Victim) -> None:
    os.unlink(on_small_disk(victim.stage, "filler"))


async def told_of_loss(on: Stage) -> list[str]:
    """The log says how much of it is missing, once it can be written again."""
    await on.watch.request("daemon/restart", {"server": NEIGHBOUR})
    return [] if '"log.lost"' in read(on_small_disk(on, "log")) else ["the log does not say that lines were lost"]


FAULTS_BESIDE = (
    Fault("descriptors-exhausted", exhaust_descriptors, give_descriptors, lasts=3, patience=45),
    Fault("disk-full", fill_disk, empty_disk, lasts=1, check=told_of_loss, wrapper=small_disk),
)
DAEMON_FAULTS: Mapping[str, Callable[[str, int, list[float]], Awaitable[Result]]] = {
    "100-reloads": reloads,
    "daemon-killed": killed,
}

"""How soon servers are usable behind the daemon, beside spawning the same servers with nothing in front.

Every server sleeps before it serves. Timed from the start of the daemon's process (or of the first server) until the
first call is answered, and until one call to each healthy server is. A server that never answers and one whose command
does not exist must cost the others nothing. Runs alternate; ratios are taken within a run.
"""

from __future__ import annotations

import argparse
import json
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from . import processes
from .fleet import Daemon, add_daemon_option, echo_of, echo_server, echo_servers
from .measure import Spread, ratios, rotated, save, table
from .wire import Wire, WireError

LIMIT = 60.0
POLL = 0.005
"""Seconds until a call that was refused is made again."""
FIRST_ID = 1000
"""Far from the ids that a `Wire` takes itself."""
MISSING = ["mcp-server-that-does-not-exist"]


@dataclass(frozen=True)
class Timing:
    """Seconds from the start."""

    first: float
    all: float


@dataclass(frozen=True)
class Row:
    """A fleet, in front of it a daemon or nothing."""

    subject: str
    first_s: Spread
    all_s: Spread
    first_to_bare: Spread
    all_to_bare: Spread
    later_s: Spread
    """All called, less the same behind a daemon whose servers are all healthy; run by run."""


@dataclass(frozen=True)
class OwnStart:
    """The daemon's own start beside that of a Python that imports asyncio."""

    accepting_s: Spread
    import_asyncio_s: Spread
    ratio: Spread


def bare(servers: Mapping[str, Sequence[str]]) -> Timing:
    """Start all at once and call each over its pipes: as soon as any of this can be done."""
    begin = time.perf_counter()
    children = [processes.spawn(argv, pipes=True) for argv in servers.values()]
    try:
        return _call_each(children, begin)
    finally:
        processes.stop(*children)


def _call_each(children: Sequence[subprocess.Popen[bytes]], begin: float) -> Timing:
    wires = {child.stdout.fileno(): Wire.to_child(child) for child in children if child.stdout is not None}
    poller, done = select.poll(), list[float]()
    for descriptor, wire in wires.items():
        wire.post("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}, id=0)
        poller.register(descriptor, select.POLLIN)
    while wires:
        ready = poller.poll(LIMIT * 1000)
        if not ready:
            raise WireError(f"{len(wires)} servers did not start")
        for descriptor, _ in ready:
            wire = wires.pop(descriptor)
            poller.unregister(descriptor)
            wire.take_response()
            call_once(wire, "echo")
            done.append(time.perf_counter() - begin)
    return Timing(done[0], done[-1])


def behind(command: str, servers: Mapping[str, Sequence[str]], healthy: Sequence[str]) -> Timing:
    """Start the daemon and call each healthy server through it: the calls are held until their servers are there."""
    done: list[float] = []
    with Daemon(command, servers) as daemon:
        client = daemon.client()
        waiting = {FIRST_ID + at: echo_of(server) for at, server in enumerate(healthy)}
        for id, name in waiting.items():
            client.post("tools/call", {"name": name, "arguments": {"text": "hello"}}, id=id)
        while waiting:
            answer = json.loads(client.take_response())
            if "error" not in answer:
                done.append(time.perf_counter() - daemon.started)
                del waiting[answer["id"]]
                continue
            if time.perf_counter() - daemon.started > LIMIT:
                raise WireError(f"not usable: {', '.join(sorted(waiting.values()))}: {daemon.last_words()}")
            time.sleep(POLL)  # it was not held as long as its server takes
            client.post("tools/call", {"name": waiting[answer["id"]], "arguments": {"text": "hello"}}, id=answer["id"])
        client.close()
    return Timing(done[0], done[-1])


def call_once(wire: Wire, tool: str) -> None:
    wire.call([(tool, {"text": "hello"})], in_flight=1)


def fleets(count: int, delay: float) -> dict[str, dict[str, Sequence[str]]]:
    """The same healthy servers alone, after a mute one, and after one that does not exist."""
    healthy: dict[str, Sequence[str]] = dict(echo_servers(count, delay=delay))
    return {
        "daemon": healthy,
        "daemon, and a mute one": {"mute": echo_server("mute", mute=True), **healthy},
        "daemon, and a missing one": {"missing": MISSING, **healthy},
    }


def measure(command: str, *, count: int, delay: float, runs: int, only_healthy: bool = False) -> list[Row]:
    """Time the fleets against bare servers."""
    among = fleets(count, delay)
    healthy = among["daemon"]
    names = ["bare", "daemon"] if only_healthy else ["bare", *among]
    timings: dict[str, list[Timing]] = {name: [] for name in names}
    for turn in range(runs):
        for name in rotated(names, turn):
            timing = bare(healthy) if name == "bare" else behind(command, among[name], list(healthy))
            timings[name].append(timing)
    firsts = {name: [timing.first for timing in own] for name, own in timings.items()}
    alls = {name: [timing.all for timing in own] for name, own in timings.items()}
    return [
        Row(
            subject=name,
            first_s=Spread.of(firsts[name]),
            all_s=Spread.of(alls[name]),
            first_to_bare=ratios(firsts[name], firsts["bare"]),
            all_to_bare=ratios(alls[name], alls["bare"]),
            later_s=Spread.of([own - plain for own, plain in zip(alls[name], alls["daemon"], strict=True)]),
        )
        for name in names
    ]


def measure_process(command: str, *, runs: int) -> OwnStart:
    """Time from the start of the process until the daemon accepts."""
    accepting, importing = [], []
    for _ in range(runs):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import asyncio"], check=True)
        importing.append(time.perf_counter() - begin)
        with Daemon(command, echo_servers(1)) as daemon:
            daemon.accepting().close()
            accepting.append(time.perf_counter() - daemon.started)
    return OwnStart(Spread.of(accepting), Spread.of(importing), ratios(accepting, importing))


def show(rows: Sequence[Row], *, count: int, delay: float, runs: int) -> str:
    """A table of the fleets."""
    header = ("in front", "first call s", "all called s", "first ÷ bare", "all ÷ bare", "all − daemon's s")
    lines = [
        (row.subject, row.first_s, row.all_s, row.first_to_bare, row.all_to_bare, row.later_s if odd(row) else "-")
        for row in rows
    ]
    return f"**{count} servers that sleep {delay:g} s** ({runs} runs)\n\n{table(header, lines)}\n"


def odd(row: Row) -> bool:
    """Whether one of its servers never answers."""
    return row.subject not in ("bare", "daemon")


def show_process(process: OwnStart) -> str:
    """A table of one row."""
    header = ("process start to accepting s", "python -c 'import asyncio' s", "ratio")
    return table(header, [(process.accepting_s, process.import_asyncio_s, process.ratio)]) + "\n"


class Options(argparse.Namespace):
    """The command line."""

    daemon: str
    servers: list[int]
    delay: float
    runs: int
    json: str | None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_daemon_option(parser)
    parser.add_argument("--servers", type=int, nargs="+", default=[4, 30], help="sizes of the fleet")
    parser.add_argument("--delay", type=float, default=0.5, help="seconds that every server sleeps before it serves")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="append the results as one line")
    options = cast("Options", parser.parse_args(arguments))
    process = measure_process(options.daemon, runs=options.runs)
    print(show_process(process), flush=True)
    fleets = {}
    for count in options.servers:
        fleets[count] = measure(options.daemon, count=count, delay=options.delay, runs=options.runs)
        print(show(fleets[count], count=count, delay=options.delay, runs=options.runs), flush=True)
    save(options.json, benchmark="start", command=sys.argv, process=process, fleets=fleets)


if __name__ == "__main__":
    main()

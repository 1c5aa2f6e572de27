"""What many tools and many servers cost: a large listing, and the same call in a large fleet.

Three daemons run at once: a small fleet, one with many tools, one with many servers. Calls go to them in bursts of a
rotating order, pinned to one CPU; growth is the ratio to the small one within a round.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast

from . import processes
from .calls import WARM_UP, Case, Subject, one_burst, pinned
from .fleet import Daemon, add_daemon_option, echo_servers
from .measure import Spread, quantile, ratios, rotated, save, table

FLEET_OF_TOOLS = 20
OWN_TOOLS = 2
"""Tools that every server has without filler."""


@dataclass(frozen=True)
class Listing:
    """Reading all tools, from the first byte asked to the last one read."""

    tools: int
    mib: float
    read_ms: Spread
    daemon_cpu_ms: Spread


@dataclass(frozen=True)
class Growth:
    """The same call in another fleet."""

    fleet: str
    p50_us: Spread
    to_small: Spread


def measure(command: str, *, tools: int, servers: int, rounds: int) -> tuple[Listing, list[Growth]]:
    """Start the daemons, list, call."""
    filler = tools // FLEET_OF_TOOLS - OWN_TOOLS
    fleets = {
        "1 server, 3 tools": echo_servers(1),
        f"{FLEET_OF_TOOLS} servers, {tools:,} tools": echo_servers(FLEET_OF_TOOLS, filler=filler),
        f"{servers} servers, {3 * servers} tools": echo_servers(servers),
    }
    with ExitStack() as stack:
        daemons = {name: stack.enter_context(Daemon(command, fleet)) for name, fleet in fleets.items()}
        subjects = [_subject(name, daemon, stack) for name, daemon in daemons.items()]
        listing = _list(daemons[subjects[1].name], rounds)
        return listing, _grow(subjects, rounds)


def _subject(name: str, daemon: Daemon, stack: ExitStack) -> Subject:
    client = daemon.ready()
    stack.callback(client.close)
    return Subject(name, client, f"{daemon.servers[0]}__", daemon.pid)


def _list(daemon: Daemon, rounds: int) -> Listing:
    """Read the listing again and again, each time as a new client."""
    milliseconds, cpu, count, size = list[float](), list[float](), 0, 0
    for turn in range(WARM_UP + rounds):
        client = daemon.client()
        cpu_before, begin = processes.cpu_ns(daemon.pid), time.perf_counter_ns()
        size = client.list_bytes()
        elapsed, used = time.perf_counter_ns() - begin, processes.cpu_ns(daemon.pid) - cpu_before
        count = len(client.tools())
        client.close()
        if turn >= WARM_UP:
            milliseconds.append(elapsed / 1e6)
            cpu.append(used / 1e6)
    return Listing(count, size / 2**20, Spread.of(milliseconds), Spread.of(cpu))


def _grow(subjects: Sequence[Subject], rounds: int) -> list[Growth]:
    case = Case(text_bytes=100, in_flight=1, pinned=True, calls=60)
    medians: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    with pinned(case.pinned):
        for turn in range(WARM_UP + rounds):
            for subject in rotated(subjects, turn):
                burst, _ = one_burst(case, subject)
                if turn >= WARM_UP:
                    medians[subject.name].append(quantile(burst.latencies_ns, 0.5) / 1000)
    small = medians[subjects[0].name]
    return [Growth(name, Spread.of(values), ratios(values, small)) for name, values in medians.items()]


def show(listing: Listing, growths: Sequence[Growth]) -> str:
    """Two tables."""
    header = ("tools", "MiB", "to the last byte ms", "daemon CPU ms")
    first = table(header, [(listing.tools, f"{listing.mib:.1f}", listing.read_ms, listing.daemon_cpu_ms)])
    lines = [(growth.fleet, growth.p50_us, growth.to_small) for growth in growths]
    second = table(("fleet", "100 B call, pinned, p50 µs", "÷ small"), lines)
    return f"{first}\n\n{second}\n"


class Options(argparse.Namespace):
    """The command line."""

    daemon: str
    tools: int
    servers: int
    rounds: int
    json: str | None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_daemon_option(parser)
    parser.add_argument("--tools", type=int, default=10_000, help=f"tools in all, over {FLEET_OF_TOOLS} servers")
    parser.add_argument("--servers", type=int, default=50, help="size of the large fleet")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", metavar="FILE", help="append the results as one line")
    options = cast("Options", parser.parse_args(arguments))
    listing, growths = measure(options.daemon, tools=options.tools, servers=options.servers, rounds=options.rounds)
    print(show(listing, growths), flush=True)
    save(options.json, benchmark="lists", command=sys.argv, listing=listing, growths=growths)


if __name__ == "__main__":
    main()

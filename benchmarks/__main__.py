"""A short version of every benchmark, within three minutes, and how far the figures are from the aims.

An aim is no test: a noisy machine misses it, so nothing fails. The exit status is 1 only where something could not be
measured.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import cast

from . import calls, lists, memory, scrape, start
from .fleet import add_daemon_option
from .measure import Aim, save, surroundings, table
from .wire import WireError

MIB = 1024 * 1024
FEW, MANY = 4, 30
DELAY = 0.5


def of_calls(command: str) -> list[Aim]:
    """Calls of 100 B, one at a time and 32 in flight, and of 1 MiB."""
    small, flight, large = (
        calls.Case(100, 1, pinned=True, calls=60),
        calls.Case(100, 32, pinned=False, calls=600),
        calls.Case(MIB, 1, pinned=True, calls=8),
    )
    with calls.subjects(command, metrics=False) as among:
        results = {case: calls.measure(case, among, rounds=9) for case in (small, flight, large)}
    for result in results.values():
        print(result, flush=True)
    cpu = results[flight].row("daemon").daemon_cpu_us
    through = results[small].row("sdk via daemon").to_sdk.median
    return [
        Aim("100 B call ÷ the SDK's client straight to the server", results[small].row("daemon").to_sdk.median, 0.35),
        Aim("the SDK's client through the daemon ÷ straight", through, 1.5),
        Aim("daemon CPU µs a call, 32 in flight", cpu.median if cpu else float("nan"), 20),
        Aim("1 MiB echo, added ÷ straight", results[large].row("daemon").to_pipe.median - 1, 0.5),
    ]


def of_start(command: str) -> list[Aim]:
    """The process, a small fleet with odd ones, a large fleet."""
    process = start.measure_process(command, runs=5)
    print(start.show_process(process), flush=True)
    few = start.measure(command, count=FEW, delay=DELAY, runs=4)
    print(start.show(few, count=FEW, delay=DELAY, runs=4), flush=True)
    many = start.measure(command, count=MANY, delay=DELAY, runs=3, only_healthy=True)
    print(start.show(many, count=MANY, delay=DELAY, runs=3), flush=True)
    mute, missing = few[2:]
    return [
        Aim("process start to accepting ÷ python -c 'import asyncio'", process.ratio.median, 3),
        Aim(f"{MANY} servers usable ÷ spawned with nothing in front", many[1].all_to_bare.median, 1.15),
        Aim("the others' delay by a mute server, s", mute.later_s.median, 0.05),
        Aim("the others' delay by a missing server, s", missing.later_s.median, 0.05),
    ]


def of_memory(command: str) -> list[Aim]:
    """One server, fifty, a hundred clients."""
    kept = memory.measure(command, servers=(1, 50), clients=100, runs=1)
    print(memory.show(kept), flush=True)
    return [
        Aim("private MiB with one server", kept.by_servers[1].median / 1024, 30),
        Aim("KiB per further server", kept.per_server, 40),
        Aim("KiB per idle client", kept.per_client.median, 10),
    ]


def of_lists(command: str) -> list[Aim]:
    """Ten thousand tools, fifty servers."""
    listing, growths = lists.measure(command, tools=10_000, servers=50, rounds=7)
    print(lists.show(listing, growths), flush=True)
    return [
        Aim("10,000 tools listed, daemon CPU ms", listing.daemon_cpu_ms.median, 5),
        Aim("a call with 10,000 tools ÷ with 3", growths[1].to_small.median, 1.1),
        Aim("a call with 50 servers ÷ with 1", growths[2].to_small.median, 1.1),
    ]


def of_scrapes(command: str) -> list[Aim]:
    """Fifty servers with twenty tools each."""
    results = scrape.measure(command, servers=50, tools=20, scrapes=15)
    print(scrape.show(results), flush=True)
    return [
        Aim("lines of /metrics, 50 servers with 20 tools", max(result.lines for result in results), 5_000),
        Aim("lag of the event loop by a scrape, ms", max(result.lag_ms.median for result in results), 20),
    ]


class Options(argparse.Namespace):
    """The command line."""

    daemon: str
    json: str | None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_daemon_option(parser)
    parser.add_argument("--json", metavar="FILE", help="append the aims as one line")
    options = cast("Options", parser.parse_args(arguments))
    begin = time.monotonic()
    print(", ".join(f"{name} {value}" for name, value in surroundings().items()), end="\n\n", flush=True)
    try:
        aims = [aim for part in (of_calls, of_start, of_memory, of_lists, of_scrapes) for aim in part(options.daemon)]
    except WireError as failure:
        sys.exit(f"benchmarks: {failure}")
    print(table(("figure", "measured", "aim", "met"), [aim.cells() for aim in aims]))
    print(f"\nin {time.monotonic() - begin:.0f} s")
    save(options.json, benchmark="short", command=sys.argv, aims=aims)


if __name__ == "__main__":
    main()

"""What the daemon does when things fail: each fault made on purpose, with real processes, under traffic.

The exit status is 1 where something happened that must never happen: a call lost or carried out twice, an error that
does not say whose fault it is, a process left behind, a daemon gone. Times that miss their aim are told and no more.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeAlias, cast

from .client_faults import CLIENT_FAULTS
from .daemon_faults import DAEMON_FAULTS, FAULTS_BESIDE
from .disturb import disturb, start_up
from .fleet import add_daemon_option
from .measure import Aim, quantile, save, surroundings, table
from .results import Result
from .server_faults import SERVER_FAULTS
from .stage import Stage

REPEAT = 5
Run: TypeAlias = Callable[[str, int, list[float]], Awaitable[Result]]
"""Tries a fault: the daemon's command, how often, how long a server takes to start by itself."""

FAULTS: Mapping[str, Run] = {
    **{fault.name: partial(disturb, fault) for fault in (*SERVER_FAULTS, *FAULTS_BESIDE)},
    **CLIENT_FAULTS,
    **DAEMON_FAULTS,
}


async def start_ups(command: str, times: int = 10) -> list[float]:
    """How long a server takes to start with nothing in front of it."""
    plain = Stage(command, 1, settings={})
    try:
        return [await start_up(plain.victims[0]) for _ in range(times)]
    finally:
        await plain.end()


def seconds(values: Sequence[float]) -> str:
    """p50 and p95, for people."""
    return f"{quantile(values, 0.5):.2f} / {quantile(values, 0.95):.2f}" if values else "-"


HEADER = (
    "fault",
    "n",
    "detected s",
    "recovered s",
    "failed / made",
    "clients saw",
    "list_changed",
    "neighbour p99 ms",
    "RSS KiB",
    "fds",
)


def row(result: Result) -> tuple[object, ...]:
    """A line of the table. p50 / p95 each; the neighbour's p99 undisturbed → disturbed."""
    p99 = result.neighbour_p99()
    reasons = ", ".join(sorted(set(result.reasons)))
    return (
        result.fault,
        max(len(result.detected), len(result.recovered)) or "-",
        seconds(result.detected) + (f" ({reasons})" if reasons else ""),
        seconds(result.recovered),
        f"{result.failed} / {result.made}",
        result.saw,
        result.list_changed,
        f"{1000 * p99[0]:.1f} → {1000 * p99[1]:.1f}" if p99 else "-",
        f"{result.rss_kib:+d}",
        f"{result.descriptors:+d}",
    )


def told(results: Iterable[Result]) -> str:
    """All figures, aims, notes and wrongs."""
    aims = [aim for result in results for aim in result.aims]
    parts = [table(HEADER, map(row, results)), table(("aim", "measured", "aim", "met"), map(Aim.cells, aims))]
    parts += [f"note: {result.fault}: {result.note.strip()}" for result in results if result.note]
    parts += [f"WRONG: {result.fault}: {wrong}" for result in results for wrong in result.wrongs]
    return "\n\n".join(parts)


async def run(command: str, names: Sequence[str], repeat: int) -> list[Result]:
    """Try faults one after another."""
    alone = await start_ups(command)
    print(f"a server by itself starts in {seconds(alone)} s (p50 / p95)\n", flush=True)
    results = []
    for name in names:
        begun = time.monotonic()
        try:
            results.append(await FAULTS[name](command, repeat, alone))
        except Exception as failure:  # the others are worth trying all the same
            traceback.print_exc()
            results.append(Result(name, wrongs=[f"could not be tried to its end: {failure!r}"]))
        took = time.monotonic() - begun
        figures = " | ".join(map(str, row(results[-1])[1:]))
        print(f"{name} ({took:.0f} s, {len(results[-1].wrongs)} wrong): {figures}", file=sys.stderr, flush=True)
    return results


class Options(argparse.Namespace):
    """The command line."""

    daemon: str
    fault: list[str]
    repeat: int
    json: str | None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults",
        description=__doc__,
        epilog=f"faults: {', '.join(FAULTS)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_daemon_option(parser)
    parser.add_argument("--fault", nargs="+", choices=FAULTS, default=list(FAULTS), metavar="NAME", help="default: all")
    parser.add_argument("--repeat", type=int, default=REPEAT, metavar="N", help=f"how often each; default {REPEAT}")
    parser.add_argument("--json", metavar="FILE", help="append the results as one line")
    options = cast("Options", parser.parse_args(arguments))
    print(", ".join(f"{name} {value}" for name, value in surroundings().items()), end="\n\n", flush=True)
    results = asyncio.run(run(options.daemon, options.fault, options.repeat))
    print(told(results), flush=True)
    save(options.json, benchmark="faults", command=sys.argv, results=results)
    sys.exit(any(result.wrongs for result in results))


if __name__ == "__main__":
    main()

"""What a call costs: straight to a server and through the daemon, by raw lines and by the SDK's client.

All subjects are started once. Round after round each runs one short burst, in an order that rotates; ratios are taken
within a round. Every answer is checked.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from . import processes
from .fleet import Daemon, add_daemon_option, echo_server, echo_servers
from .measure import Spread, quantile, ratios, rotated, save, table
from .wire import Burst, Wire, WireError

WARM_UP = 2
"""Rounds that do not count."""
BURST_BYTES = 8 * 1024 * 1024
"""Most text a burst carries, so that large payloads get fewer calls."""
LINE = "The quick brown fox jumps over the lazy dog, 0123456789. "


class Caller(Protocol):
    """Whoever calls tools."""

    def call(self, calls: Sequence[tuple[str, Mapping[str, Any]]], *, in_flight: int) -> Burst:
        """Call tools (name, arguments), at most `in_flight` at a time."""


@dataclass(frozen=True)
class Subject:
    """One way to reach a server's tools."""

    name: str
    caller: Caller
    prefix: str
    """Before the name of each tool."""
    daemon: int = 0
    """Process id of the daemon on the way; 0 where there is none."""


@dataclass(frozen=True)
class Case:
    """What every subject is asked to do in a burst."""

    text_bytes: int
    in_flight: int
    pinned: bool
    calls: int
    sleep_ms: float = 0

    @property
    def title(self) -> str:
        """For people."""
        flight = "one at a time" if self.in_flight == 1 else f"{self.in_flight} in flight"
        slept = f", sleeping {self.sleep_ms:g} ms" if self.sleep_ms else ""
        return f"{self.text_bytes:,} B, {flight}, {'pinned' if self.pinned else 'not pinned'}{slept}"

    def calls_of(self, prefix: str) -> list[tuple[str, dict[str, Any]]]:
        """The calls of one burst, each with a text of its own."""
        filling = (LINE * (self.text_bytes // len(LINE) + 1))[8:]
        texts = (f"{number:08d}{filling}"[: self.text_bytes] for number in range(self.calls))
        if self.sleep_ms:
            return [(f"{prefix}sleep", {"text": text, "ms": self.sleep_ms}) for text in texts]
        return [(f"{prefix}echo", {"text": text}) for text in texts]


@dataclass
class Samples:
    """A subject's bursts, one number a round."""

    p50_us: list[float] = field(default_factory=list)
    calls_per_s: list[float] = field(default_factory=list)
    daemon_cpu_us: list[float] = field(default_factory=list)
    latencies_us: list[float] = field(default_factory=list)

    def add(self, burst: Burst, daemon_cpu_ns: int) -> None:
        """Note one burst."""
        latencies = [latency / 1000 for latency in burst.latencies_ns]
        self.latencies_us += latencies
        self.p50_us.append(quantile(latencies, 0.5))
        self.calls_per_s.append(len(latencies) / (burst.wall_ns / 1e9))
        self.daemon_cpu_us.append(daemon_cpu_ns / 1000 / len(latencies))


@dataclass(frozen=True)
class Row:
    """A subject's figures in one case; ratios are of medians one at a time, of calls a second in flight."""

    subject: str
    p50_us: float
    p95_us: float
    calls_per_s: float
    to_sdk: Spread
    to_pipe: Spread
    daemon_cpu_us: Spread | None


@dataclass(frozen=True)
class Result:
    """One case."""

    case: Case
    rounds: int
    rows: tuple[Row, ...]

    def row(self, subject: str) -> Row:
        """The figures of one subject."""
        return next(row for row in self.rows if row.subject == subject)

    def __str__(self) -> str:
        of = "p50" if self.case.in_flight == 1 else "calls/s"
        header = ("subject", "p50 µs", "p95 µs", "calls/s", f"{of} ÷ sdk", f"{of} ÷ pipe", "daemon CPU µs/call")
        lines = [
            (
                row.subject,
                f"{row.p50_us:.0f}",
                f"{row.p95_us:.0f}",
                f"{row.calls_per_s:.0f}",
                row.to_sdk,
                row.to_pipe,
                row.daemon_cpu_us or "-",
            )
            for row in self.rows
        ]
        return f"**{self.case.title}** ({self.rounds} rounds of {self.case.calls})\n\n{table(header, lines)}\n"


@contextmanager
def subjects(command: str, *, metrics: bool) -> Iterator[tuple[Subject, ...]]:
    """All four ways, connected and warm."""
    with ExitStack() as stack:
        child = processes.spawn(echo_server("pipe"), pipes=True)
        stack.callback(processes.stop, child)
        pipe = Wire.to_child(child)
        pipe.shake_hands()
        daemon = stack.enter_context(Daemon(command, echo_servers(3), metrics=metrics))
        client = daemon.ready()
        stack.callback(client.close)
        from .sdk import SdkClient  # the import takes most of a second, which the daemon's start must not wait for

        runner = stack.enter_context(asyncio.Runner())
        sdk = SdkClient(runner, argv=echo_server("sdk"))
        stack.callback(sdk.close)
        through = SdkClient(runner, socket=daemon.socket)
        stack.callback(through.close)
        prefix = f"{daemon.servers[0]}__"
        yield (
            Subject("pipe", pipe, ""),
            Subject("sdk", sdk, ""),
            Subject("daemon", client, prefix, daemon.pid),
            Subject("sdk via daemon", through, prefix, daemon.pid),
        )


@contextmanager
def pinned(wanted: bool) -> Iterator[None]:
    """Keep us and all that we started on one CPU, so that no hop waits for another to wake up."""
    cpus = os.sched_getaffinity(0)

    def keep_on(chosen: set[int]) -> None:
        processes.pin([os.getpid(), *(process.pid for process in processes.descendants(os.getpid()))], chosen)

    keep_on({max(cpus)} if wanted else cpus)
    try:
        yield
    finally:
        keep_on(cpus)


def measure(case: Case, among: Sequence[Subject], *, rounds: int) -> Result:
    """Run the case."""
    samples = {subject.name: Samples() for subject in among}
    gc.collect()
    gc.freeze()
    with pinned(case.pinned):
        for turn in range(WARM_UP + rounds):
            for subject in rotated(among, turn):
                try:
                    burst, cpu_ns = one_burst(case, subject)
                except WireError as error:
                    raise WireError(f"{subject.name}, {case.title}: {error}") from None
                if turn >= WARM_UP:
                    samples[subject.name].add(burst, cpu_ns)
    return Result(case, rounds, tuple(row(subject, samples, case) for subject in among))


def one_burst(case: Case, subject: Subject) -> tuple[Burst, int]:
    """A burst, and the nanoseconds of CPU that it cost the daemon."""
    calls = case.calls_of(subject.prefix)
    if not subject.daemon:
        return subject.caller.call(calls, in_flight=case.in_flight), 0
    before = processes.cpu_ns(subject.daemon)
    burst = subject.caller.call(calls, in_flight=case.in_flight)
    return burst, processes.cpu_ns(subject.daemon) - before


def row(subject: Subject, samples: Mapping[str, Samples], case: Case) -> Row:
    """The figures of one subject beside those of the two straight ways."""
    own = samples[subject.name]

    def to(base: str) -> Spread:
        other = samples[base]
        if case.in_flight == 1:
            return ratios(own.p50_us, other.p50_us)
        return ratios(own.calls_per_s, other.calls_per_s)

    return Row(
        subject=subject.name,
        p50_us=quantile(own.latencies_us, 0.5),
        p95_us=quantile(own.latencies_us, 0.95),
        calls_per_s=Spread.of(own.calls_per_s).median,
        to_sdk=to("sdk"),
        to_pipe=to("pipe"),
        daemon_cpu_us=Spread.of(own.daemon_cpu_us) if subject.daemon else None,
    )


def cases(sizes: Iterable[int], *, in_flight: int, calls: int = 60, sleep_ms: float = 0) -> list[Case]:
    """Each size one at a time and `in_flight`, pinned and not."""
    made = []
    for size in sizes:
        for flight, count in ((1, calls), (in_flight, 10 * calls)):
            affordable = max(min(count, BURST_BYTES // max(size, 1)), 8)
            made += [Case(size, flight, pin, affordable, sleep_ms) for pin in (True, False)]
    return made


class Options(argparse.Namespace):
    """The command line."""

    daemon: str
    bytes: list[int]
    in_flight: int
    calls: int
    rounds: int
    sleep_ms: float
    metrics: bool
    json: str | None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_daemon_option(parser)
    parser.add_argument("--bytes", type=int, nargs="+", default=[100, 10 * 1024], help="sizes of the text")
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--calls", type=int, default=60, help="calls a burst; ten times as many in flight")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sleep-ms", type=float, default=0, help="call a tool that takes this long instead of echo")
    parser.add_argument("--metrics", action="store_true", help="with the daemon's metrics endpoint on")
    parser.add_argument("--json", metavar="FILE", help="append the results as one line")
    options = cast("Options", parser.parse_args(arguments))
    results = []
    with subjects(options.daemon, metrics=options.metrics) as among:
        for case in cases(options.bytes, in_flight=options.in_flight, calls=options.calls, sleep_ms=options.sleep_ms):
            results.append(measure(case, among, rounds=options.rounds))
            print(results[-1], flush=True)
    save(options.json, benchmark="calls", command=sys.argv, results=results)


if __name__ == "__main__":
    main()

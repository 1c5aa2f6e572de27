"""What the daemon keeps in memory: alone, per server and per idle client. Its servers are not counted."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast

from . import processes
from .fleet import Daemon, add_daemon_option, echo_of, echo_servers
from .measure import Spread, save, table
from .start import call_once

SETTLE = 0.5
"""Seconds for what the start left to do, such as saving the catalogs."""


@dataclass(frozen=True)
class Memory:
    """KiB of private memory."""

    by_servers: dict[int, Spread]
    per_server: float
    per_client: Spread


def with_servers(command: str, count: int, *, metrics: bool) -> float:
    """KiB that a daemon keeps with `count` servers, each of them called."""
    with Daemon(command, echo_servers(count), metrics=metrics) as daemon, ExitStack() as stack:
        client = daemon.ready()
        stack.callback(client.close)
        for server in daemon.servers:
            call_once(client, echo_of(server))
        time.sleep(SETTLE)
        return processes.private_kib(daemon.pid)


def per_client(command: str, count: int, *, metrics: bool) -> float:
    """KiB that each of `count` more clients adds, after its handshake and one call."""
    with Daemon(command, echo_servers(1), metrics=metrics) as daemon, ExitStack() as stack:
        stack.callback(daemon.ready().close)
        before = 0
        for number in range(count + 1):
            client = daemon.client()
            stack.callback(client.close)
            call_once(client, echo_of(daemon.servers[0]))
            if number == 0:  # what only the first client makes the daemon build is not the clients'
                time.sleep(SETTLE)
                before = processes.private_kib(daemon.pid)
        time.sleep(SETTLE)
        return (processes.private_kib(daemon.pid) - before) / count


def measure(command: str, *, servers: Sequence[int], clients: int, runs: int, metrics: bool = False) -> Memory:
    """Start a daemon for every figure."""
    samples = {count: [with_servers(command, count, metrics=metrics) for _ in range(runs)] for count in servers}
    by_servers = {count: Spread.of(values) for count, values in samples.items()}
    few, many = min(servers), max(servers)
    growth = (by_servers[many].median - by_servers[few].median) / (many - few)
    return Memory(by_servers, growth, Spread.of([per_client(command, clients, metrics=metrics) for _ in range(runs)]))


def show(memory: Memory) -> str:
    """A table of one row."""
    sizes = [f"private MiB, {count} server{'s' * (count > 1)}" for count in memory.by_servers]
    cells = [f"{spread.median / 1024:.1f}" for spread in memory.by_servers.values()]
    header = (*sizes, "KiB per further server", "KiB per idle client")
    return table(header, [(*cells, f"{memory.per_server:.0f}", memory.per_client)]) + "\n"


class Options(argparse.Namespace):
    """The command line."""

    daemon: str
    servers: list[int]
    clients: int
    runs: int
    metrics: bool
    json: str | None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_daemon_option(parser)
    parser.add_argument("--servers", type=int, nargs="+", default=[1, 10, 50], help="sizes of the fleet, two or more")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--metrics", action="store_true", help="with the daemon's metrics endpoint on")
    parser.add_argument("--json", metavar="FILE", help="append the results as one line")
    options = cast("Options", parser.parse_args(arguments))
    if len(set(options.servers)) < 2:
        parser.error("--servers needs two sizes to tell what one server adds")
    memory = measure(
        options.daemon,
        servers=options.servers,
        clients=options.clients,
        runs=options.runs,
        metrics=options.metrics,
    )
    print(show(memory), flush=True)
    save(options.json, benchmark="memory", command=sys.argv, memory=memory)


if __name__ == "__main__":
    main()

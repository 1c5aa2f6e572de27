"""What reading /metrics costs a busy fleet: lines, time, and how long the event loop keeps clients waiting meanwhile.

Every tool of every server was called before, and some calls failed, so that all series are there. A client pings the
daemon without pause from another thread; the lag of a scrape is the longest of its pings less the usual one.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from .fleet import Daemon, add_daemon_option, echo_servers
from .measure import Spread, quantile, save, table
from .wire import Wire

OWN_TOOLS = 2
"""Tools that every server has without filler."""
FAULTY_EVERY = 5
"""One server in so many has a call that failed, and with it a second row of durations."""
FORMATS = {
    "OpenMetrics": "application/openmetrics-text;version=1.0.0",
    "text": "text/plain;version=0.0.4",
}
PAUSE = 0.05


@dataclass(frozen=True)
class Scrapes:
    """One format, read some times."""

    format: str
    lines: int
    kib: float
    milliseconds: Spread
    lag_ms: Spread
    worst_lag_ms: float


@dataclass
class Pinger:
    """Pings until told to stop, and remembers when each answer came and how long it took."""

    wire: Wire
    pings: list[tuple[float, float]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """In a thread of its own, whose connection has the daemon's end to bound it."""
        number = 1_000_000
        while not self._stop.is_set():
            number += 1
            begin = time.perf_counter()
            self.wire.post("ping", id=number)
            self.wire.take_response()
            now = time.perf_counter()
            self.pings.append((now, now - begin))
            time.sleep(0.0005)

    def stop(self) -> None:
        self._stop.set()

    def between(self, begin: float, end: float) -> list[float]:
        """How long the pings took that were under way then."""
        return [took for at, took in self.pings if at > begin and at - took < end]


def measure(command: str, *, servers: int, tools: int, scrapes: int) -> list[Scrapes]:
    """A daemon, its calls, and scrapes of both formats."""
    with Daemon(command, echo_servers(servers, filler=tools - OWN_TOOLS), metrics=True) as daemon:
        client = daemon.ready()
        call_everything(client)
        pinger = Pinger(daemon.client())
        thread = threading.Thread(target=pinger.run)
        thread.start()
        try:
            url = f"http://{daemon.metrics_address}/metrics"
            return [read(url, name, pinger, scrapes) for name in FORMATS]
        finally:
            pinger.stop()
            thread.join()
            pinger.wire.close()
            client.close()


def call_everything(client: Wire) -> None:
    """Every tool once, and in some servers one so that it fails."""
    for number, tool in enumerate(client.tools(), 2_000_000):
        lookup = "__lookup_" in tool
        client.request("tools/call", {"name": tool, "arguments": {"query": "x"} if lookup else {"text": "x"}})
        if tool.endswith("__lookup_00000") and int(tool[1:3]) % FAULTY_EVERY == 0:
            client.post("tools/call", {"name": tool, "arguments": {}}, id=number)
            client.take_response()


def read(url: str, name: str, pinger: Pinger, scrapes: int) -> Scrapes:
    """Scrape again and again; the first one, which imports what it needs, does not count."""
    request = urllib.request.Request(url, headers={"Accept": FORMATS[name]})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    body, took, lags = b"", list[float](), list[float]()
    for turn in range(scrapes + 1):
        time.sleep(PAUSE)
        begin = time.perf_counter()
        with opener.open(request, timeout=30) as answer:
            body = answer.read()
        end = time.perf_counter()
        time.sleep(PAUSE)
        usual = quantile(pinger.between(end, end + PAUSE), 0.5)
        if turn:
            took.append((end - begin) * 1e3)
            lags.append((max(pinger.between(begin, end)) - usual) * 1e3)
    return Scrapes(name, body.count(b"\n"), len(body) / 1024, Spread.of(took), Spread.of(lags), max(lags))


def show(results: Sequence[Scrapes]) -> str:
    """A table with a row a format."""
    header = ("format", "lines", "KiB", "ms a scrape", "lag ms", "worst lag ms")
    rows = [(r.format, r.lines, f"{r.kib:.0f}", r.milliseconds, r.lag_ms, f"{r.worst_lag_ms:.3g}") for r in results]
    return table(header, rows) + "\n"


class Options(argparse.Namespace):
    """The command line."""

    daemon: str
    servers: int
    tools: int
    scrapes: int
    json: str | None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_daemon_option(parser)
    parser.add_argument("--servers", type=int, default=50)
    parser.add_argument("--tools", type=int, default=20, help="of each server, at least 3")
    parser.add_argument("--scrapes", type=int, default=30)
    parser.add_argument("--json", metavar="FILE", help="append the results as one line")
    options = cast("Options", parser.parse_args(arguments))
    results = measure(options.daemon, servers=options.servers, tools=options.tools, scrapes=options.scrapes)
    print(show(results), flush=True)
    save(options.json, benchmark="scrape", command=sys.argv, results=results)


if __name__ == "__main__":
    main()

"""Draws the dashboards: `python -m dashboards.draw [--minutes 4]` writes docs/overview.png and docs/server.png.

A real daemon with a fleet of fixtures, of which one keeps ending and one is missing, under load; a real Prometheus that
reads it; Grafana's own components in a headless Chromium. Needs `prometheus`, `chromium` and `npm` (460 MB of packages,
into dashboards/draw/node_modules); no part of the test suite.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import random
import re
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.dashboards.tools import Prometheus, program, prometheus
from tests.e2e.entries import fixture
from tests.e2e.harness import Daemon
from tests.e2e.wire import Closed, Wire

from dashboards.generate import texts

HERE = Path(__file__).parent
DOCS = HERE.parent.parent / "docs"
SHAKY = "weather"
SERVERS = {
    "git": fixture("git", "--tools", "12"),
    "files": fixture("files", "--tools", "6", "--era", "modern"),
    "database": fixture("database", "--tools", "4"),
    SHAKY: fixture(SHAKY),
    "calendar": {"command": "/opt/calendar/bin/serve"},
    "crm": fixture("crm", disabled=True),
}
ROW_PIXELS = 34
"""As in draw.jsx."""
SCALE = 0.8


@contextmanager
def background(*works: Callable[[threading.Event], None]) -> Iterator[None]:
    """Each in a thread, until the block ends."""
    over = threading.Event()
    threads = [threading.Thread(target=work, args=[over]) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(30)


def call(client: Wire, server: str, luck: random.Random) -> None:
    """One request, mostly quick and good; those of the database take their time."""
    if server == "database":
        seconds = luck.lognormvariate(-2, 1)
        client.request("tools/call", {"name": "database__slow", "arguments": {"seconds": seconds}})
    elif luck.random() < 0.1:
        client.request("resources/read", {"uri": f"{server}:note://one"})
    else:
        odd = luck.choices(["echo", "received", "fail", "rpc_error"], [70, 20, 6, 1])[0]
        client.request("tools/call", {"name": f"{server}__{odd}", "arguments": {}})


def load(daemon: Daemon, server: str, pace: float, over: threading.Event) -> None:
    """A client of one server, that pauses `pace` seconds between its requests."""
    luck = random.Random(server)
    with suppress(Closed), daemon.legacy() as client:
        while not over.wait(luck.expovariate(1 / pace)):
            call(client, server, luck)


def shake(daemon: Daemon, over: threading.Event) -> None:
    """Have one server end whenever it was up for some seconds."""
    with suppress(Closed), daemon.legacy() as client:
        while not over.wait(9):
            if daemon.server(SHAKY)["state"] == "ready":
                client.post("tools/call", {"name": f"{SHAKY}__exit", "arguments": {}})


def bundle() -> None:
    """Install what is missing and make drawn.js and drawn.css."""
    if not (HERE / "node_modules").exists():
        subprocess.run(
            [program("npm"), "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=HERE,
            check=True,
        )
    words = ["draw.jsx", "--bundle", "--minify", "--format=esm", "--outfile=drawn.js", "--jsx=automatic"]
    words += ["--loader:.json=json", "--loader:.ttf=empty", "--loader:.svg=text", "--log-level=error"]
    words += ['--define:process.env.NODE_ENV="production"', "--define:global=window"]
    subprocess.run([HERE / "node_modules" / ".bin" / "esbuild", *words], cwd=HERE, check=True)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


def height_of(name: str) -> int:
    """Pixels of the whole page."""
    places = [panel["gridPos"] for panel in json.loads((HERE.parent / f"{name}.json").read_text())["panels"]]
    rows: int = max(place["y"] + place["h"] for place in places)
    return rows * ROW_PIXELS + 4


def shoot(source: Prometheus, name: str, server: str, began: float) -> None:
    """One dashboard as a picture."""
    handler = functools.partial(Quiet, directory=str(HERE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as pages:
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        query = {"dashboard": name, "prometheus": source.url, "server": server, "rate": "15s"}
        query |= {"from": f"{began:.0f}", "to": f"{time.time():.0f}"}
        url = f"http://127.0.0.1:{pages.server_address[1]}/page.html?{urllib.parse.urlencode(query)}"
        with tempfile.TemporaryDirectory() as profile:
            words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-proxy-server"]
            words += [
                "--virtual-time-budget=10000",
                f"--window-size=1800,{height_of(name)}",
                f"--force-device-scale-factor={SCALE}",
                f"--user-data-dir={profile}",
            ]
            words += [f"--screenshot={DOCS / name}.png", url]
            subprocess.run([program("chromium"), *words], check=True, timeout=120, capture_output=True)
        pages.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4, help="of load, before the picture is taken")
    minutes: float = parser.parse_args().minutes
    for name, text in texts().items():
        (HERE.parent / name).write_text(text)
    bundle()
    with (
        tempfile.TemporaryDirectory() as directory,
        Daemon(SERVERS, settings={"metrics": {"listen": "127.0.0.1:0"}, "naming": "qualified"}) as daemon,
    ):
        daemon.await_up("git", "files", "database", SHAKY)
        told = re.search(r'"daemon\.listening".*"metrics":"([^"]+)"', daemon.log)
        assert told is not None
        paces = {"git": 0.05, "files": 0.1, "database": 0.3, SHAKY: 0.4}
        works = [functools.partial(load, daemon, server, pace) for server, pace in paces.items()]
        with (
            prometheus(Path(directory), told[1], interval="1s") as source,
            background(*works, functools.partial(shake, daemon)),
        ):
            began = time.time()
            time.sleep(minutes * 60)
            shoot(source, "overview", ".+", began)
            shoot(source, "server", SHAKY, began)


if __name__ == "__main__":
    main()

"""The commands: what each takes on the command line. Those up to `stdio` speak MCP, the others to the daemon itself.

What carries a command out is imported when it runs: most commands need little of it.
"""

from __future__ import annotations

from typing import Literal

import click

from .. import __version__
from .options import (
    GlobalOptions,
    RequestOptions,
    config_option,
    global_options,
    json_option,
    request_options,
    seconds_option,
    socket_option,
    timeout_option,
    wait_option,
)

CHANGE_TIMEOUT = 120.0
"""For reload and restart, which wait for servers to start."""
HOLD = 5.0
"""As `daemon.hold` is by default, which is the same for one server that is away."""
WAIT_FOR_DAEMON = 10.0
LINGER = 1.5
"""SDKs kill after 2 s."""
LEVELS = ("debug", "info", "warning", "error")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "obj": None})
@socket_option
@config_option
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """One supervised fleet of MCP servers for every client on the machine."""


def _list_command(name: str, what: str, method: str, member: str, key: str) -> None:
    """Add a command that lists what all servers offer of one kind. `key` is the member by which an item is called."""

    @cli.command(name, help=f"List the {what} of all servers.")
    @socket_option
    @json_option
    @global_options
    def show(options: GlobalOptions, as_json: bool) -> None:
        from .listing import show_list
        from .session import session

        with session(options.socket) as opened:
            show_list(opened, method=method, member_name=member, key=key, as_json=as_json)


_list_command("tools", "tools", "tools/list", "tools", key="name")
_list_command("resources", "resources", "resources/list", "resources", key="uri")
_list_command("templates", "resource templates", "resources/templates/list", "resourceTemplates", key="uriTemplate")
_list_command("prompts", "prompts", "prompts/list", "prompts", key="name")


@cli.command()
@click.argument("name")
@click.argument("arguments", nargs=-1, metavar="[JSON | KEY=VALUE ...]")
@request_options
def call(options: RequestOptions, name: str, arguments: tuple[str, ...]) -> int:
    """Call a tool and print what it returns.

    The arguments are one JSON object (`-` reads it from stdin), or KEY=VALUE words: a value that is JSON is taken as
    JSON, unless the tool wants text there.
    """
    from .requests import call_tool

    return call_tool(options, name, arguments)


@cli.command()
@click.argument("uri")
@request_options
def read(options: RequestOptions, uri: str) -> None:
    """Read a resource and print it; bytes as they are, except on a terminal."""
    from .requests import read_resource

    read_resource(options, uri)


@cli.command()
@click.argument("name")
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE ...]")
@request_options
def prompt(options: RequestOptions, name: str, arguments: tuple[str, ...]) -> None:
    """Get a prompt and print its messages with their roles."""
    from .requests import get_prompt

    get_prompt(options, name, arguments)


@cli.command()
@seconds_option("--hold", HOLD, "How long a request waits for a daemon that is away.")
@seconds_option("--wait", WAIT_FOR_DAEMON, "How long it waits for one that was not there yet.")
@seconds_option("--linger", LINGER, "How long a host that has left is given for answers that it waits for.")
@socket_option
@global_options
def stdio(options: GlobalOptions, *, hold: float, wait: float, linger: float) -> None:
    """Join stdin and stdout to the daemon, for MCP hosts that start their servers.

    It goes on for as long as stdin is open, whatever becomes of the daemon.
    """
    from .bridge import join

    join(options.socket, 0, 1, hold=hold, wait=wait, linger=linger)


@cli.command()
@click.option("--log-level", type=click.Choice(LEVELS), help="How much it logs.")
@click.option("--log-format", type=click.Choice(["auto", "json", "console"]), help="How a log line looks.")
@config_option
@socket_option
@global_options
def serve(
    options: GlobalOptions,
    log_level: Literal["debug", "info", "warning", "error"] | None,
    log_format: Literal["auto", "json", "console"] | None,
) -> int:
    """Run the daemon in the foreground; it logs to stderr."""
    from ..daemon.main import run

    return run(config=options.config, socket=options.socket, log_level=log_level, log_format=log_format)


@cli.command()
@click.option("--watch", "-w", "is_live", is_flag=True, help="Go on showing it as it changes, until Ctrl-C.")
@wait_option
@socket_option
@json_option
@global_options
def status(options: GlobalOptions, *, is_live: bool, wait: float, as_json: bool) -> None:
    """Show every server's state and what the daemon knows about it."""
    if is_live:
        from .watch import watch

        return watch(options.socket, wait=wait, as_json=as_json)
    from .control import status

    return status(options.socket, as_json=as_json)


@cli.command()
@click.argument("server")
@timeout_option(CHANGE_TIMEOUT, "Give up waiting for the outcome after so long.")
@socket_option
@json_option
@global_options
def restart(options: GlobalOptions, server: str, *, timeout: float, as_json: bool) -> int:
    """Give a server a new connection, and wait for the outcome."""
    from .control import restart

    return restart(options.socket, server, timeout=timeout, as_json=as_json)


@cli.command()
@timeout_option(CHANGE_TIMEOUT, "Give up waiting for the outcome after so long.")
@socket_option
@json_option
@global_options
def reload(options: GlobalOptions, *, timeout: float, as_json: bool) -> int:
    """Have the daemon read its config again, and wait for the outcome."""
    from .control import reload

    return reload(options.socket, timeout=timeout, as_json=as_json)


@cli.command()
@click.argument("file", required=False)
@socket_option
@json_option
@global_options
def plan(options: GlobalOptions, file: str | None, *, as_json: bool) -> None:
    """Show what a config would change, without changing anything: FILE, or the daemon's own as it is written."""
    from .control import plan

    plan(options.socket, file, as_json=as_json)


@cli.command()
@click.argument("file", required=False)
@config_option
@json_option
@global_options
def check(options: GlobalOptions, file: str | None, *, as_json: bool) -> int:
    """Check a config, with no daemon: FILE, or the one that a daemon would use."""
    from .check import check

    return check(file or options.config, as_json=as_json)


@cli.command()
@click.argument("server")
@click.option("--lines", "-n", type=click.IntRange(min=0), default=50, metavar="N", show_default=True, help="How many.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what it writes from now on, until Ctrl-C.")
@wait_option
@socket_option
@json_option
@global_options
def logs(options: GlobalOptions, server: str, *, lines: int, follow: bool, wait: float, as_json: bool) -> None:
    """Print the last lines that a server wrote to its stderr."""
    from .logs import follow_log, logs

    if follow:
        follow_log(options.socket, server, lines=lines, wait=wait, as_json=as_json)
    else:
        logs(options.socket, server, lines=lines, as_json=as_json)


@cli.command("log-level")
@click.argument("level", required=False, type=click.Choice(LEVELS, case_sensitive=False))
@socket_option
@json_option
@global_options
def log_level(options: GlobalOptions, level: str | None, *, as_json: bool) -> None:
    """Show how much the daemon logs; with LEVEL, change it until it ends or its config says another one."""
    from .logs import log_level

    log_level(options.socket, level, as_json=as_json)


@cli.command()
@wait_option
@socket_option
@json_option
@global_options
def events(options: GlobalOptions, *, wait: float, as_json: bool) -> None:
    """Print what happens, as it happens, until Ctrl-C."""
    from .events import events

    events(options.socket, wait=wait, as_json=as_json)

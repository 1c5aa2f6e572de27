"""The commands: what each takes on the command line. The first group speaks MCP, the second to the daemon itself."""

from __future__ import annotations

from typing import Literal

import click

from .. import __version__
from .options import GlobalOptions, as_json, on_socket, settings, timeout, while_away, with_config

CALL_TIMEOUT = 65.0
"""A little more than the daemon gives a server by default, so that its answer, which says more, comes first."""
CHANGE_TIMEOUT = 120.0
"""For reload and restart, which wait for servers to start."""
WAIT_FOR_DAEMON = 10.0
LEVELS = ("debug", "info", "warning", "error")
_CALL_HELP = "Give up when nothing, not even progress, came for so long."

one_server = click.option("--server", metavar="NAME", help="Ask this server, whoever owns the name.")
output = click.option("--output", metavar="DIR", help="Save images, audio and other bytes there.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "obj": None})
@on_socket
@with_config
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """One supervised fleet of MCP servers for every client on the machine."""


@cli.command()
@on_socket
@as_json
@settings
def tools(options: GlobalOptions, as_json: bool) -> None:
    """List the tools of all servers."""
    _show(options, "tools/list", "tools", key="name", as_json=as_json)


@cli.command()
@on_socket
@as_json
@settings
def resources(options: GlobalOptions, as_json: bool) -> None:
    """List the resources of all servers."""
    _show(options, "resources/list", "resources", key="uri", as_json=as_json)


@cli.command()
@on_socket
@as_json
@settings
def templates(options: GlobalOptions, as_json: bool) -> None:
    """List the resource templates of all servers."""
    _show(options, "resources/templates/list", "resourceTemplates", key="uriTemplate", as_json=as_json)


@cli.command()
@on_socket
@as_json
@settings
def prompts(options: GlobalOptions, as_json: bool) -> None:
    """List the prompts of all servers."""
    _show(options, "prompts/list", "prompts", key="name", as_json=as_json)


@cli.command()
@click.argument("name")
@click.argument("arguments", nargs=-1, metavar="[JSON | KEY=VALUE ...]")
@one_server
@output
@timeout(CALL_TIMEOUT, _CALL_HELP)
@on_socket
@as_json
@settings
def call(
    options: GlobalOptions,
    name: str,
    arguments: tuple[str, ...],
    *,
    server: str | None,
    output: str | None,
    timeout: float,
    as_json: bool,
) -> int:
    """Call a tool and print what it returns.

    The arguments are one JSON object (`-` reads it from stdin), or KEY=VALUE words: a value that is JSON is taken as
    JSON, unless the tool wants text there.
    """
    from .requests import RequestOptions, call_tool

    return call_tool(RequestOptions(options.socket, server, timeout, output, as_json), name, arguments)


@cli.command()
@click.argument("uri")
@one_server
@output
@timeout(CALL_TIMEOUT, _CALL_HELP)
@on_socket
@as_json
@settings
def read(
    options: GlobalOptions, uri: str, *, server: str | None, output: str | None, timeout: float, as_json: bool
) -> None:
    """Read a resource and print it; bytes as they are, except on a terminal."""
    from .requests import RequestOptions, read_resource

    read_resource(RequestOptions(options.socket, server, timeout, output, as_json), uri)


@cli.command()
@click.argument("name")
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE ...]")
@one_server
@output
@timeout(CALL_TIMEOUT, _CALL_HELP)
@on_socket
@as_json
@settings
def prompt(
    options: GlobalOptions,
    name: str,
    arguments: tuple[str, ...],
    *,
    server: str | None,
    output: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Get a prompt and print its messages with their roles."""
    from .requests import RequestOptions, get_prompt

    get_prompt(RequestOptions(options.socket, server, timeout, output, as_json), name, arguments)


@cli.command()
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=WAIT_FOR_DAEMON,
    metavar="SECONDS",
    show_default=True,
    help="How long a daemon that is only starting may take to listen.",
)
@on_socket
@settings
def stdio(options: GlobalOptions, wait: float) -> None:
    """Join stdin and stdout to the daemon, for MCP hosts that start their servers."""
    from .bridge import join
    from .connect import connect_within

    with connect_within(options.socket, wait) as connection:
        join(connection, stdin=0, stdout=1)


@cli.command()
@click.option("--log-level", type=click.Choice(LEVELS), help="How much it logs.")
@click.option("--log-format", type=click.Choice(["auto", "json", "console"]), help="How a log line looks.")
@with_config
@on_socket
@settings
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
@while_away
@on_socket
@as_json
@settings
def status(options: GlobalOptions, *, is_live: bool, wait: float, as_json: bool) -> None:
    """Show every server's state and what the daemon knows about it."""
    if is_live:
        from .watch import watch

        return watch(options.socket, wait=wait, as_json=as_json)
    from .control import status

    return status(options.socket, as_json=as_json)


@cli.command()
@click.argument("server")
@timeout(CHANGE_TIMEOUT, "Give up waiting for the outcome after so long.")
@on_socket
@as_json
@settings
def restart(options: GlobalOptions, server: str, *, timeout: float, as_json: bool) -> int:
    """Give a server a new connection, and wait for the outcome."""
    from .control import restart

    return restart(options.socket, server, timeout=timeout, as_json=as_json)


@cli.command()
@timeout(CHANGE_TIMEOUT, "Give up waiting for the outcome after so long.")
@on_socket
@as_json
@settings
def reload(options: GlobalOptions, *, timeout: float, as_json: bool) -> int:
    """Have the daemon read its config again, and wait for the outcome."""
    from .control import reload

    return reload(options.socket, timeout=timeout, as_json=as_json)


@cli.command()
@click.argument("file", required=False)
@on_socket
@as_json
@settings
def plan(options: GlobalOptions, file: str | None, *, as_json: bool) -> None:
    """Show what a config would change, without changing anything: FILE, or the daemon's own as it is written."""
    from .control import plan

    plan(options.socket, file, as_json=as_json)


@cli.command()
@click.argument("file", required=False)
@with_config
@as_json
@settings
def check(options: GlobalOptions, file: str | None, *, as_json: bool) -> int:
    """Check a config, with no daemon: FILE, or the one that a daemon would use."""
    from .check import check

    return check(file or options.config, as_json=as_json)


@cli.command()
@click.argument("server")
@click.option("--lines", "-n", type=click.IntRange(min=0), default=50, metavar="N", show_default=True, help="How many.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what it writes from now on, until Ctrl-C.")
@while_away
@on_socket
@as_json
@settings
def logs(options: GlobalOptions, server: str, *, lines: int, follow: bool, wait: float, as_json: bool) -> None:
    """Print the last lines that a server wrote to its stderr."""
    from .logs import follow_log, logs

    if follow:
        follow_log(options.socket, server, lines=lines, wait=wait, as_json=as_json)
    else:
        logs(options.socket, server, lines=lines, as_json=as_json)


@cli.command("log-level")
@click.argument("level", required=False, type=click.Choice(LEVELS, case_sensitive=False))
@on_socket
@as_json
@settings
def log_level(options: GlobalOptions, level: str | None, *, as_json: bool) -> None:
    """Show how much the daemon logs; with LEVEL, change it until it ends or its config says another one."""
    from .logs import log_level

    log_level(options.socket, level, as_json=as_json)


@cli.command()
@while_away
@on_socket
@as_json
@settings
def events(options: GlobalOptions, *, wait: float, as_json: bool) -> None:
    """Print what happens, as it happens, until Ctrl-C."""
    from .events import events

    events(options.socket, wait=wait, as_json=as_json)


def _show(options: GlobalOptions, method: str, member_name: str, *, key: str, as_json: bool) -> None:
    from .listing import show_list
    from .session import session

    with session(options.socket) as opened:
        show_list(opened, method=method, member_name=member_name, key=key, as_json=as_json)

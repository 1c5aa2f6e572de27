"""The options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any, TypeAlias, TypeVar, cast

import click

from .connect import check_socket_path

REQUEST_TIMEOUT = 65.0
SPARE = 5.0
"""Seconds without an answer, by default, and by how much that is more than the daemon gives a server by default: its
answer, which says more, comes first."""

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator: TypeAlias = Callable[[Command], Command]


MOST_SECONDS = 1_000_000.0
"""As in the config; what a system call takes as its limit is not much more."""


class Seconds(click.FloatRange):
    """A number of seconds that can be waited for. No comparison refuses NaN, and no clock ever reaches it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number. Raises click.BadParameter."""
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


SECONDS = Seconds(min=0, max=MOST_SECONDS)
SOME_SECONDS = Seconds(min=0, max=MOST_SECONDS, min_open=True)


@dataclass
class GlobalOptions:
    """The options that may stand before the command or after it; click makes one a run, `_keep` fills it in."""

    socket: str | None = None
    config: str | None = None


def _keep(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """Take the value of an option; one that is not given here may have been given before the command."""
    if value is None:
        return
    options = context.ensure_object(GlobalOptions)
    if parameter.name == "socket":
        options.socket = check_socket_path(value)
    else:
        options.config = value


socket_option = click.option(
    "--socket", metavar="PATH", callback=_keep, expose_value=False, help="The daemon's socket, if not a usual place."
)
config_option = click.option(
    "--config", metavar="PATH", callback=_keep, expose_value=False, help="The config file, if not a usual place."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
wait_option = click.option(
    "--wait",
    type=SECONDS,
    default=60.0,
    metavar="SECONDS",
    show_default=True,
    help="While following: how long the daemon may be away, as when it is restarted.",
)
global_options = click.make_pass_decorator(GlobalOptions, ensure=True)


def seconds_option(name: str, default: float, explanation: str) -> Callable[[Command], Command]:
    """An option of that many seconds, or none."""
    return click.option(name, type=SECONDS, default=default, metavar="SECONDS", show_default=True, help=explanation)


def timeout_option(default: float, explanation: str) -> Callable[[Command], Command]:
    """`--timeout SECONDS`."""
    return click.option(
        "--timeout", type=SOME_SECONDS, default=default, metavar="SECONDS", show_default=True, help=explanation
    )


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """How a request to a server is to be made, and its result shown: the options of `call`, `read` and `prompt`."""

    socket: str | None
    server: str | None
    timeout: float
    """Seconds without an answer, or progress, after which the request is given up."""
    output: str | None
    """The directory to save bytes in."""
    as_json: bool


def request_options(command: Command) -> Command:
    """The options of a request, which the command gets as one `RequestOptions`."""

    @click.option("--server", metavar="NAME", help="Ask this server, whoever owns the name.")
    @click.option("--output", metavar="DIR", help="Save images, audio and other bytes there.")
    @timeout_option(REQUEST_TIMEOUT, "Give up when nothing, not even progress, came for so long.")
    @socket_option
    @json_option
    @global_options
    def run(
        found: GlobalOptions, /, *, server: str | None, output: str | None, timeout: float, as_json: bool, **given: Any
    ) -> Any:
        return command(RequestOptions(found.socket, server, timeout, output, as_json), **given)

    # click takes the name of the command, and its help, from the function.
    return cast("Command", update_wrapper(run, command))

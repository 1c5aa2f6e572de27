"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import click

from .connect import check_socket_path

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator: TypeAlias = Callable[[Command], Command]


@dataclass
class GlobalOptions:
    """The options that may stand before the command or after it; click makes one object for each run."""

    socket: str | None = None
    config: str | None = None


def _keep(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    settings = context.ensure_object(GlobalOptions)
    if parameter.name == "socket":
        settings.socket = check_socket_path(value)
    else:
        settings.config = value


on_socket = click.option(
    "--socket", metavar="PATH", callback=_keep, expose_value=False, help="The daemon's socket, if not a usual place."
)
with_config = click.option(
    "--config", metavar="PATH", callback=_keep, expose_value=False, help="The config file, if not a usual place."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
while_away = click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=60.0,
    metavar="SECONDS",
    show_default=True,
    help="While following: how long the daemon may be away, as when it is restarted.",
)
settings = click.make_pass_decorator(GlobalOptions, ensure=True)


def timeout(default: float, explanation: str) -> Callable[[Command], Command]:
    """`--timeout SECONDS`."""
    seconds = click.FloatRange(min=0, min_open=True)
    return click.option(
        "--timeout", type=seconds, default=default, metavar="SECONDS", show_default=True, help=explanation
    )

"""What the documentation says of the command line is what the commands take, and how they exit."""

from __future__ import annotations

import re

import click
import pytest

from mcp_multi_server.cli import failures
from mcp_multi_server.cli.commands import CHANGE_TIMEOUT, cli
from mcp_multi_server.cli.options import REQUEST_TIMEOUT
from mcp_multi_server.daemon import main

from .pages import ROOT, codes, page, rows, section

PAGE = page("cli")
README = section((ROOT / "README.md").read_text(), "Command line")
TAKES = {code.split()[0]: code.split()[1:] for row in rows(section(PAGE, "Commands")) for code in codes(row[0])}
"""By each command of the table, what is shown behind it."""


def test_every_command_is_in_the_table() -> None:
    assert list(TAKES) == list(dict.fromkeys(TAKES))
    assert set(TAKES) == set(cli.commands)


def test_the_readme_has_every_command_too() -> None:
    assert {name.split()[0] for row in rows(README) for name in codes(row[0])} == set(cli.commands)


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_what_is_shown_behind_a_command_is_what_it_takes(name: str) -> None:
    parameters = cli.commands[name].params
    options = {option for parameter in parameters for option in parameter.opts}
    shown = " ".join(TAKES.get(name, []))
    assert set(re.findall(r"--[a-z-]+", shown)) <= options
    arguments = [parameter for parameter in parameters if isinstance(parameter, click.Argument)]
    required = re.findall(r"(?<![-\w\[])[A-Z]{2,}", re.sub(r"\[[^\]]*\]", "", shown))
    assert required == [argument.name.upper() for argument in arguments if argument.required and argument.name]
    assert ("[" in re.sub(r"\[--[^\]]*\]", "", shown)) == any(not argument.required for argument in arguments)


def test_the_options_that_are_explained_exist() -> None:
    options = {option for command in cli.commands.values() for parameter in command.params for option in parameter.opts}
    assert set(re.findall(r"(?<=`)--[a-z-]+", PAGE)) <= options


def test_the_exit_codes_are_those_of_the_code() -> None:
    documented = {int(code) for code, _ in rows(section(PAGE, "Exit codes"))}
    assert documented == {
        0,
        failures.OPERATION_FAILED,
        failures.USAGE,
        failures.UNREACHABLE,
        failures.INTERRUPTED,
        main.EXIT_FAILED,
        main.EXIT_CONFIG,
    }
    assert click.UsageError.exit_code == failures.USAGE


def test_the_default_timeouts_are_those_of_the_code() -> None:
    options = section(PAGE, "Common options")
    assert f"({REQUEST_TIMEOUT:g} s without a sign of life)" in options
    assert f"({CHANGE_TIMEOUT:g} s)" in options

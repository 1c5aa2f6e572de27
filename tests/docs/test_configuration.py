"""What the documentation says of the config is what the settings' models say."""

from __future__ import annotations

import json
import re
from typing import get_args

import pytest

from mcp_multi_server.core.config.config import Source, parse
from mcp_multi_server.core.config.schema import key_table
from mcp_multi_server.core.config.settings import DaemonConfig, ServerConfig, Settings
from mcp_multi_server.core.paths import CONFIG_VARIABLE, config_candidates

from .pages import DOCS, codes, page, rows, section

PAGE = page("configuration")
JSON_BLOCK = re.compile(r"^```json\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("heading", "model"), [("Keys of a server", ServerConfig), ("Keys of `daemon`", DaemonConfig)])
def test_the_tables_of_keys_are_those_of_the_models(heading: str, model: type[Settings]) -> None:
    assert key_table(model) in section(PAGE, heading)


def test_the_places_of_the_file_are_those_that_are_looked_at() -> None:
    named = codes(section(PAGE, "Where the file is").partition("\n`")[0])
    candidates = config_candidates({}, cwd=".", home="~")
    assert named == ["--config PATH", f"${CONFIG_VARIABLE}", *candidates]


def test_each_kind_of_variable_is_explained() -> None:
    first, *others = rows(section(PAGE, "Variables"))
    kinds = {kind for row in (first, *others) for kind in re.findall(r"\$\{(\w+):[A-Z]", row[0])}
    assert kinds == {*get_args(Source), "input"}


@pytest.mark.parametrize(
    "example",
    [
        (path.name, block)
        for path in sorted(DOCS.glob("*.md"))
        for block in JSON_BLOCK.findall(path.read_text())
        if '"mcpServers"' in block or '"daemon"' in block
    ],
    ids=lambda example: example[0],
)
def test_each_config_that_is_shown_loads(example: tuple[str, str]) -> None:
    shown = {"mcpServers": {}} | json.loads(example[1])
    config = parse(json.dumps(shown).encode(), lambda source, name: "secret")
    assert (config.broken, config.notes) == ({}, ())

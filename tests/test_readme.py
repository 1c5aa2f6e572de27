"""What the README says of the config is what the models say."""

import re
from pathlib import Path

import pytest

from mcp_multi_server.core.schema import key_table
from mcp_multi_server.core.settings import DaemonConfig, ServerConfig, Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("model", [ServerConfig, DaemonConfig])
def test_the_tables_of_config_keys_are_current(model: type[Settings]) -> None:
    assert key_table(model) in README


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)`", README)) <= targets

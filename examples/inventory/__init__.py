"""A small shop as three MCP servers over one SQLite database: its stock, its suppliers, its orders."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

CONFIG = Path(__file__).with_name("mcp_servers.json")
"""Its paths are relative to the root of the repository."""


@contextmanager
def fresh_database() -> Iterator[None]:
    """Servers that are started meanwhile share a new database, which is deleted at the end."""
    with TemporaryDirectory() as directory:
        os.environ["INVENTORY_DB"] = os.path.join(directory, "inventory.db")
        try:
            yield
        finally:
            del os.environ["INVENTORY_DB"]

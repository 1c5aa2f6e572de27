"""The database that the three servers share: `INVENTORY_DB`, or a file in a temporary directory of the user's own."""

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager

BUSY_WITHIN = 10.0
"""Seconds that one server waits for another's write."""

_FIRST_RUN = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS products (
    sku TEXT PRIMARY KEY, name TEXT NOT NULL, on_hand INTEGER NOT NULL, wanted INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS offers (
    supplier TEXT NOT NULL, sku TEXT NOT NULL REFERENCES products, cents INTEGER NOT NULL, most INTEGER NOT NULL,
    PRIMARY KEY (supplier, sku)
);
CREATE TABLE IF NOT EXISTS orders (
    number INTEGER PRIMARY KEY, sku TEXT NOT NULL REFERENCES products, supplier TEXT NOT NULL,
    quantity INTEGER NOT NULL, received INTEGER NOT NULL DEFAULT 0
);
INSERT OR IGNORE INTO products VALUES
    ('TEA', 'Green tea', 3, 10), ('COF', 'Coffee', 25, 20), ('MUG', 'Mug', 0, 12), ('SUG', 'Sugar', 40, 15);
INSERT OR IGNORE INTO offers VALUES
    ('Northwind', 'TEA', 420, 5), ('Southgate', 'TEA', 460, 50), ('Northwind', 'MUG', 350, 100),
    ('Southgate', 'MUG', 390, 100), ('Northwind', 'COF', 780, 100), ('Southgate', 'SUG', 110, 200);
COMMIT;
"""


@contextmanager
def transaction() -> Iterator[sqlite3.Connection]:
    """The database, made where it is missing; what is done is kept unless an exception leaves the block."""
    with closing(sqlite3.connect(_path(), timeout=BUSY_WITHIN)) as database:
        database.row_factory = sqlite3.Row
        database.executescript(_FIRST_RUN)
        with database:
            yield database


def _path() -> str:
    given = os.environ.get("INVENTORY_DB")
    if given:
        return given
    directory = os.path.join(tempfile.gettempdir(), f"mcp-inventory-{os.getuid()}")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    if os.lstat(directory).st_uid != os.getuid():
        raise PermissionError(f"{directory} belongs to another user: set INVENTORY_DB")
    return os.path.join(directory, "inventory.db")

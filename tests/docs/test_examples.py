"""The examples run, and the documentation is true: each piece of Python in it is run and its output compared."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import cast

import pytest

import mcp_multi_server
from tests.e2e.entries import MARK, RUN, Entry
from tests.e2e.harness import Daemon
from tests.e2e.processes import marked
from tests.polling import eventually

ROOT = Path(__file__).parents[2]
INVENTORY = ROOT / "examples" / "inventory" / "mcp_servers.json"
RUN_WITHIN = 40
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```$(?:\n+^```text\n(?P<output>.*?)^```$)?", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """After the last test no process lives that the examples started."""
    yield
    eventually(lambda: not marked(RUN), within=5, what=f"the end of all that the examples started ({marked(RUN)})")


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """A daemon with the servers of the shop, ready."""
    entries: dict[str, Entry] = json.loads(INVENTORY.read_bytes())["mcpServers"]
    shop = {name: entry | {"command": sys.executable, "cwd": str(ROOT)} for name, entry in entries.items()}
    made = Daemon(shop)
    made.environment["INVENTORY_DB"] = str(made.directory / "inventory.db")
    with made:
        yield made.await_up()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What the examples find around them: this Python, a place for temporary files, our mark."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    return os.environ | {"PATH": path, "PYTHON": sys.executable, "TMPDIR": str(tmp_path), MARK: RUN}


def run(environment: dict[str, str], *words: str) -> str:
    """What Python prints; it has to end well."""
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=RUN_WITHIN
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_the_agent_orders_what_is_low_and_goes_elsewhere_when_refused(
    environment: dict[str, str], tmp_path: Path
) -> None:
    printed = run(environment, "examples/agent_loop.py").splitlines()
    assert any("Error: " in line and "Northwind sells 1 to 5 of TEA" in line for line in printed)
    assert printed[-1] == "Ordered 12 MUG from Northwind, 7 TEA from Southgate."
    assert not list(tmp_path.iterdir()), "the database was left"


def test_the_script_without_async_reads_and_asks_from_several_threads(
    environment: dict[str, str], tmp_path: Path
) -> None:
    printed = run(environment, "examples/sync_script.py")
    for expected in ("[suppliers]", "Green tea: 3 of 10", "TEA: 4.20", "MUG: Northwind 3.50, Southgate 3.90"):
        assert expected in printed
    assert not list(tmp_path.iterdir()), "the database was left"


def test_the_same_program_runs_its_own_servers(environment: dict[str, str], tmp_path: Path) -> None:
    printed = run(environment, "examples/attached.py", "--in-process", "--sku", "MUG")
    assert printed.splitlines() == [
        "stock: ready, 3 tools",
        "suppliers: ready, 2 tools",
        "orders: ready, 2 tools",
        "Not sold: Error executing tool take: there are not 1 of MUG",
    ]
    assert not list(tmp_path.iterdir()), "the database was left"


def test_and_uses_those_of_a_daemon_which_remember(daemon: Daemon, environment: dict[str, str]) -> None:
    first, second = (run(environment, "examples/attached.py", "--socket", str(daemon.socket)) for _ in range(2))
    assert first.splitlines()[0] == "stock: ready, 3 tools"
    assert first.splitlines()[-1] == "Sold one Coffee, 24 left."
    assert second.splitlines()[-1] == "Sold one Coffee, 23 left."


def test_without_a_daemon_it_says_so(environment: dict[str, str], tmp_path: Path) -> None:
    words = [sys.executable, "examples/attached.py", "--socket", str(tmp_path / "nothing")]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=RUN_WITHIN)
    assert done.returncode == 1
    assert "the daemon cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_default_database_is_for_its_user_alone(environment: dict[str, str], tmp_path: Path) -> None:
    environment.pop("INVENTORY_DB", None)
    code = """
from examples.inventory.database import transaction
with transaction() as database:
    print(database.execute("SELECT name FROM products WHERE sku = 'TEA'").fetchone()[0])
"""
    assert run(environment, "-c", code) == "Green tea\n"
    [directory] = tmp_path.iterdir()
    assert directory.stat().st_mode & 0o777 == 0o700


def blocks(document: str) -> list[tuple[str, str]]:
    """The pieces of Python in a document, each with what it prints."""
    text = (ROOT / document).read_text()
    found = [(match["code"], match["output"] or "") for match in BLOCK.finditer(text)]
    assert found and len(found) == text.count("```python"), f"a piece of Python in {document} was not recognized"
    return found


def assert_printed(printed: str, expected: str) -> None:
    """The same text; … stands for any in one line."""
    pattern = re.escape(expected.strip()).replace("…", ".*")
    assert re.fullmatch(pattern, printed.strip()), f"printed:\n{printed}\nexpected:\n{expected}"


async def type_in(pieces: list[tuple[str, str]]) -> None:
    """Run pieces one after another, with shared names and `await` at the top."""
    names: dict[str, object] = {"__name__": "__main__"}
    for code, expected in pieces:
        compiled = compile(code, f"<piece>\n{code}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            outcome = eval(compiled, names)
            if compiled.co_flags & inspect.CO_COROUTINE:
                await asyncio.wait_for(cast("Awaitable[None]", outcome), RUN_WITHIN)
        assert_printed(printed.getvalue(), expected)


def test_every_piece_of_the_librarys_documentation_prints_what_it_says(
    daemon: Daemon, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = blocks("docs/library.md")
    programs = [piece for piece in pieces if "asyncio.run(" in piece[0]]
    assert programs
    for code, expected in programs:
        assert_printed(run(environment, "-c", code), expected)
    typed = [piece for piece in pieces if piece not in programs]
    own = {"INVENTORY_DB": str(tmp_path / "inventory.db"), "MCP_MULTI_SERVER_SOCKET": str(daemon.socket)}
    for name, value in (environment | own).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ROOT)
    asyncio.run(type_in(typed))


@pytest.mark.parametrize("expected", ["one", "two\n", "a …: b"])
def test_a_piece_that_prints_something_else_is_noticed(expected: str) -> None:
    with pytest.raises(AssertionError):
        asyncio.run(type_in([("print('a b')", expected)]))


def test_the_migration_table_has_every_public_name_of_the_original() -> None:
    text = (ROOT / "docs" / "migrating.md").read_text()
    rows = {name for row in re.findall(r"^\| ([^|]*) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)", row)}
    assert rows >= ORIGINAL
    for name in ORIGINAL:
        assert hasattr(mcp_multi_server, name), name


ORIGINAL = {
    "MCPServersConfig",
    "MultiServerClient",
    "ServerCapabilities",
    "ServerConfig",
    "SyncMultiServerClient",
    "__version__",
    "configure_logging",
    "extract_template_variables",
    "format_namespace_uri",
    "mcp_tools_to_openai_format",
    "parse_namespace_uri",
    "print_capabilities_summary",
    "substitute_template_variables",
}
"""What version 1.2.5 gave its users: its `__all__`, and `print_capabilities_summary` of its README."""

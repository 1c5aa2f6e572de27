"""Where the socket, the config and the state are looked for (design §3, Files)."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_multi_server.core import paths

TEMPORARY = "/tmp/mcp-multi-server-1000/mcp.sock"
SYSTEM = "/run/mcp-multi-server/mcp.sock"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (TEMPORARY, SYSTEM)),
        ({"MCP_MULTI_SERVER_SOCKET": "/s", "XDG_RUNTIME_DIR": "/run/user/1000"}, ("/s",)),
        ({"MCP_MULTI_SERVER_SOCKET": ""}, (TEMPORARY, SYSTEM)),
        (
            {"XDG_RUNTIME_DIR": "/run/user/1000"},
            ("/run/user/1000/mcp-multi-server/mcp.sock", TEMPORARY, SYSTEM),
        ),
        ({"XDG_RUNTIME_DIR": "relative"}, (TEMPORARY, SYSTEM)),
        ({"RUNTIME_DIRECTORY": "/run/a:/run/b"}, ("/run/a/mcp.sock", TEMPORARY, SYSTEM)),
        ({"RUNTIME_DIRECTORY": "/run/mcp-multi-server"}, (SYSTEM, TEMPORARY)),
        (
            {"RUNTIME_DIRECTORY": "/run/a", "XDG_RUNTIME_DIR": "/x"},
            ("/run/a/mcp.sock", "/x/mcp-multi-server/mcp.sock", TEMPORARY, SYSTEM),
        ),
    ],
)
def test_a_client_looks_in_this_order(environ: Mapping[str, str], expected: tuple[str, ...]) -> None:
    assert paths.socket_candidates(environ, 1000, "/tmp") == expected


VARIABLES = st.sampled_from(["MCP_MULTI_SERVER_SOCKET", "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"])


@given(st.dictionaries(VARIABLES, st.sampled_from(["", "/a", "/a:/b", "relative"])))
def test_a_daemon_creates_the_first_socket_that_its_clients_try(environ: dict[str, str]) -> None:
    assert paths.daemon_socket(environ, 1000, "/tmp") == paths.socket_candidates(environ, 1000, "/tmp")[0]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ("/cwd/mcp_servers.json", "/home/me/.config/mcp-multi-server/mcp_servers.json", paths.SYSTEM_CONFIG)),
        (
            {"XDG_CONFIG_HOME": "/x"},
            ("/cwd/mcp_servers.json", "/x/mcp-multi-server/mcp_servers.json", paths.SYSTEM_CONFIG),
        ),
        (
            {"XDG_CONFIG_HOME": "x"},
            ("/cwd/mcp_servers.json", "/home/me/.config/mcp-multi-server/mcp_servers.json", paths.SYSTEM_CONFIG),
        ),
        ({"MCP_MULTI_SERVER_CONFIG": "/c.json"}, ("/c.json",)),
        ({"MCP_MULTI_SERVER_CONFIG": "c.json"}, ("/cwd/c.json",)),
    ],
)
def test_the_config_is_looked_for_in_this_order(environ: Mapping[str, str], expected: tuple[str, ...]) -> None:
    assert paths.config_candidates(environ, "/cwd", "/home/me") == expected


@pytest.mark.parametrize(
    ("path", "fits"),
    [("/" + "a" * 106, True), ("/" + "a" * 107, False), ("/" + "é" * 53, True), ("/" + "é" * 54, False)],
)
def test_a_socket_address_holds_107_bytes(path: str, fits: bool) -> None:
    assert paths.fits_socket_address(path) is fits


@pytest.mark.parametrize(
    ("environ", "home", "directory"),
    [
        ({}, "/home/me", "/home/me/.local/state/mcp-multi-server"),
        ({"XDG_STATE_HOME": "/x"}, "/home/me", "/x/mcp-multi-server"),
        ({"XDG_STATE_HOME": "x"}, "/home/me", "/home/me/.local/state/mcp-multi-server"),
        ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "XDG_STATE_HOME": "/x"}, "/home/me", "/var/lib/a"),
        ({"STATE_DIRECTORY": ""}, "/home/me", "/home/me/.local/state/mcp-multi-server"),
    ],
)
def test_catalogs_are_kept_in_the_first_state_directory(environ: Mapping[str, str], home: str, directory: str) -> None:
    found = paths.catalog_cache_file(environ, home, "/etc/c.json")
    assert found.rpartition("/")[0] == directory
    assert found.rpartition("/")[2].startswith("catalogs-")


def test_every_config_has_its_own_catalogs() -> None:
    one, other, odd = (
        paths.catalog_cache_file({}, "/home/me", config) for config in ("/a.json", "/b.json", "/\udcff.json")
    )
    assert len({one, other, odd}) == 3
    assert one == paths.catalog_cache_file({}, "/home/me", "/a.json")


def test_without_a_home_no_catalogs_are_kept() -> None:
    assert paths.catalog_cache_file({}, "~", "/a.json") == ""

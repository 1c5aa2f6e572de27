"""Where the socket, the config and the state are looked for, in order. The environment is an argument."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from hashlib import sha256

APPLICATION = "mcp-multi-server"
SOCKET_NAME = "mcp.sock"
CONFIG_NAME = "mcp_servers.json"
SOCKET_VARIABLE = "MCP_MULTI_SERVER_SOCKET"
CONFIG_VARIABLE = "MCP_MULTI_SERVER_CONFIG"
SYSTEM_SOCKET = f"/run/{APPLICATION}/{SOCKET_NAME}"
SYSTEM_CONFIG = f"/etc/{APPLICATION}/{CONFIG_NAME}"
SOCKET_PATH_BYTES = 107
"""The longest path that `sockaddr_un` holds (unix(7): 108 with the closing zero)."""


def socket_candidates(environ: Mapping[str, str], uid: int, tmpdir: str) -> tuple[str, ...]:
    """Where a client looks for a daemon, the likeliest first. A socket named by the environment is the only one."""
    if named := environ.get(SOCKET_VARIABLE):
        return (named,)
    return _unique((*_own_sockets(environ), temporary_socket(uid, tmpdir), SYSTEM_SOCKET))


def daemon_socket(environ: Mapping[str, str], uid: int, tmpdir: str) -> str:
    """The socket that a daemon creates if it is told nothing else; clients always look for it."""
    return environ.get(SOCKET_VARIABLE) or (*_own_sockets(environ), temporary_socket(uid, tmpdir))[0]


def temporary_socket(uid: int, tmpdir: str) -> str:
    """The socket of a user who has no runtime directory. Anybody could have made its directory: check who owns it."""
    return posixpath.join(tmpdir, f"{APPLICATION}-{uid}", SOCKET_NAME)


def temporary_directory(environ: Mapping[str, str]) -> str:
    """Where temporary files go."""
    return environ.get("TMPDIR") or "/tmp"


def config_candidates(environ: Mapping[str, str], cwd: str, home: str) -> tuple[str, ...]:
    """Where the config is looked for, in order. A file named by the environment is the only one."""
    if named := environ.get(CONFIG_VARIABLE):
        return (posixpath.join(cwd, named),)
    own = posixpath.join(_xdg(environ, "XDG_CONFIG_HOME") or posixpath.join(home, ".config"), APPLICATION, CONFIG_NAME)
    return _unique((posixpath.join(cwd, CONFIG_NAME), own, SYSTEM_CONFIG))


def catalog_cache_file(environ: Mapping[str, str], home: str, config: str) -> str:
    """The file in which a daemon keeps its servers' catalogs, one for each config; "" if there is no place for it."""
    user = posixpath.join(_xdg(environ, "XDG_STATE_HOME") or posixpath.join(home, ".local/state"), APPLICATION)
    directory = _first_directory(environ, "STATE_DIRECTORY") or user
    # A path may hold bytes that are no UTF-8. Its hash is a short name for a file in any case.
    key = sha256(config.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return posixpath.join(directory, f"catalogs-{key}") if directory.startswith("/") else ""


def fits_socket_address(path: str) -> bool:
    """Whether the kernel takes `path` as the address of a socket."""
    return len(path.encode("utf-8", "surrogateescape")) <= SOCKET_PATH_BYTES


def _own_sockets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Sockets in the directories that systemd makes for a service and for a user."""
    service = _first_directory(environ, "RUNTIME_DIRECTORY")
    session = _xdg(environ, "XDG_RUNTIME_DIR")
    return (
        *((posixpath.join(service, SOCKET_NAME),) if service else ()),
        *((posixpath.join(session, APPLICATION, SOCKET_NAME),) if session else ()),
    )


def _first_directory(environ: Mapping[str, str], name: str) -> str:
    """systemd.exec(5): a unit with several such directories gets them joined by colons."""
    return environ.get(name, "").split(":")[0]


def _xdg(environ: Mapping[str, str], name: str) -> str:
    """XDG base directory specification: a relative path is invalid and ignored."""
    path = environ.get(name, "")
    return path if path.startswith("/") else ""


def _unique(paths: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(paths))

"""Who is at the other end of a Unix socket, and what that user may do."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from ..core.config.settings import AccessConfig
from ..processes import procfs

_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, as the kernel tells it."""

    pid: int
    uid: int
    gid: int


def peer_of(connection: socket.socket) -> Peer:
    """The peer of an accepted connection (SO_PEERCRED: fixed at connect, cannot be forged)."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return Peer(*_CREDENTIALS.unpack(raw))


class Access:
    """Decides over peers. The daemon's own user and root may do everything."""

    def __init__(self, config: AccessConfig) -> None:
        self._users = _uids(config.users)
        self._groups = _gids(config.groups)
        self._admins = _uids(config.admins)
        self._allow_descendants = config.allow_descendants
        self._own = {os.geteuid(), 0}

    def refusal(self, peer: Peer) -> str | None:
        """Why this peer may not use the socket; None where it may."""
        # First, since the servers run as the daemon's own user, which may do everything.
        if not self._allow_descendants and _descends_from_us(peer.pid):
            return "a process that the daemon started may not use its socket (daemon.access.allowDescendants)"
        known = peer.uid in self._own | self._users | self._admins
        if known or not self._groups.isdisjoint(_groups_of(peer)):
            return None
        return f"user {peer.uid} may not use this daemon (daemon.access.users, daemon.access.groups)"

    def may_administer(self, peer: Peer) -> bool:
        """Whether this peer may reload and restart."""
        return peer.uid in self._own | self._admins


def _descends_from_us(pid: int) -> bool:
    """Whether the daemon is among the ancestors of a process. An MCP server must not call the others' tools."""
    return os.getpid() in procfs.ancestors(pid)


def _groups_of(peer: Peer) -> set[int]:
    try:
        # The kernel tells one group of the peer; the others are those that the user has.
        name = pwd.getpwuid(peer.uid).pw_name
    except KeyError:
        return {peer.gid}
    return {peer.gid, *os.getgrouplist(name, peer.gid)}


def _uids(users: Iterable[str | int]) -> set[int]:
    """User ids of names and numbers; a name that this machine does not know allows nobody."""
    found = set()
    for user in users:
        try:
            found.add(user if isinstance(user, int) else pwd.getpwnam(user).pw_uid)
        except KeyError:
            continue
    return found


def _gids(groups: Iterable[str | int]) -> set[int]:
    found = set()
    for group in groups:
        try:
            found.add(group if isinstance(group, int) else grp.getgrnam(group).gr_gid)
        except KeyError:
            continue
    return found

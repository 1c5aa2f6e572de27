"""Who may use the socket."""

import os
import socket
import subprocess
import sys

import pytest

from mcp_multi_server.clients.access import Access, Peer, peer_of
from mcp_multi_server.core.config.settings import AccessConfig

STRANGER = 54321
NOBODY = 65534


def access(**settings: object) -> Access:
    return Access(AccessConfig.model_validate(settings))


def peer(uid: int, gid: int = STRANGER) -> Peer:
    return Peer(pid=os.getppid(), uid=uid, gid=gid)


def test_the_kernel_says_who_connected() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_of(ours) == Peer(os.getpid(), os.getuid(), os.getgid())


@pytest.mark.parametrize("uid", [0, os.geteuid()])
def test_root_and_the_daemons_own_user_may_do_everything(uid: int) -> None:
    assert access().refusal(peer(uid)) is None
    assert access().may_administer(peer(uid))


def test_a_stranger_is_refused_with_the_setting_that_would_help() -> None:
    refusal = access().refusal(peer(STRANGER))
    assert refusal is not None
    assert "54321" in refusal
    assert "daemon.access.users" in refusal


def test_configured_users_may_call_and_admins_may_do_more() -> None:
    by_number = access(users=[STRANGER], admins=[STRANGER + 1])
    assert by_number.refusal(peer(STRANGER)) is None
    assert not by_number.may_administer(peer(STRANGER))
    assert by_number.refusal(peer(STRANGER + 1)) is None
    assert by_number.may_administer(peer(STRANGER + 1))
    assert access(users=["nobody"]).refusal(peer(NOBODY)) is None


def test_a_group_lets_its_members_in() -> None:
    assert access(groups=[STRANGER]).refusal(peer(STRANGER + 1, gid=STRANGER)) is None
    assert access(groups=[STRANGER]).refusal(peer(STRANGER + 1, gid=1)) is not None


def test_a_name_that_this_machine_does_not_know_lets_nobody_in() -> None:
    assert access(users=["no-such-user"], groups=["no-such-group"]).refusal(peer(STRANGER)) is not None


def test_a_process_that_the_daemon_started_may_not_use_its_socket() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        started = Peer(child.pid, os.geteuid(), os.getegid())
        refusal = access().refusal(started)
        assert refusal is not None
        assert "allowDescendants" in refusal
        assert access(allowDescendants=True).refusal(started) is None
    finally:
        child.communicate(timeout=10)

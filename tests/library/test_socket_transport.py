"""The bytes of a session with a fleet: what the other side cannot have got is known, and its last words are heard."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import anyio
import pytest

from mcp_multi_server.core.lifecycle import Failure
from mcp_multi_server.core.lines import Oversize
from mcp_multi_server.library.socket_transport import SocketTransport
from mcp_multi_server.transport import Receiver

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


class Ours:
    """Our end, which keeps what it is told; `peer` is the other one."""

    def __init__(self) -> None:
        mine, self.peer = socket.socketpair()
        self.lines: list[bytes | Oversize] = []
        self.ended = asyncio.Event()
        receiver = Receiver(line=self.lines.append, stderr=print, failed=lambda id, failure: None, lost=self._lost)
        self.transport = SocketTransport(mine, receiver)

    def _lost(self, failure: Failure) -> None:
        self.ended.set()

    async def received(self) -> int:
        """How many messages may have arrived, as is known at the end."""
        with anyio.fail_after(10):
            await self.ended.wait()
        return self.transport.received


@pytest.fixture
async def ours() -> AsyncIterator[Ours]:
    made = Ours()
    yield made
    made.transport.close()
    made.peer.close()


async def test_a_peer_that_read_everything_may_have_got_everything(ours: Ours) -> None:
    for number in range(3):
        ours.transport.send([b"%d\n" % number])
    await anyio.sleep(0)
    assert ours.peer.recv(MIB) == b"0\n1\n2\n"
    ours.peer.close()
    assert await ours.received() == ours.transport.sent == 3


async def test_a_peer_that_left_something_unread_did_not_get_the_last_message(ours: Ours) -> None:
    for number in range(3):
        ours.transport.send([b"%d\n" % number])
    await anyio.sleep(0)
    assert ours.peer.recv(3) == b"0\n1"
    ours.peer.close()
    assert await ours.received() == 2


async def test_a_peer_that_was_gone_before_got_nothing_and_its_last_words_are_heard(ours: Ours) -> None:
    ours.transport.send([b"0\n"])
    await anyio.sleep(0)
    assert ours.peer.recv(MIB) == b"0\n"
    ours.peer.send(b"answer\n")
    ours.peer.close()
    ours.transport.send([b"1\n"])  # before the loop could see that it is gone
    assert await ours.received() == 1
    assert ours.lines == [b"answer"]
    ours.transport.send([b"2\n"])
    assert ours.transport.received == 1


@pytest.mark.parametrize("reads", [True, False])
async def test_a_message_that_was_written_in_part_was_not_got(ours: Ours, reads: bool) -> None:
    ours.transport.send([b"0\n"])
    ours.transport.send([b"x" * 8 * MIB, b"\n"])
    ours.transport.send([b"2\n"])
    await anyio.sleep(0.05)
    if reads:
        ours.peer.recv(MIB)
    ours.peer.close()
    assert await ours.received() == 1


async def test_what_we_did_not_send_before_we_closed_was_not_got(ours: Ours) -> None:
    ours.transport.send([b"0\n"])
    ours.transport.send([b"x" * 8 * MIB, b"\n"])
    await anyio.sleep(0.05)
    ours.transport.close()
    assert ours.transport.received == 1

"""One byte stream on the loop: everything arrives in order, nothing waits without a cap, each end is told once."""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import pytest

from mcp_multi_server.core.jsonrpc import Buffer, Raw
from mcp_multi_server.transport.link import MAX_PARTS, READ_SIZE, Flusher, Link

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


class End:
    """One end of a stream, which keeps what it is told."""

    def __init__(self, flusher: Flusher, reader: int, writer: int, *, cap: int = 8 * MIB, pair: bool = False) -> None:
        self.data = bytearray()
        self.losses: list[str] = []
        self.refusals: list[str] = []
        self.answer: Callable[[bytes], None] = lambda _: None
        self.on_loss: Callable[[str], None] = lambda _: None
        self._changed = asyncio.Event()
        self.link = Link(
            reader,
            writer,
            feed=self._feed,
            lost=self._lost,
            flusher=flusher,
            cap=cap,
            unwritable=self._unwritable if pair else None,
        )

    async def until(self, happened: Callable[[], bool]) -> None:
        with anyio.fail_after(10):
            while not happened():
                self._changed.clear()
                await self._changed.wait()

    async def gets(self, data: bytes) -> None:
        await self.until(lambda: len(self.data) >= len(data))
        assert self.data == data

    def _feed(self, data: bytes) -> None:
        self.data += data
        self._changed.set()
        self.answer(data)

    def _lost(self, reason: str) -> None:
        self.losses.append(reason)
        self._changed.set()
        self.on_loss(reason)

    def _unwritable(self, reason: str) -> None:
        self.refusals.append(reason)
        self._changed.set()


@contextmanager
def sockets(flusher: Flusher, *, cap: int = 8 * MIB, pair: bool = False) -> Iterator[tuple[End, End]]:
    ours, theirs = (end.detach() for end in socket.socketpair())
    a, b = (End(flusher, one, one, cap=cap, pair=pair) for one in (ours, theirs))
    try:
        yield a, b
    finally:
        a.link.close()
        b.link.close()


@contextmanager
def pipes(flusher: Flusher, *, cap: int = 8 * MIB, pair: bool = True) -> Iterator[tuple[End, int, int]]:
    """A link, and the descriptors of the other side: what it reads from, what it writes to. The test closes those."""
    their_reader, our_writer = os.pipe()
    our_reader, their_writer = os.pipe()
    end = End(flusher, our_reader, our_writer, cap=cap, pair=pair)
    try:
        yield end, their_reader, their_writer
    finally:
        end.link.close()


@pytest.mark.parametrize("size", [1, 100, READ_SIZE, READ_SIZE + 1, 5 * MIB])
async def test_what_is_sent_arrives_whatever_its_size(size: int) -> None:
    with sockets(Flusher()) as (a, b):
        payload = os.urandom(size)
        a.link.send([payload])
        await b.gets(payload)
        assert a.link.waiting == 0


async def test_parts_of_every_kind_arrive_in_order() -> None:
    with sockets(Flusher()) as (a, b):
        parts: list[Buffer] = [b"head ", memoryview(b"-view-")[1:5], Raw(b"raw"), b"", b" tail"]
        a.link.send(parts)
        a.link.send([b""])
        a.link.send([])
        a.link.send([b"\n"])
        await b.gets(b"head view" + b"raw tail\n")


async def test_an_empty_part_at_the_end_does_not_hold_up_the_loop() -> None:
    began = time.monotonic()
    with sockets(Flusher()) as (a, b):
        a.link.send([b"text", b""])
        await b.gets(b"text")
        a.link.send([b""])
        assert a.link.waiting == 0
        a.link.send([b"more"])
        await b.gets(b"textmore")
    assert time.monotonic() - began < 5  # a loop that stands still sees no deadline


async def test_more_parts_than_one_write_takes_arrive_in_order() -> None:
    with sockets(Flusher()) as (a, b):
        parts = [b"%d\n" % number for number in range(MAX_PARTS * 3 + 1)]
        for part in parts:
            a.link.send([part])
        await b.gets(b"".join(parts))


async def test_messages_of_one_turn_are_written_at_once() -> None:
    with sockets(Flusher()) as (a, b):
        reads: list[bytes] = []
        b.answer = reads.append
        for _ in range(100):
            a.link.send([b"message\n"])
        await b.gets(b"message\n" * 100)
        assert len(reads) == 1


async def test_an_answer_is_written_before_the_turn_ends() -> None:
    with sockets(Flusher()) as (a, b):
        b.answer = lambda data: b.link.send([data])
        a.link.send([b"ping"])
        await b.gets(b"ping")
        assert b.link.waiting == 0
        await a.gets(b"ping")


async def test_both_sides_may_send_more_than_the_kernel_holds_at_the_same_time() -> None:
    with sockets(Flusher()) as (a, b):
        a.link.send([b"a" * 4 * MIB])
        b.link.send([b"b" * 4 * MIB])
        await b.gets(b"a" * 4 * MIB)
        await a.gets(b"b" * 4 * MIB)


async def test_a_peer_that_does_not_read_is_cut_off_at_the_cap() -> None:
    flusher = Flusher()
    ours, theirs = socket.socketpair()
    with theirs:
        descriptor = ours.detach()
        end = End(flusher, descriptor, descriptor, cap=MIB)
        for _ in range(40):
            end.link.send([b"x" * 64 * 1024])
            await anyio.lowlevel.checkpoint()
        await end.until(lambda: bool(end.losses))
        assert end.link.overfull > MIB
        assert end.losses == [f"does not read: {end.link.overfull} bytes wait"]
        assert end.link.closed
        assert end.link.waiting == 0


async def test_the_loss_is_never_told_from_inside_send() -> None:
    """The caller of `send` may be in the middle of its own bookkeeping."""
    with sockets(Flusher(), cap=10) as (a, _):
        a.link.send([b"x" * 11])
        assert a.losses == []
        a.link.send([b"dropped"])
        await a.until(lambda: bool(a.losses))
        assert a.losses == ["does not read: 11 bytes wait"]


async def test_a_message_of_exactly_the_cap_passes() -> None:
    with sockets(Flusher(), cap=10) as (a, b):
        a.link.send([b"x" * 10])
        await b.gets(b"x" * 10)


async def test_the_end_of_the_stream_is_told_once_after_all_data() -> None:
    with sockets(Flusher()) as (a, b):
        a.link.send([b"last"])
        await b.gets(b"last")
        a.link.close()
        await b.until(lambda: bool(b.losses))
        assert b.losses == ["closed"]
        assert b.link.closed
        b.link.close()
        b.link.send([b"dropped"])
        assert (b.losses, a.losses) == (["closed"], [])


async def test_close_tells_nobody_and_frees_both_descriptors() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pipes(Flusher()) as (end, their_reader, their_writer):
        end.link.send([b"x" * MIB])
        end.link.flush()
        end.link.close()
        end.link.close()
        assert os.read(their_reader, 10) == b"x" * 10
        os.close(their_reader)
        os.close(their_writer)
        await anyio.wait_all_tasks_blocked()
        assert end.losses == []
    assert len(os.listdir("/proc/self/fd")) == before


async def test_one_owner_that_raises_does_not_keep_other_links_from_being_written() -> None:
    """Many links are written in one pass: a bug in one owner stays with that owner."""
    flusher = Flusher()
    loop = asyncio.get_running_loop()
    errors: list[object] = []
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: errors.append(context.get("exception")))
    bug = RuntimeError("a bug in an owner")

    def raise_it(_: str) -> None:
        raise bug

    try:
        with sockets(flusher) as (a, b), sockets(flusher, cap=1) as (bad, _):
            bad.on_loss = raise_it
            bad.link.send([b"too much"])
            a.link.send([b"fine"])
            await b.gets(b"fine")
            assert errors == [bug]
    finally:
        loop.set_exception_handler(handler)


async def test_reading_goes_on_after_our_side_is_closed() -> None:
    with pipes(Flusher()) as (end, their_reader, their_writer):
        end.link.close_writer()
        end.link.send([b"dropped"])
        assert os.read(their_reader, 10) == b""
        os.close(their_reader)
        os.write(their_writer, b"still here")
        await end.gets(b"still here")
        os.close(their_writer)
        await end.until(lambda: bool(end.losses))
        assert end.losses == ["closed"]


async def test_a_pair_that_cannot_be_written_is_read_on() -> None:
    with pipes(Flusher()) as (end, their_reader, their_writer):
        os.close(their_reader)
        end.link.send([b"into the void"])
        await end.until(lambda: bool(end.refusals))
        os.write(their_writer, b"last words")
        os.close(their_writer)
        await end.until(lambda: bool(end.losses))
        assert end.data == b"last words"
        assert (end.refusals, end.losses) == (["Broken pipe"], ["closed"])


async def test_a_socket_that_cannot_be_written_is_read_on() -> None:
    with sockets(Flusher(), pair=True) as (a, b):
        b.link.send([b"last words"])
        b.link.flush()
        b.link.close()
        a.link.send([b"into the void\n"])
        a.link.flush()
        assert (a.refusals, a.link.unwritten) == (["Broken pipe"], 1)
        await a.until(lambda: bool(a.losses))
        assert (bytes(a.data), a.losses) == (b"last words", ["closed"])
        assert not a.link.is_reset


async def test_messages_that_were_not_written_to_their_end_are_counted_when_the_writing_ends() -> None:
    with sockets(Flusher()) as (a, _):
        for parts in ([b"whole\n"], [b"x" * 4 * MIB, b"\n"], [b"never\n"]):
            a.link.send(parts)
        a.link.flush()
        assert a.link.unwritten == 0
        a.link.close()
        assert a.link.unwritten == 2


async def test_a_socket_knows_that_its_peer_went_without_having_read_everything() -> None:
    with sockets(Flusher()) as (a, b):
        a.link.send([b"unread"])
        a.link.flush()
        b.link.close()
        await a.until(lambda: bool(a.losses))
        assert a.link.is_reset


async def test_without_a_pair_a_failed_write_is_the_end() -> None:
    with pipes(Flusher(), pair=False) as (end, their_reader, their_writer):
        os.close(their_reader)
        end.link.send([b"into the void"])
        await end.until(lambda: bool(end.losses))
        assert end.losses == ["Broken pipe"]
        os.close(their_writer)


async def test_drain_reads_what_a_pipe_holds_and_waits_for_nothing() -> None:
    with pipes(Flusher()) as (end, their_reader, their_writer):
        os.write(their_writer, b"x" * 60_000)
        end.link.drain()
        assert len(end.data) == 60_000
        end.link.drain()
        os.close(their_writer)
        end.link.drain()
        assert end.losses == ["closed"]
        end.link.drain()
        os.close(their_reader)


async def test_drain_leaves_what_is_no_pipe_to_the_loop() -> None:
    with sockets(Flusher()) as (a, b):
        a.link.send([b"later"])
        a.link.flush()
        b.link.drain()
        assert b.data == b""
        await b.gets(b"later")


async def test_a_connection_that_the_other_side_reset_is_lost() -> None:
    ours, theirs = socket.socketpair()
    descriptor = ours.detach()
    end = End(Flusher(), descriptor, descriptor)
    end.link.send([b"never read"])
    end.link.flush()
    theirs.close()
    await end.until(lambda: bool(end.losses))
    assert end.losses == ["Connection reset by peer"]


async def test_drain_ends_though_the_other_side_never_stops_writing() -> None:
    with pipes(Flusher()) as (end, their_reader, their_writer):
        os.set_blocking(their_writer, False)
        end.answer = lambda _: (os.write(their_writer, b"more"), None)[1]
        os.write(their_writer, b"x" * 40_000)
        end.link.drain()
        assert 40_000 < len(end.data) < 2 * 1024 * 64
        os.close(their_reader)
        os.close(their_writer)

"""Datagrams to systemd: whole, in order, and never waited for."""

from __future__ import annotations

import pytest

from mcp_multi_server.daemon.sd_notify import MOST_WAITING, Notifier
from tests.polling import until
from tests.systemd.manager import Manager


def nobody(why: str) -> None:
    raise AssertionError(why)


async def test_lines_are_said_together_and_a_line_break_begins_none() -> None:
    with Manager() as manager:
        Notifier(manager.address, nobody).send("RELOADING=1", "STATUS=a\nREADY=1")
        assert manager.hear_all() == [("RELOADING=1", "STATUS=a READY=1")]


async def test_what_a_busy_systemd_does_not_read_is_said_later_and_in_order() -> None:
    with Manager() as manager:
        notifier = Notifier(manager.address, nobody)
        wanted = [(f"STATUS={number}",) for number in range(MOST_WAITING)]
        for (line,) in wanted:
            notifier.send(line)
        await until(lambda: len(manager.hear_all()) >= len(wanted))
        assert manager.hear_all() == wanted


async def test_of_too_much_the_last_is_said() -> None:
    with Manager() as manager:
        notifier = Notifier(manager.address, nobody)
        for number in range(2000):
            notifier.send(f"STATUS={number}")
        await until(lambda: manager.hear_all()[-1] == ("STATUS=1999",))
        assert len(manager.hear_all()) < 2000


@pytest.mark.parametrize("address", ["/does/not/exist", "vsock:2:1234", "@nobody-listens-here", "/" + "x" * 200])
async def test_what_cannot_be_said_at_all_is_reported(address: str) -> None:
    heard: list[str] = []
    Notifier(address, heard.append).send("READY=1")
    assert len(heard) == 1


@pytest.mark.parametrize("address", [None, ""])
def test_without_an_address_nothing_is_said(address: str | None) -> None:
    notifier = Notifier(address, nobody)
    notifier.send("READY=1")
    assert not notifier


pytestmark = pytest.mark.anyio

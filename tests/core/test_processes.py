"""Which processes are ours to end, as tables. Whatever runs on the machine, no others are."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from mcp_multi_server.core.processes import Process, Record, is_abandoned, is_of_run, left_behind, mark_of

RUN, OTHER_RUN = "a" * 32, "b" * 32
BOOT, UID = "boot", 1000
RECORD = Record(BOOT, RUN, ((100, 5000), (200, 6000)))
MARK = mark_of(RUN, 1)


def seen(pid: int, started: int = 9000, *, parent: int = 1, group: int = 0, uid: int = UID, mark: str = "") -> Process:
    return Process(pid, started, "S", parent, group or pid, uid, mark)


def left(*processes: Process, boot: str = BOOT, spare: set[int] | None = None) -> set[int]:
    return {each.pid for each in left_behind(RECORD, processes, boot=boot, uid=UID, spare=spare or set())}


@pytest.mark.parametrize(
    ("why", "process", "is_ours"),
    [
        ("number and start", seen(100, 5000), True),
        ("the number of ours, used again", seen(100, 5001), False),
        ("the start of ours, by chance", seen(101, 5000), False),
        ("the number of one and the start of another", seen(100, 6000), False),
        ("marked", seen(300, mark=MARK), True),
        ("marked by another daemon", seen(300, mark=mark_of(OTHER_RUN, 1)), False),
        ("marked with our run as a mere beginning", seen(300, mark=RUN + "0.1"), False),
        ("unmarked", seen(300), False),
        ("the group of ours, of which nobody is left", seen(300, group=100), False),
        ("another user's, whatever else", seen(100, 5000, uid=0, mark=MARK), False),
        ("ended", replace(seen(100, 5000), state="Z"), False),
    ],
)
def test_one_process_is_ours_by_its_mark_or_by_number_and_start(why: str, process: Process, is_ours: bool) -> None:
    assert left(process) == ({process.pid} if is_ours else set()), why


def test_the_whole_group_of_a_child_is_ours_as_long_as_one_in_it_is() -> None:
    member, stranger = seen(300, group=100), seen(400, group=400)
    assert left(seen(100, 5000), member, stranger) == {100, 300}
    assert left(seen(301, group=100, mark=MARK), member, stranger) == {300, 301}
    assert left(seen(301, group=400, mark=MARK), stranger) == {301}, "400 is nobody whom we started"


def test_descendants_of_our_processes_are_ours() -> None:
    assert left(seen(100, 5000), seen(300, parent=100), seen(301, parent=300), seen(302, parent=1)) == {100, 300, 301}


def test_after_a_restart_of_the_machine_nothing_can_be_left() -> None:
    assert left(seen(100, 5000), seen(300, mark=MARK), boot="another") == set()


def test_a_daemon_that_was_started_below_such_a_server_spares_itself_and_those_above() -> None:
    server, shell, own = seen(100, 5000), seen(300, parent=100, mark=MARK), seen(301, parent=300, mark=MARK)
    assert left(server, shell, own, seen(302, parent=100), spare={301, 300, 100}) == set()
    assert left(server, shell, own, spare={301, 300}) == {100}


PROCESSES = some.lists(
    some.builds(
        Process,
        pid=some.integers(2, 40),
        started=some.integers(0, 5),
        state=some.sampled_from("SRTZ"),
        parent=some.integers(0, 40),
        group=some.integers(2, 40),
        uid=some.sampled_from([UID, 0, -1]),
        mark=some.sampled_from(["", MARK, mark_of(OTHER_RUN, 1), RUN, "."]),
    ),
    unique_by=lambda each: each.pid,
)
CHILDREN = some.lists(some.tuples(some.integers(2, 40), some.integers(0, 5)), max_size=5)


@given(PROCESSES, CHILDREN, some.sets(some.integers(2, 40), max_size=5))
def test_whatever_runs_only_living_processes_of_this_user_are_ended_and_each_for_a_reason(
    processes: list[Process], children: list[tuple[int, int]], spare: set[int]
) -> None:
    record = Record(BOOT, RUN, tuple(children))
    found = left_behind(record, processes, boot=BOOT, uid=UID, spare=spare)
    pids = {each.pid for each in found}
    proven = {each.pid for each in found if (each.pid, each.started) in children or is_of_run(each.mark, RUN)}
    groups = {each.group for each in found} & {pid for pid, _ in children}
    for each in found:
        assert each.uid == UID
        assert each.state != "Z"
        assert each.pid not in spare
        assert each.pid in proven or each.parent in pids or each.group in groups
    assert bool(found) == bool(proven)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b'{"boot":"","run":"' + RUN.encode() + b'"}',
        b'{"boot":"b","run":""}',
        b'{"boot":"b","run":"' + RUN.encode() + b'\\n"}',
        b'{"boot":"b","run":"' + RUN.upper().encode() + b'"}',
        b'{"boot":"b","run":"' + RUN.encode() + b'","children":[[1,5]]}',
        b'{"boot":"b","run":"' + RUN.encode() + b'","children":[[-7,5]]}',
        b'{"boot":"b","run":"' + RUN.encode() + b'","children":[[7]]}',
        b'{"boot":"b","run":"' + RUN.encode() + b'","children":[["7",5]]}',
    ],
)
def test_a_record_that_says_something_else_is_none(text: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(text, type=Record)


def test_a_record_reads_back_as_it_was_written() -> None:
    assert msgspec.json.decode(msgspec.json.encode(RECORD), type=Record) == RECORD


@pytest.mark.parametrize(
    ("why", "mark", "started", "alone", "is_abandoned_"),
    [
        ("its server runs", mark_of(RUN, 7), 9000, True, False),
        ("its server has ended", mark_of(RUN, 6), 9000, True, True),
        ("its server has ended, and others come to us", mark_of(RUN, 6), 9000, False, True),
        ("a nameless one that is younger than a server", "", 8000, True, False),
        ("a nameless one that is older than all servers", "", 6999, True, True),
        ("a nameless one, where others come to us", "", 6999, False, False),
        ("of a daemon that one of our servers was", mark_of(OTHER_RUN, 7), 6999, True, True),
    ],
)
def test_an_orphan_is_abandoned_if_it_belongs_to_no_server_that_runs(
    why: str, mark: str, started: int, alone: bool, is_abandoned_: bool
) -> None:
    running = {mark_of(RUN, 7): 7000, mark_of(RUN, 8): 8000}
    assert is_abandoned(seen(300, started, mark=mark), run=RUN, running=running, alone=alone) is is_abandoned_, why


def test_where_no_server_runs_every_orphan_that_only_they_can_have_left_is_abandoned() -> None:
    assert is_abandoned(seen(300), run=RUN, running={}, alone=True)
    assert not is_abandoned(seen(300), run=RUN, running={}, alone=False)

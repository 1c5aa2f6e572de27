"""A byte stream cut into lines."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_multi_server.core.lines import Lines, Oversize

MIB = 1 << 20


def feed_all(lines: Lines, chunks: list[bytes]) -> Iterator[bytes | Oversize]:
    for chunk in chunks:
        yield from lines.feed(chunk)


@given(
    st.lists(st.binary(max_size=30).filter(lambda b: b"\n" not in b and b.strip() == b and b), max_size=20),
    st.lists(st.integers(0, 600), max_size=12),
)
def test_lines_come_out_as_they_went_in_however_they_are_cut(written: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(line + b"\n" for line in written)
    edges = sorted({0, *(cut for cut in cuts if cut < len(stream)), len(stream)})
    chunks = [stream[start:end] for start, end in pairwise(edges)]
    lines = Lines(cap=100)
    assert list(feed_all(lines, chunks)) == written
    assert not lines.partial


def test_blank_lines_are_nothing() -> None:
    assert list(Lines(cap=10).feed(b"\n \n\r\n\t\na\r\n")) == [b"a\r"]


@pytest.mark.parametrize("chunk", [1, 7, 64, 4096])
def test_a_line_over_the_cap_is_reported_once_and_the_next_one_is_whole(chunk: int) -> None:
    stream = b"a" * 5000 + b"\nshort\n"
    lines = Lines(cap=1000)
    found = list(feed_all(lines, [stream[at : at + chunk] for at in range(0, len(stream), chunk)]))
    assert len(found) == 2
    assert isinstance(found[0], Oversize)
    assert found[0].size == 5000
    assert found[1] == b"short"


def test_an_unfinished_line_holds_no_more_than_the_cap() -> None:
    lines = Lines(cap=MIB)
    for _ in range(40):
        assert list(lines.feed(b"x" * MIB)) == []
    assert lines.partial
    (over,) = lines.feed(b"\n")
    assert isinstance(over, Oversize)
    assert over.size == 40 * MIB
    assert len(over.head) + len(over.tail) == 2 * Lines.KEEP

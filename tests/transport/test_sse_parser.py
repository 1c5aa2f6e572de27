"""StreamEvent streams to events, whatever pieces they come in."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_multi_server.transport.sse_parser import EventParser, StreamEvent, TooLong

CAP = 1000


def parsed(*chunks: bytes, cap: int = CAP) -> list[StreamEvent]:
    parser = EventParser(cap)
    return [event for chunk in chunks for event in parser.feed(chunk)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [StreamEvent("message", b"a")]),
        (b"data:a\n\n", [StreamEvent("message", b"a")]),
        (b"data:  a\n\n", [StreamEvent("message", b" a")]),
        (b"event: endpoint\ndata: /m\n\ndata: b\n\n", [StreamEvent("endpoint", b"/m"), StreamEvent("message", b"b")]),
        (b"data: a\ndata\ndata: b\n\n", [StreamEvent("message", b"a\n\nb")]),
        (b"data\n\n", [StreamEvent("message", b"")]),
        (b": a comment\n\n:\n\ndata: a\n: another\n\n", [StreamEvent("message", b"a")]),
        (b"event: lonely\n\ndata: a\n\n", [StreamEvent("message", b"a")]),
        (b"nonsense\nfoo: bar\nDATA: x\n\n", []),
        (b"data: a\r\n\r\ndata: b\r\r\ndata: c\n\n", [StreamEvent("message", letter) for letter in (b"a", b"b", b"c")]),
        (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [StreamEvent("message", b"a")]),
        (b"data: never ended\n", []),
        ("data: grüß\n\n".encode(), [StreamEvent("message", "grüß".encode())]),
    ],
)
def test_a_stream_is_cut_into_its_events(stream: bytes, events: list[StreamEvent]) -> None:
    assert parsed(stream) == events
    assert parsed(*(bytes([byte]) for byte in stream)) == events


LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20).map(str.encode)
FIELDS = st.one_of(LINE, *(LINE.map(f"{name}: ".encode().__add__) for name in ("data", "event", "id", "retry", "")))
STREAM = st.lists(st.tuples(FIELDS, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=30).map(
    lambda lines: b"".join(line + end for line, end in lines)
)


@given(stream=STREAM, data=st.data())
def test_chunks_make_no_difference(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])]
    whole, cut = EventParser(CAP), EventParser(CAP)
    assert [event for chunk in chunks for event in cut.feed(chunk)] == list(whole.feed(stream))
    assert (cut.last_id, cut.retry) == (whole.last_id, whole.retry)


@given(st.lists(st.text(max_size=50), max_size=10), st.sampled_from(["\n", "\r\n", "\r"]))
def test_what_a_server_writes_is_what_is_read(texts: list[str], end: str) -> None:
    written = "".join(f"event: message{end}data: {json.dumps(text)}{end}{end}" for text in texts)
    assert [json.loads(event.data) for event in parsed(written.encode())] == texts


def test_the_id_of_an_event_counts_once_it_has_come_whole() -> None:
    parser = EventParser(CAP)
    assert parser.last_id == ""
    assert list(parser.feed(b"id: 1\ndata: a\n\nid: 2\ndata: b\n")) == [StreamEvent("message", b"a")]
    assert parser.last_id == "1", "the stream may break before the rest of the second event"
    assert list(parser.feed(b"\n")) == [StreamEvent("message", b"b")]
    assert parser.last_id == "2"
    assert list(parser.feed(b"id: 3\n\ndata: c\n\n")) == [StreamEvent("message", b"c")]
    assert parser.last_id == "3", "an event without data has an id"
    list(parser.feed(b"id\n\n"))
    assert parser.last_id == "", "an empty one takes it back"


@pytest.mark.parametrize(("line", "id"), [(b"id: a\0b", "1"), ("id: ü".encode(), ""), (b"id:  2", " 2")])
def test_an_id_that_cannot_be_sent_is_not_kept(line: bytes, id: str) -> None:
    parser = EventParser(CAP)
    list(parser.feed(b"id: 1\n\n" + line + b"\n\n"))
    assert parser.last_id == id


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        (b"retry: 1500", 1.5),
        (b"retry: 0", 0.0),
        (b"retry: -1", None),
        (b"retry: soon", None),
        (b"retry: 1" + b"0" * 9, None),
    ],
)
def test_the_time_to_wait_is_a_number_of_milliseconds(line: bytes, seconds: float | None) -> None:
    parser = EventParser(CAP)
    list(parser.feed(line + b"\n"))
    assert parser.retry == seconds


def test_a_new_stream_drops_what_had_begun_and_keeps_the_id() -> None:
    parser = EventParser(CAP)
    list(parser.feed(b"id: 1\nretry: 10\n\nid: 2\nevent: x\ndata: half\nda"))
    parser.restart()
    assert list(parser.feed(b"data: a\n\n")) == [StreamEvent("message", b"a")]
    assert (parser.last_id, parser.retry) == ("1", 0.01)


@pytest.mark.parametrize(
    "stream",
    [b"data: " + b"x" * CAP + b"\n\n", b"x" * (CAP + 1), b"data: x\n" * CAP, b"data\n" * CAP, b": " + b"x" * CAP],
)
@pytest.mark.parametrize("size", [1, 100, 10 * CAP])
def test_an_event_over_the_cap_is_read_no_further(stream: bytes, size: int) -> None:
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    with pytest.raises(TooLong):
        parsed(*pieces)


def test_events_below_the_cap_have_no_end() -> None:
    parser = EventParser(CAP)
    for _ in range(1000):
        assert list(parser.feed(b": still here\n\ndata: " + b"x" * (CAP - 100) + b"\n\n")) != []

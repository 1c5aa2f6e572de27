"""Lines to messages and back."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_multi_server.core import jsonrpc
from mcp_multi_server.core.errors import INVALID_REQUEST, PARSE_ERROR, RpcError
from mcp_multi_server.core.jsonrpc import ABSENT, InvalidMessage, decode
from mcp_multi_server.core.lines import Lines, Oversize


@pytest.mark.parametrize(
    ("line", "code", "id"),
    [
        (b"nonsense", PARSE_ERROR, b"null"),
        (b'{"jsonrpc":"2.0","id":1,"method":"x"', PARSE_ERROR, b"null"),
        (b'{"jsonrpc":"2.0","id":1,"params":{"a":NaN}}', PARSE_ERROR, b"null"),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"\xff"}}', PARSE_ERROR, b"1"),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":' + b"[" * 99_999, PARSE_ERROR, b"null"),
        (b'{"a":' * 99_999, PARSE_ERROR, b"null"),
        (b"[]", INVALID_REQUEST, b"null"),
        (b'[{"jsonrpc":"2.0","id":1,"method":"x"}]', INVALID_REQUEST, b"null"),
        (b"3", INVALID_REQUEST, b"null"),
        (b'"x"', INVALID_REQUEST, b"null"),
        (b"null", INVALID_REQUEST, b"null"),
        (b"{}", INVALID_REQUEST, b"null"),
        (b'{"jsonrpc":"1.0","id":7,"method":"x"}', INVALID_REQUEST, b"7"),
        (b'{"id":7,"method":"x"}', INVALID_REQUEST, b"7"),
        (b'{"jsonrpc":2,"id":7,"method":"x"}', INVALID_REQUEST, b"7"),
        (b'{"jsonrpc":"2.0"}', INVALID_REQUEST, b"null"),
        (b'{"jsonrpc":"2.0","id":null,"method":"x"}', INVALID_REQUEST, b"null"),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"x"}', INVALID_REQUEST, b"null"),
        (b'{"jsonrpc":"2.0","id":1e3,"method":"x"}', INVALID_REQUEST, b"null"),
        (b'{"jsonrpc":"2.0","id":true,"method":"x"}', INVALID_REQUEST, b"null"),
        (b'{"jsonrpc":"2.0","id":[1],"method":"x"}', INVALID_REQUEST, b"null"),
        (b'{"jsonrpc":"2.0","id":"a","method":5}', INVALID_REQUEST, b'"a"'),
        (b'{"jsonrpc":"2.0","id":"a","method":"x","params":[1]}', INVALID_REQUEST, b'"a"'),
        (b'{"jsonrpc":"2.0","id":"a","method":"x","params":"p"}', INVALID_REQUEST, b'"a"'),
        (b'{"jsonrpc":"2.0","id":"a","method":"x","params":[]}', INVALID_REQUEST, b'"a"'),
    ],
)
def test_what_is_no_message_is_refused_with_its_code_and_id(line: bytes, code: int, id: bytes) -> None:
    with pytest.raises(InvalidMessage) as refused:
        decode(line)
    assert (refused.value.code, refused.value.id) == (code, id)


@pytest.mark.parametrize("id", [b"0", b"7", b"-3", b'"7"', b'""', b"123456789012345678901234567890", b'"\\u00e9\\""'])
def test_an_id_stays_the_bytes_it_came_as(id: bytes) -> None:
    assert bytes(decode(b'{"jsonrpc":"2.0","id":%b,"method":"ping"}' % id).id) == id


def test_members_that_are_passed_on_stay_the_bytes_they_came_as() -> None:
    odd = b'{"big": 123456789012345678901234567890, "f": 1E+2, "e": "\\u00e9", "x": [ ]}'
    message = decode(b' {"params" : %b , "method":"tools/call","id":1,"jsonrpc":"2.0","extra":1}\r' % odd)
    assert bytes(message.params) == odd
    assert message.result is ABSENT


@pytest.mark.parametrize(
    ("given", "found"), [(b'"a\\u00e9"', "aé"), (b"1", None), (b"null", None), (b'{"a":"b"}', None), (b'"\xff"', None)]
)
def test_only_a_string_that_can_be_read_is_text(given: bytes, found: str | None) -> None:
    assert jsonrpc.text(msgspec.Raw(given)) == found


def test_what_is_missing_is_no_text() -> None:
    assert jsonrpc.text(None) is None


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        (rb"cut \ud83d", rb"cut \ufffd"),
        (rb"\uDE00 cut", rb"\ufffd cut"),
        (rb"whole \ud83d\ude00 and cut \ud83d", rb"whole \ud83d\ude00 and cut \ufffd"),
        (rb"text \\ud83d, cut \ud83d", rb"text \\ud83d, cut \ufffd"),
    ],
)
def test_half_a_surrogate_pair_becomes_the_replacement_character(sent: bytes, arrives: bytes) -> None:
    line = b'{"jsonrpc":"2.0","id":1,"result":{"text":"%b"}}'
    assert bytes(decode(line % sent).result) == b'{"text":"%b"}' % arrives


def test_a_response_and_a_notification_are_told_apart() -> None:
    assert not decode(b'{"jsonrpc":"2.0","id":1,"result":{}}').method
    assert decode(b'{"jsonrpc":"2.0","method":"notifications/x"}').id is ABSENT


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=4), st.booleans())
def test_what_is_framed_is_one_line_and_reads_back(payload: dict[str, object], large: bool) -> None:
    if large:
        payload = payload | {"filler": "x" * jsonrpc.JOIN_BELOW}
    raw = json.dumps(payload).encode()
    for parts in (
        jsonrpc.request(5, "tools/call", raw),
        jsonrpc.result(b'"abc"', msgspec.Raw(raw)),
        jsonrpc.notification("notifications/x", memoryview(raw)),
    ):
        line = b"".join(bytes(part) for part in parts)
        assert line.count(b"\n") == 1
        assert line.endswith(b"\n")
        message = decode(line[:-1])
        found = message.result if message.result is not ABSENT else message.params
        assert json.loads(bytes(found)) == payload


def test_an_error_object_has_data_only_where_there_is_some() -> None:
    assert json.loads(jsonrpc.error_object(RpcError(-32603, "no"))) == {"code": -32603, "message": "no"}
    assert json.loads(jsonrpc.error_object(RpcError(1, "no", {"a": 1})))["data"] == {"a": 1}


@pytest.mark.parametrize(
    ("line", "id"),
    [
        (b'{"jsonrpc":"2.0","id":12,"result":{"big":"%b"}}', b"12"),
        (b'{"jsonrpc": "2.0", "id": "x-1", "result":{"big":"%b"}}', b'"x-1"'),
        (b'{"result":{"big":"%b"},"jsonrpc":"2.0","id":12}', b"12"),
        (b'{"result":{"big":"%b"},"id":12,"jsonrpc":"2.0"}', b"12"),
        (b'{"result":{"id":99,"big":"%b"}}', None),
        (b'{"result":{"big":"%b","id":99}}', None),
    ],
)
def test_the_id_of_a_line_that_is_too_long_is_read_from_its_ends(line: bytes, id: bytes | None) -> None:
    (over,) = Lines(cap=1000).feed(line % (b"y" * 5000) + b"\n")
    assert isinstance(over, Oversize)
    assert over.size == len(line) - 2 + 5000
    assert jsonrpc.salvage_id(over.head, over.tail) == id


# --- ids that come back as another type -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("id", "number"),
    [
        (b'"7"', 7),
        (b"7.0", 7),
        (b"7e0", 7),
        (b"7.5", None),
        (b'"7.0"', None),
        (b'"seven"', None),
        (b'""', None),
        ('"٧"'.encode(), None),
        (b"true", None),
        (b"null", None),
        (b"[7]", None),
        (b"1e999", None),
    ],
)
def test_a_number_may_be_meant_by_text_and_by_one_with_a_point(id: bytes, number: int | None) -> None:
    assert jsonrpc.meant_number(msgspec.Raw(id)) == number


@pytest.mark.parametrize(
    ("line", "is_read"),
    [
        (b'{"jsonrpc":"2.0","id":7.0,"result":{}}', True),
        (b'{"jsonrpc":"2.0","id":7.0,"error":{}}', True),
        (b'{"jsonrpc":"2.0","id":7.5,"result":{}}', False),
        (b'{"jsonrpc":"2.0","id":7.0,"method":"x"}', False),
        (b'{"jsonrpc":"1.0","id":7.0,"result":{}}', False),
        (b'{"jsonrpc":"2.0","id":7.0,"result":{"x":"\xff"}}', False),
        (b'{"jsonrpc":"2.0","result":{}}', False),
        (b'{"jsonrpc":"2.0","id":7.0,"result":', False),
        (b"[" * 99_999, False),
    ],
)
def test_a_response_is_read_whose_id_alone_is_odd(line: bytes, is_read: bool) -> None:
    assert (jsonrpc.decode_answer(line) is not None) is is_read


def test_params_that_are_null_are_left_out() -> None:
    assert decode(b'{"jsonrpc":"2.0","id":1,"method":"x","params":null}').params is ABSENT

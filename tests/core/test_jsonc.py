"""JSON with comments and trailing commas: what is blanked, and that nothing else changes or moves."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_multi_server.core.config.jsonc import plain

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["//", "/* x */", ",}", '\\"//', "\\"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 // one", "1       "),
        ("1 // one\n, // two\r\n2", "1       \n,       \r\n2"),
        ("[1, /* a, b\n ] */ 2]", "[1,        \n      2]"),
        ("[1, 2,]", "[1, 2 ]"),
        ('{"a": {"b": [],}, // last\n}', '{"a": {"b": [] }         \n}'),
        ("[1, /* none */ ]", "[1             ]"),
        (
            '{"url": "https://x//y", "glob": "/*", "end": "*/,]"}',
            '{"url": "https://x//y", "glob": "/*", "end": "*/,]"}',
        ),
        ('["a\\"// b", "\\\\" // c\n]', '["a\\"// b", "\\\\"     \n]'),
        ("/**/1/***/", "    1     "),
    ],
)
def test_comments_and_trailing_commas_are_blanked(text: str, expected: str) -> None:
    assert plain(text) == expected


@pytest.mark.parametrize(
    "text", ["[,]", "{,}", "[1,,]", '{"a":,}', '{"a",}'[:-1], "[1 2]", '"a', "/* 1", "/", "[1,/*]"]
)
def test_what_is_a_mistake_stays_one(text: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        json.loads(plain(text))


@given(JSON, st.sampled_from([None, 1, "\t"]))
def test_json_without_either_stays_as_it_is(value: object, indent: int | str | None) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    assert plain(text) == text


@given(st.text(alphabet='/*,"\\{}[]: \n1'))
def test_no_text_gets_longer_or_loses_a_line_break(text: str) -> None:
    blanked = plain(text)
    assert len(blanked) == len(text)
    assert [at for at, each in enumerate(blanked) if each == "\n"] == [
        at for at, each in enumerate(text) if each == "\n"
    ]


@given(JSON, st.lists(st.sampled_from(["// x\n", "/* , } */", " "]), min_size=1, max_size=3))
def test_a_comment_between_any_two_tokens_changes_nothing(value: object, comments: list[str]) -> None:
    between = "".join(comments)
    text = json.dumps(value, separators=(f",{between}", f":{between}"))
    # In a string the separators of `dumps` do not occur, since it escapes nothing into them.
    assert json.loads(plain(f"{between}{text}{between}")) == value


@pytest.mark.parametrize("piece", ["/*", '"', "//", ",", '"\\', "/", "[,", "/**/", "1,"])
def test_hostile_text_takes_no_longer_than_its_length(piece: str) -> None:
    assert len(plain(piece * (400_000 // len(piece)))) == 400_000 // len(piece) * len(piece)

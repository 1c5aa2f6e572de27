"""What is done to the text of strangers before it is shown."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_multi_server.core.printable import OBEYED, json_text, lines, one_line

LETTERS = "\x1b[]0;52mcJ\x07\n\r\t\x00\x7f\x9b\u202e\u2066\u2028\u200b\U000e0041\ud800aé日"
HOSTILE = st.text(st.sampled_from(LETTERS)) | st.text()


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("plain text, ümlauts, 日本", "plain text, ümlauts, 日本"),
        ("no\u00a0break, wide\u3000space", "no\u00a0break, wide\u3000space"),
        ("a family 👨‍👩‍👧, نمی‌خواهم", "a family 👨‍👩‍👧, نمی‌خواهم"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b(B\x1b[mplain\x1b7", "plain"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;https://a.b\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;not ended", r"\x1b]52;c;not ended"),
        ("\x1bx", r"\x1bx"),
        ("\x9b31mred", r"\x9b31mred"),
        ("a\tb", "a b"),
        ("a\nb\r\nc\u2028d\x85e\x0bf", r"a\nb\r\nc\u2028d\x85e\x0bf"),
        ("a\x00b\x7f", r"a\x00b\x7f"),
        ("a\u202eb\u2067c\u200fd\u061ce", r"a\u202eb\u2067c\u200fd\u061ce"),
        ("hid\u200bden \U000e0041\ufeff", r"hid\u200bden \U000e0041\ufeff"),
        ("half \ud800", r"half \ud800"),
    ],
)
def test_text_on_one_line(said: str, shown: str) -> None:
    assert one_line(said) == shown


def test_text_of_several_lines_keeps_its_line_feeds_and_tabs() -> None:
    assert lines("a\tb\r\nc\x1b[2J\rd\n") == "a\tb\nc\\rd\n"


@given(HOSTILE)
def test_nothing_that_is_shown_is_obeyed(said: str) -> None:
    assert not OBEYED.search(one_line(said))
    assert set(OBEYED.findall(lines(said))) <= {"\n", "\t"}


@given(st.text())
def test_letters_numbers_and_signs_stay(said: str) -> None:
    seen = "".join(letter for letter in said if unicodedata.category(letter)[0] in "LMNPS")
    assert one_line(seen) == seen


@given(st.recursive(HOSTILE | st.integers(), lambda items: st.lists(items) | st.dictionaries(HOSTILE, items)))
def test_json_for_a_terminal_has_the_same_value(value: object) -> None:
    shown = json_text(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(shown) == json.loads(json.dumps(value))
    assert set(OBEYED.findall(shown)) <= {"\n"}

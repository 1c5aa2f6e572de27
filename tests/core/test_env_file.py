"""A file of environment variables, as `envFile` names it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_multi_server.core.config.hosts.env_file import read_env_file


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1\nB=2\n", {"A": "1", "B": "2"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("\ufeffA=1", {"A": "1"}),
        ("# remark\n\n  A = spaced out  \n", {"A": "spaced out"}),
        ("export A=1", {"A": "1"}),
        ("A=", {"A": ""}),
        ("A=1 # remark", {"A": "1"}),
        ("A=a#b", {"A": "a#b"}),
        ("A=#b", {"A": ""}),
        ("A='a # b' # remark", {"A": "a # b"}),
        ('A="a \\"b\\" \\n c\\\\"', {"A": 'a "b" \n c\\'}),
        ("A='a\\n$B'", {"A": "a\\n$B"}),
        ('KEY="-----BEGIN\nline\n-----END"\nB=2', {"KEY": "-----BEGIN\nline\n-----END", "B": "2"}),
        ("A=pa$$w0rd ${B}", {"A": "pa$$w0rd ${B}"}),
        ("A=1=2", {"A": "1=2"}),
        ("A=1\nA=2", {"A": "2"}),
        ("no variable\nA=1\n=2", {"A": "1"}),
        ('A="unclosed\nB=2', {"A": '"unclosed', "B": "2"}),
    ],
)
def test_a_file_is_read_as_other_hosts_read_it(text: str, expected: dict[str, str]) -> None:
    assert read_env_file(text) == expected


@given(st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]*", fullmatch=True), st.text().filter(lambda v: "'" not in v)))
def test_a_value_in_single_quotes_is_taken_as_it_is(variables: dict[str, str]) -> None:
    assert read_env_file("".join(f"{name}='{value}'\n" for name, value in variables.items())) == variables


@given(st.text(alphabet="A= '\"\\\n#x"))
def test_any_text_can_be_read(text: str) -> None:
    read_env_file(text)

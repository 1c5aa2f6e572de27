"""Namespaced URIs and URI templates: what version 1.2.5 of the library answered, and RFC 6570 where it gave up."""

import re
from string import ascii_letters

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AnyUrl

from mcp_multi_server.library.uris import (
    Value,
    extract_template_variables,
    format_namespace_uri,
    parse_namespace_uri,
    substitute_template_variables,
)

NAMES = st.text(ascii_letters + "_", min_size=1, max_size=5)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LEGAL = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*")


@pytest.mark.parametrize(
    ("server", "uri", "listed"),
    [
        ("files", "file:///a", "files:file:///a"),
        ("files", AnyUrl("http://host"), "files:http://host/"),
        ("files", "db://{table}{?limit}", "files:db://{table}{?limit}"),
        ("a:b", "c", "a:b:c"),
        ("", "x", ":x"),
        ("s", "", "s:"),
    ],
)
def test_a_uri_is_listed_behind_its_server(server: str, uri: str | AnyUrl, listed: str) -> None:
    assert format_namespace_uri(server, uri) == listed


@pytest.mark.parametrize(
    ("uri", "parsed"),
    [
        ("files:file:///a", ("files", "file:///a")),
        ("db:records://1", ("db", "records://1")),
        ("s:http://h:80/p", ("s", "http://h:80/p")),
        ("s:urn:x:y", ("s", "urn:x:y")),
        ("my server:http://x", ("my server", "http://x")),
        ("é:x", ("é", "x")),
        ("file:///a", (None, "file:///a")),
        ("a://", (None, "a://")),
        ("://", (None, "://")),
        ("nocolon", (None, "nocolon")),
        ("", (None, "")),
        ("a:/b", ("a", "/b")),
        ("http:/", ("http", "/")),
        ("a:", ("a", "")),
        (":b", ("", "b")),
        (":", ("", "")),
        ("mailto:x@y", ("mailto", "x@y")),
        ("urn:isbn:1", ("urn", "isbn:1")),
        ("a:b:c://d", ("a", "b:c://d")),
        (AnyUrl("http://h"), (None, "http://h/")),
        (AnyUrl("files:file:///a"), ("files", "file:///a")),
    ],
)
def test_a_server_stands_before_the_first_colon_unless_two_slashes_follow(
    uri: str | AnyUrl, parsed: tuple[str | None, str]
) -> None:
    assert parse_namespace_uri(uri) == parsed


@given(TEXTS.filter(lambda name: ":" not in name), TEXTS.filter(lambda uri: not uri.startswith("//")))
def test_parsing_undoes_formatting(server: str, uri: str) -> None:
    assert parse_namespace_uri(format_namespace_uri(server, uri)) == (server, uri)


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("file:///{path}/to/{filename}", ["path", "filename"]),
        ("users/{id}/posts/{id}", ["id"]),
        ("{b}{a}{b}", ["b", "a"]),
        ("none", []),
        ("", []),
        ("{}", []),
        ("{a", []),
        ("a}", []),
        ("{ a }", [" a "]),
        ("{user name}", ["user name"]),
        ("{a\nb}", ["a\nb"]),
        ("{a-b}", ["a-b"]),
        ("{a.b}", ["a.b"]),
        ("{1}", ["1"]),
        ("{é}", ["é"]),
        ("{%41}", ["%41"]),
        ("{=a}", ["=a"]),
        ("{a:x}", ["a:x"]),
        (AnyUrl("weather://{city}/now"), ["city"]),
        (AnyUrl("http://h/p?q={a}"), ["a"]),
    ],
)
def test_variables_are_found_as_version_1_found_them(template: str | AnyUrl, names: list[str]) -> None:
    assert extract_template_variables(template) == names


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("{+path}", ["path"]),
        ("{#part}", ["part"]),
        ("x{.ext}", ["ext"]),
        ("{/a,b}", ["a", "b"]),
        ("{;v}", ["v"]),
        ("{?q,r}{&s*}", ["q", "r", "s"]),
        ("{a:3}{b*}", ["a", "b"]),
        ("{a,b}{?b,c}", ["a", "b", "c"]),
        ("{{a}}", ["a"]),
        ("{x{y}z}", ["y"]),
        (AnyUrl("file:///{dir}/{+path}{?q,r}{#f}"), ["dir", "path", "q", "r", "f"]),
    ],
)
def test_operators_and_modifiers_are_no_part_of_a_name(template: str | AnyUrl, names: list[str]) -> None:
    assert extract_template_variables(template) == names


@pytest.mark.parametrize(
    ("template", "variables", "uri"),
    [
        ("file:///{path}/{f}", {"path": "my docs", "f": "a/b?c#d.txt"}, "file:///my%20docs/a%2Fb%3Fc%23d.txt"),
        ("u/{id}", {"id": "123"}, "u/123"),
        ("u/{id}", {}, "u/{id}"),
        ("u/{id}", {"other": "1"}, "u/{id}"),
        ("{a}{b}", {"a": "1"}, "1{b}"),
        ("{a}{a}", {"a": "x"}, "xx"),
        ("{a}", {"a": ""}, ""),
        ("{a}", {"a": "é~-._"}, "%C3%A9~-._"),
        ("{a}", {"a": "%20"}, "%2520"),
        ("{a}", {"a": "!*'();:@&=+$,/?#[]"}, "%21%2A%27%28%29%3B%3A%40%26%3D%2B%24%2C%2F%3F%23%5B%5D"),
        ("{a}/{b}", {"a": "{b}", "b": "z"}, "%7Bb%7D/z"),
        ("é x/%20/{a}", {"a": "b"}, "é x/%20/b"),
        ("{ a }", {"a": "1"}, "{ a }"),
        ("{ a }", {" a ": "1"}, "1"),
        ("{a b}", {"a b": "1"}, "1"),
        ("{a-b}", {"a-b": "1"}, "1"),
        ("{é}", {"é": "1"}, "1"),
        ("{%41}", {"%41": "1"}, "1"),
        ("{+p}", {"+p": "a/b"}, "a%2Fb"),
        ("{?q}", {"?q": "1"}, "1"),
        ("{a,b}", {"a,b": "1"}, "1"),
        ("{a", {"a": "1"}, "{a"),
        ("{{a}}", {"a": "1"}, "{1}"),
        ("{x{y}z}", {"y": "1"}, "{x1z}"),
        (AnyUrl("weather://{city}/now"), {"city": "New York"}, "weather://New%20York/now"),
        (AnyUrl("http://h/p?q={a}"), {"a": "1"}, "http://h/p?q=1"),
        (AnyUrl("http://h/{a}"), {"b": "1"}, "http://h/%7Ba%7D"),
    ],
)
def test_variables_are_filled_in_as_version_1_did(template: str | AnyUrl, variables: dict[str, str], uri: str) -> None:
    assert substitute_template_variables(template, variables) == uri


@pytest.mark.parametrize(
    ("template", "variables", "uri"),
    [
        ("file://{+path}", {"path": "/a b/c"}, "file:///a%20b/c"),
        ("{+path}", {"path": "50% of a b%20c{d}\n"}, "50%25%20of%20a%20b%20c%7Bd%7D%0A"),
        ("{+path:5}", {"path": "a b/c/d"}, "a%20b/c"),
        ("{a:3}", {"a": "éèêë"}, "%C3%A9%C3%A8%C3%AA"),
        ("x{#part}", {"part": "a/b c"}, "x#a/b%20c"),
        ("x{.ext}", {"ext": "tar.gz"}, "x.tar.gz"),
        ("x{/a,b}", {"a": "1", "b": "2/3"}, "x/1/2%2F3"),
        ("x{;a,b}", {"a": "1", "b": ""}, "x;a=1;b"),
        ("x{?q,r}", {"q": "a&b", "r": ""}, "x?q=a%26b&r="),
        ("x?y=1{&q}", {"q": "2"}, "x?y=1&q=2"),
        ("{a,b}", {"a": "1", "b": "2"}, "1,2"),
        ("x{?page-size}", {"page-size": "5"}, "x?page-size=5"),
        ("x{?list*}", {"list": ["a", "b c"]}, "x?list=a&list=b%20c"),
        ("x{?list}", {"list": ("a", "b")}, "x?list=a,b"),
        ("x{/list*}", {"list": ["a", "b"]}, "x/a/b"),
        ("x{?keys*}", {"keys": {"k": "1", "m": "2"}}, "x?k=1&m=2"),
        ("{list}", {"list": ["a", "b"]}, "a,b"),
        (AnyUrl("file:///{dir}/{+path}{?q}"), {"dir": "a b", "path": "c/d", "q": "1"}, "file:///a%20b/c/d?q=1"),
    ],
)
def test_operators_expand_as_rfc_6570_says(template: str | AnyUrl, variables: dict[str, Value], uri: str) -> None:
    assert substitute_template_variables(template, variables) == uri


@pytest.mark.parametrize(
    ("template", "variables", "uri"),
    [
        ("x{?q,r}", {}, "x"),
        ("x{?q,r}", {"r": "1"}, "x?r=1"),
        ("{a}{?q}", {"a": "1"}, "1"),
        ("x{/more}{.ext}{;p}{&s}{#f}", {}, "x"),
        ("{+path}", {}, "{+path}"),
        ("{a,b}", {}, "{a,b}"),
        ("{a:3}{b*}", {}, "{a:3}{b*}"),
        ("{?}{?a b}", {}, "{?}{?a b}"),
    ],
)
def test_what_is_not_given_goes_where_it_is_optional_and_stays_elsewhere(
    template: str, variables: dict[str, Value], uri: str
) -> None:
    assert substitute_template_variables(template, variables) == uri


@pytest.mark.parametrize("value", [1, None, True, b"x", ["a", 1], {"a": 1}, [["a"]]])
def test_a_value_that_is_no_text_is_refused_by_name(value: Value) -> None:
    with pytest.raises(TypeError, match="variable 'table' is "):
        substitute_template_variables("db://all", {"table": value})


def test_a_lone_surrogate_has_no_encoding() -> None:
    with pytest.raises(UnicodeEncodeError):
        substitute_template_variables("{a}", {"a": "\ud800"})


@given(st.lists(NAMES, unique=True, min_size=1), st.data())
def test_values_of_plain_variables_cannot_change_the_shape_of_a_uri(names: list[str], data: st.DataObject) -> None:
    values = {name: data.draw(TEXTS) for name in names}
    uri = substitute_template_variables("/".join(f"{{{name}}}" for name in names), values)
    assert uri.count("/") == len(names) - 1
    assert not set(uri) & set("{}?#: ")


@given(
    st.sampled_from(["", *"+#./;?&"]), st.lists(NAMES, unique=True, min_size=1), st.sampled_from(["", "*"]), st.data()
)
def test_every_variable_found_can_be_filled_in(operator: str, names: list[str], star: str, data: st.DataObject) -> None:
    template = f"x://y{{{operator}{','.join(name + star for name in names)}}}"
    assert extract_template_variables(template) == names
    assert LEGAL.fullmatch(substitute_template_variables(template, {name: data.draw(TEXTS) for name in names}))


@given(st.text(), st.dictionaries(st.text(), TEXTS))
def test_any_text_is_a_template(template: str, variables: dict[str, str]) -> None:
    extract_template_variables(template)
    substitute_template_variables(template, variables)


def test_a_megabyte_of_braces_is_read_at_once() -> None:
    template = "{" * 500_000 + "{a" * 250_000
    assert extract_template_variables(template) == []
    assert extract_template_variables(AnyUrl("x:" + "{a" * 20_000)) == []

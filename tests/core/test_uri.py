"""`server:uri`, and what URI templates match."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import AnyUrl, TypeAdapter

from mcp_multi_server.core.config.prefixes import digest
from mcp_multi_server.core.uri import LONGEST_MATCHED, LONGEST_TEMPLATE, Namespaces, Template, namespaced

SERVERS = ("git", "file", "a", "a:b", "my server", "x.y")


@pytest.mark.parametrize(
    ("uri", "meant"),
    [
        ("git:file:///x", ("git", "file:///x")),
        ("git:git:file:///x", ("git", "git:file:///x")),
        ("git:urn:isbn:1", ("git", "urn:isbn:1")),
        ("my server:db://t", ("my server", "db://t")),
        ("x.y:z+1-2.3:", ("x.y", "z+1-2.3:")),
        ("a:b:c://d", ("a:b", "c://d")),
        ("a:b:/d", ("a", "b:/d")),
        ("a:c:d:e", ("a", "c:d:e")),
        ("file:///etc/passwd", None),
        ("file:x", None),
        ("file:file:///x", ("file", "file:///x")),
        ("git:1x://y", None),
        ("git://host/repo", None),
        ("GIT:file:///x", None),
        ("other:file:///x", None),
        ("git", None),
        (":x:y", None),
        ("", None),
    ],
)
def test_a_server_is_named_before_a_uri_with_a_scheme(uri: str, meant: tuple[str, str] | None) -> None:
    found = Namespaces(SERVERS).split(uri)
    assert found == (meant and (*meant, meant[0]))


@pytest.mark.parametrize(
    ("servers", "listed"),
    [
        (["git", "a-b.c+1"], ["git", "a-b.c+1"]),
        (["my_server", "my server", "a:b"], ["my-server", f"my-server-{digest('my server')}", "a-b"]),
        (["my_server", "my-server"], [f"my-server-{digest('my_server')}", "my-server"]),
        (["MY_SERVER", "my-server"], [f"MY-SERVER-{digest('MY_SERVER')}", "my-server"]),
        (["1st", "_x", "-", ""], ["server-1st", "x", "server-", f"server--{digest('')}"]),
        (["高德地图", "café"], [f"server-{digest('高德地图')}", f"cafe-{digest('café')}"]),
    ],
)
def test_a_server_whose_name_is_no_scheme_gets_one_of_its_own(servers: list[str], listed: list[str]) -> None:
    assert list(map(Namespaces(servers).schemes.get, servers)) == listed


def test_a_server_is_known_by_its_name_its_scheme_and_either_in_small_letters() -> None:
    namespaces = Namespaces(["My_Server", "Files", "files"])
    for spelled in ("My_Server", "My-Server", "my-server"):
        assert namespaces.split(f"{spelled}:x:y") == ("My_Server", "x:y", spelled)
    assert namespaces.split("files:x:y") == ("files", "x:y", "files")
    assert namespaces.split("Files:x:y") == ("Files", "x:y", "Files")


ANY_URL = TypeAdapter(AnyUrl)


@given(st.lists(st.text(min_size=1), min_size=1, unique=True), st.text(min_size=1))
def test_every_listed_uri_is_a_url_to_clients_that_take_it_apart(servers: list[str], rest: str) -> None:
    assume(not re.match(r"[\t\r\n]*/[\t\r\n]*/", rest))  # such resources are left out when their list is read
    namespaces = Namespaces(servers)
    assert len(set(map(str.lower, namespaces.schemes.values()))) >= len({each.lower() for each in servers})
    for server in servers:
        listed = namespaced(namespaces.schemes[server], f"x:{rest}")
        ANY_URL.validate_python(namespaced(namespaces.schemes[server], rest))
        found = namespaces.split(listed)
        assert found is not None
        assert found[1] == f"x:{rest}"


def test_without_servers_nothing_is_namespaced() -> None:
    assert Namespaces(()).split("a:b:c") is None


@given(st.sampled_from(SERVERS), st.text())
def test_splitting_undoes_namespacing(server: str, rest: str) -> None:
    """Any URI with a scheme that is no server's name."""
    uri = f"scheme:{rest}"
    assert Namespaces(SERVERS).split(namespaced(server, uri)) == (server, uri, server)


def test_a_megabyte_of_colons_is_split_at_once() -> None:
    assert Namespaces(SERVERS).split(":" * 1_000_000) is None


@pytest.mark.parametrize(
    ("template", "matching", "others"),
    [
        ("db://all", ["db://all"], ["db://al", "db://all/", "xdb://all", ""]),
        ("", [""], ["x"]),
        ("db://{table}", ["db://t", "db://é t", "db://{table}"], ["db://", "db://a/b", "db:/t", "DB://t"]),
        ("db://{table}/rows/{id}", ["db://t/rows/1", "db://rows/rows/rows"], ["db://t/rows/", "db://t/u/rows/1", "db://t"]),
        ("{+url}", ["http://x/y?z#f", "x"], [""]),
        ("file:///{+path}", ["file:///a/b", "file:////"], ["file:///", "file://a/b"]),
        ("{+dir}/{name}.txt", ["a/b/c.txt", "x/.txt.txt"], ["c.txt", "a/b/.txt", "a/c.txt/d"]),
        ("doc:x{#part}", ["doc:x", "doc:x#", "doc:x#a/b#c"], ["doc:xa", "doc:x/"]),
        ("img:x{.ext}", ["img:x", "img:x.", "img:x.tar.gz"], ["img:xpng", "img:x.a/b"]),
        ("files:{/path}", ["files:", "files:/", "files:/a", "files:/a/b/"], ["files:a", "files:/a?b", "files:/a#b"]),
        ("files:{/path*}/end", ["files:/end", "files:/a/b/end", "files:/end/end"], ["files:/a/b", "files:end/"]),
        ("m:x{;k}", ["m:x", "m:x;k=1"], ["m:xk=1", "m:x;k=/"]),
        ("q:x{?a,b}", ["q:x", "q:x?a=1&b=2", "q:x?b=/2", "q:x?"], ["q:xa=1", "q:x?a=1#f", "q:x&a=1"]),
        ("q:x?k=1{&a}", ["q:x?k=1", "q:x?k=1&a=2"], ["q:x?k=2", "q:x?k=1?a=2", "q:x?k=1&a=2#f"]),
        ("g:{a,b}", ["g:1,2"], ["g:1/2"]),
        ("p:{a:3}", ["p:abc"], ["p:", "p:a/b"]),
        ("a.b*c://[x]+", ["a.b*c://[x]+"], ["aXbbc://xx"]),
        ("open{x", ["open{x"], ["openx", "open"]),
        ("close}x{}", ["close}x{}"], ["closex", "close}x", "close}xy"]),
        ("{{x}}", ["{abc}"], ["abc", "{}"]),
        ("ü:{x}ß", ["ü:aß", "ü:ßß"], ["ü:ß", "u:aß"]),
    ],
)  # fmt: skip
def test_a_template_matches_what_it_can_expand_to(template: str, matching: list[str], others: list[str]) -> None:
    asked = Template(template)
    assert [uri for uri in matching if not asked.matches(uri)] == []
    assert [uri for uri in others if asked.matches(uri)] == []


BACKTRACKING = {
    "": "[^/]+", "+": ".+", "#": "(?:#.*)?", ".": r"(?:\.[^/]*)?",
    "/": "(?:/[^?#]*)?", ";": "(?:;[^/]*)?", "?": r"(?:\?[^#]*)?", "&": "(?:&[^#]*)?",
}  # fmt: skip
PIECES = st.one_of(
    st.sampled_from(["a", "b", "/", "ab", "?", "#", "."]), st.sampled_from(sorted(BACKTRACKING)).map("{{{}x}}".format)
)


@given(st.lists(PIECES, max_size=6), st.text("ab/?#.&;", max_size=12))
def test_following_all_ways_at_once_finds_what_backtracking_finds(pieces: list[str], uri: str) -> None:
    pattern = "".join(BACKTRACKING[piece[1:-2]] if piece[0] == "{" else re.escape(piece) for piece in pieces)
    assert Template("".join(pieces)).matches(uri) == bool(re.fullmatch(pattern, uri, re.DOTALL))


@pytest.mark.parametrize(
    ("template", "uri", "matches"),
    [
        ("{+a}x{+b}x{+c}x{+d}x{+e}x{+f}y", "x" * 10_000, False),
        ("{a}" * 60 + "!", "a" * 10_000, False),
        ("{a}" * 60 + "!", "a" * 10_000 + "!", True),
        ("{+a}{/b}{.c}{?d}{&e}{#f}" * 60 + "!", "a/.?&#" * 1_700, False),
        ("{a}a" * 400, "a" * 10_000, True),
    ],
)
def test_a_hostile_template_is_answered_at_once(template: str, uri: str, matches: bool) -> None:
    """A backtracking expression needs years for each of them; the time limit of the suite would end it."""
    assert Template(template).matches(uri) is matches


def test_what_is_longer_than_the_bounds_matches_nothing() -> None:
    assert Template("x:{+a}").matches("x:" + "a" * (LONGEST_MATCHED - 2))
    assert not Template("x:{+a}").matches("x:" + "a" * (LONGEST_MATCHED - 1))
    assert Template("x:{+" + "a" * (LONGEST_TEMPLATE - 5) + "}").matches("x:a")
    assert not Template("x:{+" + "a" * (LONGEST_TEMPLATE - 4) + "}").matches("x:a")


def test_text_that_is_no_unicode_is_compared_too() -> None:
    assert Template("x:\ud800{a}").matches("x:\ud800\udfff")

"""All catalogs merged: which server a name or URI means, and what clients are shown."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_multi_server.core.catalog.catalog import Catalog, Item, Kind, ListPage
from mcp_multi_server.core.index import STATE_KEY, Index, RefusedName, Unroutable, changed_kinds
from mcp_multi_server.core.jsonrpc import encode
from mcp_multi_server.core.names import Collision, Naming, Offer, Route
from mcp_multi_server.core.protocol import Era
from mcp_multi_server.core.uri import schemes

BARE, LAST, QUALIFIED = Naming(), Naming(collisions="last"), Naming(style="qualified")


def raw(kind: Kind, name: str, owner: str) -> bytes:
    """An item that tells whose it is, and that no re-encoding would leave as it is."""
    return b'{"x":12345678901234567890123, %b:%b,"of":%b}' % (encode(kind.key), encode(name), encode(owner))


def offer(
    server: str,
    *,
    tools: Sequence[str] = (),
    prompts: Sequence[str] = (),
    resources: Sequence[str] = (),
    templates: Sequence[str] = (),
) -> Offer:
    """A server that offers items of these names."""
    given_names = zip(Kind, (tools, prompts, resources, templates), strict=True)
    pages = {
        kind: [ListPage(tuple(Item(name, raw(kind, name, server)) for name in names))] for kind, names in given_names
    }
    return Offer(server, server, Catalog.of(pages), has_resources=bool(resources or templates))


def offer_of(kind: Kind, server: str, *names: str) -> Offer:
    """A server that offers one kind only."""
    pages = {kind: [ListPage(tuple(Item(name, raw(kind, name, server)) for name in names))]}
    return Offer(server, server, Catalog.of(pages), has_resources=False)


def offer_raw(server: str, item: bytes) -> Offer:
    """A server that offers one tool, in these words."""
    tool = Item(json.loads(item)["name"], item)
    return Offer(server, server, Catalog.of({Kind.TOOL: [ListPage((tool,))]}), has_resources=False)


def build(*offers: Offer, naming: Naming = BARE) -> Index:
    return Index.build(offers, naming)


def shown(index: Index, kind: Kind) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(index.listing(kind))
    return found


def names(index: Index, kind: Kind = Kind.TOOL) -> list[str]:
    return [item[kind.key] for item in shown(index, kind)]


# Names


def test_a_name_claimed_once_is_listed_bare_and_callable_both_ways() -> None:
    index = build(offer("git", tools=["log"], prompts=["review"]))
    assert (names(index), names(index, Kind.PROMPT)) == (["log"], ["review"])
    assert index.tool("log") == index.tool("git__log") == Route("git", "log")
    assert index.prompt("review") == index.prompt("git__review") == Route("git", "review")
    assert index.tool("review") is index.prompt("log") is index.tool("hg__log") is None
    assert index.collisions == ()


@pytest.mark.parametrize(
    ("naming", "listed", "owner", "collision"),
    [
        (BARE, ["log", "b__log", "c__log"], "a", Collision(Kind.TOOL, "log", "a", ("b", "c"))),
        (LAST, ["a__log", "b__log", "log"], "c", Collision(Kind.TOOL, "log", "c", ("a", "b"))),
    ],
)
def test_one_claimant_owns_a_name_and_the_others_are_listed_qualified(
    naming: Naming, listed: list[str], owner: str, collision: Collision
) -> None:
    index = build(*(offer(server, tools=["log"]) for server in "abc"), naming=naming)
    assert names(index) == listed
    assert index.tool("log") == Route(owner, "log")
    assert [index.tool(f"{server}__log") for server in "abc"] == [Route(server, "log") for server in "abc"]
    assert index.collisions == (collision,)


def test_in_qualified_style_a_bare_name_does_not_route() -> None:
    index = build(offer("a", tools=["log"]), offer("b", tools=["log"]), naming=QUALIFIED)
    assert names(index) == ["a__log", "b__log"]
    assert index.tool("log") is None
    assert index.collisions == ()


def test_the_prefix_and_separator_make_the_qualified_name() -> None:
    index = build(
        replace(offer("my server", tools=["log"]), prefix="my_server"), naming=Naming("qualified", separator=".")
    )
    assert names(index) == ["my_server.log"]
    assert index.tool("my_server.log") == Route("my server", "log")


def test_a_qualified_name_is_reserved_against_bare_ones() -> None:
    index = build(offer("a", tools=["b__c"]), offer("b", tools=["c"]))
    assert names(index) == ["a__b__c", "c"]
    assert index.tool("b__c") == index.tool("c") == Route("b", "c")
    assert index.tool("a__b__c") == Route("a", "b__c")
    assert index.collisions == (Collision(Kind.TOOL, "b__c", "b", ("a",)),)


def test_a_tool_named_like_a_qualified_one_of_its_own_server_gives_way_without_a_collision() -> None:
    index = build(offer("a", tools=["a__x", "x"]))
    assert names(index) == ["a__a__x", "x"]
    assert index.tool("a__x") == Route("a", "x")
    assert index.collisions == ()


@pytest.mark.parametrize("naming", [BARE, LAST])
def test_of_two_equal_qualified_names_the_first_server_has_it(naming: Naming) -> None:
    index = build(offer("a", tools=["b__c"]), offer("a__b", tools=["c"]), naming=naming)
    assert names(index) == ["b__c", "c"]
    assert index.tool("a__b__c") == Route("a", "b__c")
    assert index.tool("c") == Route("a__b", "c")
    assert index.collisions == (Collision(Kind.TOOL, "a__b__c", "a", ("a__b",)),)


def test_a_tool_that_has_no_name_left_is_not_listed_and_reported() -> None:
    index = build(offer("a", tools=["b__c"]), offer("a__b", tools=["c"]), naming=QUALIFIED)
    assert names(index) == ["a__b__c"]
    assert index.tool("a__b__c") == Route("a", "b__c")
    assert index.collisions == (Collision(Kind.TOOL, "a__b__c", "a", ("a__b",)),)


def test_a_withdrawn_owner_gets_its_name_back_when_it_returns() -> None:
    first, second = offer("a", tools=["log"]), offer("b", tools=["log"])
    withdrawn = build(replace(first, catalog=Catalog()), second)
    assert (names(withdrawn), withdrawn.tool("log")) == (["log"], Route("b", "log"))
    assert withdrawn.tool("a__log") is None
    assert build(first, second).tool("log") == Route("a", "log")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("x" * 64, None),
        ("Az09_-", None),
        ("x" * 65, "65 characters long; LLM APIs take 64"),
        ("a.b", "has characters outside A-Z a-z 0-9 _ -, which LLM APIs refuse"),
        ("é", "has characters outside A-Z a-z 0-9 _ -, which LLM APIs refuse"),
        ("a\n", "has characters outside A-Z a-z 0-9 _ -, which LLM APIs refuse"),
    ],
)
@pytest.mark.parametrize("kind", [Kind.TOOL, Kind.PROMPT])
def test_names_that_llm_apis_refuse_are_reported(kind: Kind, name: str, problem: str | None) -> None:
    index = build(offer_of(kind, "a", name))
    assert index.refused == ((RefusedName(kind, "a", name, problem),) if problem else ())


def test_the_listed_name_is_what_llm_apis_judge() -> None:
    index = build(offer("a", tools=["x" * 62]), naming=QUALIFIED)
    assert [refused.name for refused in index.refused] == ["a__" + "x" * 62]
    assert build(offer("a", resources=["file:///x y"])).refused == ()


# What clients are shown


def signed(item: bytes, server: str) -> bytes:
    """An item without `_meta` as it is listed."""
    return item.removesuffix(b"}") + b',"_meta":{"serverName":"%b"}}' % server.encode()


def test_an_item_under_its_own_name_is_its_own_bytes_signed_with_its_server() -> None:
    index = build(offer("a", tools=["x", "y"]))
    x, y = (signed(raw(Kind.TOOL, name, "a"), "a") for name in "xy")
    assert index.listing(Kind.TOOL) == b"[%b,%b]" % (x, y)
    assert index.listing(Kind.TOOL) is index.listing(Kind.TOOL)


def test_only_the_name_of_a_renamed_item_changes() -> None:
    item = b'{"z":1.50,"name":"log","big":12345678901234567890123,"s":"\\u00e9"}'
    index = build(offer_raw("a", item), offer_raw("b", item))
    renamed = item.replace(b'"log"', b'"b__log"')
    own_name = b'"serverName":"b","mcp-multi-server/name":"log"}}'
    listed = signed(renamed, "b").replace(b'"serverName":"b"}}', own_name)
    assert index.listing(Kind.TOOL) == b"[%b,%b]" % (signed(item, "a"), listed)


def test_resources_and_templates_are_listed_with_their_server() -> None:
    index = build(offer("my server", resources=["file:///x"], templates=["file:///{+path}"]))
    assert names(index, Kind.RESOURCE) == ["my-server:file:///x"]
    assert names(index, Kind.TEMPLATE) == ["my-server:file:///{+path}"]
    for spelled in ("my-server", "my server"):
        assert index.resource(f"{spelled}:file:///x") == Route("my server", "file:///x", namespace=spelled)
    assert b"12345678901234567890123" in index.listing(Kind.RESOURCE)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b'{"serverName":"a","mcp-multi-server/state":"backoff"}'),
        (b',"_meta":null', b'{"serverName":"a","mcp-multi-server/state":"backoff"}'),
        (b',"_meta":[1]', b'{"serverName":"a","mcp-multi-server/state":"backoff"}'),
        (b',"_meta":{ "n": 1.0 ,"o":{ }}', b'{"n":1.0,"o":{ },"serverName":"a","mcp-multi-server/state":"backoff"}'),
        (b',"_meta":{"serverName":"z"}', b'{"serverName":"a","mcp-multi-server/state":"backoff"}'),
    ],
)
def test_an_item_says_in_its_meta_that_its_server_is_away(before: bytes, after: bytes) -> None:
    away = replace(offer_raw("a", b'{"name":"x"%b}' % before), away="backoff")
    assert build(away).listing(Kind.TOOL) == b'[{"name":"x","_meta":%b}]' % after


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_carries_the_mark_and_only_of_the_server_that_is_away(kind: Kind) -> None:
    index = build(replace(offer_of(kind, "a", "x:a"), away="parked"), offer_of(kind, "b", "x:b"))
    assert [item.get("_meta") for item in shown(index, kind)] == [
        {"serverName": "a", STATE_KEY: "parked"},
        {"serverName": "b"},
    ]


@pytest.mark.parametrize(
    "name", ['say "hi"', "two\nlines", "tab\t\\back", "日本語 🎉", "x" * 300, "\x00\x7f", "</script>"]
)
@pytest.mark.parametrize("kind", Kind)
def test_a_strange_name_survives_rewriting(kind: Kind, name: str) -> None:
    index = build(offer_of(kind, "a", name), offer_of(kind, "b", name), naming=QUALIFIED)
    separator = "__" if kind in (Kind.TOOL, Kind.PROMPT) else ":"
    assert names(index, kind) == [f"a{separator}{name}", f"b{separator}{name}"]


def test_nothing_offered_is_an_empty_list() -> None:
    nothing = build()
    assert [nothing.listing(kind) for kind in Kind] == [b"[]"] * 4
    assert nothing.tool("x") is None
    with pytest.raises(Unroutable, match="no server offers 'x:y'"):
        nothing.resource("x:y")


def test_listed_says_whose_an_item_is() -> None:
    index = build(offer("a", tools=["x"]), offer("b", tools=["x"]))
    assert [(entry.name, entry.server, entry.item.name) for entry in index.listed(Kind.TOOL)] == [
        ("x", "a", "x"),
        ("b__x", "b", "x"),
    ]


# URIs

FILES = offer(
    "files", resources=["file:///both", "file:///one", "plain"], templates=["file:///home/{name}", "note:{+id}"]
)
NOTES = offer("notes", resources=["file:///both", "git:head:1"], templates=["note:{id}", "file:///{+path}"])
GIT = offer("git", tools=["log"])
MERGED = build(FILES, NOTES, GIT)


@pytest.mark.parametrize(
    ("uri", "route"),
    [
        ("files:file:///both", Route("files", "file:///both", namespace="files")),
        ("notes:file:///both", Route("notes", "file:///both", namespace="notes")),
        ("notes:file:///unlisted", Route("notes", "file:///unlisted", namespace="notes")),
        ("git:head:1", Route("git", "head:1", namespace="git")),
        ("notes:git:head:1", Route("notes", "git:head:1", namespace="notes")),
        ("files:plain", Route("files", "plain", namespace="files")),
        ("plain", Route("files", "plain")),
        ("file:///one", Route("files", "file:///one")),
        ("file:///other/x", Route("notes", "file:///other/x")),
        ("note:a/b", Route("files", "note:a/b")),
    ],
)
def test_a_uri_means_the_server_it_names_else_the_one_that_lists_or_matches_it(uri: str, route: Route) -> None:
    assert MERGED.resource(uri) == route


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (
            "file:///both",
            "several servers offer 'file:///both'; ask for one of 'files:file:///both', 'notes:file:///both'",
        ),
        (
            "file:///home/x",
            "several servers offer 'file:///home/x'; ask for one of 'files:file:///home/x', 'notes:file:///home/x'",
        ),
        (
            "db://t",
            "no server offers 'db://t'; to ask a server all the same, write server:uri with one of 'files', 'notes'",
        ),
    ],
)
def test_a_uri_that_means_no_one_server_says_how_to_name_one(uri: str, message: str) -> None:
    with pytest.raises(Unroutable) as refused:
        MERGED.resource(uri)
    assert refused.value.message == message


def test_two_matching_templates_of_one_server_mean_that_server() -> None:
    index = build(offer("a", templates=["x:{id}", "x:{+id}"]), offer("b", resources=["y:1"]))
    assert index.resource("x:1") == Route("a", "x:1")


def test_the_only_server_with_resources_is_asked_for_what_nobody_lists() -> None:
    index = build(offer("a", tools=["t"]), replace(offer("b"), has_resources=True))
    assert index.resource("db://t") == Route("b", "db://t", is_guess=True)
    with pytest.raises(Unroutable, match=r"^no server offers 'db://t'$"):
        build(offer("a", tools=["t"])).resource("db://t")


def test_the_longest_server_name_wins_and_a_listed_name_always_means_its_item() -> None:
    index = build(offer("a", resources=["b:x:1"]), offer("a:b", resources=["x:2"]))
    assert names(index, Kind.RESOURCE) == ["a:b:x:1", "a-b:x:2"]
    assert index.resource("a:b:x:1") == Route("a", "b:x:1", namespace="a")
    assert index.resource("a:b:x:3") == Route("a:b", "x:3", namespace="a:b")


def test_an_error_about_a_huge_uri_is_short_and_on_one_line() -> None:
    with pytest.raises(Unroutable) as refused:
        build(*(offer(f"s{number}", resources=["x:\n" + "y" * 9000]) for number in range(40))).resource(
            "x:\n" + "y" * 9000
        )
    assert len(refused.value.message) < 3000
    assert "\n" not in refused.value.message
    assert refused.value.message.endswith(" and 32 more")


def test_a_hostile_template_delays_no_read() -> None:
    index = build(offer("a", templates=["x:" + "{+a}x" * 300]), offer("b", templates=["x:{+p}y"]))
    assert index.resource("x:" + "x" * 10_000 + "y") == Route("b", "x:" + "x" * 10_000 + "y")


@pytest.mark.parametrize(
    ("uri", "server", "back"),
    [
        ("file:///one", "files", True),
        ("file:///one", "notes", False),
        ("file:///both", "files", False),
        ("git:head:1", "notes", False),
        ("git:head:1", "git", False),
        ("note:a/b", "files", True),
        ("db://t", "files", False),
        ("files:file:///one", "files", False),
    ],
)
def test_a_uri_in_a_result_is_known_to_lead_back_or_not(uri: str, server: str, back: bool) -> None:
    assert MERGED.routes_back(uri, server) is back


@pytest.mark.parametrize(
    ("server", "uri", "is_offered"),
    [
        ("files", "file:///both", True),
        ("notes", "file:///both", True),
        ("notes", "note:a", True),
        ("files", "https://example.com/", False),
        ("git", "file:///both", False),
        ("files", "notes:file:///both", False),
        ("nobody", "file:///both", False),
    ],
)
def test_a_server_offers_what_it_lists_and_what_its_templates_match(server: str, uri: str, is_offered: bool) -> None:
    assert MERGED.offers(server, uri) is is_offered


@pytest.mark.parametrize(
    ("ref_type", "name", "route"),
    [
        ("ref/prompt", "ask", Route("a", "ask")),
        ("ref/prompt", "b__ask", Route("b", "ask")),
        ("ref/resource", "a:x:{id}", Route("a", "x:{id}", namespace="a")),
        ("ref/resource", "b:u:{unlisted}", Route("b", "u:{unlisted}", namespace="b")),
        ("ref/resource", "y:{id}", Route("b", "y:{id}")),
        ("ref/resource", "y:{+all}", Route("a", "y:{+all}")),
        ("ref/resource", "z:7", Route("b", "z:7")),
        ("ref/resource", "r:1", Route("a", "r:1")),
    ],
)
def test_a_completion_goes_where_its_prompt_or_template_is(ref_type: str, name: str, route: Route) -> None:
    assert COMPLETING.completion(ref_type, name) == route


COMPLETING = build(
    offer("a", prompts=["ask"], resources=["r:1"], templates=["x:{id}", "y:{+all}"]),
    offer("b", prompts=["ask"], templates=["x:{id}", "y:{id}", "z:{id}"]),
)


@pytest.mark.parametrize(
    ("ref_type", "name", "message"),
    [
        ("ref/prompt", "tell", "no server offers the prompt 'tell'"),
        ("ref/resource", "x:{id}", "several servers offer 'x:{id}'; ask for one of 'a:x:{id}', 'b:x:{id}'"),
        ("ref/resource", "q:{id}", "no server offers 'q:{id}'; to ask a server all the same"),
        ("ref/tool", "x", "a reference is of type ref/prompt or ref/resource, not 'ref/tool'"),
    ],
)
def test_a_completion_for_nothing_says_so(ref_type: str, name: str, message: str) -> None:
    with pytest.raises(Unroutable) as refused:
        COMPLETING.completion(ref_type, name)
    assert refused.value.message.startswith(message)


# Changes


@pytest.mark.parametrize(
    ("new", "changed"),
    [
        ([FILES, NOTES, GIT], set()),
        ([replace(FILES, away="backoff"), NOTES, replace(GIT, away="parked")], set()),
        ([FILES, NOTES, replace(GIT, has_resources=True)], set()),
        ([FILES, NOTES, GIT, offer("new")], set()),
        ([FILES, NOTES], {Kind.TOOL}),
        ([FILES, NOTES, offer("git", tools=["log", "diff"])], {Kind.TOOL}),
        ([FILES, NOTES, GIT, offer("hg", prompts=["p"])], {Kind.PROMPT}),
        ([FILES, GIT], {Kind.RESOURCE, Kind.TEMPLATE}),
        ([NOTES, FILES, GIT], {Kind.RESOURCE, Kind.TEMPLATE}),
        ([FILES, NOTES, GIT, offer("hg", tools=["log"])], {Kind.TOOL}),
    ],
)
def test_only_what_clients_would_see_differently_has_changed(new: list[Offer], changed: set[Kind]) -> None:
    assert changed_kinds(MERGED, build(*new)) == changed
    assert changed_kinds(build(*new), MERGED) == changed


def test_a_new_description_is_a_change() -> None:
    old, new = (offer_raw("a", b'{"name":"x","description":"%b"}' % text) for text in (b"old", b"new"))
    assert changed_kinds(build(old), build(new)) == {Kind.TOOL}


def test_naming_changes_what_clients_see() -> None:
    assert changed_kinds(build(GIT), build(GIT, naming=QUALIFIED)) == {Kind.TOOL}


# Properties

NAMES = st.lists(st.sampled_from(["x", "c", "b__c", "a__x", "a__b__c", "b:c", "x:{y}", "x:1"]), unique=True, max_size=5)
SERVERS = st.lists(st.sampled_from(["a", "b", "a__b", "a:b", "b__c"]), unique=True, max_size=5)
NAMINGS = st.sampled_from([BARE, LAST, QUALIFIED])


@st.composite
def offers(draw: st.DrawFn) -> list[Offer]:
    return [
        offer(server, tools=draw(NAMES), prompts=draw(NAMES), resources=draw(NAMES), templates=draw(NAMES))
        for server in draw(SERVERS)
    ]


def route(index: Index, kind: Kind, name: str) -> Route | None:
    match kind:
        case Kind.TOOL:
            return index.tool(name)
        case Kind.PROMPT:
            return index.prompt(name)
        case Kind.RESOURCE:
            return index.resource(name)
        case Kind.TEMPLATE:
            return index.completion("ref/resource", name)


def qualified(kind: Kind, server: str, name: str) -> str:
    return f"{server}__{name}" if kind in (Kind.TOOL, Kind.PROMPT) else f"{schemes([server])[server]}:{name}"


def claims(kind: Kind, given_offers: list[Offer], naming: Naming) -> dict[str, list[str]]:
    """Who claims which name, in config order; written down apart from the index."""
    found: dict[str, list[str]] = {}
    for given_offer in given_offers:
        for item in given_offer.catalog.items[kind]:
            bare = [item.name] if kind in (Kind.TOOL, Kind.PROMPT) and naming.style == "bare" else []
            for name in [*bare, qualified(kind, given_offer.server, item.name)]:
                if given_offer.server not in found.setdefault(name, []):
                    found[name].append(given_offer.server)
    return found


@given(offers(), NAMINGS)
def test_every_listed_name_is_unique_and_means_the_item_that_it_lists(
    given_offers: list[Offer], naming: Naming
) -> None:
    index = build(*given_offers, naming=naming)
    for kind in Kind:
        items = shown(index, kind)
        assert len({item[kind.key] for item in items}) == len(items)
        for item, entry in zip(items, index.listed(kind), strict=True):
            found = route(index, kind, item[kind.key])
            assert found is not None
            assert (found.server, found.name) == (item["of"], entry.item.name)
            assert item["x"] == 12345678901234567890123


@given(offers(), NAMINGS)
def test_owner_and_shadowed_are_the_claimants(given_offers: list[Offer], naming: Naming) -> None:
    index = build(*given_offers, naming=naming)
    found = {(collision.kind, collision.name): collision for collision in index.collisions}
    assert len(found) == len(index.collisions)
    for kind in Kind:
        for name, servers in claims(kind, given_offers, naming).items():
            collision = found.pop((kind, name), None)
            if len(servers) == 1:
                assert collision is None
                continue
            assert collision is not None
            assert list(collision.shadowed) == [server for server in servers if server != collision.owner]
            assert collision.owner in servers
            assert getattr(route(index, kind, name), "server", None) == collision.owner
    assert not found


@given(offers(), NAMINGS)
def test_every_qualified_name_means_its_server_or_is_in_a_collision(given_offers: list[Offer], naming: Naming) -> None:
    index = build(*given_offers, naming=naming)
    collided = {(collision.kind, collision.name): collision.shadowed for collision in index.collisions}
    for given_offer in given_offers:
        for kind, items in given_offer.catalog.items.items():
            for item in items:
                name = qualified(kind, given_offer.server, item.name)
                found = route(index, kind, name)
                assert found is not None
                if given_offer.server not in collided.get((kind, name), ()):
                    assert (found.server, found.name) == (given_offer.server, item.name)


@given(offers(), NAMINGS, st.data())
def test_nothing_but_declared_order_and_catalogs_decides_names(
    given_offers: list[Offer], naming: Naming, data: st.DataObject
) -> None:
    states = st.sampled_from([None, "backoff", "connecting"])
    others = [replace(each, away=data.draw(states), has_resources=data.draw(st.booleans())) for each in given_offers]
    index, other = build(*given_offers, naming=naming), build(*others, naming=naming)
    assert changed_kinds(index, other) == frozenset()
    assert index.collisions == other.collisions
    for kind in Kind:
        assert names(index, kind) == names(other, kind)


@given(offers(), offers(), NAMINGS)
def test_a_kind_has_changed_exactly_where_its_list_has(old: list[Offer], new: list[Offer], naming: Naming) -> None:
    before, after = build(*old, naming=naming), build(*new, naming=naming)
    assert changed_kinds(before, before) == frozenset()
    assert changed_kinds(before, after) == {kind for kind in Kind if before.listing(kind) != after.listing(kind)}


@given(st.lists(st.text(max_size=20).filter(bool), unique=True, max_size=6))
def test_any_name_comes_back_from_the_listing_as_it_went_in(given_names: list[str]) -> None:
    index = build(offer("a", tools=given_names, resources=given_names), naming=QUALIFIED)
    assert names(index) == [f"a__{name}" for name in given_names]
    assert names(index, Kind.RESOURCE) == [f"a:{name}" for name in given_names]


def test_an_index_shows_what_it_holds() -> None:
    assert repr(MERGED) == "<Index of 3 servers: 1 tools, 0 prompts, 5 resources, 4 templates>"


def test_an_item_with_a_form_of_its_own_for_legacy_clients_is_listed_in_it_to_them_alone() -> None:
    item = Item("t", b'{"name":"t","v":"modern"}', b'{"name":"t","v":"legacy"}')
    other = offer_of(Kind.TOOL, "b", "u")
    index = build(Offer("a", "a", Catalog.of({Kind.TOOL: [ListPage((item,))]}), has_resources=False), other)
    listings = {era: json.loads(index.listing(Kind.TOOL, era)) for era in Era}
    assert [listings[era][0]["v"] for era in Era] == ["legacy", "modern"]
    assert listings[Era.LEGACY][1] == listings[Era.MODERN][1]
    alike = build(other)
    assert alike.listing(Kind.TOOL, Era.LEGACY) is alike.listing(Kind.TOOL, Era.MODERN)

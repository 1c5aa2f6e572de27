"""What one server offers, read from its list results."""

import json

import pytest

from mcp_multi_server.core.catalog import Catalog, CatalogError, Item, Kind, ListPage, read_page

KEPT = b'{ "title":"\\u00e9",  "name":"sum", "x-huge":12345678901234567890123, "ratio":1.50, "o":{ }}'


def page_of(kind: Kind, *names: str, **rest: object) -> ListPage:
    return read_page(kind, json.dumps({kind.member: [{kind.key: name} for name in names], **rest}).encode())


def catalog_of(**names: list[str]) -> Catalog:
    return Catalog.of({Kind(kind): [page_of(Kind(kind), *given)] for kind, given in names.items()})


def names(catalog: Catalog, kind: Kind) -> list[str]:
    return [item.name for item in catalog.items[kind]]


@pytest.mark.parametrize(
    ("kind", "method", "member", "key", "capability"),
    [
        ("tool", "tools/list", "tools", "name", "tools"),
        ("prompt", "prompts/list", "prompts", "name", "prompts"),
        ("resource", "resources/list", "resources", "uri", "resources"),
        ("template", "resources/templates/list", "resourceTemplates", "uriTemplate", "resources"),
    ],
)
def test_a_kind_knows_what_mcp_calls_its_parts(kind: str, method: str, member: str, key: str, capability: str) -> None:
    found = Kind(kind)
    assert (found.list_method, found.member, found.key, found.capability) == (method, member, key, capability)


def test_resources_and_their_templates_share_one_notification() -> None:
    tools, prompts = "notifications/tools/list_changed", "notifications/prompts/list_changed"
    resources = "notifications/resources/list_changed"
    assert [kind.list_changed for kind in Kind] == [tools, prompts, resources, resources]
    subscriptions = ["toolsListChanged", "promptsListChanged", "resourcesListChanged", "resourcesListChanged"]
    assert [kind.subscription for kind in Kind] == subscriptions


def test_an_item_stays_the_bytes_that_were_sent() -> None:
    page = read_page(Kind.TOOL, b'{"tools": [ %b ,{"name":"b"}]}' % KEPT)
    assert page.items == (Item("sum", KEPT), Item("b", b'{"name":"b"}'))
    assert page.problems == ()


@pytest.mark.parametrize(
    "item", [b"3", b"null", b"[]", b'"sum"', b"{}", b'{"name":7}', b'{"name":""}', b'{"name":null}']
)
def test_an_item_without_a_usable_name_is_left_out_and_counted_without_its_content(item: bytes) -> None:
    page = read_page(Kind.TOOL, b'{"tools":[%b,{"name":"b"},%b]}' % (item, item))
    assert [item.name for item in page.items] == ["b"]
    assert page.problems == ("tools: 2 left out, without a usable name",)


@pytest.mark.parametrize("kind", Kind)
def test_an_item_is_named_by_the_key_of_its_kind(kind: Kind) -> None:
    every = {"name": "n", "uri": "u:n", "uriTemplate": "u:{n}"}
    page = read_page(kind, json.dumps({kind.member: [every]}).encode())
    assert page.items[0].name == every[kind.key]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (b"[]", "the result of tools/list is no object"),
        (b"null", "the result of tools/list is no object"),
        (b"{}", "tools in the result of tools/list is no list"),
        (b'{"tools":null}', "tools in the result of tools/list is no list"),
        (b'{"tools":{"name":"secret"}}', "tools in the result of tools/list is no list"),
        (b'{"tools":[],"nextCursor":7}', "nextCursor in the result of tools/list is no string"),
        (b'{"tools":[],"nextCursor":{}}', "nextCursor in the result of tools/list is no string"),
    ],
)
def test_a_result_that_is_no_list_result_is_refused_by_name(result: bytes, message: str) -> None:
    with pytest.raises(CatalogError) as refused:
        read_page(Kind.TOOL, result)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("member", "cursor"),
    [
        (b"", None),
        (b',"nextCursor":null', None),
        (b',"nextCursor":""', ""),
        (b',"nextCursor":"p2"', "p2"),
    ],
)
def test_an_empty_cursor_is_a_cursor(member: bytes, cursor: str | None) -> None:
    assert read_page(Kind.PROMPT, b'{"prompts":[]%b}' % member).cursor == cursor


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [
        ("0", 0.0),
        ("1500", 1.5),
        ("2.5e3", 2.5),
        ("-1", None),
        ("true", None),
        ('"9"', None),
        ("null", None),
        ("1" + "0" * 400, None),
    ],
)
def test_the_ttl_is_in_seconds_and_nonsense_is_none(ttl: str, seconds: float | None) -> None:
    assert read_page(Kind.TOOL, f'{{"tools":[],"ttlMs":{ttl}}}'.encode()).ttl == seconds


def test_a_catalog_joins_pages_in_order_and_holds_as_long_as_its_shortest_page() -> None:
    catalog = Catalog.of(
        {
            Kind.TOOL: [page_of(Kind.TOOL, "b", "a", ttlMs=9000), page_of(Kind.TOOL, "c", ttlMs=4000)],
            Kind.RESOURCE: [page_of(Kind.RESOURCE, "x:1")],
        }
    )
    assert names(catalog, Kind.TOOL) == ["b", "a", "c"]
    assert [catalog.count(kind) for kind in Kind] == [3, 0, 1, 0]
    assert catalog.ttl == 4.0
    assert Catalog.of({}).ttl is None


def test_of_two_items_with_one_name_the_first_stays() -> None:
    first, second = b'{"name":"a","n":1}', b'{"name":"a","n":2}'
    pages = [read_page(Kind.TOOL, b'{"tools":[%b]}' % raw) for raw in (first, second)]
    catalog = Catalog.of({Kind.TOOL: pages})
    assert catalog.items[Kind.TOOL] == (Item("a", first),)
    assert catalog.problems == ("tools: 1 left out, as their name is taken by an earlier one: 'a'",)


def test_kinds_are_separate_name_spaces() -> None:
    catalog = catalog_of(tool=["a"], prompt=["a"])
    assert (names(catalog, Kind.TOOL), names(catalog, Kind.PROMPT), catalog.problems) == (["a"], ["a"], ())


def test_problems_stay_short_whatever_the_server_sends() -> None:
    hostile = [f"{number}\n" + "x" * 1000 for number in range(500)] * 2
    (problem,) = catalog_of(tool=hostile).problems
    assert problem.startswith("tools: 500 left out")
    assert len(problem) < 400
    assert "\n" not in problem


def test_catalogs_are_equal_where_clients_would_be_shown_the_same() -> None:
    one = Catalog.of({Kind.TOOL: [page_of(Kind.TOOL, "a", ttlMs=1)]})
    assert one == Catalog.of({Kind.TOOL: [page_of(Kind.TOOL, "a"), page_of(Kind.TOOL, "a")]})
    assert one != Catalog.of({Kind.TOOL: [page_of(Kind.TOOL, "b", ttlMs=1)]})
    assert one != Catalog.of({Kind.PROMPT: [page_of(Kind.PROMPT, "a", ttlMs=1)]})
    assert Catalog() == Catalog.of({})


@pytest.mark.parametrize(
    ("include", "exclude", "left"),
    [
        (None, (), ["get_a", "get_b", "Set"]),
        (("get_*",), (), ["get_a", "get_b"]),
        (("get_?", "Set"), ("*_b",), ["get_a", "Set"]),
        (None, ("set",), ["get_a", "get_b", "Set"]),
        ((), (), []),
        (("get_[ab]",), ("get_*",), []),
    ],
)
@pytest.mark.parametrize("kind", ["tool", "prompt"])
def test_globs_choose_by_name(
    kind: str, include: tuple[str, ...] | None, exclude: tuple[str, ...], left: list[str]
) -> None:
    catalog = catalog_of(**{kind: ["get_a", "get_b", "Set"]})
    assert names(catalog.filtered(include, exclude), Kind(kind)) == left


def test_globs_match_the_uris_of_resources_and_templates() -> None:
    catalog = catalog_of(resource=["file:///a", "db://a"], template=["file:///{x}", "db://{x}"])
    left = catalog.filtered(None, ("file:*",))
    assert (names(left, Kind.RESOURCE), names(left, Kind.TEMPLATE)) == (["db://a"], ["db://{x}"])


def test_a_filter_keeps_what_is_no_list() -> None:
    catalog = Catalog.of({Kind.TOOL: [page_of(Kind.TOOL, "a", "b", "b", ttlMs=2000)]})
    left = catalog.filtered(("a",), ())
    assert (left.ttl, left.problems) == (2.0, catalog.problems)

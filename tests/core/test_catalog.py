"""What one server offers, read from its list results."""

import json
from dataclasses import replace

import pytest

from mcp_multi_server.core.catalog.catalog import Catalog, CatalogError, CatalogList, Item, Kind, ListPage, read_page
from mcp_multi_server.core.catalog.problems import PROBLEMS_SHOWN, ListProblem

KEPT = (
    b'{ "title":"\\u00e9",  "name":"sum", "x-huge":12345678901234567890123, "ratio":1.50, "o":{ },'
    b' "inputSchema":{ "type":"object"}}'
)
PLAIN = b'{"name":"b","inputSchema":{"type":"object"}}'


def listable(kind: Kind, name: str) -> dict[str, object]:
    return {"name": name, kind.key: name, "inputSchema": {"type": "object"}}


def page_of(kind: Kind, *names: str, **rest: object) -> ListPage:
    return read_page(kind, json.dumps({kind.member: [listable(kind, name) for name in names], **rest}).encode())


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
    page = read_page(Kind.TOOL, b'{"tools": [ %b ,%b]}' % (KEPT, PLAIN))
    assert page.items == (Item("sum", KEPT), Item("b", PLAIN))
    assert page.findings == ()


def test_what_is_known_is_not_read_again_and_what_had_to_be_told_of_is() -> None:
    mended = PLAIN.replace(b"}}", b'},"title":null}')
    modern = b'{"name":"c","inputSchema":{"type":"object"},"outputSchema":{"type":"array"}}'
    result = b'{"tools":[%b,%b,%b]}' % (PLAIN, mended.replace(b'"b"', b'"m"'), modern)
    first = read_page(Kind.TOOL, result)
    again = read_page(Kind.TOOL, result, known=CatalogList.of(Kind.TOOL, [first]).known())
    assert again == first
    assert again.items[0] is first.items[0]
    twice = CatalogList.of(Kind.TOOL, [first, again])
    assert len(twice.items) == 3, "one that is known and listed twice is found out like any other"
    assert sum("earlier one" in problem.message for problem in twice.problems) == 3
    assert len(again.findings) == 2


@pytest.mark.parametrize(
    "item", [b"3", b"null", b"[]", b'"sum"', b"{}", b'{"name":7}', b'{"name":""}', b'{"name":null}']
)
def test_an_item_without_a_usable_name_is_left_out_and_told_of_without_its_content(item: bytes) -> None:
    result = b'{"tools":[%b,%b,%b]}' % (item, json.dumps(listable(Kind.TOOL, "b")).encode(), item)
    catalog = Catalog.of({Kind.TOOL: [read_page(Kind.TOOL, result)]})
    assert names(catalog, Kind.TOOL) == ["b"]
    (problem,) = catalog.problems
    assert (problem.list, problem.name) == ("tools", None)
    assert problem.message.startswith("left out: it")
    assert problem.message.endswith("(2 of them)")
    assert catalog.faults(Kind.TOOL) == 2


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
        (b"{}", "the result of tools/list has no tools"),
        (b'{"items":[]}', "the result of tools/list has no tools"),
        (b'{"tools":{"name":"secret"}}', "tools in the result of tools/list is no list"),
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


@pytest.mark.parametrize("result", [b'{"tools":null}', b'{"tools":null,"nextCursor":null}'])
def test_null_for_a_list_is_an_empty_one_and_told_of(result: bytes) -> None:
    page = read_page(Kind.TOOL, result)
    assert (page.items, page.cursor) == ((), None)
    assert [finding.message for finding in page.findings] == ["null instead of a list: taken for an empty one"]


@pytest.mark.parametrize("cursor", [b"7", b"{}", b"false"])
def test_a_cursor_that_is_no_string_ends_the_list_and_is_told_of(cursor: bytes) -> None:
    page = read_page(Kind.TOOL, b'{"tools":[%b],"nextCursor":%b}' % (PLAIN, cursor))
    assert (len(page.items), page.cursor) == (1, None)
    assert page.findings[0].message.startswith("nextCursor is no string")


def test_of_two_items_with_one_name_the_first_stays() -> None:
    first, second = (b'{"name":"a","inputSchema":{"type":"object"},"n":%d}' % n for n in (1, 2))
    pages = [read_page(Kind.TOOL, b'{"tools":[%b]}' % raw) for raw in (first, second)]
    catalog = Catalog.of({Kind.TOOL: pages})
    assert catalog.items[Kind.TOOL] == (Item("a", first),)
    assert catalog.problems == (ListProblem("tools", "a", "left out: its name is that of an earlier one"),)


def test_kinds_are_separate_name_spaces() -> None:
    catalog = catalog_of(tool=["a"], prompt=["a"])
    assert (names(catalog, Kind.TOOL), names(catalog, Kind.PROMPT), catalog.problems) == (["a"], ["a"], ())


def test_problems_stay_few_and_short_whatever_the_server_sends() -> None:
    hostile = [f"{number}" + "x" * 1_000_000 for number in range(30)] * 2
    catalog = catalog_of(tool=hostile)
    assert catalog.count(Kind.TOOL) == 30
    assert len(catalog.problems) == PROBLEMS_SHOWN + 1
    assert catalog.problems[-1] == ListProblem("tools", None, "and 10 more")
    assert sum(len(str(problem)) for problem in catalog.problems) < 4000
    assert catalog.faults(Kind.TOOL) == 30


def test_what_many_items_have_in_common_is_told_once_and_after_what_was_left_out() -> None:
    items = [listable(Kind.TOOL, f"t{n}") | {"title": None} for n in range(9)] + [{"name": 3}]
    catalog = Catalog.of({Kind.TOOL: [read_page(Kind.TOOL, json.dumps({"tools": items}).encode())]})
    assert [str(problem) for problem in catalog.problems] == [
        "tools: left out: its name is no string",
        "tools: 't0': title is null: left out (9 of them)",
    ]
    assert catalog.faults(Kind.TOOL) == 10


# --- lists that could not be read -------------------------------------------------------------------------------------

WHOLE, OTHER = CatalogList((Item("a", PLAIN),)), CatalogList((Item("b", PLAIN),))
PART, BROKEN = replace(OTHER, gap="why"), CatalogList(gap="why")


@pytest.mark.parametrize(
    ("before", "now", "offered"),
    [
        (WHOLE, OTHER, OTHER),
        (WHOLE, CatalogList(), CatalogList()),
        (WHOLE, BROKEN, replace(WHOLE, gap="why", is_kept=True)),
        (WHOLE, PART, replace(WHOLE, gap="why", is_kept=True)),
        (CatalogList(), BROKEN, BROKEN),
        (CatalogList(), PART, PART),
        (replace(WHOLE, gap="once"), PART, PART),
        (replace(WHOLE, gap="once"), BROKEN, replace(WHOLE, gap="why", is_kept=True)),
        (replace(WHOLE, gap="once", is_kept=True), PART, replace(WHOLE, gap="why", is_kept=True)),
    ],
)
def test_a_list_that_was_whole_outlives_one_that_was_not(
    before: CatalogList, now: CatalogList, offered: CatalogList
) -> None:
    found = Catalog().updated({Kind.TOOL: before}).updated({Kind.TOOL: now}).lists[Kind.TOOL]
    assert (found.items, found.gap, found.is_kept) == (offered.items, offered.gap, offered.is_kept)


def test_a_gap_is_a_problem_and_no_part_of_what_clients_see() -> None:
    catalog = Catalog().updated({Kind.PROMPT: BROKEN, Kind.TOOL: WHOLE})
    assert (catalog.gaps, catalog.kept, catalog.faults(Kind.PROMPT)) == ((Kind.PROMPT,), "", 1)
    assert catalog.problems == catalog.all_problems == (ListProblem("prompts", None, "why"),)
    assert catalog == Catalog().updated({Kind.TOOL: WHOLE})
    later = catalog.updated({Kind.TOOL: replace(BROKEN, gap="tools, why")})
    assert (later.kept, later.problems) == ("tools, why", catalog.problems)
    assert later.all_problems == (ListProblem("tools", None, "tools, why"), *catalog.problems)


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

"""Whatever a server lists, what clients are listed is what they can read."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcp_multi_server.core.catalog.catalog import Catalog, Item, Kind, ListPage, read_page
from mcp_multi_server.core.index import Index
from mcp_multi_server.core.names import Naming, Offer
from mcp_multi_server.core.protocol import Era, listing_result

from .list_schemas import model_complaint, schema_complaint
from .typescript_sdk import TypeScriptSdk, typescript_sdk

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {"type": "integer"}}},
    "required": ["a"],
    "additionalProperties": False,
}
DESCRIBED = {
    "name": "n",
    "title": "T",
    "description": "d",
    "icons": [{"src": "https://x/i.png", "mimeType": "image/png", "sizes": ["48x48"], "theme": "dark"}],
    "_meta": {"v/k": [1, None]},
    "x-vendor": {"a": None},
}
HINTS = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")
OF_RESOURCE = DESCRIBED | {
    "mimeType": "text/plain",
    "annotations": {"audience": ["user", "assistant"], "priority": 0.5, "lastModified": "2025-01-12T15:00:58Z"},
}
VALID: dict[Kind, dict[str, Any]] = {
    Kind.TOOL: DESCRIBED
    | {
        "inputSchema": SCHEMA,
        "outputSchema": SCHEMA,
        "annotations": {"title": "A", **dict.fromkeys(HINTS, True)},
        "execution": {"taskSupport": "optional"},
    },
    Kind.PROMPT: DESCRIBED | {"arguments": [{"name": "a", "title": "A", "description": "d", "required": True}]},
    Kind.RESOURCE: OF_RESOURCE | {"uri": "x:1", "size": 3},
    Kind.TEMPLATE: OF_RESOURCE | {"uriTemplate": "x:{id}"},
}


@pytest.fixture(scope="module")
def sdk() -> Iterator[TypeScriptSdk]:
    with typescript_sdk() as running:
        for kind in Kind:  # the first look takes long, as Node compiles
            assert running.complaint(kind, b'{"%b":[]}' % kind.member.encode()) is None
        yield running


def listed(kind: Kind, page: ListPage, era: Era) -> bytes:
    """What clients of this era are listed of the page of one server."""
    offer = Offer("s", "s", Catalog.of({kind: [page]}), has_resources=True)
    return listing_result(kind.member, Index.build([offer], Naming()).listing(kind, era), era)


def read(kind: Kind, *items: Any) -> ListPage:
    return read_page(kind, json.dumps({kind.member: items}).encode())


def kept(kind: Kind, **changes: Any) -> tuple[dict[str, Any], list[str]]:
    """What is listed of a valid item with these changes, `...` standing for none, and what is said of it."""
    changed = {name: value for name, value in (VALID[kind] | changes).items() if value is not ...}
    page = read(kind, changed)
    (item,) = page.items
    return json.loads(item.raw), [finding.message for finding in page.findings]


# --- the rule ---------------------------------------------------------------------------------------------------------

WRONG: list[Any] = [None, 0, 7.5, -1, 2**60, True, False, "", "text", [], {}, [None], [[]], {"x": None}, ["a", 1]]
anything = st.sampled_from(WRONG) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def paths(value: Any) -> list[tuple[Any, ...]]:
    """The way to every member and entry, at any depth."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(key, *rest) for key, each in inner for rest in [(), *paths(each)]]


@st.composite
def mutations(draw: st.DrawFn) -> tuple[Kind, list[Any]]:
    """A list of which one item is valid and another was, before some of its members were dropped or replaced."""
    kind = draw(st.sampled_from(Kind))
    item: Any = json.loads(json.dumps(VALID[kind]))
    for _ in range(draw(st.integers(1, 3))):
        if not (found := paths(item)):
            break
        *way, last = draw(st.sampled_from(found))
        holder = item
        for step in way:
            holder = holder[step]
        if draw(st.integers(0, 4)) == 0:
            del holder[last]
        else:
            holder[last] = copy.deepcopy(draw(anything))  # the next step may change it
    return kind, [item, VALID[kind] | {kind.key: "good:1", "name": "good"}]


@given(mutations())
@example((Kind.TOOL, [None, 3, "x", [], {}]))
def test_whatever_is_listed_clients_of_every_revision_can_read_the_list(
    sdk: TypeScriptSdk, mutated: tuple[Kind, list[Any]]
) -> None:
    kind, items = mutated
    page = read(kind, *items)
    for era in Era:
        result = listed(kind, page, era)
        assert schema_complaint(kind, era, json.loads(result)) is None
        assert model_complaint(kind, result) is None
    assert sdk.complaint(kind, listed(kind, page, Era.LEGACY)) is None


def meaning(item: Any) -> str:
    """The item as text in which a property's schema that is true or false is the object that says the same."""
    body = json.loads(json.dumps(item))
    for key in ("inputSchema", "outputSchema") if isinstance(body, dict) else ():
        properties = body[key].get("properties") if isinstance(body.get(key), dict) else None
        if isinstance(properties, dict):
            said: dict[bool, Any] = {True: {}, False: {"not": {}}}
            body[key]["properties"] = {
                name: said[schema] if isinstance(schema, bool) else schema for name, schema in properties.items()
            }
    return json.dumps(body, sort_keys=True)


@given(mutations())
def test_whatever_is_not_listed_with_the_meaning_that_it_came_with_is_said(mutated: tuple[Kind, list[Any]]) -> None:
    kind, items = mutated
    page = read(kind, *items)
    came = [meaning(item) for item in items]
    modern = [meaning(json.loads(item.raw)) for item in page.items]
    legacy = [meaning(json.loads(item.legacy or item.raw)) for item in page.items]
    if modern == legacy == came:
        assert page.findings == ()
    else:
        assert page.findings


@given(mutations())
def test_what_was_mended_needs_no_mending_again(mutated: tuple[Kind, list[Any]]) -> None:
    kind, items = mutated
    mended = read(kind, *items).items
    for form in ([item.raw for item in mended], [item.legacy or item.raw for item in mended]):
        again = read_page(kind, b'{"%b":[%b]}' % (kind.member.encode(), b",".join(form)), era=Era.MODERN)
        assert [item.raw for item in again.items] == form
        assert again.findings == ()


# --- what each rule does ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Kind)
def test_a_valid_item_keeps_its_bytes(kind: Kind) -> None:
    raw = json.dumps(VALID[kind] | {"x-big": 12345678901234567890123, "x-é": "é"}, indent=1).encode()
    page = read_page(kind, b'{"%b": [ %b ]}' % (kind.member.encode(), raw))
    assert page.items == (Item(VALID[kind][kind.key], raw),)
    assert page.findings == ()


@pytest.mark.parametrize(("kind", "member"), [(kind, member) for kind in Kind for member in VALID[kind]])
def test_a_null_member_is_left_out_and_an_unknown_one_is_nobodys_business(kind: Kind, member: str) -> None:
    if member in (kind.key, "name"):
        return
    found, notes = kept(kind, **{member: None})
    expected = {name: value for name, value in VALID[kind].items() if name != member}
    if member == "inputSchema":
        assert found == expected | {member: {"type": "object"}}
    elif member == "x-vendor":
        assert (found, notes) == (VALID[kind] | {member: None}, [])
    else:
        assert (found, notes) == (expected, [f"{member} is null: left out"])


OBJECT = {"type": "object"}
INPUTS: list[tuple[Any, Any]] = [
    (..., OBJECT),
    ({}, OBJECT),
    (None, OBJECT),
    ([], OBJECT),
    ("object", OBJECT),
    ({"properties": {"a": {}}}, {"properties": {"a": {}}, "type": "object"}),
    ({"type": None, "required": ["a"]}, {"type": "object", "required": ["a"]}),
    ({"type": ["object", "null"]}, OBJECT),
    ({"anyOf": [{"required": ["a"]}]}, {"anyOf": [{"required": ["a"]}], "type": "object"}),
    ({"type": "object", "properties": {"a": True, "b": False}}, OBJECT | {"properties": {"a": {}, "b": {"not": {}}}}),
    (
        {"type": "object", "properties": {"a": None, "b": {"x": None}}},
        OBJECT | {"properties": {"a": {}, "b": {"x": None}}},
    ),
    ({"type": "object", "properties": [], "required": None, "$schema": 7}, OBJECT),
    ({"type": "object", "required": ["a", 1, None]}, OBJECT | {"required": ["a"]}),
]


@pytest.mark.parametrize(("given_schema", "listed_schema"), INPUTS)
def test_the_schema_of_arguments_is_made_that_of_an_object(given_schema: Any, listed_schema: Any) -> None:
    found, notes = kept(Kind.TOOL, inputSchema=given_schema)
    assert found == {**VALID[Kind.TOOL], "inputSchema": listed_schema}
    assert (notes == []) == (given_schema in (True, listed_schema) or given_schema == INPUTS[9][0])


OUTPUTS: list[tuple[Any, Any, Any]] = [
    (None, ..., ...),
    ([], ..., ...),
    (True, ..., ...),
    ({}, {}, ...),
    ({"type": "array"}, {"type": "array"}, ...),
    ({"type": "string", "$schema": 1}, {"type": "string"}, ...),
    ({"anyOf": [OBJECT]}, {"anyOf": [OBJECT]}, {"anyOf": [OBJECT], "type": "object"}),
    ({"type": ["null", "object"]}, {"type": ["null", "object"]}, OBJECT),
    (OBJECT | {"properties": {"a": True}}, OBJECT | {"properties": {"a": True}}, OBJECT | {"properties": {"a": {}}}),
]


@pytest.mark.parametrize(("given_schema", "modern", "legacy"), OUTPUTS)
def test_the_schema_of_results_is_an_objects_for_legacy_clients_and_any_for_modern_ones(
    given_schema: Any, modern: Any, legacy: Any
) -> None:
    (item,) = read(Kind.TOOL, VALID[Kind.TOOL] | {"outputSchema": given_schema}).items
    assert json.loads(item.raw).get("outputSchema", ...) == modern
    assert json.loads(item.legacy or item.raw).get("outputSchema", ...) == legacy


def test_what_a_modern_server_may_do_is_no_fault_of_its() -> None:
    tool = {"name": "t", "inputSchema": OBJECT, "outputSchema": {"type": "array"}}
    result = json.dumps({"tools": [tool]}).encode()
    assert read_page(Kind.TOOL, result, era=Era.MODERN).findings == ()
    assert len(read_page(Kind.TOOL, result, era=Era.LEGACY).findings) == 1


@pytest.mark.parametrize(
    ("kind", "changes", "listed_changes"),
    [
        (Kind.TOOL, {"icons": [{"src": 1}, {"src": "a:b", "sizes": "48x48"}, None]}, {"icons": [{"src": "a:b"}]}),
        (Kind.TOOL, {"icons": {}}, {"icons": ...}),
        (Kind.TOOL, {"annotations": {"readOnlyHint": "yes", "x": None}}, {"annotations": {"x": None}}),
        (Kind.TOOL, {"annotations": "read-only"}, {"annotations": ...}),
        (Kind.TOOL, {"execution": {"taskSupport": "perhaps"}}, {"execution": {}}),
        (Kind.TOOL, {"_meta": [1]}, {"_meta": ...}),
        (
            Kind.PROMPT,
            {"arguments": [{"name": None}, {"name": "a", "required": "yes"}, 3]},
            {"arguments": [{"name": "a"}]},
        ),
        (Kind.RESOURCE, {"size": "3"}, {"size": ...}),
        (Kind.RESOURCE, {"size": 3.5}, {"size": ...}),
        (Kind.RESOURCE, {"size": 3.0}, {"size": 3.0}),
        (Kind.RESOURCE, {"size": 10**400}, {"size": ...}),
        (Kind.RESOURCE, {"name": ...}, {"name": "x:1"}),
        (Kind.RESOURCE, {"name": None}, {"name": "x:1"}),
        (Kind.RESOURCE, {"name": ""}, {"name": ""}),
        (Kind.TEMPLATE, {"name": 7}, {"name": "x:{id}"}),
        (Kind.TEMPLATE, {"annotations": {"audience": ["user", "bots"]}}, {"annotations": {"audience": ["user"]}}),
        (Kind.TEMPLATE, {"annotations": {"priority": 2}}, {"annotations": {}}),
    ],
)
def test_what_is_wrong_in_a_member_is_left_out_and_the_rest_of_it_stays(
    kind: Kind, changes: dict[str, Any], listed_changes: dict[str, Any]
) -> None:
    found, notes = kept(kind, **changes)
    assert found == {name: value for name, value in (VALID[kind] | listed_changes).items() if value is not ...}
    assert bool(notes) == (changes != listed_changes)


MOMENTS = {
    "2025-01-12T15:00:58Z": True,
    "2024-02-29T00:00:00.123456789+05:30": True,
    "2025-02-29T00:00:00Z": False,
    "2025-01-12": False,
    "2025-01-12T15:00:58": False,
    "2025-01-12T25:00:58Z": False,
    "yesterday": False,
    "2025-01-1٢T15:00:58Z": False,
}


@pytest.mark.parametrize(("moment", "is_kept"), MOMENTS.items())
def test_a_time_is_kept_where_the_strictest_client_reads_it(sdk: TypeScriptSdk, moment: str, is_kept: bool) -> None:
    resource = VALID[Kind.RESOURCE] | {"annotations": {"lastModified": moment}}
    result = json.dumps({"resources": [resource]}).encode()
    assert (sdk.complaint(Kind.RESOURCE, result) is None) is is_kept
    found, _ = kept(Kind.RESOURCE, annotations={"lastModified": moment})
    assert ("lastModified" in found["annotations"]) is is_kept


UNREADABLE = {
    "nested": (b'{"name":"t","inputSchema":{"type":"object"},"x":%b%b}' % (b"[" * 150, b"]" * 150), "128 levels deep"),
    "a long number": (b'{"name":"t","inputSchema":{"type":"object"},"x":%b}' % (b"9" * 5000), "4300 digits"),
    "a name of the wrong type": (b'{"name":["t"]}', "its name is no string"),
    "an empty name": (b'{"name":""}', "its name is empty"),
    "no name": (b"{}", "it has no name"),
    "no object": (b'"t"', "it is no object"),
}


@pytest.mark.parametrize(("raw", "why"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_no_reading_makes_readable_is_left_out_with_the_reason(raw: bytes, why: str) -> None:
    page = read_page(Kind.TOOL, b'{"tools":[%b,{"name":"good","inputSchema":{"type":"object"}}]}' % raw)
    assert [item.name for item in page.items] == ["good"]
    (finding,) = page.findings
    assert finding.left_out
    assert why in finding.message


@pytest.mark.parametrize(
    "raw", [b'{"name":"t","inputSchema":{"type":"object"},"x":"%b"}' % text for text in (b"[" * 500, b"9" * 9999)]
)
def test_what_only_looks_deep_or_long_is_listed(raw: bytes) -> None:
    assert read_page(Kind.TOOL, b'{"tools":[%b]}' % raw).items == (Item("t", raw),)


@pytest.mark.parametrize("uri", ["//[", "//host/x", "\t//x", "/\n/x"])
def test_a_uri_that_would_name_a_host_with_a_scheme_in_front_is_left_out(uri: str) -> None:
    page = read(Kind.RESOURCE, {"uri": uri, "name": "odd"}, {"uri": "/one/slash", "name": "fine"})
    assert [item.name for item in page.items] == ["/one/slash"]
    assert "begins with //" in str(page.findings)

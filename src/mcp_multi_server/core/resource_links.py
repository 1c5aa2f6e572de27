"""URIs inside results: one that names a resource and would not lead back to it gets its server's name in front."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec

from .jsonrpc import Buffer, Members, encode, members, text

Rename: TypeAlias = Callable[[str], str]
"""Turns a server's own URI into one that a client can use."""

_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def renamed_links(result: Buffer, method: str, rename: Rename) -> Buffer:
    """`result` with the URIs in its resource links and embedded resources renamed; all else stays the same bytes.

    It knows the results of `tools/call` (`content`), `prompts/get` (`messages[].content`) and `resources/read`
    (`contents`). `structuredContent` often says the same as `content`: where a whole text in it is a URI that was
    renamed in `content`, it is renamed there as well. A result of any other shape comes back unchanged.
    """
    try:
        body = members(result)
        if method == "tools/call":
            renamed: dict[str, str] = {}
            changed = _each(body, "content", lambda block: _block(block, _noted(rename, renamed)))
            if renamed and "structuredContent" in body:
                body["structuredContent"] = _replaced(body["structuredContent"], renamed)
        elif method == "prompts/get":
            changed = _each(body, "messages", lambda message: _message(message, rename))
        else:
            changed = _each(body, "contents", lambda content: _uri(content, rename))
    except (msgspec.ValidationError, RecursionError):
        return result
    return encode(body) if changed else result


def _noted(rename: Rename, renamed: dict[str, str]) -> Rename:
    """`rename`, and what it changes noted in `renamed`."""

    def noting(uri: str) -> str:
        if (new := rename(uri)) != uri:
            renamed[uri] = new
        return new

    return noting


def _replaced(raw: msgspec.Raw, renamed: Mapping[str, str]) -> msgspec.Raw:
    """A JSON value with each text that is one of `renamed` replaced, at any depth; all else stays the same bytes."""
    match bytes(memoryview(raw)[:1]):
        case b"{":
            body = members(raw)
            new = {name: _replaced(each, renamed) for name, each in body.items()}
            return raw if all(new[name] is body[name] for name in body) else msgspec.Raw(encode(new))
        case b"[":
            items = _decode_list(raw)
            found = [_replaced(each, renamed) for each in items]
            is_same = all(new is old for new, old in zip(found, items, strict=True))
            return raw if is_same else msgspec.Raw(encode(found))
        case b'"':
            known = renamed.get(text(raw) or "")
            return raw if known is None else msgspec.Raw(encode(known))
    return raw


def _each(body: Members, member: str, visit: Callable[[Members], bool]) -> bool:
    """Visit the objects in a list member, and say whether one of them was changed."""
    if member not in body:
        return False
    items: list[msgspec.Raw | Members] = []
    changed = False
    for raw in _decode_list(body[member]):
        item = members(raw)
        touched = visit(item)
        changed |= touched
        # What is not changed keeps its bytes, down to spaces and escapes.
        items.append(item if touched else raw)
    if changed:
        body[member] = msgspec.Raw(encode(items))
    return changed


def _message(message: Members, rename: Rename) -> bool:
    content = message.get("content")
    if content is None:
        return False
    if bytes(memoryview(content)[:1]) == b"[":  # the specification has one block here; a list of them is understood too
        return _each(message, "content", lambda block: _block(block, rename))
    block = members(content)
    if not _block(block, rename):
        return False
    message["content"] = msgspec.Raw(encode(block))
    return True


def _block(block: Members, rename: Rename) -> bool:
    kind = text(block.get("type"))
    if kind == "resource_link":
        return _uri(block, rename)
    if kind != "resource" or "resource" not in block:
        return False
    resource = members(block["resource"])
    if not _uri(resource, rename):
        return False
    block["resource"] = msgspec.Raw(encode(resource))
    return True


def _uri(holder: Members, rename: Rename) -> bool:
    uri = text(holder.get("uri"))
    if uri is None or (new := rename(uri)) == uri:
        return False
    holder["uri"] = msgspec.Raw(encode(new))
    return True

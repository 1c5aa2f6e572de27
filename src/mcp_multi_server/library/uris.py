"""URIs of the library: `server:uri` put together and taken apart, URI templates (RFC 6570) read and filled in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias, TypeGuard
from urllib.parse import quote

import uritemplate

from ..core.uri import namespaced

if TYPE_CHECKING:
    from pydantic import AnyUrl

Value: TypeAlias = str | Sequence[str] | Mapping[str, str]
"""What a variable of a template can be; lists and mappings are for `{list*}`, `{?mapping*}` and their like."""

_EXPRESSION = re.compile(r"\{([^{}]+)\}")
_EXPRESSION_IN_URL = re.compile(r"(?:\{|%7B)((?:(?!%7B|%7D)[^{}])+)(?:\}|%7D)")
"""pydantic percent-encodes braces in the paths of its URLs."""
_VARIABLE = r"[\w%~-][\w.%~-]*(?:\*|:[1-9]\d{0,3})?"
_EXPANDABLE = re.compile(rf"[+#./;?&]?{_VARIABLE}(?:,{_VARIABLE})*", re.ASCII)
_OPTIONAL = "#./;?&"
"""Operators that write their own first character, so that an expression without values can be left out."""
_RESERVED = ":/?#[]@!$&'()*+,;="
_TRIPLET = re.compile(r"(%[0-9A-Fa-f]{2})")


def format_namespace_uri(server_name: str, uri: str | AnyUrl) -> str:
    """The form in which the library lists a server's URI.

    Args:
        server_name: the server's name in the config.
        uri: the URI that the server gives it.

    Returns:
        `server:uri`.

    >>> format_namespace_uri("files", "file:///etc/hosts")
    'files:file:///etc/hosts'
    """
    return namespaced(server_name, str(uri))


def parse_namespace_uri(uri: str | AnyUrl) -> tuple[str | None, str]:
    """The server's name, None where there is none, and the rest.

    What stands before the first colon is a server unless `//` follows. So `mailto:x` has a server called `mailto`:
    only a client, which knows its servers, can tell.

    Args:
        uri: what `format_namespace_uri` made, or any other URI.

    Returns:
        The server's name, or None, and the URI that the server gives it.

    >>> parse_namespace_uri("files:file:///etc/hosts")
    ('files', 'file:///etc/hosts')
    >>> parse_namespace_uri("file:///etc/hosts")
    (None, 'file:///etc/hosts')
    """
    text = str(uri)
    server, colon, rest = text.partition(":")
    return (server, rest) if colon and not rest.startswith("//") else (None, text)


def extract_template_variables(uri_template: str | AnyUrl) -> list[str]:
    """Names of a template's variables, each once, in order of appearance.

    Args:
        uri_template: a template of RFC 6570, as `list_resource_templates` has it.

    Returns:
        The names; operators and modifiers are not part of them.

    >>> extract_template_variables("db://{table}/{+path}{?limit,offset}")
    ['table', 'path', 'limit', 'offset']
    """
    return list(dict.fromkeys(name for text in _expressions(uri_template) for name in _names(text)))


def substitute_template_variables(uri_template: str | AnyUrl, variables: Mapping[str, Value]) -> str:
    """Fills in a template, values percent-encoded; text between expressions stays as it is.

    An expression of which no variable is given stays for a later call, or goes where it is optional by its operator
    (`{?limit}`, `{/more}`, `{#part}` …).

    Args:
        uri_template: a template of RFC 6570, as `list_resource_templates` has it.
        variables: a string for each name; lists and mappings of strings for `{list*}`, `{?mapping*}` and their like.

    Returns:
        The URI, or a template of what is left.

    >>> substitute_template_variables("db://{table}/{id}{?limit,offset}", {"table": "a b", "limit": "5"})
    'db://a%20b/{id}?limit=5'

    Raises:
        TypeError: a variable that is neither a str nor a list or mapping of str.

    """
    for name, value in variables.items():
        _check(name, value)
    return _pattern(uri_template).sub(lambda found: _filled(found[0], found[1], variables), str(uri_template))


def _pattern(uri_template: str | AnyUrl) -> re.Pattern[str]:
    return _EXPRESSION if isinstance(uri_template, str) else _EXPRESSION_IN_URL


def _expressions(uri_template: str | AnyUrl) -> Iterator[str]:
    return (found[1] for found in _pattern(uri_template).finditer(str(uri_template)))


def _names(text: str) -> list[str]:
    """The variables of an expression; one that is not RFC 6570 is a variable as it stands (`{user name}`)."""
    return list(uritemplate.variables(f"{{{text}}}")) if _EXPANDABLE.fullmatch(text) else [text]


def _check(name: str, value: object) -> None:
    items = [*value, *value.values()] if isinstance(value, Mapping) else value
    if isinstance(items, str) or (_is_list(items) and all(isinstance(item, str) for item in items)):
        return
    raise TypeError(f"variable {name!r} is {type(value).__name__}: a str is wanted, or a list or mapping of str")


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview))


def _filled(original: str, text: str, variables: Mapping[str, Value]) -> str:
    whole = variables.get(text)
    if isinstance(whole, str):
        return quote(whole, safe="")
    given = {name: variables[name] for name in _names(text) if name in variables}
    if given and _EXPANDABLE.fullmatch(text):
        return _expanded(text, given)
    return "" if text[0] in _OPTIONAL and _EXPANDABLE.fullmatch(text) else original


def _expanded(text: str, given: Mapping[str, Value]) -> str:
    # With a prefix (`{+path:3}`) characters count before they are encoded, which the library must do.
    encode = _encoded if text[0] in "+#" and ":" not in text else str
    return uritemplate.expand(f"{{{text}}}", {name: _each(value, encode) for name, value in given.items()})


def _each(value: Value, encode: Callable[[str], str]) -> str | list[str] | dict[str, str]:
    if isinstance(value, str):
        return encode(value)
    if isinstance(value, Mapping):
        return {encode(key): encode(item) for key, item in value.items()}
    return [encode(item) for item in value]


def _encoded(text: str) -> str:
    """A value for `{+…}` and `{#…}`, which keep percent-encoded triplets (RFC 6570, 3.2.3).

    `uritemplate` leaves a value that has one triplet altogether as it is, spaces and line breaks included.
    """
    return "".join(part if _TRIPLET.fullmatch(part) else quote(part, safe=_RESERVED) for part in _TRIPLET.split(text))

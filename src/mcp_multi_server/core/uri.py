"""URIs as clients see them (`server:uri`), and which URIs a template (RFC 6570) can produce."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .config.prefixes import default_prefix, digest

LONGEST_MATCHED = 16 * 1024
"""Characters of a URI above which no template matches it."""
LONGEST_TEMPLATE = 4 * 1024
"""Characters of a template above which it matches nothing. Within both limits a match takes milliseconds at most."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_EXPRESSION = re.compile(r"\{([+#./;?&]?)[^{}]+\}")


def namespaced(server: str, uri: str) -> str:
    """A server's URI, or URI template, with the server in front: by its name, or by what stands for it."""
    return f"{server}:{uri}"


def schemes(servers: Sequence[str]) -> Mapping[str, str]:
    """What stands for each server in the URIs that are listed: its name, where a URI may begin so (RFC 3986 §3.1).

    Clients that take URIs apart would refuse a whole list for one that begins with `my_server:`. Such a server gets
    the nearest scheme that no other has.
    """
    found = {server: server for server in servers if _SCHEME.fullmatch(f"{server}:")}
    taken = {scheme.lower() for scheme in found}
    for server in servers:
        if server not in found:
            near = default_prefix(server).replace("_", "-").lstrip("-")
            near = near if _SCHEME.match(f"{near}:") else f"server-{near}"
            scheme = near if near.lower() not in taken else f"{near}-{digest(server)}"
            taken.add(scheme.lower())
            found[server] = scheme
    return found


class Namespaces:
    """What servers are called in URIs: splits `server:uri`, the inverse of `namespaced`, for a set of servers."""

    __slots__ = ("_longest", "_spelled", "schemes")

    def __init__(self, servers: Sequence[str]) -> None:
        self.schemes = schemes(servers)
        """What stands for each server in listed URIs."""
        self._spelled = {server: server for server in servers}
        # Some clients write every scheme in small letters, as they may. A server's exact name comes first.
        for spell in (str, str.lower):
            for server in servers:
                self._spelled.setdefault(spell(self.schemes[server]), server)
        self._longest = max(map(len, self._spelled), default=0)

    def split(self, uri: str) -> tuple[str, str, str] | None:
        """The server, its own URI, which must have a scheme, and how the server was spelled; None if there is none.

        The scheme keeps a server called `file` from owning every `file:///…`. The longest name wins.
        """
        # From the right, so that the longest name wins, and not beyond the longest name, so that the time is bounded.
        colon = uri.rfind(":", 0, self._longest + 1)
        while colon >= 0:
            spelled = uri[:colon]
            if (server := self._spelled.get(spelled)) is not None and _SCHEME.match(uri, colon + 1):
                return server, uri[colon + 1 :], spelled
            colon = uri.rfind(":", 0, colon)
        return None


@dataclass(frozen=True, slots=True)
class _Hole:
    """What an expression of a template can stand for: one byte or more, none of them `barred`.

    Some operators write a `lead` first. Such a hole may be missing as a whole, since variables can be undefined.
    """

    lead: bytes
    barred: bytes


_HOLES = {
    "": _Hole(b"", b"/"),
    "+": _Hole(b"", b""),
    "#": _Hole(b"#", b""),
    ".": _Hole(b".", b"/"),
    "/": _Hole(b"/", b"?#"),
    ";": _Hole(b";", b"/"),
    "?": _Hole(b"?", b"#"),
    "&": _Hole(b"&", b"#"),
}


class Template:
    """A URI template (RFC 6570) that tells which URIs it can stand for. Unclosed braces are literal text.

    It is looser than the RFC where that cannot mislead a request: it ignores the names of variables and their number.
    No library does this part: `uritemplate` expands templates and matches none.
    """

    __slots__ = ("_head", "_rest", "_usable")

    def __init__(self, text: str) -> None:
        first = _EXPRESSION.search(text)
        self._head = text[: first.start()] if first else text
        self._rest = tuple(_parts(text, len(self._head)))
        self._usable = len(text) <= LONGEST_TEMPLATE

    def matches(self, uri: str) -> bool:
        """Whether an expansion of the template can be `uri`."""
        if not uri.startswith(self._head) or not self._usable or len(uri) > LONGEST_MATCHED:
            return False
        rest = _bytes(uri[len(self._head) :])
        positions, reached = _Positions(rest), 1
        for part in self._rest:
            reached = positions.after_text(reached, part) if isinstance(part, bytes) else positions.after(reached, part)
            if not reached:
                return False
        # Only the position behind the last byte counts.
        return bool(reached >> len(rest))


def _parts(text: str, start: int) -> Iterator[bytes | _Hole]:
    """Holes and the literal text between them, from `start` on."""
    for expression in _EXPRESSION.finditer(text, start):
        yield _bytes(text[start : expression.start()])
        yield _HOLES[expression[1]]
        start = expression.end()
    yield _bytes(text[start:])


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


class _Positions:
    """Sets of positions in `data`. A set is an integer in which bit n stands for position n.

    All ways to match are followed at once, with one addition or shift a step, so the time is linear in the URI whatever
    the template is. A backtracking regular expression is polynomial in it, with one degree for each variable.
    """

    __slots__ = ("_everywhere", "_found", "_reversed")

    def __init__(self, data: bytes) -> None:
        self._reversed = data[::-1]
        self._everywhere = (1 << len(data)) - 1
        self._found: dict[int, int] = {}

    def after_text(self, reached: int, literal: bytes) -> int:
        """The positions after `literal`, where it begins at one of those in `reached`."""
        for byte in literal:
            reached = (reached & self._of(byte)) << 1
        return reached

    def after(self, reached: int, hole: _Hole) -> int:
        """The positions after a hole that begins at one of those in `reached`."""
        if not hole.lead:
            return self._spread(reached, hole.barred)
        led = self.after_text(reached, hole.lead)
        return reached | led | self._spread(led, hole.barred)

    def _spread(self, reached: int, barred: bytes) -> int:
        """The positions one or more bytes further on, as long as no byte is barred."""
        free = self._everywhere
        for byte in barred:
            free &= ~self._of(byte)
        starts = reached & free
        # Adding a bit to a run of ones carries to the end of the run: the bits that changed are where the hole can be.
        return ((((free + starts) ^ free) | starts) & free) << 1

    def _of(self, byte: int) -> int:
        """The positions of `byte`."""
        if byte not in self._found:
            ones = b"0" * byte + b"1" + b"0" * (255 - byte)
            self._found[byte] = int(b"0" + self._reversed.translate(ones), 2)
        return self._found[byte]

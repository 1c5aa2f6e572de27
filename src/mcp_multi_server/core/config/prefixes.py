"""What stands for a server in qualified names: its name, in the characters that such a name may have."""

from __future__ import annotations

import re
import unicodedata
from hashlib import sha256

_NOT_IN_PREFIX = re.compile(r"[^A-Za-z0-9_-]")
_RUN = re.compile(r"[^A-Za-z0-9-]+")
_STEM = 20
"""Characters kept of a name that does not fit: LLM APIs take names of 64 in all, and a tool's own has to fit too."""
_HASH = 8


def default_prefix(server: str) -> str:
    """The server's name, with `_` for ASCII characters that a qualified name cannot have.

    From a name with other characters letters would be lost, and several servers could end with one prefix: it gets its
    ASCII letters, if it has any, and a hash. The prefix depends on the server's name alone, so that no other entry
    changes it.
    """
    if server.isascii():
        return _NOT_IN_PREFIX.sub("_", server)
    # `é` becomes `e` and an accent, a fullwidth digit a digit.
    letters = "".join(each for each in unicodedata.normalize("NFKD", server) if not unicodedata.combining(each))
    stem = _RUN.sub("_", letters)[:_STEM].strip("_-")
    return f"{stem or 'server'}_{digest(server)}"


def digest(server: str) -> str:
    """A few characters that depend on the server's name, and differ for names that differ."""
    return sha256(server.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH]

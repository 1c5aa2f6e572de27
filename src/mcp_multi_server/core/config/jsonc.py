"""JSON with comments and trailing commas, as editors write it: both are blanked, so that a JSON parser can read it."""

from __future__ import annotations

import re

_TOKEN = re.compile(
    # Possessive (`++`): nothing is tried a second way, so hostile text takes no longer than its length.
    r'(?P<value>"(?:[^"\\]++|\\.)*+"?|[^\s"/,{}\[\]:]++)'
    r"|(?P<comment>//[^\r\n]*+|/\*.*?\*/)"
    # A comment without its end takes all the rest: the parser fails where it begins.
    r"|(?P<unended>/\*.*+)"
    r"|(?P<comma>,)"
    r"|(?P<closing>[}\]])"
    r"|(?P<other>[{\[:/])",
    re.DOTALL,
)
_IN_A_LINE = re.compile(r"[^\r\n]")


def plain(text: str) -> str:
    """`text` with spaces in place of comments and trailing commas: every other character keeps its line and column."""
    characters = list(text)
    before, comma = "", -1
    for token in _TOKEN.finditer(text):
        kind = str(token.lastgroup)
        if kind == "comment":
            characters[token.start() : token.end()] = _IN_A_LINE.sub(" ", token[0])
            continue
        if kind == "closing" and comma >= 0:
            characters[comma] = " "
        # Only behind a value: the comma in `[,]` and the second one in `[1,,]` are mistakes.
        comma = token.start() if kind == "comma" and before in ("value", "closing") else -1
        before = kind
    return "".join(characters)

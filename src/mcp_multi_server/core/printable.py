"""Makes the text of strangers harmless: terminals obey some characters, and others hide or reorder what people read.

Servers, clients and files choose names, descriptions, errors and results. Whoever shows them to a person, in a command,
a log or a summary, shows them through this module.
"""

from __future__ import annotations

import re

COMMANDS = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours and cursor movements
    # Window titles, links, the clipboard. Only if it ends: else a server could hide all that follows.
    r"|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)"
    r"|\x1b(?:[ -/]+[0-~]|[0-?@-Z\\^_])"  # character sets, the cursor saved
)
"""Whole control sequences (ECMA-48), which say nothing to a person."""
OBEYED = re.compile(
    r"[\x00-\x1f\x7f-\x9f"  # control characters, C0 and C1, line breaks among them
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # reorder the text around them
    r"\u2028\u2029"  # line and paragraph separator
    # Invisible: what a person cannot see a model would still read. The two joiners (U+200C, U+200D) belong to words.
    r"\u180e\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
    r"\ud800-\udfff]"  # half a surrogate pair, which has no bytes
)
"""Characters that do something to a terminal or a reader instead of being seen."""


def one_line(text: str) -> str:
    """The text on one line: control sequences are left out, and every character that is obeyed is shown as an escape.

    A tab becomes a space.
    """
    return text if text.isprintable() else OBEYED.sub(_escape, COMMANDS.sub("", text).replace("\t", " "))


def lines(text: str) -> str:
    """As `one_line` for each line of the text; line feeds and tabs stay."""
    if text.isprintable():
        return text
    return OBEYED.sub(_escape_within_lines, COMMANDS.sub("", text.replace("\r\n", "\n")))


def json_text(text: str) -> str:
    """JSON of the same value, in which strings hold nothing that a terminal obeys.

    `text` is JSON whose strings have their control characters escaped already, as JSON demands (RFC 8259 §7).
    """
    return text if text.isprintable() else OBEYED.sub(_escape_for_json, text)


def _escape(found: re.Match[str]) -> str:
    r"""As Python and most shells write it: `\x1b`, `\u202e`, `\n`."""
    return found[0].encode("unicode_escape", "surrogatepass").decode()


def _escape_within_lines(found: re.Match[str]) -> str:
    return found[0] if found[0] in "\t\n" else _escape(found)


def _escape_for_json(found: re.Match[str]) -> str:
    character = found[0]
    if character in "\t\n":
        return character  # between the values: within strings they are escaped already
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))

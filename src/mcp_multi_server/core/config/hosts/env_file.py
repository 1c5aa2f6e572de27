"""A file of environment variables (`.env`), one NAME=value a line, as `envFile` of VS Code and Cursor names it."""

from __future__ import annotations

import re

_LINE = re.compile(
    r"^[ \t]*(?:export[ \t]+)?(?P<name>[\w.-]+)[ \t]*=[ \t]*"
    r"(?:'(?P<literal>[^']*+)'|\"(?P<escaped>(?:[^\"\\]++|\\.)*+)\"|(?P<bare>[^\r\n]*+))",
    re.MULTILINE | re.DOTALL | re.ASCII,
)
_REMARK = re.compile(r"(?:^|\s)#.*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def read_env_file(text: str) -> dict[str, str]:
    r"""The variables in the text of such a file; of two with one name the last counts.

    A value in single quotes is taken as it is, one in double quotes knows `\n`, both may have several lines. Variables
    in values are not replaced. Lines of another form are passed over, as other hosts do.
    """
    return {line["name"]: _value(line) for line in _LINE.finditer(text.removeprefix("\ufeff"))}


def _value(line: re.Match[str]) -> str:
    if line["literal"] is not None:
        return line["literal"]
    if line["escaped"] is not None:
        return _ESCAPE.sub(lambda found: _ESCAPES.get(found[1], found[1]), line["escaped"])
    return _REMARK.sub("", line["bare"], count=1).strip()

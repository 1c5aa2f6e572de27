"""What is wrong with a server's lists, in sentences for its owner: few of them, whatever the server sends."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

PROBLEMS_SHOWN = 20
"""Problems of one list that are told one by one."""
NAME_SHOWN = 60
"""Characters of a name that a problem quotes."""


class ListProblem(msgspec.Struct, frozen=True, gc=False):
    """Something that is wrong with a list of a server's, or with its messages altogether.

    `list`: the member that holds the items (`tools`, `prompts`, `resources`, `resourceTemplates`); None where it is no
    list that is at fault. `name`: the item's, where one has it.
    """

    list: str | None
    name: str | None
    message: str

    def __str__(self) -> str:
        name = None if self.name is None else repr(self.name)
        return ": ".join(part for part in (self.list, name, self.message) if part is not None)


class Finding(msgspec.Struct, frozen=True, gc=False):
    """Something that was found wrong with one item; it was left out for it, or else mended."""

    name: str | None
    message: str
    left_out: bool = False


def problems_of(member: str, findings: Iterable[Finding]) -> tuple[ListProblem, ...]:
    """The findings of one list as problems: what was left out first, and what many items have in common once."""
    counts: dict[tuple[str | None, str], int] = {}
    first: dict[tuple[str | None, str], Finding] = {}
    for finding in findings:
        # What was left out is missed by its name; of what was mended, one example tells enough.
        key = (finding.name if finding.left_out else None, finding.message)
        counts[key] = counts.get(key, 0) + 1
        first.setdefault(key, finding)
    keys = sorted(first, key=lambda key: not first[key].left_out)
    told = [_problem(member, first[key], counts[key]) for key in keys[:PROBLEMS_SHOWN]]
    if more := len(keys) - len(told):
        told.append(ListProblem(member, None, f"and {more} more"))
    return tuple(told)


def _problem(member: str, finding: Finding, count: int) -> ListProblem:
    message = f"left out: {finding.message}" if finding.left_out else finding.message
    return ListProblem(member, shortened(finding.name), message + (f" ({count} of them)" if count > 1 else ""))


def shortened(name: str | None) -> str | None:
    """A name as a message quotes it."""
    return name if name is None or len(name) <= NAME_SHOWN else f"{name[:NAME_SHOWN]}…"

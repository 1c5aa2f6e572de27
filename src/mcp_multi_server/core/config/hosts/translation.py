"""An entry on its way from another host's keys to ours: what it is by now, and what is to be said of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from ...errors import Problem
from ..text import JsonObject, Place

MILLISECONDS_FROM = 1000
"""A `timeout` of at least this in an entry for another host is in milliseconds: nobody waits so many seconds there."""
_STEP = re.compile(r"(?=[.\[])")


@dataclass(slots=True)
class Translation:
    """An entry in our keys, and what is to be said of it; `entries.translate` makes it.

    `renamed`: for a place in `members` the one where the file has it, both as paths within the entry.
    """

    members: JsonObject
    place: Place
    renamed: dict[str, str] = field(default_factory=dict)
    env_file: object = None
    """The value of `envFile`, its variables in place."""
    bare: bool = False
    """Whether `$NAME` is a variable in it."""
    milliseconds: bool = False
    """Whether a `timeout` from MILLISECONDS_FROM on is in milliseconds."""
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)

    def move(self, theirs: str, ours: str) -> None:
        """Take the member `theirs` for `ours`."""
        self.members[ours] = self.members.pop(theirs)
        self.renamed[f".{ours}"] = f".{theirs}"

    def note(self, key: str, message: str) -> None:
        """Say something of a member that is ignored, and leave it out."""
        self.members.pop(key, None)
        self.notes.append(self.place.at(key).problem(message))

    def written(self, problem: Problem) -> Problem:
        """`problem` with the place where the file has the value."""
        inside = problem.field.removeprefix(self.place.path)
        for cut in reversed([step.start() for step in _STEP.finditer(inside)] + [len(inside)]):
            if theirs := self.renamed.get(inside[:cut]):
                return replace(problem, field=self.place.path + theirs + inside[cut:])
        return problem

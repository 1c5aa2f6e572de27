"""Shows by room how much of the code the tests ran, and fails where a floor is not reached.

Reads what `coverage json` writes. A line counts where it ran, a branch where it was taken: of an `if` there are two.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

FLOORS = {"core": 98.0, "all": 92.0}
"""The least share of branches in percent."""


def by_room(files: Mapping[str, Mapping[str, Mapping[str, int]]]) -> dict[str, Counter[str]]:
    """The sums of each room of the package, those of its own modules under "", and of everything under "all"."""
    rooms: dict[str, Counter[str]] = {}
    for name, measured in files.items():
        path = name.partition("mcp_multi_server/")[2]
        for room in (path.partition("/")[0] if "/" in path else "", "all"):
            rooms.setdefault(room, Counter()).update(measured["summary"])
    return dict(sorted(rooms.items(), key=lambda item: (item[0] == "all", item[0])))


def percent(part: int, whole: int) -> float:
    """100.0 where there is nothing to cover."""
    return 100 * part / whole if whole else 100.0


def main() -> int:
    """The exit code: 1 below a floor."""
    rooms = by_room(json.loads(Path(sys.argv[1]).read_bytes())["files"])
    below = []
    print(f"{'room':12}{'lines %':>9}{'branches %':>12}{'floor %':>9}")
    for room, sums in rooms.items():
        lines = percent(sums["covered_lines"], sums["num_statements"])
        branches = percent(sums["covered_branches"], sums["num_branches"])
        floor = FLOORS.get(room)
        print(f"{room or '.':12}{lines:9.1f}{branches:12.1f}{floor or '':>9}")
        if floor is not None and branches < floor:
            below.append(room)
    for room in below:
        print(f"too few branches of {room} are tested: the floor is {FLOORS[room]} %", file=sys.stderr)
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())

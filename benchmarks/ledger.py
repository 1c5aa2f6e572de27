"""Every call that was made, how it ended, and whether that may be: nothing lost, nothing carried out twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

SERVER_AWAY = -32603
"""Code of an error whose cause is a server; its `data` then says which, and why."""
TYPED = frozenset({"server", "state", "reason", "retryAt"})
HELD = 0.1
"""Seconds after which a call counts as held: none of the servers takes as long."""


class Ending(StrEnum):
    """How a call ended."""

    ANSWERED = "answered"
    FAILED = "failed"
    CUT = "connection closed"
    """The connection to the daemon ended before the answer."""
    SILENT = "never answered"
    WRONG = "wrong answer"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One call. Times are monotonic seconds."""

    id: str
    server: str
    begun: float
    ended: float
    ending: Ending
    error: str = ""
    """The code and the reason or state."""
    typed: bool = True

    @property
    def took(self) -> float:
        """Seconds from the request to its end."""
        return self.ended - self.begun


def outcome(message: Mapping[str, Any], id: str, server: str, begun: float, ended: float) -> Outcome:
    """What a response says of the call `id`."""
    if (error := message.get("error")) is not None:
        data = error.get("data") if isinstance(error.get("data"), dict) else {}
        typed = error.get("code") == SERVER_AWAY and data.keys() >= TYPED and data["server"] == server
        why = (data["reason"] or f"(no reason, {data['state']})") if typed else error.get("message")
        return Outcome(id, server, begun, ended, Ending.FAILED, f"{error.get('code')} {why}", typed)
    right = message["result"].get("content") == [{"type": "text", "text": id}]
    return Outcome(id, server, begun, ended, Ending.ANSWERED if right else Ending.WRONG)


@dataclass
class Ledger:
    """All calls of a run."""

    prefix: str = "c"
    """Of its ids: tells them from another ledger's."""
    outcomes: list[Outcome] = field(default_factory=list)
    made: int = 0

    def next_id(self) -> str:
        """An id for a call; none is ever used twice."""
        self.made += 1
        return f"{self.prefix}{self.made}"

    def of(self, server: str, since: float, until: float = float("inf")) -> list[Outcome]:
        """Calls to a server that had not ended at `since` and began before `until`, in the order they ended."""
        found = [o for o in self.outcomes if o.server == server and o.ended > since and o.begun < until]
        return sorted(found, key=lambda outcome: outcome.ended)

    def wrongs(self, executed: Mapping[str, int], *, may_cut: bool = False) -> list[str]:
        """All that must never happen. `executed`: how often servers carried out each id; `may_cut`: we cut clients."""
        bad = {Ending.SILENT, Ending.WRONG} | (set() if may_cut else {Ending.CUT})
        found = [f"call {o.id} to {o.server}: {o.ending}" for o in self.outcomes if o.ending in bad]
        if missing := self.made - len(self.outcomes):
            found.append(f"{missing} calls have no end")
        for each in self.outcomes:
            if not each.typed:
                found.append(f"call {each.id} to {each.server}: untyped error {each.error}")
            if each.ending is Ending.ANSWERED and not executed.get(each.id):
                found.append(f"call {each.id} to {each.server}: answered, and carried out by nobody")
        return found + [f"call {id}: carried out {times} times" for id, times in executed.items() if times > 1]


def seen(outcomes: Iterable[Outcome]) -> str:
    """What clients saw other than an answer at once, for people."""
    counts: Counter[str] = Counter()
    for each in outcomes:
        if each.ending is Ending.ANSWERED:
            counts["held, then answered"] += each.took > HELD
        else:
            counts[each.error or str(each.ending)] += 1
    return ", ".join(f"{count} × {what}" for what, count in counts.most_common() if count) or "nothing"

"""The one door: whoever observes hears everything, whatever other observers do with it."""

from __future__ import annotations

from mcp_multi_server.core.events import DaemonStopping, Event, InternalError, ServerRemoved
from mcp_multi_server.telemetry.events import Events


class Failing:
    """An observer that has a bug."""

    def __init__(self, only: type[Event] | None = None) -> None:
        self.only = only
        self.heard: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.heard.append(event)
        if self.only is None or isinstance(event, self.only):
            raise ZeroDivisionError


def test_all_observers_hear_every_event_in_the_order_in_which_they_were_added() -> None:
    heard: list[tuple[str, Event]] = []
    events = Events(lambda event: heard.append(("first", event)))
    events.tell(ServerRemoved("early"))
    events.add(lambda event: heard.append(("second", event)))
    events.tell(ServerRemoved("late"))
    assert [(who, event.server) for who, event in heard if isinstance(event, ServerRemoved)] == [
        ("first", "early"),
        ("first", "late"),
        ("second", "late"),
    ]


def test_without_observers_an_event_is_nobodys() -> None:
    Events().tell(ServerRemoved("x"))


def test_an_observer_that_fails_keeps_no_other_from_hearing() -> None:
    heard: list[Event] = []
    events = Events(Failing(), heard.append)
    events.tell(ServerRemoved("one"))
    events.tell(ServerRemoved("two"))
    assert [event.server for event in heard if isinstance(event, ServerRemoved)] == ["one", "two"]


def test_a_failing_observer_is_told_of_once_and_goes_on_hearing() -> None:
    failing, heard = Failing(only=ServerRemoved), list[Event]()
    events = Events(failing, heard.append)
    for _ in range(3):
        events.tell(ServerRemoved("x"))
    events.tell(DaemonStopping("SIGTERM"))
    (bug,) = [event for event in heard if isinstance(event, InternalError)]
    assert bug.where == "observer Failing"
    assert "ZeroDivisionError" in bug.trace
    assert failing.heard[-1] == DaemonStopping("SIGTERM")


def test_observers_that_fail_at_being_told_of_failures_end_in_one_each() -> None:
    failing = [Failing(), Failing(only=InternalError), Failing()]
    heard: list[Event] = []
    events = Events(*failing, heard.append)
    events.tell(ServerRemoved("x"))
    events.tell(ServerRemoved("y"))
    assert len([event for event in heard if isinstance(event, InternalError)]) == len(failing)

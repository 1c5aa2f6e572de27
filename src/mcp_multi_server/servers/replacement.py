"""A new session of a server in the place of an old one, from the decision to its outcome."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

from ..core.lifecycle import Failure, Reason
from .server import Server

ENDED = Failure(Reason.CLOSED, "it ended at once")
SUPERSEDED = Failure(Reason.CLOSED, "a later edit of the entry came before it was ready")


@dataclass(eq=False, slots=True)
class ServerTask:
    """The task that runs one `Server`: how to end it, and when it has ended. The supervisor makes it."""

    server: Server
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    gone: anyio.Event = field(default_factory=anyio.Event)
    """Set once the task has ended and the transport is left."""


@dataclass(eq=False, slots=True)
class Replacement:
    """A new `Server` for a name: one that replaces the old one as soon as it is ready, or has done so already.

    The supervisor makes it and decides it; others wait for `decided` and read `failure`.
    """

    task: ServerTask
    decided: anyio.Event = field(default_factory=anyio.Event)
    """Set once it is ready, or has failed for the first time."""
    failure: Failure | None = None
    """Why it is not ready. Then the old one goes on; where that is gone already, the new one is tried again."""

    @property
    def server(self) -> Server:
        """The new one."""
        return self.task.server

    async def first_attempt(self) -> Failure | None:
        """Why the new one is not ready after its first attempt, if it is not."""
        await self.server.attempted.wait()
        return None if self.server.live is not None else self.server.status.failure or ENDED

    def give_up(self, failure: Failure) -> None:
        """End the new one; the old one goes on."""
        self.failure = failure  # before `decided`, which has others read it
        self.task.scope.cancel()
        self.decided.set()

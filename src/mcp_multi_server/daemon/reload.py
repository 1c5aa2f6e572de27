"""The config while the daemon runs: read again, applied, or only compared with what is in force."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup, TaskStatus

from ..core.config.config import Config, parse
from ..core.config.plan import Plan
from ..core.errors import ConfigError, Problem
from ..core.events import ConfigReloaded, DaemonWarning, InternalError, Observer
from ..servers.replacement import SUPERSEDED, Replacement
from ..servers.supervisor import Supervisor
from . import config_file


@dataclass(frozen=True, slots=True)
class Reload:
    """How a reading of the config went: `applied`, `partial`, `rejected` or `unchanged`. Times: seconds since 1970."""

    outcome: str
    at: float
    loaded_at: float
    """When the config that is in force was read."""
    problems: tuple[Problem, ...] = ()


class Reloads:
    """Reads the file at `path` again and has the supervisor run what it says.

    The fleet makes it; `run` is its task. `applied` is told of each config that took the place of another; `shown` is
    entered for as long as a reload takes.
    """

    def __init__(
        self,
        path: str,
        supervisor: Supervisor,
        *,
        tell: Observer,
        applied: Callable[[Config, Config], None],
        shown: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.path = path
        """The file; "" where the config came from elsewhere, and cannot be read again."""
        now, problems = time.time(), problems_of(supervisor.snapshot.config)
        self.last = Reload("partial" if problems else "applied", now, now, problems)
        """How the last reading went that is worth telling; at first, that of the start."""
        self._supervisor = supervisor
        self._tell = tell
        self._applied = applied
        self._shown = shown
        self._reading = anyio.Lock()
        self._is_queued = False
        """Whether a reload that nobody asked for by name waits to begin."""
        self._begun = self._last_number = 0
        """How many reloads were begun, and the number of the one that `last` tells of."""
        self._tasks: TaskGroup | None = None

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Carry out what `config_may_have_changed` asks for, until cancelled."""
        config = self._supervisor.snapshot.config
        self._tell_doubts(*self.last.problems, *config.warnings, *config.notes)
        async with anyio.create_task_group() as self._tasks:
            task_status.started()
            await anyio.sleep_forever()

    async def config_may_have_changed(self) -> None:
        """Have it read again soon: what is said while one reload waits to begin is said by that one too."""
        if not self._is_queued and self._tasks is not None:
            self._is_queued = True
            self._tasks.start_soon(self._reload_unasked)

    async def reload(self) -> tuple[Reload, Plan]:
        """Read the config and apply it; one that cannot be used leaves everything as it is.

        Reading and applying are done one reload at a time. Waiting for replacements is not: a later edit need not wait
        for a server that never gets ready, and may be what stops the waiting.
        """
        self._begun += 1
        number = self._begun
        with ExitStack() as shown:
            async with self._reading:
                # Before the read: a change from now on may not be in it and needs a reload of its own.
                self._is_queued = False
                shown.enter_context(self._shown())
                before = self._supervisor.snapshot.config
                try:
                    # A file that a variable names may be on a slow disk.
                    config = await anyio.to_thread.run_sync(self._read)
                except ConfigError as unusable:
                    return self._ended(number, "rejected", unusable.problems, Plan())
                if config.keeping(before) == before:
                    return self._ended(number, "unchanged", problems_of(config), Plan(keep=tuple(before.servers)))
                plan, replacements = self._supervisor.apply(config.keeping(before))
                self._tell_doubts(*config.warnings, *config.notes)
                self._applied(before, config)
            for replacement in replacements:
                await replacement.decided.wait()
            problems = (*problems_of(config), *_failures_of(replacements, config))
            return self._ended(number, "partial" if problems else "applied", problems, plan)

    async def plan(self, config: bytes | None) -> tuple[Plan, tuple[Problem, ...]]:
        """What a config would change, the present file's where none is given, and what is wrong with it."""
        directory = os.path.dirname(self.path)
        read = self._read if config is None else partial(parse, config, config_file.lookup_in(directory))
        try:
            after = await anyio.to_thread.run_sync(read)
        except ConfigError as unusable:
            return Plan(), unusable.problems
        before = self._supervisor.snapshot.config
        return Plan.between(before, after.keeping(before)), problems_of(after)

    async def _reload_unasked(self) -> None:
        try:
            await self.reload()
        except Exception:
            self._tell(InternalError("reload", traceback.format_exc()))

    def _read(self) -> Config:
        if not self.path:
            raise ConfigError((Problem("", "there is no config file to read"),))
        return config_file.load(self.path)

    def _ended(self, number: int, outcome: str, problems: tuple[Problem, ...], plan: Plan) -> tuple[Reload, Plan]:
        """Keep and tell how a reload went; what a later one said is not overwritten."""
        changed = {step: names for step in ("start", "stop", "replace", "update") if (names := getattr(plan, step))}
        now = time.time()
        in_force = outcome in ("applied", "partial")
        reload = Reload(outcome, now, now if in_force else self.last.loaded_at, problems)
        # An unchanged file says nothing new, unless what was refused before is out of it again.
        if number > self._last_number and (outcome != "unchanged" or self.last.outcome == "rejected"):
            self.last, self._last_number = reload, number
        self._tell(ConfigReloaded(outcome, self._supervisor.snapshot.generation, problems, changed))
        return reload, plan

    def _tell_doubts(self, *doubts: Problem) -> None:
        for doubt in doubts:
            self._tell(DaemonWarning("config", str(doubt)))


def problems_of(config: Config) -> tuple[Problem, ...]:
    """All that is wrong with the entries of a config."""
    return tuple(problem for problems in config.broken.values() for problem in problems)


def _failures_of(replacements: Iterable[Replacement], config: Config) -> Iterator[Problem]:
    """What is to be said of the servers whose replacement is not ready."""
    for replacement in replacements:
        server, failure = replacement.server, replacement.failure
        if failure is SUPERSEDED:
            yield config.problem(server.name, failure.message)
        elif failure is not None:
            goes_on = "it is tried again" if server.is_current else "the old server goes on"
            yield config.problem(server.name, f"its new server: {failure.message}; {goes_on}")

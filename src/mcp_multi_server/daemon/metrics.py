"""What Prometheus is told of the daemon: what was counted of its events, and how its fleet is when asked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from anyio.abc import TaskGroup

from ..core.events import DaemonWarning, Observer
from ..processes.procfs import read_usage
from ..telemetry import metrics_http
from ..telemetry.metrics import FleetSample, LoopLag, Metrics
from .fleet import Fleet
from .samples import fleet_sample


class FleetMetrics:
    """The metrics of one fleet. The daemon makes it, adds `count` to its events, and has it served."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._lag = LoopLag()
        self.count = Metrics(self._sample, read_usage)
        """An observer."""

    async def serve(self, tasks: TaskGroup, *, ready: Callable[[], bool], tell: Observer) -> str:
        """Serve them in `tasks`: the address; "off" where the config does not want it or where it cannot be had."""
        settings = self._fleet.snapshot.config.daemon.metrics
        tasks.start_soon(self._lag.run)
        serve = partial(
            metrics_http.serve,
            settings.listen,
            self.count.render,
            ready=ready,
            allowed_hosts=settings.allowed_hosts,
            tell=tell,
        )
        try:
            return str(await tasks.start(serve))
        except metrics_http.CannotListen as unusable:
            tell(DaemonWarning("metrics", str(unusable)))
            return "off"

    def _sample(self) -> FleetSample:
        fleet = self._fleet
        return fleet_sample(
            fleet.snapshot, fleet.reloads.last, clients=len(fleet.gateway.sessions), loop_lag=self._lag.take()
        )

"""Dagster's own way of starting runs, which also notices that a run's process has gone together with its code server.

A code server reports the end of the processes that it has started. Where it is killed with them, as with the daemon's
or its own container, nobody does: the run would stay `STARTED` for good, hold one of the places for runs, and no other
landing would follow it. The daemon's run monitoring asks `check_run_worker_health` about every run at work.

It also gives up runs whose process has not begun in time. On a machine that is far too busy a retry would be late as
well, and add to the load: such a run is not retried.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dagster import DagsterRun, DagsterRunStatus, DefaultRunLauncher

from quantlytic_assets.dagster_internals import run_worker_health

if TYPE_CHECKING:
    from quantlytic_assets.dagster_internals import CheckRunHealthResult


# Processes that want to run, of each core (load average of the last minute), from which on a machine is too busy.
BUSY_LOAD = 4.0


class WatchedRunLauncher(DefaultRunLauncher):
    """`DefaultRunLauncher` whose runs are looked after by the run monitoring."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """See `RunLauncher`."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """See `dagster_internals.run_worker_health`."""
        return run_worker_health(self, run)

    def get_run_worker_debug_info(self, run: DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """What the run monitoring adds to the message with which it gives a run up; see `RunLauncher`.

        A run whose process has not begun in time is not retried while the machine is too busy. Dagster ignores the
        process should it begin later, and says so in the run's log.
        """
        if run.status not in (DagsterRunStatus.STARTING, DagsterRunStatus.NOT_STARTED):
            return None
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
        if load <= BUSY_LOAD * cores:
            return None
        self._instance.add_run_tags(run.run_id, {"dagster/max_retries": "0"})
        return (
            f"It is not retried: this machine is too busy (load {load:.0f} on {cores} cores). "
            "Materialize its partitions again when the load has gone down."
        )

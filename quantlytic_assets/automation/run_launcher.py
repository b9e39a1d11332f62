"""Dagster's own way of starting runs, which also notices that a run's process has gone together with its code server.

A code server reports the end of the processes that it has started. Where it is killed with them, as with the daemon's
or its own container, nobody does: the run would stay `STARTED` for good, hold one of the places for runs, and no other
landing would follow it. The daemon's run monitoring asks `check_run_worker_health` about every run at work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster import DagsterRun, DefaultRunLauncher

from quantlytic_assets.dagster_internals import run_worker_health

if TYPE_CHECKING:
    from quantlytic_assets.dagster_internals import CheckRunHealthResult


class WatchedRunLauncher(DefaultRunLauncher):
    """`DefaultRunLauncher` whose runs are looked after by the run monitoring."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """See `RunLauncher`."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """See `dagster_internals.run_worker_health`."""
        return run_worker_health(self, run)

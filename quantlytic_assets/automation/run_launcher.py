"""Dagster's own way of starting runs, which also notices that a run's process has gone together with its code server.

A code server reports the end of the processes that it has started. Where it is killed with them, as with the daemon's
or its own container, nobody does: the run would stay `STARTED` for good, hold one of the places for runs, and no other
landing would follow it. The daemon's run monitoring asks `check_run_worker_health` about every run at work.
"""

from __future__ import annotations

import grpc
from dagster import DagsterRun
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value


class WatchedRunLauncher(DefaultRunLauncher):
    """`DefaultRunLauncher` whose runs are looked after by the run monitoring."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """See `RunLauncher`."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the code server that started a run is there and knows the run.

        Runs of commands, which no code server has started, count as running: `own_runs` looks after them.
        """
        client = self._get_grpc_client_for_termination(run.run_id)
        if client is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        try:
            answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id), timeout=10)
        except DagsterUserCodeUnreachableError as error:
            # One that is there and too busy to answer in time is left alone.
            gone = isinstance(error.__cause__, grpc.RpcError) and error.__cause__.code() == grpc.StatusCode.UNAVAILABLE
            return CheckRunHealthResult(
                WorkerStatus.NOT_FOUND if gone else WorkerStatus.RUNNING, "the code server that started it is gone"
            )
        if deserialize_value(answer, CanCancelExecutionResult).can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "its code server does not know it")

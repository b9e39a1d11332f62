"""Which of Dagster's run statuses count as unfinished, and which as over: for sensors, schedules and figures alike."""

from __future__ import annotations

from dagster import DagsterRunStatus

# Runs that Dagster will start, or whose process may be at work.
STARTED = (DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTING, DagsterRunStatus.STARTED)
UNFINISHED = [DagsterRunStatus.QUEUED, *STARTED, DagsterRunStatus.CANCELING]
OVER = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]

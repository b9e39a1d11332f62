"""Runs that a command executes in its own process, and what becomes of them when it is killed.

Dagster's daemon watches the processes that it starts itself. Nobody would tell it that a command's run has ended with
its process, and the run would keep one of the few places for runs at a time. So each such run holds a lock, which the
system lets go of whatever ends the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from dagster import DagsterInstance

_TAG = "quantlytic/lock"


@contextmanager
def own_run(directory: Path) -> Iterator[dict[str, str]]:
    """Hold a lock in `directory` while a run is executed; yields the tags that the run must have."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{uuid4().hex}.lock"
    try:
        with FileLock(path):
            yield {_TAG: path.name}
    finally:
        path.unlink(missing_ok=True)


def end_killed_runs(instance: DagsterInstance, directory: Path) -> int:
    """Record as failed each run of `own_run` whose process is no more; returns how many."""
    from dagster import DagsterRunStatus, RunsFilter

    unfinished = [DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTING, DagsterRunStatus.STARTED]
    ended = 0
    for run in instance.get_runs(RunsFilter(statuses=unfinished)):
        if _TAG not in run.tags:
            continue
        path = directory / run.tags[_TAG]
        try:
            with FileLock(path, timeout=0):
                instance.report_run_failed(run, "The command that executed this run was killed. Run it again.")
        except Timeout:
            continue
        path.unlink(missing_ok=True)
        ended += 1
    return ended

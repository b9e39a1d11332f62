"""Runs that a command executes in its own process, and what becomes of them when it is killed.

Dagster's daemon watches the processes that it starts itself. Nobody would tell it that a command's run has ended with
its process, and the run would keep one of the few places for runs at a time. So each such run holds a lock, which is
let go of whatever ends the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

from quantlytic_assets.storage.postgres import Held

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from quantlytic_assets.resources import Resources

_TAG = "quantlytic/lock"


@contextmanager
def own_run(resources: Resources) -> Iterator[dict[str, str]]:
    """Hold a lock while a run is executed; yields the tags that the run must have."""
    name = f"run-{uuid4().hex}"
    with resources.lock(name, wait=False):
        yield {_TAG: name}


def end_killed_runs(instance: DagsterInstance, resources: Resources) -> int:
    """Record as failed each run of `own_run` whose process is no more; returns how many."""
    from dagster import RunsFilter

    from quantlytic_assets.run_statuses import STARTED

    ended = 0
    for run in instance.get_runs(RunsFilter(statuses=list(STARTED))):
        if _TAG not in run.tags:
            continue
        try:
            with resources.lock(run.tags[_TAG], wait=False):
                instance.report_run_failed(run, "The command that executed this run was killed. Run it again.")
                # It may have died while it had a place in a vendor's pool, where the next one would wait for ever.
                instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        except Held:
            continue
        ended += 1
    return ended

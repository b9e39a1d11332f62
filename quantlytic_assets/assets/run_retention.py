"""Which old runs the Dagster instance can forget: those that no asset's state rests on.

Deleting a run deletes its events, and an asset partition is what its newest event says. So a run stays, however old,
while it holds the newest materialization or observation of any partition, or the attempt that failed last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dagster import (
    AssetKey,
    AssetRecordsFilter,
    DagsterEventType,
    DagsterInstance,
    RunsFilter,
)

from quantlytic_assets.dagster_internals import run_event_files
from quantlytic_assets.run_statuses import OVER

_EVENTS = (DagsterEventType.ASSET_MATERIALIZATION, DagsterEventType.ASSET_OBSERVATION)
_PAGE = 500


@dataclass(frozen=True)
class Forgotten:
    """How many runs were deleted, how many old ones stay, and whether more could have been deleted."""

    deleted: int
    kept: int
    more: bool


def forget_old_runs(
    instance: DagsterInstance,
    keep: timedelta = timedelta(days=30),
    most: int = 2_000,
    now: datetime | None = None,
) -> Forgotten:
    """Delete at most `most` runs, oldest first, that ended longer than `keep` ago and that no asset's state rests on.

    With a run go its events and its logs. A second call at the same time, or after one that was killed, does no harm.
    """
    before = (now or datetime.now(UTC)) - keep
    old = instance.get_run_ids(RunsFilter(statuses=OVER, updated_before=before))[::-1]
    needed = runs_in_force(instance) if old else set()
    unneeded = [run_id for run_id in old if run_id not in needed]
    for run_id in unneeded[:most]:
        _delete(instance, run_id)
    return Forgotten(len(unneeded[:most]), len(old) - len(unneeded), len(unneeded) > most)


def runs_in_force(instance: DagsterInstance) -> set[str]:
    """The runs that hold the newest event of some asset or partition of one, or its last attempt, which failed."""
    needed: set[str] = set()
    for key in instance.get_asset_keys():
        needed |= _newest_by_partition(instance, key)
        for fetch in (instance.fetch_materializations, instance.fetch_observations):
            needed |= {record.run_id for record in fetch(key, limit=1).records}
        storage = instance.event_log_storage
        failed = storage.get_latest_asset_partition_materialization_attempts_without_materializations(key)
        needed |= {run_id for run_id, _ in failed.values()}
        planned = instance.get_latest_planned_materialization_info(key)
        if planned is not None:
            needed.add(planned.run_id)
    return needed


def _newest_by_partition(instance: DagsterInstance, key: AssetKey) -> set[str]:
    """The runs that hold the newest event of each partition of an asset."""
    runs: set[str] = set()
    for event, fetch in zip(_EVENTS, (instance.fetch_materializations, instance.fetch_observations), strict=True):
        newest = instance.get_latest_storage_id_by_partition(key, event)
        for ids in _pages(newest.values()):
            records = fetch(AssetRecordsFilter(asset_key=key, storage_ids=ids), limit=len(ids)).records
            runs |= {record.run_id for record in records}
    return runs


def _pages(numbers: Iterable[int]) -> Iterator[list[int]]:
    rest = sorted(numbers)
    for at in range(0, len(rest), _PAGE):
        yield rest[at : at + _PAGE]


def _delete(instance: DagsterInstance, run_id: str) -> None:
    if instance.get_run_by_id(run_id) is None:
        # Another process has just done it.
        return
    # Its events first: what is left of a deletion that was killed is still listed, and deleted by the next.
    storage = instance.event_log_storage
    storage.delete_events(run_id)
    instance.delete_run(run_id)
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    for path in run_event_files(instance, run_id):
        path.unlink(missing_ok=True)

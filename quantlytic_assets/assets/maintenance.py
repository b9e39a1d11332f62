"""What grows with use, kept small: `<dataset>/archive_maintenance`, `<dataset>/retention` and two for all datasets.

How it is done is in `storage.compaction`, `storage.retention`, `storage.maintenance` and `automation.run_retention`;
here it is put into assets, so that what it did and the sizes before and after are seen in the UI, and a failure is a
failed run.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from quantlytic_assets.assets.run_retention import forget_old_runs
from quantlytic_assets.calendars.sessions import session_table
from quantlytic_assets.market_data.quality.retention import first_kept
from quantlytic_assets.resources import Resources
from quantlytic_assets.storage.archive import Archive
from quantlytic_assets.storage.compaction import Compactor
from quantlytic_assets.storage.maintenance import lake_size, maintain_lake
from quantlytic_assets.storage.retention import expire_archive, expire_lake
from quantlytic_assets.universe.models import Dataset

_POOL = "maintenance"


class ArchiveMaintenanceConfig(dg.Config):
    """When segments are merged and when those that were merged are deleted."""

    settled_hours: float = Field(24, ge=0, description="Merge a partition this long after its last session has closed.")
    grace_hours: float = Field(1, ge=0, description="Delete segments this long after they were merged.")


class RetentionConfig(dg.Config):
    """What is deleted beside the lake's rows."""

    archive: bool = Field(
        False, description="Delete expired partitions from the archive as well: only the vendors could bring them back."
    )


class LakeMaintenanceConfig(dg.Config):
    """How far back the lake remembers."""

    keep_snapshots_days: float = Field(30, ge=0, description="How far back time travel goes.")
    grace_hours: float = Field(24, ge=0, description="Delete files this long after nothing needs them any more.")


class InstanceMaintenanceConfig(dg.Config):
    """What Dagster's own database forgets."""

    keep_runs_days: float = Field(30, ge=0, description="Forget runs that ended this long ago.")
    most_runs: int = Field(2000, ge=1, description="Forget at most so many runs at once.")


def archive_maintenance_key(dataset: Dataset) -> dg.AssetKey:
    """The key of the maintenance of a dataset's archive."""
    return dg.AssetKey([dataset.name, "archive_maintenance"])


def archive_maintenance_asset(dataset: Dataset, common: Mapping[str, Any]) -> dg.AssetsDefinition:
    """The asset that merges the segments of a dataset's closed partitions. Config: `settled_hours`, `grace_hours`."""

    @dg.asset(
        key=archive_maintenance_key(dataset),
        description=f"The small objects of closed partitions of {dataset.name}, merged into one each and verified row "
        "by row. The archive's rows stay what they are, and so does where each of them came from.",
        kinds={"parquet"},
        pool=_POOL,
        required_resource_keys={"quantlytic"},
        **common,
    )
    def archive_maintenance(
        context: dg.AssetExecutionContext, config: ArchiveMaintenanceConfig
    ) -> dg.MaterializeResult:
        resources: Resources = context.resources.quantlytic
        before = _stored(resources.archive, dataset)
        compactor = Compactor(resources.archive, dataset.name, grace=timedelta(hours=config.grace_hours))
        settled = datetime.now(UTC) - timedelta(hours=config.settled_hours)
        done = compactor.run(closed_before(dataset, settled), lambda key: context.log.info(f"partition {key}"))
        metadata = {
            **{f"{name}_before": count for name, count in before.items()},
            **_stored(resources.archive, dataset),
            "partitions_merged": done.partitions,
            "objects_merged": done.merged,
            "rows_merged": done.rows,
            "objects_deleted": done.deleted,
            "objects_of_unfinished_landings": len(done.left_alone),
        }
        if done.problems:
            raise dg.Failure("; ".join(done.problems[:10]), metadata={**metadata, "problems": len(done.problems)})
        return dg.MaterializeResult(metadata=metadata)

    return archive_maintenance


def _stored(archive: Archive, dataset: Dataset) -> dict[str, int]:
    """Objects that count and their bytes."""
    objects = archive.objects(dataset.name)
    return {"objects": len(objects), "bytes": sum(stored.size for stored in objects)}


def closed_before(dataset: Dataset, moment: datetime) -> Callable[[str], bool]:
    """Whether the last session of the partition with a key (known to the calendar or not) closed before a moment."""

    def closed(key: str) -> bool:
        first = date.fromisoformat(key)
        last = first
        if dataset.partition == "month":
            last = (first.replace(day=1) + timedelta(days=32)).replace(day=1) - timedelta(days=1)
        closes = session_table(dataset.calendar, first, last)["close_time"]
        end = closes.max() if len(closes) else datetime.combine(last + timedelta(days=1), time(), UTC)
        return end < moment

    return closed


def retention_asset(dataset: Dataset, common: Mapping[str, Any]) -> dg.AssetsDefinition:
    """The asset that deletes what a dataset with `keep` keeps no longer. Config: `archive`."""

    @dg.asset(
        key=dg.AssetKey([dataset.name, "retention"]),
        description=f"Rows of {dataset.name} whose session is older than the universe's `keep` says, deleted from the "
        "lake's clean and features tables. The archive keeps them, unless the run's config says `archive: true`.",
        kinds={"ducklake"},
        pool=_POOL,
        required_resource_keys={"quantlytic"},
        **common,
    )
    def retention(context: dg.AssetExecutionContext, config: RetentionConfig) -> dg.MaterializeResult:
        resources: Resources = context.resources.quantlytic
        before = first_kept(dataset, datetime.now(UTC).date())
        rows = expire_lake(resources.lake, dataset.name, before)
        metadata: dict[str, Any] = {
            "first_kept": before.isoformat(),
            "rows_deleted": sum(rows.values()),
            "rows_deleted_by_table": rows,
        }
        if config.archive:
            done = expire_archive(resources.archive, dataset.name, before)
            metadata |= {f"archive_{name}_deleted": count for name, count in asdict(done).items()}
        return dg.MaterializeResult(metadata=metadata)

    return retention


def lake_maintenance_asset(common: Mapping[str, Any]) -> dg.AssetsDefinition:
    """The asset that keeps the lake small. Config: `keep_snapshots_days`, `grace_hours`."""

    @dg.asset(
        key=dg.AssetKey("lake_maintenance"),
        description="The lake's old snapshots expired, its small files merged, and files deleted that nothing refers "
        "to any more. Tables keep their rows, and snapshots that are kept theirs.",
        kinds={"ducklake"},
        pool=_POOL,
        required_resource_keys={"quantlytic"},
        **common,
    )
    def lake_maintenance(context: dg.AssetExecutionContext, config: LakeMaintenanceConfig) -> dg.MaterializeResult:
        lake = context.resources.quantlytic.lake
        before = lake_size(lake)
        done = maintain_lake(
            lake,
            keep_snapshots=timedelta(days=config.keep_snapshots_days),
            grace=timedelta(hours=config.grace_hours),
        )
        metadata = {
            **{f"{name}_before": count for name, count in asdict(before).items()},
            **asdict(lake_size(lake)),
            **{name: count for name, count in asdict(done).items() if name != "problems"},
        }
        if done.problems:
            raise dg.Failure("; ".join(done.problems[:10]), metadata=metadata)
        return dg.MaterializeResult(metadata=metadata)

    return lake_maintenance


def instance_maintenance_asset(common: Mapping[str, Any]) -> dg.AssetsDefinition:
    """The asset that lets the Dagster instance forget old runs. Config: `keep_runs_days`, `most_runs`."""

    @dg.asset(
        key=dg.AssetKey("instance_maintenance"),
        description="Old runs deleted from Dagster's database with their events and logs, except those that the state "
        "of some partition rests on.",
        kinds={"dagster"},
        pool=_POOL,
        **common,
    )
    def instance_maintenance(
        context: dg.AssetExecutionContext, config: InstanceMaintenanceConfig
    ) -> dg.MaterializeResult:
        before = context.instance.get_runs_count()
        done = forget_old_runs(context.instance, timedelta(days=config.keep_runs_days), config.most_runs)
        return dg.MaterializeResult(
            metadata={
                "runs_before": before,
                "runs": context.instance.get_runs_count(),
                "runs_deleted": done.deleted,
                "old_runs_kept": done.kept,
                "more_to_delete": done.more,
            }
        )

    return instance_maintenance

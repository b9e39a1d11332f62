"""`<dataset>/raw_bars`: what the archive lacks is asked of the vendors, published to the bus and landed.

Also the landing job that the bus sensor launches. How fetching and landing work is in `ingest` and `storage.landing`.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from quantlytic_assets.assets.columns import table_metadata
from quantlytic_assets.assets.keys import raw_bars_key
from quantlytic_assets.assets.per_partition import group_by_key, partition_charts, report
from quantlytic_assets.calendars.partitions import Window, partition_key, windows
from quantlytic_assets.resources import Resources
from quantlytic_assets.schemas.archive import BARS
from quantlytic_assets.services.landing import landed_by_partition
from quantlytic_assets.storage.archive import Archive
from quantlytic_assets.storage.landing import Landed
from quantlytic_assets.universe.models import Dataset


class RawBarsConfig(dg.Config):
    """What a run may change about fetching."""

    symbols: list[str] = Field(default=[], description="Ask for these symbols only; empty means all of the dataset.")
    force: bool = Field(default=False, description="Ask again for everything, archived or not, known hole or not.")


def raw_bars_asset(dataset: Dataset, common: Mapping[str, Any]) -> dg.AssetsDefinition:
    """The asset that fills the archive. Config: `symbols`, `force`."""

    @dg.asset(
        key=raw_bars_key(dataset),
        description=f"Bars of {dataset.name} in the archive, as vendors, feeds and files gave them; never changed.",
        kinds={"parquet"},
        metadata=table_metadata(BARS),
        required_resource_keys={"quantlytic"},
        # Runs that ask the same vendor take turns, as far as the instance limits the pool.
        pool=f"vendor_{dataset.vendors[0]}" if dataset.vendors else None,
        **common,
    )
    def raw_bars(context: dg.AssetExecutionContext, config: RawBarsConfig) -> dg.MaterializeResult:
        resources: Resources = context.resources.quantlytic
        ingest = resources.ingest(dataset)
        requests, errors = 0, []
        extra: dict[str, Any] = {}
        spans = windows(dataset, context.partition_keys)
        asked: dict[str, dict] = {}
        for span in spans:
            need = ingest.need(span.first, _last_day(span), config.symbols, config.force)
            context.log.info(
                f"{span.keys[0]} to {span.keys[-1]}: {len(need.missing)} of {len(need.expected)} bars missing, "
                f"{len(need.ranges)} requests to make"
            )
            outcome = ingest.fill(need)
            requests += outcome.requests
            errors += outcome.errors
            report_lost(context, dataset, outcome.landed)
            for key, entry in outcome.landed.partitions.items():
                extra[key] = {name: extra.get(key, {}).get(name, 0) + count for name, count in entry.items()}
            asked |= _asked_per_partition(dataset, need.missing)
        for error in errors:
            context.log.warning(error)
        stored = _stored(resources.archive, dataset, spans)
        empty = {"dagster/partition_row_count": 0, "objects": 0, "bytes": 0, "bars_asked": 0}
        counts = {key: {**stored.get(key, {}), **asked.get(key, {})} for key in {*stored, *asked}}
        metadata = group_by_key(context.partition_keys, counts, empty)
        for key, landed in extra.items():
            if key in metadata:
                metadata[key]["rows_landed"] = landed["rows"]
        for key, entry in metadata.items():
            entry.update(partition_charts(resources.links, dataset, key, "coverage"))
        report(context, metadata)
        report_landing(context, dataset, extra, skip=set(context.partition_keys))
        return dg.MaterializeResult(
            metadata={"requests": requests, "vendor_errors": len(errors), "errors": errors[:20]}
        )

    return raw_bars


def _last_day(window: Window) -> date:
    return date.fromordinal(window.last.toordinal() - 1)


def _asked_per_partition(dataset: Dataset, missing: pl.DataFrame) -> dict[str, dict]:
    sessions = missing.group_by("session").len()
    counts: dict[str, dict] = {}
    for session, bars in sessions.iter_rows():
        entry = counts.setdefault(partition_key(dataset, session), {"bars_asked": 0})
        entry["bars_asked"] += bars
    return counts


def _stored(archive: Archive, dataset: Dataset, spans: list[Window]) -> dict[str, dict]:
    """Rows, objects and bytes that the archive holds for each partition."""
    counts: dict[str, dict] = {}
    objects = archive.objects(dataset.name, spans[0].first, spans[-1].last)
    rows = archive.row_counts(objects)
    for stored in objects:
        entry = counts.setdefault(stored.partition, {"dagster/partition_row_count": 0, "objects": 0, "bytes": 0})
        entry["dagster/partition_row_count"] += rows[stored.path]
        entry["objects"] += 1
        entry["bytes"] += stored.size
    return counts


def report_landing(
    context: dg.AssetExecutionContext | dg.OpExecutionContext,
    dataset: Dataset,
    landed: Mapping[str, Mapping[str, int]],
    skip: set[str],
) -> None:
    """Record the partitions that a landing touched beside those of the run itself."""
    for key, figures in landed_by_partition(dataset, landed).items():
        if key not in skip:
            context.log_event(dg.AssetMaterialization(raw_bars_key(dataset), partition=key, metadata=dict(figures)))


def report_lost(context: dg.AssetExecutionContext | dg.OpExecutionContext, dataset: Dataset, landed: Landed) -> None:
    """Say which records the bus dropped before they were landed; the bars in them show up as holes to be fetched."""
    if not landed.lost:
        return
    context.log.warning(
        f"{landed.lost} records were gone from the bus before they were landed: {', '.join(landed.lost_ranges)}. "
        f"Their bars are holes now; a backfill asks the vendors for them."
    )
    metadata: dict[str, Any] = {"lost_records": landed.lost, "lost_ranges": landed.lost_ranges}
    context.log_event(dg.AssetObservation(raw_bars_key(dataset), metadata=metadata))


class LandingConfig(dg.Config):
    """Which offsets a landing run is for: `{"<bus partition>": [first, last]}`, half-open, and of which life."""

    ranges: dict[str, list[int]] = Field(description="Bus partition to [first, last) offsets.")
    life: str | None = Field(
        default=None, description="What the archive calls the topic these offsets were read from; None: as it is now."
    )


def landing_job(dataset: Dataset) -> dg.JobDefinition:
    """The job that lands given offsets and records the partitions their bars belong to."""

    @dg.op(name=f"{dataset.name}_land", required_resource_keys={"quantlytic"})
    def land(context: dg.OpExecutionContext, config: LandingConfig) -> None:
        resources: Resources = context.resources.quantlytic
        ranges = {int(partition): (first, last) for partition, (first, last) in config.ranges.items()}
        landed: Landed = resources.lander(dataset).land(ranges, config.life)
        context.log.info(
            f"landed {landed.rows} bars in {len(landed.partitions)} partitions, rejected {landed.rejected}"
        )
        report_lost(context, dataset, landed)
        report_landing(context, dataset, landed.partitions, skip=set())

    @dg.job(
        name=f"{dataset.name}_landing",
        description=f"Lands offsets of {dataset.name}'s topic in the archive. Launched by its bus sensor.",
        executor_def=dg.in_process_executor,
    )
    def landing() -> None:
        land()

    return landing

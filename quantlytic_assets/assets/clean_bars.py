"""`<dataset>/clean_bars`: archive objects made into lake rows, each kept or quarantined. Rules are in `cleaning`."""

from collections.abc import Mapping
from datetime import date, timedelta

import dagster as dg
import polars as pl

from quantlytic_assets.assets.corporate_actions import new_split_factors, replace_split_factors
from quantlytic_assets.assets.per_partition import (
    PartitionMetadata,
    group_by_key,
    materialize_windows,
    partition_charts,
    table_metadata,
)
from quantlytic_assets.assets.raw_bars import raw_bars_key
from quantlytic_assets.calendars.partitions import Window, deciding_key, known_keys, windows, with_partition
from quantlytic_assets.calendars.sessions import expected_bars, session_table
from quantlytic_assets.market_data.actions.reconcile import reconcile
from quantlytic_assets.market_data.bars import CLEAN_SCHEMA, QUARANTINE_SCHEMA
from quantlytic_assets.market_data.quality.cleaning import Cleaned, clean
from quantlytic_assets.resources import Resources
from quantlytic_assets.storage.archive import StoredObject
from quantlytic_assets.tables.bars import quarantined_objects, sessions_with_bars
from quantlytic_assets.universe.models import Dataset

# Rows cleaned at once: bounds memory at a few hundred megabytes.
_ROWS_AT_ONCE = 500_000
# What other assets keep there.
_NOT_REJECTED = "source_object NOT LIKE '%/refused/%' AND source_object NOT LIKE '%/actions/%'"


def clean_bars_key(dataset: Dataset) -> dg.AssetKey:
    """The key of a dataset's clean bars."""
    return dg.AssetKey([dataset.name, "clean_bars"])


def partitions_at_once(dataset: Dataset) -> int:
    """How many partitions hold about as many bars as are worked on at once."""
    week = expected_bars(
        dataset.calendar, dataset.interval, dataset.first_session, dataset.first_session + timedelta(days=13)
    )
    per_session = max(1, len(week) // max(1, week["session"].n_unique())) * len(dataset.symbols)
    return max(1, _ROWS_AT_ONCE // (per_session * (22 if dataset.partition == "month" else 1)))


def clean_bars_asset(dataset: Dataset, common: Mapping[str, object], columns: Mapping[str, str]) -> dg.AssetsDefinition:
    """The asset that writes clean.bars, clean.quarantine, clean.repairs, clean.vendor_differences and clean.sessions.

    It brings clean.share_counts up to date as well. Where that changes what earlier runs made, as when a vendor tells
    of a split only with the bars of its day, their partitions are cleaned again too, so that what follows from them is
    seen to be out of date. `columns` describes clean.bars' columns.
    """

    @dg.asset(
        key=clean_bars_key(dataset),
        deps=[raw_bars_key(dataset)],
        description=f"Bars of {dataset.name} that passed every rule (clean.bars); the others are in clean.quarantine, "
        "each with its reason and where in the archive it stands.",
        kinds={"ducklake", "polars"},
        metadata=table_metadata("clean.bars", CLEAN_SCHEMA, columns),
        required_resource_keys={"quantlytic"},
        **common,
    )
    def clean_bars(context: dg.AssetExecutionContext) -> None:
        resources: Resources = context.resources.quantlytic
        known = known_keys(dataset)
        filed: dict[str, list[StoredObject]] = {}
        for stored in resources.archive.objects(dataset.name):
            filed.setdefault(deciding_key(dataset, stored.partition, known) or "", []).append(stored)
        # Of the archive, not of the lake: what a bar is flagged with follows from the archive alone.
        actions = reconcile(resources.actions.read(dataset.name), dataset.name).actions
        splits = actions.filter(pl.col("kind") == "split").select("symbol", "session", "value")

        def work(window: Window) -> PartitionMetadata:
            objects = [stored for key in window.keys for stored in filed.get(key, [])]
            cleaned = _clean_window(resources, dataset, window, objects, splits)
            return {
                key: {**entry, **partition_charts(resources.links, dataset, key, "bars")}
                for key, entry in _metadata(dataset, window, cleaned).items()
            }

        new = new_split_factors(resources, dataset, actions)
        late = set()
        if new and new.since:
            late = _cleaned_since(resources, dataset, new.since) - set(context.partition_keys)
        if late:
            context.log.info(f"splits or renames that are new here change {len(late)} partitions since {min(late)}")
        for window in windows(dataset, late, partitions_at_once(dataset)):
            for key, metadata in work(window).items():
                context.log_event(dg.AssetMaterialization(context.asset_key, partition=key, metadata=metadata))
        # Features read them next to the bars, whenever clean.corporate_actions itself is made anew. Not before the
        # partitions that they change have been cleaned: a run that ends here finds them again.
        if new:
            replace_split_factors(resources, dataset, new)
        materialize_windows(context, dataset, work, partitions_at_once(dataset))
        quarantine_rejected(resources, dataset)

    return clean_bars


def _cleaned_since(resources: Resources, dataset: Dataset, first: date) -> set[str]:
    """Keys of the partitions that hold bars of `first` or later."""
    sessions = sessions_with_bars(resources.lake, dataset.name, first)
    known = known_keys(dataset)
    keys = {deciding_key(dataset, key, known) for key in with_partition(sessions, dataset)["partition"].unique()}
    return {key for key in keys if key is not None}


def _clean_window(
    resources: Resources, dataset: Dataset, window: Window, objects: list[StoredObject], splits: pl.DataFrame
) -> Cleaned:
    """Clean the window's objects and replace its rows in the lake."""
    raw = resources.archive.read(objects)
    first, last = window.first, window.last
    if len(raw):
        first = min(first, raw["open_time"].min().date())
        last = max(last, raw["open_time"].max().date())
    sessions = session_table(dataset.calendar, first - timedelta(days=15), last + timedelta(days=2))
    cleaned = clean(raw, dataset, with_partition(sessions, dataset), splits)
    # A row so far off that the calendar has no session for it is filed under its own day.
    quarantine = cleaned.quarantine.with_columns(pl.coalesce("session", pl.col("open_time").dt.date()))
    condition, parameters = window.condition()
    mine = (f"dataset = ? AND {condition}", [dataset.name, *parameters])
    inside = sessions.filter(pl.col("session") >= window.first, pl.col("session") < window.last)
    resources.lake.replace(
        [
            ("clean.bars", *mine, cleaned.bars),
            ("clean.quarantine", f"{mine[0]} AND {_NOT_REJECTED}", mine[1], quarantine),
            ("clean.repairs", *mine, cleaned.repairs),
            ("clean.vendor_differences", *mine, cleaned.differences),
            (
                "clean.sessions",
                *mine,
                inside.select(pl.lit(dataset.name).alias("dataset"), *inside.columns),
            ),
        ]
    )
    return cleaned


def _metadata(dataset: Dataset, window: Window, cleaned: Cleaned) -> PartitionMetadata:
    kept = (
        with_partition(cleaned.bars, dataset)
        .group_by("partition")
        .agg(
            pl.len().alias("dagster/partition_row_count"),
            pl.col("symbol").n_unique().alias("symbols"),
            (pl.col("flags").list.len() > 0).sum().alias("flagged"),
        )
    )
    rejected = (
        with_partition(cleaned.quarantine, dataset)
        .group_by("partition")
        .agg(pl.len().alias("quarantined"), pl.col("reason").value_counts().alias("reasons"))
    )
    mended = with_partition(cleaned.repairs, dataset).group_by("partition").agg(pl.len().alias("repairs"))
    apart = with_partition(cleaned.differences, dataset).group_by("partition").agg(pl.len().alias("vendor_differences"))
    counts: dict[str, dict[str, object]] = {}
    for row in (row for part in (kept, mended, apart) for row in part.iter_rows(named=True)):
        counts.setdefault(row.pop("partition"), {}).update(row)
    for row in rejected.iter_rows(named=True):
        reasons = {entry["reason"]: entry["count"] for entry in row["reasons"]}
        # Rows from before the first partition or after the last are shown with it.
        shown = min(max(row["partition"] or window.keys[0], window.keys[0]), window.keys[-1])
        entry = counts.setdefault(shown, {})
        entry["quarantined"] = entry.get("quarantined", 0) + row["quarantined"]
        entry["quarantine_reasons"] = {**entry.get("quarantine_reasons", {}), **reasons}
    return group_by_key(
        window.keys, counts, {"dagster/partition_row_count": 0, "symbols": 0, "flagged": 0, "quarantined": 0}
    )


def quarantine_rejected(resources: Resources, dataset: Dataset) -> int:
    """Bring records that landing rejected into clean.quarantine, those it does not have yet; returns how many."""
    paths = resources.archive.rejected_objects(dataset.name)
    if not paths:
        return 0
    known = quarantined_objects(resources.lake, dataset.name, "%/refused/%")
    new = sorted(set(paths) - set(known))
    if not new:
        return 0
    rejected = resources.archive.read_rejected(dataset.name, new).with_columns(
        pl.col("open_time").dt.date().alias("session"),
        pl.when(pl.col("line").is_not_null())
        .then(pl.concat_str(pl.lit("line "), "line", pl.lit(": "), "raw"))
        .otherwise("raw")
        .alias("raw"),
    )
    rows = rejected.select(QUARANTINE_SCHEMA.names())
    marks = ", ".join("?" for _ in new)
    resources.lake.replace([("clean.quarantine", f"source_object IN ({marks})", new, rows)])
    return len(rows)

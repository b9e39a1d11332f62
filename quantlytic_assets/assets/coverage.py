"""`<dataset>/coverage`: for every symbol and session what should be there, what is, and why the rest is not."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import polars as pl

from quantlytic_assets.assets.columns import table_metadata
from quantlytic_assets.assets.keys import clean_bars_key, coverage_key
from quantlytic_assets.assets.per_partition import (
    PartitionMetadata,
    group_by_key,
    materialize_windows,
    partition_charts,
)
from quantlytic_assets.calendars.partitions import Window, with_partition
from quantlytic_assets.calendars.sessions import expected_bars
from quantlytic_assets.market_data.quality.coverage import coverage
from quantlytic_assets.resources import Resources
from quantlytic_assets.schemas.clean import COVERAGE
from quantlytic_assets.services.clean import partitions_at_once
from quantlytic_assets.tables.bars import clean_bars
from quantlytic_assets.universe.models import Dataset


def coverage_asset(dataset: Dataset, common: Mapping[str, Any]) -> dg.AssetsDefinition:
    """The asset that writes clean.coverage."""

    @dg.asset(
        key=coverage_key(dataset),
        deps=[clean_bars_key(dataset)],
        description=f"Expected and present bars of {dataset.name} for each symbol and session (clean.coverage), with "
        "the exact missing ranges and the cause of each.",
        kinds={"ducklake", "polars"},
        metadata=table_metadata(COVERAGE),
        required_resource_keys={"quantlytic"},
        **common,
    )
    def coverage_of_bars(context: dg.AssetExecutionContext) -> None:
        resources: Resources = context.resources.quantlytic

        def work(window: Window) -> PartitionMetadata:
            counts = _metadata(dataset, window, cover_window(resources, dataset, window))
            return {
                key: {**entry, **partition_charts(resources.links, dataset, key, "coverage")}
                for key, entry in counts.items()
            }

        materialize_windows(context, dataset, work, partitions_at_once(dataset))

    return coverage_of_bars


def cover_window(resources: Resources, dataset: Dataset, window: Window) -> pl.DataFrame:
    """Compute the coverage of a window's sessions, put it into the lake and return it."""
    condition, parameters = window.condition()
    day = timedelta(days=1)
    # The sessions next to it show whether a quiet minute at midnight is one.
    bars = clean_bars(
        resources.lake,
        dataset.name,
        ["symbol", "open_time"],
        since=window.first - day,
        before=window.last + day,
    )
    last = date.fromordinal(window.last.toordinal() - 1)
    grid = expected_bars(dataset.calendar, dataset.interval, window.first, last)
    traits = resources.traits(dataset)
    attempts = resources.attempts.read(dataset.name, window.first, last)
    covered = coverage(bars, dataset, grid, attempts, traits, datetime.now(UTC))
    resources.lake.replace([("clean.coverage", f"dataset = ? AND {condition}", [dataset.name, *parameters], covered)])
    return covered


def _metadata(dataset: Dataset, window: Window, covered: pl.DataFrame) -> PartitionMetadata:
    keyed = with_partition(covered, dataset)
    counts: dict[str, dict[str, Any]] = {
        row.pop("partition"): row
        for row in keyed.group_by("partition")
        .agg(
            pl.len().alias("dagster/partition_row_count"),
            pl.col("symbol").n_unique().alias("symbols"),
            pl.col("expected_bars", "present_bars", "missing_bars").sum(),
            (pl.col("missing_bars") > 0).sum().alias("holes"),
        )
        .iter_rows(named=True)
    }
    caused = keyed.filter(pl.col("cause").is_not_null())
    causes = caused.group_by("partition", "cause").agg(pl.col("missing_bars").sum())
    for row in causes.iter_rows(named=True):
        counts[row["partition"]].setdefault("missing_by_cause", {})[row["cause"]] = row["missing_bars"]
    empty = {"dagster/partition_row_count": 0, "expected_bars": 0, "present_bars": 0, "missing_bars": 0, "holes": 0}
    return group_by_key(window.keys, counts, empty)

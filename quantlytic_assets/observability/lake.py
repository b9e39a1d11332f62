"""Figures of the lake: bars and the newest of them, holes by cause, sizes of tables."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from prometheus_client.core import GaugeMetricFamily, Metric

from quantlytic_assets.storage.lake import Lake
from quantlytic_assets.tables import bars as bars_table
from quantlytic_assets.tables import coverage as coverage_table
from quantlytic_assets.tables.files import table_files


def table_metrics(lake: Lake, datasets: Sequence[str]) -> list[Metric]:
    """Per dataset: clean bars, when the newest closed, and missing bars by cause; datasets without rows count 0."""
    names = list(datasets)
    bars = GaugeMetricFamily("quantlytic_clean_bars", "rows of clean.bars", labels=["dataset"])
    newest = GaugeMetricFamily(
        "quantlytic_newest_bar_timestamp_seconds", "close time of the newest clean bar, Unix time", labels=["dataset"]
    )
    counted = {row["dataset"]: row for row in bars_table.summary(lake).iter_rows(named=True)}
    for name in names:
        bars.add_metric([name], counted.get(name, {}).get("bars", 0))
        if name in counted:
            newest.add_metric([name], counted[name]["last_close"].timestamp())
    holes = GaugeMetricFamily(
        "quantlytic_hole_bars", "bars that are missing, by the cause of their hole", labels=["dataset", "cause"]
    )
    missing = coverage_table.missing_by_cause(lake)
    for row in missing.filter(pl.col("dataset").is_in(names)).iter_rows(named=True):
        holes.add_metric([row["dataset"], row["cause"]], row["bars"])
    return [bars, newest, holes]


def size_metrics(lake: Lake) -> list[Metric]:
    """Per table: files and bytes that its newest snapshot is made of, deletions included."""
    files = GaugeMetricFamily("quantlytic_lake_files", "Parquet files of a lake table", labels=["table"])
    size = GaugeMetricFamily("quantlytic_lake_bytes", "bytes of a lake table", labels=["table"])
    for row in table_files(lake).iter_rows(named=True):
        files.add_metric([row["table"]], row["files"])
        size.add_metric([row["table"]], row["bytes"])
    return [files, size]

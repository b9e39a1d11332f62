"""Figures of the lake: bars and the newest of them, holes by cause, sizes of tables."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client.core import GaugeMetricFamily, Metric

from quantlytic_assets.storage.lake import Lake


def table_metrics(lake: Lake, datasets: Sequence[str]) -> list[Metric]:
    """Per dataset: clean bars, when the newest closed, and missing bars by cause; datasets without rows count 0."""
    names = list(datasets)
    bars = GaugeMetricFamily("quantlytic_clean_bars", "rows of clean.bars", labels=["dataset"])
    newest = GaugeMetricFamily(
        "quantlytic_newest_bar_timestamp_seconds", "close time of the newest clean bar, Unix time", labels=["dataset"]
    )
    seen = lake.query(
        "SELECT dataset, count(*) AS bars, epoch(max(close_time)) AS newest FROM clean.bars "
        "WHERE dataset IN (SELECT unnest(?::VARCHAR[])) GROUP BY ALL",
        [names],
    )
    counted = {row["dataset"]: row for row in seen.iter_rows(named=True)}
    for name in names:
        bars.add_metric([name], counted.get(name, {}).get("bars", 0))
        if name in counted:
            newest.add_metric([name], counted[name]["newest"])
    holes = GaugeMetricFamily(
        "quantlytic_hole_bars", "bars that are missing, by the cause of their hole", labels=["dataset", "cause"]
    )
    missing = lake.query(
        "SELECT dataset, coalesce(cause, 'unknown') AS cause, sum(missing_bars)::BIGINT AS bars FROM clean.coverage "
        "WHERE missing_bars > 0 AND dataset IN (SELECT unnest(?::VARCHAR[])) GROUP BY ALL",
        [names],
    )
    for row in missing.iter_rows(named=True):
        holes.add_metric([row["dataset"], row["cause"]], row["bars"])
    return [bars, newest, holes]


def size_metrics(lake: Lake) -> list[Metric]:
    """Per table: files and bytes that its newest snapshot is made of, deletions included."""
    files = GaugeMetricFamily("quantlytic_lake_files", "Parquet files of a lake table", labels=["table"])
    size = GaugeMetricFamily("quantlytic_lake_bytes", "bytes of a lake table", labels=["table"])
    # Tables of different schemas share names, and only DuckLake's own catalog knows the schemas by these numbers.
    tables = lake.query(
        "SELECT s.schema_name || '.' || i.table_name AS name, "
        "(i.file_count + i.delete_file_count)::BIGINT AS files, "
        "(i.file_size_bytes + i.delete_file_size_bytes)::BIGINT AS bytes "
        "FROM ducklake_table_info('lake') i JOIN __ducklake_metadata_lake.ducklake_schema s "
        "ON s.schema_id = i.schema_id AND s.end_snapshot IS NULL ORDER BY name"
    )
    for row in tables.iter_rows(named=True):
        files.add_metric([row["name"]], row["files"])
        size.add_metric([row["name"]], row["bytes"])
    return [files, size]

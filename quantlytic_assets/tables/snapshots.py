"""In which snapshots of the lake rows were written."""

from __future__ import annotations

import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.schemas.table import Table
from quantlytic_assets.tables.select import Condition, Queries, rows, where

# One row a snapshot, newest first: `written_at` is null where it has expired.
WRITTEN_SCHEMA = pl.Schema({"snapshot": pl.Int64(), "written_at": TIME})


def written(lake: Queries, table: Table, *conditions: Condition | None) -> pl.DataFrame:
    """WRITTEN_SCHEMA of the rows of a table (no view) that satisfy all conditions."""
    clause, parameters = where(conditions)
    sql = (
        "SELECT snapshot, snapshot_time AS written_at "
        f"FROM (SELECT DISTINCT snapshot_id AS snapshot FROM {table.name}{clause}) AS wrote "
        "LEFT JOIN lake.snapshots() ON snapshot_id = snapshot ORDER BY snapshot DESC"
    )
    return rows(lake, sql, parameters, WRITTEN_SCHEMA)

"""How many files and bytes the lake's tables are made of, from DuckLake's own catalog."""

from __future__ import annotations

import polars as pl

from quantlytic_assets.storage.lake_catalog import METADATA
from quantlytic_assets.tables.select import Queries, rows

# One row a table: files and bytes that its newest snapshot is made of, deletions included.
FILES_SCHEMA = pl.Schema({"table": pl.String, "files": pl.Int64, "bytes": pl.Int64})


def table_files(lake: Queries) -> pl.DataFrame:
    """FILES_SCHEMA of all tables, by name."""
    # Tables of different schemas share names, and only DuckLake's own catalog knows the schemas by these numbers.
    sql = (
        "SELECT s.schema_name || '.' || i.table_name AS \"table\", "
        "(i.file_count + i.delete_file_count)::BIGINT AS files, "
        "(i.file_size_bytes + i.delete_file_size_bytes)::BIGINT AS bytes "
        f"FROM ducklake_table_info('lake') i JOIN {METADATA}.ducklake_schema s "
        "ON s.schema_id = i.schema_id AND s.end_snapshot IS NULL ORDER BY 1"
    )
    return rows(lake, sql, [], FILES_SCHEMA)

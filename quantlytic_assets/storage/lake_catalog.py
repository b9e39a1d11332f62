"""How DuckDB attaches a lake, and what the lake's own catalog says of it."""

from __future__ import annotations

import duckdb

# Where DuckLake keeps its own tables, for a lake attached as `lake`; their columns are part of DuckLake's format.
METADATA = "__ducklake_metadata_lake"


def attach(connection: duckdb.DuckDBPyConnection, catalog: str, data_path: str, *options: str) -> None:
    """Attach the lake of a catalog to a connection, as `lake`. The extensions and secrets that it needs are there."""
    # The catalog's own word for where the data is, is for others.
    given = ", ".join((f"DATA_PATH '{data_path}', OVERRIDE_DATA_PATH", *options))
    connection.execute(f"ATTACH '{catalog}' AS lake ({given})")


def lake_tables(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """The attached lake's tables, as `schema.table`; those of an open transaction are not among them.

    DuckDB's own listing loads what the lake knows of each table's columns, which takes five times as long.
    """
    return {
        f"{schema}.{table}"
        for schema, table in connection.execute(
            f"SELECT s.schema_name, t.table_name FROM {METADATA}.ducklake_table t "
            f"JOIN {METADATA}.ducklake_schema s ON s.schema_id = t.schema_id "
            "WHERE t.end_snapshot IS NULL AND s.end_snapshot IS NULL"
        ).fetchall()
    }

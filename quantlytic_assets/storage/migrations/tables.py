"""What steps of the lake need again and again. Each function may be called twice: the second call does nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


def rename_table(connection: duckdb.DuckDBPyConnection, old: str, new: str) -> None:
    """Rename a table, both names as `schema.table` of one schema, and say its new name in the views that read it."""
    schema, before = old.split(".")
    _, after = new.split(".")
    if _exists(connection, schema, before):
        connection.execute(f'ALTER TABLE lake."{schema}"."{before}" RENAME TO "{after}"')
    for view_schema, view, text in connection.execute(
        "SELECT schema_name, view_name, sql FROM duckdb_views() WHERE database_name = 'lake' AND NOT internal"
    ).fetchall():
        changed = re.sub(rf'(\b|"){schema}("?)\.("?){before}\b("?)', rf"\g<1>{schema}\2.\g<3>{after}\4", text)
        if changed != text:
            body = re.sub(r"^\s*CREATE\s+(OR\s+REPLACE\s+)?VIEW\s+.*?\s+AS\s+", "", changed, flags=re.I | re.S)
            connection.execute(f'CREATE OR REPLACE VIEW lake."{view_schema}"."{view}" AS {body}')


def rename_column(connection: duckdb.DuckDBPyConnection, table: str, old: str, new: str) -> None:
    """Rename a column of `schema.table`. Views that read it are dbt's: they are made anew by the next run."""
    names = columns_of(connection, table)
    if old in names and new not in names:
        connection.execute(f'ALTER TABLE lake.{table} RENAME COLUMN "{old}" TO "{new}"')


def add_column(connection: duckdb.DuckDBPyConnection, table: str, name: str, kind: str) -> None:
    """Add a column of SQL type `kind` to `schema.table`, if there is one; rows that are there have null in it."""
    names = columns_of(connection, table)
    if names and name not in names:
        connection.execute(f'ALTER TABLE lake.{table} ADD COLUMN "{name}" {kind}')


def drop_column(connection: duckdb.DuckDBPyConnection, table: str, name: str) -> None:
    """Drop a column of `schema.table`; snapshots from before keep it."""
    if name in columns_of(connection, table):
        connection.execute(f'ALTER TABLE lake.{table} DROP COLUMN "{name}"')


def drop_table(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    """Drop `schema.table`; snapshots from before keep it."""
    if _exists(connection, *table.split(".")):
        connection.execute(f"DROP TABLE lake.{table}")


def replace_value(connection: duckdb.DuckDBPyConnection, table: str, column: str, old: str, new: str) -> None:
    """Replace a text in a column of `schema.table`."""
    if _exists(connection, *table.split(".")):
        connection.execute(f'UPDATE lake.{table} SET "{column}" = ? WHERE "{column}" = ?', [new, old])


def _exists(connection: duckdb.DuckDBPyConnection, schema: str, table: str) -> bool:
    return bool(
        connection.execute(
            "SELECT 1 FROM duckdb_tables() WHERE database_name = 'lake' AND schema_name = ? AND table_name = ?",
            [schema, table],
        ).fetchall()
    )


def columns_of(connection: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    """The columns of `schema.table` in their order; none where there is no such table."""
    found = connection.execute(
        "SELECT column_name FROM duckdb_columns() WHERE database_name = 'lake' AND schema_name = ? AND table_name = ? "
        "ORDER BY column_index",
        table.split("."),
    )
    return [name for (name,) in found.fetchall()]

"""An existing lake against the declarations of its tables: what a migration has forgotten, or somebody has changed."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from quantlytic_assets.schemas.lake import MADE_BY_DBT, TABLES


@dataclass(frozen=True)
class Difference:
    """Where a lake is not as declared: `found` and `declared` are SQL types, None where a side lacks the column.

    `column` is None where the whole table is missing.
    """

    table: str
    column: str | None
    found: str | None
    declared: str | None

    def __str__(self) -> str:
        if self.column is None:
            return f"{self.table} is missing"
        if self.found is None:
            return f"{self.table} has no column {self.column} {self.declared}"
        if self.declared is None:
            return f"{self.table} has a column {self.column} {self.found}, which is not declared"
        return f"{self.table}.{self.column} is {self.found}, declared {self.declared}"


def differences(connection: duckdb.DuckDBPyConnection) -> list[Difference]:
    """Where the lake that a connection has attached is not as declared, by table and column; empty where it is.

    Tables and views that dbt makes may be missing before its first run. Tables that are not declared are not looked at.
    """
    found: dict[str, dict[str, str]] = {}
    for table, column, kind in connection.execute(
        "SELECT schema_name || '.' || table_name, column_name, data_type FROM duckdb_columns() "
        "WHERE database_name = 'lake' ORDER BY ALL"
    ).fetchall():
        found.setdefault(table, {})[column] = _spelled(kind)
    differing = []
    for name, table in TABLES.items():
        if name not in found:
            if name not in MADE_BY_DBT:
                differing.append(Difference(name, None, None, None))
            continue
        declared = {column.name: _spelled(column.sql_type) for column in table.columns}
        differing += [
            Difference(name, column, found[name].get(column), declared.get(column))
            for column in sorted(declared.keys() | (set() if table.more else found[name].keys()))
            if declared.get(column) != found[name].get(column)
        ]
    return differing


def _spelled(kind: str) -> str:
    """A type in one spelling of the several that DuckDB has."""
    return kind.replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ").replace('"', "")

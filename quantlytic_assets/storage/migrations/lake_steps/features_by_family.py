"""Features have a table a family: features.indicators is a view of these, with the columns that it had.

Rows are carried over as they are. The columns that no library feature has are those of plugins: the family `custom`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantlytic_assets.schemas.features import CLOSES, FAMILIES, FAMILY_KEYS, INDICATORS
from quantlytic_assets.schemas.table import Table, quoted
from quantlytic_assets.storage.dbt_writes import families_query
from quantlytic_assets.storage.migrations.tables import columns_of

if TYPE_CHECKING:
    import duckdb

    from quantlytic_assets.storage.lake import LakePlace


def apply(connection: duckdb.DuckDBPyConnection, place: LakePlace) -> None:
    """Copy the columns to their families' tables and put the view in the table's place."""
    there = columns_of(connection, INDICATORS.name)
    if not there:
        return
    of_family: dict[str, list[str]] = {}
    for name in there:
        if name not in CLOSES.polars:
            of_family.setdefault(_family(name), []).append(name)
    _copy(connection, CLOSES, {column.name: column.sql_type for column in CLOSES.columns})
    keys = {column.name: column.sql_type for column in FAMILY_KEYS}
    for family, names in of_family.items():
        _copy(connection, FAMILIES[family], keys | dict.fromkeys(names, "DOUBLE"))
    connection.execute(f"DROP TABLE lake.{INDICATORS.name}")
    connection.execute(f"CREATE VIEW lake.{INDICATORS.name} AS {families_query(connection)}")


def _copy(connection: duckdb.DuckDBPyConnection, table: Table, columns: dict[str, str]) -> None:
    """Make a table with these columns (name and SQL type) and the old one's rows."""
    declared = ", ".join(f"{_named(name)} {kind}" for name, kind in columns.items())
    names = ", ".join(map(_named, columns))
    connection.execute(f"CREATE TABLE lake.{table.name} ({declared})")
    connection.execute(f"ALTER TABLE lake.{table.name} SET PARTITIONED BY ({', '.join(table.partitioned_by)})")
    connection.execute(f"INSERT INTO lake.{table.name} SELECT {names} FROM lake.{INDICATORS.name}")


def _named(name: str) -> str:
    return quoted(name) if name in CLOSES.polars else f'"{name}"'


def _family(column: str) -> str:
    """The family of a column of the library; one of a plugin is in `custom`."""
    from quantlytic_assets.features.registry import Registry

    try:
        return Registry().of_column(column).spec.family
    except ValueError:
        return "custom"

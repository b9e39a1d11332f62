"""What the UI shows of the tables that an asset writes, from their declarations: columns, types, limits, meanings."""

from __future__ import annotations

import dagster as dg

from quantlytic_assets.schemas.lake import TABLES
from quantlytic_assets.schemas.table import Column, Table


def table_metadata(table: Table, *beside: Table) -> dict[str, object]:
    """Name and columns of the table that an asset writes, and the columns of the others that it writes.

    Those of the lake are known by their writer; `beside` are more.
    """
    name = {"dagster/table_name": table.name} if table.name in TABLES else {}
    same = [other for other in TABLES.values() if other.writer == table.writer and other.name != table.name]
    others = {other.name: dg.MetadataValue.table_schema(column_schema(other)) for other in (*same, *beside)}
    return {**name, "dagster/column_schema": column_schema(table), **others}


def column_schema(table: Table) -> dg.TableSchema:
    """A declaration as the UI shows it."""
    key = [f"one row per {', '.join(table.key)}"] if table.key else []
    return dg.TableSchema(
        columns=[_column(column) for column in table.columns],
        constraints=dg.TableConstraints(other=[*key, *(rule.statement for rule in table.rules)]),
    )


def _column(column: Column) -> dg.TableColumn:
    allowed = [f"one of {', '.join(column.allowed)}"] if column.allowed else []
    return dg.TableColumn(
        column.name,
        column.sql_type,
        description=column.documentation,
        constraints=dg.TableColumnConstraints(
            nullable=column.nullable, other=[*([column.limits] if column.limits else []), *allowed]
        ),
    )

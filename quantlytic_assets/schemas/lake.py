"""All tables of the lake, by who makes them."""

from __future__ import annotations

from quantlytic_assets.schemas import clean, features, ml, trading
from quantlytic_assets.schemas.table import Table

# Written by assets; the lake makes them when it is opened for the first time.
WRITTEN_BY_ASSETS: dict[str, Table] = {table.name: table for table in (*clean.TABLES, *ml.TABLES, *trading.TABLES)}
# Made by dbt's models, with their first run.
MADE_BY_DBT: dict[str, Table] = {table.name: table for table in features.TABLES}
TABLES: dict[str, Table] = {**WRITTEN_BY_ASSETS, **MADE_BY_DBT}
SCHEMAS = tuple(dict.fromkeys(table.schema_name for table in TABLES.values()))

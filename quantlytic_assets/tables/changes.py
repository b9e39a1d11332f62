"""Which sessions of a table have rows that came to the lake after a snapshot."""

from __future__ import annotations

import polars as pl

from quantlytic_assets.schemas.table import Table
from quantlytic_assets.tables.select import Condition, Queries, equal, rows, where


def sessions_since(lake: Queries, table: Table, strategy: str, snapshot: int) -> list:
    """Sessions with rows of a strategy that snapshots after `snapshot` brought, oldest first."""
    clause, parameters = where([equal("strategy", strategy), Condition("snapshot_id > ?", (snapshot,))])
    sql = f"SELECT DISTINCT session FROM {table.name}{clause} ORDER BY session"
    return rows(lake, sql, parameters, pl.Schema({"session": pl.Date}))["session"].to_list()


def newest_snapshot(lake: Queries) -> int:
    """The number of the lake's newest snapshot; 0 before there is a lake."""
    found = lake.query("SELECT max(snapshot_id) AS newest FROM lake.snapshots()")
    return (found["newest"][0] or 0) if found.columns else 0

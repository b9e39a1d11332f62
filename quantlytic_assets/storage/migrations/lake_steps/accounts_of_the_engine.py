"""Accounts are the engine's: trading.accounts and the reference price of orders go.

All orders, fills, positions and equity stay. The account of a strategy with a model goes on from its last published
session (`services.old_accounts`), which needs neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantlytic_assets.storage.migrations.tables import drop_column, drop_table

if TYPE_CHECKING:
    import duckdb

    from quantlytic_assets.storage.lake import LakePlace


def apply(connection: duckdb.DuckDBPyConnection, place: LakePlace) -> None:
    """Drop the table and the column."""
    drop_table(connection, "trading.accounts")
    drop_column(connection, "trading.orders", "reference_price")

"""trading.signals says the target weight of each signal.

Signals that are there have none until they are made again, which `quantlytic demo` and a backfill do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantlytic_assets.storage.migrations.tables import add_column

if TYPE_CHECKING:
    import duckdb

    from quantlytic_assets.storage.lake import LakePlace


def apply(connection: duckdb.DuckDBPyConnection, place: LakePlace) -> None:
    """Add the column."""
    add_column(connection, "trading.signals", "target", "DOUBLE")

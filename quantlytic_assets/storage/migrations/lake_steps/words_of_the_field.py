"""clean.share_counts is clean.split_factors, and an order that a check rejected is `rejected` (was `refused`).

The words are the field's. Rows stay as they are; views that read the table are told its new name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantlytic_assets.storage.migrations.tables import rename_table, replace_value

if TYPE_CHECKING:
    import duckdb

    from quantlytic_assets.storage.lake import LakePlace


def apply(connection: duckdb.DuckDBPyConnection, place: LakePlace) -> None:
    """Rename the table and the status."""
    rename_table(connection, "clean.share_counts", "clean.split_factors")
    replace_value(connection, "trading.orders", "status", "refused", "rejected")

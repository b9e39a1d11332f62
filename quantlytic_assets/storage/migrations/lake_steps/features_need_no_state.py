"""features.indicators has features alone: the averages that RSI went on from (rsi_14_avg_gain, rsi_14_avg_loss) go.

A range of bars is computed from the bars before it that decide its values, and needs no stored state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantlytic_assets.storage.migrations.tables import drop_column

if TYPE_CHECKING:
    import duckdb

    from quantlytic_assets.storage.lake import LakePlace


def apply(connection: duckdb.DuckDBPyConnection, place: LakePlace) -> None:
    """Drop the columns."""
    for name in ("rsi_14_avg_gain", "rsi_14_avg_loss"):
        drop_column(connection, "features.indicators", name)

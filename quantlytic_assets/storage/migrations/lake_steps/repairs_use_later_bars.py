"""clean.repairs says whether a repair rests on later bars (uses_later_bars).

Features may use only repairs that do not. Rows from before have null there, which counts as resting on later bars;
`quantlytic backfill DATASET --from` its first session says it of them too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantlytic_assets.storage.migrations.tables import add_column

if TYPE_CHECKING:
    import duckdb

    from quantlytic_assets.storage.lake import LakePlace


def apply(connection: duckdb.DuckDBPyConnection, place: LakePlace) -> None:
    """Add the column."""
    add_column(connection, "clean.repairs", "uses_later_bars", "BOOLEAN")

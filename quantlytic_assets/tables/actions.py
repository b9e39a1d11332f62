"""What is read of clean.corporate_actions and clean.share_counts."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from quantlytic_assets.schemas.clean import CORPORATE_ACTIONS, SHARE_COUNTS
from quantlytic_assets.tables.select import Queries, equal, select


def split_factors(lake: Queries, dataset: str, columns: Sequence[str]) -> pl.DataFrame:
    """Columns of a dataset's clean.share_counts, by symbol and since."""
    return select(lake, SHARE_COUNTS, columns, equal("dataset", dataset), order=("symbol", "since"))


def dividends(lake: Queries, dataset: str) -> pl.DataFrame:
    """symbol, session (the ex-date), value (cash on a share) of a dataset's dividends."""
    columns = ["symbol", "session", "value"]
    return select(lake, CORPORATE_ACTIONS, columns, equal("dataset", dataset), equal("kind", "dividend"))

"""What is read of clean.corporate_actions, clean.split_factors and clean.followed_split_factors."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from quantlytic_assets.schemas.clean import CORPORATE_ACTIONS, FOLLOWED_SPLIT_FACTORS, SPLIT_FACTORS
from quantlytic_assets.tables.select import Queries, equal, select


def split_factors(lake: Queries, dataset: str, columns: Sequence[str]) -> pl.DataFrame:
    """Columns of a dataset's clean.split_factors, by symbol and since."""
    return select(lake, SPLIT_FACTORS, columns, equal("dataset", dataset), order=("symbol", "since"))


def followed_split_factors(lake: Queries, dataset: str, columns: Sequence[str]) -> pl.DataFrame:
    """The same of clean.followed_split_factors: as it was when all that depends on it had been cleaned."""
    return select(lake, FOLLOWED_SPLIT_FACTORS, columns, equal("dataset", dataset), order=("symbol", "since"))


def corporate_actions(lake: Queries, dataset: str) -> pl.DataFrame:
    """A dataset's corporate actions, in no order."""
    return select(lake, CORPORATE_ACTIONS, CORPORATE_ACTIONS.polars.names(), equal("dataset", dataset))


def dividends(lake: Queries, dataset: str) -> pl.DataFrame:
    """symbol, session (the ex-date), value (cash on a share) of a dataset's dividends."""
    columns = ["symbol", "session", "value"]
    return select(lake, CORPORATE_ACTIONS, columns, equal("dataset", dataset), equal("kind", "dividend"))

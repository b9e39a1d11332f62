"""What is read of ml.predictions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import polars as pl

from quantlytic_assets.schemas.ml import PREDICTIONS
from quantlytic_assets.tables.select import Queries, equal, scalar, select, sessions


def predictions(
    lake: Queries, strategy: str, columns: Sequence[str], *, since: date | None = None, before: date | None = None
) -> pl.DataFrame:
    """Columns of a strategy's predictions of the sessions [since, before), in no order."""
    return select(lake, PREDICTIONS, columns, equal("strategy", strategy), sessions(since, before))


def predicted_sessions(lake: Queries, strategy: str) -> pl.Series:
    """All sessions that the strategy has predictions for, oldest first."""
    found = select(lake, PREDICTIONS, ["session"], equal("strategy", strategy), order=("session",), distinct=True)
    return found["session"]


def first_decision(lake: Queries, strategy: str) -> datetime | None:
    """When the strategy could decide for the first time, UTC; None without predictions."""
    return scalar(lake, PREDICTIONS, "min(available_at)", equal("strategy", strategy))

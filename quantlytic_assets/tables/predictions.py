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


def scores(lake: Queries, strategy: str, *, since: date | None = None, before: date | None = None) -> pl.DataFrame:
    """symbol, open_time and score of a strategy's predictions of the sessions [since, before), in no order."""
    return predictions(lake, strategy, ["symbol", "open_time", "score"], since=since, before=before)


def model_versions(lake: Queries, strategy: str, *, since: date, before: date) -> dict[date, str]:
    """The version of the model that predicted each of the sessions [since, before)."""
    mine = (equal("strategy", strategy), sessions(since, before))
    found = select(lake, PREDICTIONS, ["session", "model_version"], *mine, distinct=True)
    return dict(found.iter_rows())


def predicted_through(lake: Queries, strategy: str, before: date) -> datetime | None:
    """The open time, UTC, of the newest bar of a session before `before` that is predicted; None without any."""
    return scalar(lake, PREDICTIONS, "max(open_time)", equal("strategy", strategy), sessions(None, before))


def first_predicted(lake: Queries, strategy: str) -> date | None:
    """The first session that the strategy has predictions for; None without any."""
    return scalar(lake, PREDICTIONS, "min(session)", equal("strategy", strategy))

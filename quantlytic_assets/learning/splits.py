"""Walk-forward splits that cannot see the future: purged and embargoed.

Purge: a row is used only if its outcome, not merely its features, was known before the cut. Embargo: some sessions
between training and use are left out, because neighbouring rows share most of their windows. The idea is that of
M. Lopez de Prado, Advances in Financial Machine Learning (2018), chapter 7. Nothing here knows of models.
"""

from __future__ import annotations

from datetime import date, datetime

import polars as pl


class NotEnoughHistory(ValueError):
    """Fewer training sessions before the cut than the strategy asks for."""

    def __init__(self, cut: datetime, found: int, needed: int, rows: int) -> None:
        self.cut, self.found, self.needed, self.rows = cut, found, needed, rows
        super().__init__(
            f"{found} sessions ({rows} rows) are left for training before {cut:%Y-%m-%d %H:%M} UTC after purging and "
            f"embargo, {needed} are needed: wait for a later cut, lower min_train_sessions or load older data"
        )


def training_rows(
    frame: pl.DataFrame, cut: datetime, embargo_sessions: int, sessions: pl.Series, min_train_sessions: int = 1
) -> pl.DataFrame:
    """Rows of `frame` that a model used from `cut` on may learn from.

    frame: session, available_at, label_available_at (UTC) and whatever else. cut: aware datetime. sessions: every
    session of the dataset (Date), the cut's included if there is one; the cut's session is the first one on or
    after the cut's UTC date. Kept are rows with available_at < cut, label_available_at < cut and a session at least
    `embargo_sessions` sessions before the cut's. Raises `NotEnoughHistory` if fewer than `min_train_sessions`
    distinct sessions remain, `ValueError` for a cut without a time zone or a negative embargo.
    """
    if cut.tzinfo is None:
        raise ValueError("the cut needs a time zone")
    kept = _before(frame, cut, _embargo_start(cut.date(), embargo_sessions, sessions))
    found = kept["session"].n_unique()
    if found < min_train_sessions:
        raise NotEnoughHistory(cut, found, min_train_sessions, len(kept))
    return kept


def holdout(
    rows: pl.DataFrame, embargo_sessions: int, sessions: pl.Series, fraction: float = 0.2
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Splits training rows into (fit, validate): the last `fraction` of their sessions is for validation.

    The fit part is purged and embargoed against the first moment at which a validation row could have been used, as
    `training_rows` does against its cut. Either part can be empty if there is little history.
    """
    own = rows["session"].unique().sort()
    count = max(1, round(len(own) * fraction)) if len(own) else 0
    if count == 0:
        return rows, rows
    first: date = own[-count]
    validate = rows.filter(pl.col("session") >= first)
    return _before(rows, validate["available_at"].min(), _embargo_start(first, embargo_sessions, sessions)), validate


def _before(frame: pl.DataFrame, cut: datetime, embargoed_from: date | None) -> pl.DataFrame:
    known = (pl.col("available_at") < cut) & (pl.col("label_available_at") < cut)
    return frame.filter(known & (pl.col("session") < embargoed_from) if embargoed_from else pl.lit(False))


def _embargo_start(cut: date, embargo_sessions: int, sessions: pl.Series) -> date | None:
    """The first session that may not be used any more; None if not even one session lies before the embargo."""
    if embargo_sessions < 0:
        raise ValueError("embargo_sessions cannot be negative")
    ordered = sessions.cast(pl.Date).unique().sort()
    # Index of the cut's session; past the end when the calendar stops before the cut, which only lengthens the embargo.
    last_allowed = int(ordered.search_sorted(cut, side="left")) - embargo_sessions
    if last_allowed < 0:
        return None
    if last_allowed + 1 < len(ordered):
        return ordered[last_allowed + 1]
    return date.max

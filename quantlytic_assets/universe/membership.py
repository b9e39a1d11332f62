"""Which symbol belongs to which session: between its own first and last, within those of its dataset, all inclusive.

Said here and nowhere else, of a day, of a table of sessions and of rows.
"""

from __future__ import annotations

from datetime import date

import polars as pl

from quantlytic_assets.universe.models import Dataset, Instrument


def members(dataset: Dataset, day: date) -> list[Instrument]:
    """The symbols that belong to the dataset on a day."""
    spans = zip(dataset.symbols, member_spans(dataset).select("first", "last").iter_rows())
    return [one for one, (first, last) in spans if first <= day and (last is None or day <= last)]


def member_spans(dataset: Dataset, kind: pl.DataType | type[pl.DataType] = pl.String) -> pl.DataFrame:
    """Symbol (of type `kind`), first, last (Date; null: open-ended): the sessions in which each symbol belongs."""
    return pl.DataFrame(
        [
            (
                one.symbol,
                max(one.first or dataset.first_session, dataset.first_session),
                min((day for day in (one.last, dataset.last_session) if day), default=None),
            )
            for one in dataset.symbols
        ],
        schema={"symbol": kind, "first": pl.Date, "last": pl.Date},
        orient="row",
    )


def symbol_sessions(
    dataset: Dataset, sessions: pl.DataFrame, kind: pl.DataType | type[pl.DataType] = pl.String
) -> pl.DataFrame:
    """`sessions` (any rows with a `session`) once for each symbol that belongs to it, symbol first, by symbol."""
    return (
        member_spans(dataset, kind)
        .join(sessions, how="cross")
        .filter(_within("first", "last"))
        .select("symbol", *sessions.columns)
    )


def is_member(dataset: Dataset, rows: pl.DataFrame) -> pl.Series:
    """Whether each row's `symbol` belongs to its `session`; a null session or an unknown symbol does not."""
    spans = member_spans(dataset).rename({"first": "_since", "last": "_until"})
    joined = rows.select("symbol", "session").join(
        spans, on="symbol", how="left", maintain_order="left", validate="m:1"
    )
    return joined.select(_within("_since", "_until").fill_null(False)).to_series()


def _within(first: str, last: str) -> pl.Expr:
    session = pl.col("session")
    return (session >= pl.col(first)) & (pl.col(last).is_null() | (session <= pl.col(last)))

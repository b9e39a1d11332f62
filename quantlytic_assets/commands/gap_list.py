"""Holes as people read them: neighbouring sessions with the same cause and the same next step are one row."""

from __future__ import annotations

import polars as pl

from quantlytic_assets.universe.models import Dataset

NEVER_IMPORTED = "never imported"
_RANGES_SHOWN = 4


def stretches(holes: pl.DataFrame) -> pl.DataFrame:
    """One row a symbol and stretch of neighbouring sessions with the same cause and next step, by symbol and time.

    holes: dataset, symbol, session, at (the session's number among all of the symbol's), expected_bars, missing_bars,
    cause, attempts, ranges, next. Returns dataset, symbol, first, last, sessions, missing_bars, cause, attempts
    (the most), ranges (in words), next.
    """
    start, end, cause = (pl.element().struct.field(name) for name in ("start", "end", "cause"))
    words = pl.format("{}-{} {}", start.dt.to_string("%H:%M"), end.dt.to_string("%H:%M"), cause)
    listed = pl.col("ranges").list.eval(words)
    more = listed.list.len().cast(pl.Int64) - _RANGES_SHOWN
    shape = pl.concat_str(
        listed.list.head(_RANGES_SHOWN).list.join(", "),
        pl.when(more > 0).then(pl.format(" and {} more", more)).otherwise(pl.lit("")),
    )
    same = ("symbol", "cause", "next")
    begins = pl.any_horizontal(
        *(pl.col(name).ne_missing(pl.col(name).shift()) for name in same), pl.col("at") != pl.col("at").shift() + 1
    )
    whole = (pl.col("missing_bars") == pl.col("expected_bars")).all()
    return (
        holes.sort("symbol", "session")
        .with_columns(shape.alias("shape"), begins.fill_null(True).cum_sum().alias("stretch"))
        .group_by("stretch", maintain_order=True)
        .agg(
            pl.col("dataset", "symbol").first(),
            pl.col("session").first().alias("first"),
            pl.col("session").last().alias("last"),
            pl.len().cast(pl.Int64).alias("sessions"),
            pl.col("missing_bars").sum(),
            pl.col("cause").first(),
            pl.col("attempts").max(),
            pl.when(pl.col("shape").n_unique() == 1)
            .then(pl.col("shape").first())
            .when(whole)
            .then(pl.lit("whole sessions"))
            .otherwise(pl.format("{} ranges", pl.col("ranges").list.len().sum()))
            .alias("ranges"),
            pl.col("next").first(),
        )
        .drop("stretch")
    )


def never_imported(dataset: Dataset, covered: pl.DataFrame, decided: pl.DataFrame) -> pl.DataFrame:
    """The columns of `stretches` for each symbol of which a dataset without vendors has nothing at all.

    covered: symbol, expected_bars, missing_bars. decided: symbol, session, bars, decision of every session so far.
    """
    if dataset.vendors:
        return decided.clear().select("symbol")
    held = covered.filter(pl.col("missing_bars") < pl.col("expected_bars"))["symbol"].unique()
    feed = f" or `quantlytic feed {dataset.name}`" if dataset.feed else ""
    brings = pl.format(f"`quantlytic import FILE --dataset {dataset.name} --symbol {{}}`{feed} brings it", "symbol")
    return (
        decided.filter(pl.col("decision") == "no_vendor", ~pl.col("symbol").is_in(held.implode()))
        .sort("symbol", "session")
        .group_by("symbol", maintain_order=True)
        .agg(
            pl.lit(dataset.name).alias("dataset"),
            pl.col("session").first().alias("first"),
            pl.col("session").last().alias("last"),
            pl.len().cast(pl.Int64).alias("sessions"),
            pl.col("bars").sum().alias("missing_bars"),
            pl.lit(NEVER_IMPORTED).alias("cause"),
            pl.lit(0, pl.Int64).alias("attempts"),
            pl.lit("everything").alias("ranges"),
        )
        .with_columns(brings.alias("next"))
    )

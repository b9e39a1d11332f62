"""From which session on bars have to be made anew when splits or renames become known after they were used.

What each session means is in `split_factors`; flags look a few days around a split, further off by `levels`.
"""

from __future__ import annotations

from datetime import date

import polars as pl

from quantlytic_assets.market_data.actions.adjustment import basis, factor_at
from quantlytic_assets.market_data.actions.listings import BEGINNING, with_last_step
from quantlytic_assets.market_data.quality.levels import SPLIT_NEAR


def first_changed(days: pl.DataFrame, before: pl.DataFrame, after: pl.DataFrame) -> date | None:
    """The first session of `days` whose flags or features are others by the counts `after` than by those `before`.

    days: symbol, session, fetched_at, adjustment of bars that there are, in any order; of a day one of each kind is
    enough. before, after: SPLIT_FACTORS_SCHEMA of one dataset. Null where nothing of `days` changes. A split reaches
    sessions before its ex-date too: the few in whose flags it counts, and all whose prices a vendor had adjusted for it
    before anybody here knew.
    """
    steps = pl.concat(
        [one.join(other, on=after.columns, how="anti") for one, other in ((before, after), (after, before))]
    )
    if steps.is_empty():
        return None
    # Where a symbol comes to have steps at all, that of its beginning says nothing new by itself.
    since = steps.filter(pl.col("since") != BEGINNING).group_by("symbol").agg(pl.col("since").min())
    near = days.join(since, on="symbol").filter(pl.col("session") >= pl.col("since") - SPLIT_NEAR)
    old, new = _meaning(days, before), _meaning(days, after)
    apart = days.filter(pl.any_horizontal(old[name].ne_missing(new[name]) for name in old.columns))
    return pl.concat([near["session"], apart["session"]]).min()


def _meaning(days: pl.DataFrame, counts: pl.DataFrame) -> pl.DataFrame:
    """listing, shares and factor of each day, as the model `stg_bars` gives them to its bars."""
    reported = counts.select("symbol", "since", "listing", "company", "shares")
    placed = with_last_step(days, reported, "symbol", "session", "since").with_columns(
        basis().alias("basis"),
        pl.coalesce("listing", "symbol").alias("listing"),
        pl.coalesce("company", "symbol").alias("instrument"),
        pl.col("shares").fill_null(1.0),
    )
    steps = counts.select(pl.col("company").alias("instrument"), pl.col("since").alias("session"), "shares").unique()
    served = factor_at(placed, steps, "basis", "shares").alias("served")
    factor = pl.when(pl.col("adjustment") == "split").then(pl.col("served") / pl.col("shares")).otherwise(1.0)
    return placed.with_columns(served).select("listing", "shares", factor.alias("factor"))

"""How many shares one share has become: what keeps a split from looking like a return.

Everything here goes forward in time. S(session), the product of a company's split ratios up to and on a session, never
changes with a split that comes later, nor does the name of the company; so what was computed on price x S stays right,
and only sessions from the ex-date on are made anew. Prices adjusted backwards, as of a day, are `adjustment`'s.
"""

from __future__ import annotations

import polars as pl

from quantlytic_assets.market_data.actions.adjustment import factor_at, split_steps
from quantlytic_assets.market_data.actions.listings import BEGINNING, listings, with_instrument
from quantlytic_assets.schemas.clean import SPLIT_FACTORS

# Steps in time: from `since` on a symbol means `company`, one share of whose beginning has become `shares`. `listing`
# names the stretch in which the symbol means it: symbol@first session, the symbol alone where it has no beginning. A
# company is called like its first listing. Symbols without splits and renames have no rows: each is one listing of a
# company of its own, with one share.
SPLIT_FACTORS_SCHEMA = SPLIT_FACTORS.polars


def split_factors(actions: pl.DataFrame, dataset: str) -> pl.DataFrame:
    """SPLIT_FACTORS_SCHEMA of one dataset's actions (CORPORATE_ACTIONS_SCHEMA), by symbol and since."""
    stretches = listings(actions.filter(pl.col("kind") == "rename"))
    reported = actions.filter(pl.col("kind") == "split")
    unnamed = reported.select("symbol").unique().join(stretches, on="symbol", how="anti")
    whole = unnamed.select("symbol", BEGINNING.alias("since"), pl.col("symbol").alias("instrument"))
    name = (
        pl.when(pl.col("since") == BEGINNING)
        .then("symbol")
        .otherwise(pl.concat_str("symbol", pl.col("since").dt.to_string("%Y-%m-%d"), separator="@"))
    )
    listed = pl.concat([stretches, whole]).with_columns(name.alias("listing"))
    first = listed.sort("since", "symbol").group_by("instrument").agg(pl.col("listing").first().alias("company"))
    splits = with_instrument(reported, listed)
    steps = split_steps(splits.with_columns(pl.lit(True).alias("known")))
    starts = (
        pl.concat([listed, splits.select("symbol", pl.col("session").alias("since"), "instrument", "listing")])
        .unique(["symbol", "since"])
        .join(first, on="instrument")
    )
    return (
        starts.with_columns(pl.lit(dataset).alias("dataset"), factor_at(starts, steps, "since", "shares"))
        .select(SPLIT_FACTORS_SCHEMA.names())
        .sort("symbol", "since")
    )

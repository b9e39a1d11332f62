"""Whether a rule reads later bars: its targets up to a bar against those from a frame that ends there."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import polars as pl

from quantlytic_assets.strategies.spec import Rule

DIFFERENCES_SCHEMA = pl.Schema(
    {
        "symbol": pl.String,
        "open_time": pl.Datetime("us", "UTC"),
        "cut_after": pl.Datetime("us", "UTC"),
        "target": pl.Float64,
        "target_when_cut": pl.Float64,
    }
)


def look_ahead(rule: Rule, features: pl.DataFrame, cuts: Iterable[datetime]) -> pl.DataFrame:
    """The rows whose target is another one when all bars after a cut are taken away (`DIFFERENCES_SCHEMA`).

    features: the frame of `Rule.targets`, a row a symbol and bar. cuts: the `open_time` of the last bar that stays, one
    a comparison. No row means that no later bar was read at any of the cuts, to the last digit.
    """
    whole = features.select("symbol", "open_time", rule.targets(features))
    found = [DIFFERENCES_SCHEMA.to_frame()]
    for cut in cuts:
        kept = features.filter(pl.col("open_time") <= cut)
        both = whole.filter(pl.col("open_time") <= cut).with_columns(
            rule.targets(kept).alias("target_when_cut"), pl.lit(cut, pl.Datetime("us", "UTC")).alias("cut_after")
        )
        differing = both.filter(pl.col("target").ne_missing(pl.col("target_when_cut")))
        found.append(differing.select(DIFFERENCES_SCHEMA.names()))
    return pl.concat(found, how="vertical_relaxed")

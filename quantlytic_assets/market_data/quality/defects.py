"""Prices that are wrong by a factor one can name: a hundred, or the ratio of a known split. Found, and mended beside.

Single prices are compared with their own bar, whole bars with others near them (`levels`).
Nothing is changed here: `cleaning` flags the bars, and what they probably should have been is a table of its own.
"""

from __future__ import annotations

import math

import polars as pl

from quantlytic_assets.market_data.quality.levels import (
    HUNDRED_TOLERANCE,
    LEAST_SPLIT,
    SPLIT_TOLERANCE,
    large_splits,
    split_tolerance,
)
from quantlytic_assets.schemas.clean import REPAIRS
from quantlytic_assets.schemas.vocabulary import DEFECTS

REPAIRS_SCHEMA = REPAIRS.polars

# A bar with a price from before a large split is at least so much higher than low.
LEAST_WIDTH = math.exp(LEAST_SPLIT * (1 - SPLIT_TOLERANCE))

_FIELDS = ("open", "high", "low")
_PRICES = (*_FIELDS, "close")


def find_defects(bars: pl.DataFrame, splits: pl.DataFrame, levels: pl.DataFrame) -> pl.DataFrame:
    """One row for each row of `bars`, in their order: a Boolean column for each of DEFECTS, then mended prices, volume.

    The last column, `uses_later_bars`, says whether the mended values rest on bars after the row: what a price is off
    by within its own bar can be told from that bar, which of two levels is right only from what follows. Nothing that
    must not see the future may use such a repair.

    `bars`: symbol, partition, session, prices, volume, adjustment, fetched_at, sorted by symbol and time; `splits`:
    symbol, session (ex-date), value (new shares for one old); `levels`: `price_levels` of the bars.
    """
    marks = (*DEFECTS, "uses_later_bars")
    frame = bars.select("symbol", "session", *_PRICES, "volume").with_columns(
        pl.lit(False).alias(name) for name in marks
    )
    frame = _mend_levels(_mend_fields(frame, splits), levels)
    some = pl.any_horizontal(*DEFECTS)
    return frame.select(
        *DEFECTS,
        "open",
        # A print from elsewhere was the bar's high or low only because it was wrong.
        pl.when(some).then(pl.max_horizontal(_PRICES)).otherwise("high").alias("high"),
        pl.when(some).then(pl.min_horizontal(_PRICES)).otherwise("low").alias("low"),
        "close",
        "volume",
        "uses_later_bars",
    )


def _mend_fields(frame: pl.DataFrame, splits: pl.DataFrame) -> pl.DataFrame:
    """Single prices that are off by a factor beside their own bar's close."""
    # Hardly a partition has a bar so wide, and the rest is not for free.
    if not frame.select((pl.col("high") / pl.col("low") > LEAST_WIDTH).any()).item():
        return frame
    days = large_splits(splits).rename({"ex": "session"}).group_by("symbol", "session").agg(pl.col("ratio").product())
    found = frame.join(days, on=["symbol", "session"], how="left", maintain_order="left")
    for name in _FIELDS:
        apart = (pl.col(name) / pl.col("close")).log()
        printed = ((apart - pl.col("ratio").log()).abs() <= split_tolerance(pl.col("ratio"))).fill_null(False)
        hundredfold = ~printed & ((apart.abs() - math.log(100)).abs() <= HUNDRED_TOLERANCE)
        found = found.with_columns(
            (pl.col("pre_split_print") | printed).alias("pre_split_print"),
            (pl.col("times_100") | hundredfold).alias("times_100"),
            pl.when(printed)
            .then(pl.col(name) / pl.col("ratio"))
            .when(hundredfold & (apart > 0))
            .then(pl.col(name) / 100)
            .when(hundredfold)
            .then(pl.col(name) * 100)
            .otherwise(name)
            .alias(name),
        )
    return found.drop("ratio")


def _mend_levels(frame: pl.DataFrame, levels: pl.DataFrame) -> pl.DataFrame:
    """Bars at a wrong level: each is off as the next row of `levels` is."""
    marks = ("times_100", "missing_split", "doubled_split")
    if not levels.select(pl.any_horizontal(marks).any()).item():
        return frame
    factors = levels.select(
        "row", pl.col("factor").alias("_by"), pl.col("split_factor").alias("_shares"), pl.col(marks).name.prefix("_")
    )
    numbered = frame.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    off = numbered.join(factors, on="row", how="left", maintain_order="left").with_columns(
        pl.col("_by", "_shares", *(f"_{name}" for name in marks)).backward_fill()
    )
    return off.with_columns(
        *((pl.col(name) | pl.col(f"_{name}")).alias(name) for name in marks),
        (pl.col("uses_later_bars") | pl.any_horizontal(f"_{name}" for name in marks)).alias("uses_later_bars"),
        *(pl.col(name) / pl.col("_by") for name in _PRICES),
        pl.col("volume") * pl.col("_shares"),
    ).select(frame.columns)

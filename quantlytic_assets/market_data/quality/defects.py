"""Prices that are wrong by a factor one can name: a hundred, or the ratio of a known split. Found, and mended beside.

Each is judged within the symbol's partition, so that a bar's flags depend on its partition and the known splits alone.
Nothing is changed here: `cleaning` flags the bars, and what they probably should have been is a table of its own.
"""

from __future__ import annotations

import math
from datetime import timedelta

import polars as pl

from quantlytic_assets.market_data.actions.adjustment import basis, factor_at, split_steps
from quantlytic_assets.schemas.clean import REPAIRS
from quantlytic_assets.schemas.vocabulary import DEFECTS

REPAIRS_SCHEMA = REPAIRS.polars

# How far a move may be from the factor it is taken for, in logs: that much of the market's own may be in it.
HUNDRED_TOLERANCE = 0.4
SPLIT_TOLERANCE = 0.25
SPLIT_TOLERANCE_MOST = 1.0
# A ratio nearer to one than this can't be told from a day's move.
LEAST_SPLIT = math.log(1.5)
# A bar with a price from before such a split is at least so much higher than low.
LEAST_WIDTH = math.exp(LEAST_SPLIT * (1 - SPLIT_TOLERANCE))
# Vendors put a split a few days early or late.
SPLIT_REACH = timedelta(days=7)

_FIELDS = ("open", "high", "low")
_PRICES = (*_FIELDS, "close")


def find_defects(bars: pl.DataFrame, splits: pl.DataFrame) -> pl.DataFrame:
    """One row for each row of `bars`, in their order: a Boolean column for each of DEFECTS, then mended prices, volume.

    The last column, `uses_later_bars`, says whether the mended values rest on bars after the row: what a price is off
    by within its own bar can be told from that bar, which of two levels is right only from what follows. Nothing that
    must not see the future may use such a repair.

    `bars`: symbol, partition, session, prices, volume, adjustment, fetched_at, sorted by symbol and time; `splits`:
    symbol, session (ex-date), value (new shares for one old).
    """
    marks = (*DEFECTS, "uses_later_bars")
    frame = _with_steady_close(bars, splits).with_columns(pl.lit(False).alias(name) for name in marks)
    frame = _mend_fields(frame, splits)
    frame = _mend_split_levels(frame, splits)
    frame = _mend_hundreds(frame)
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


def steady_close(bars: pl.DataFrame, splits: pl.DataFrame) -> pl.Series:
    """Closes of `bars` in shares of long ago, whatever they are adjusted for: without a defect no split moves them."""
    return _with_steady_close(bars, splits)["steady"]


def _with_steady_close(bars: pl.DataFrame, splits: pl.DataFrame) -> pl.DataFrame:
    steps = split_steps(
        splits.select(pl.col("symbol").alias("instrument"), "session", "value", pl.lit(True).alias("known"))
    )
    placed = bars.select(pl.col("symbol").alias("instrument"), basis().alias("basis"))
    shares = factor_at(placed, steps, "basis", "shares") if len(steps) else pl.lit(1.0)
    return bars.select(
        pl.struct("symbol", "partition").rle_id().alias("run"),
        "symbol",
        "session",
        *_PRICES,
        "volume",
        "adjustment",
        (pl.col("close") * shares).alias("steady"),
    )


def _tolerance(ratio: pl.Expr) -> pl.Expr:
    return (ratio.log().abs() * SPLIT_TOLERANCE).clip(upper_bound=SPLIT_TOLERANCE_MOST)


def _large(splits: pl.DataFrame) -> pl.DataFrame:
    return splits.filter(pl.col("value").log().abs() >= LEAST_SPLIT).select(
        "symbol", pl.col("session").alias("ex"), pl.col("value").alias("ratio")
    )


def _mend_fields(frame: pl.DataFrame, splits: pl.DataFrame) -> pl.DataFrame:
    """Single prices that are off by a factor beside their own bar's close."""
    # Hardly a partition has a bar so wide, and the rest is not for free.
    if not frame.select((pl.col("high") / pl.col("low") > LEAST_WIDTH).any()).item():
        return frame
    days = _large(splits).rename({"ex": "session"}).group_by("symbol", "session").agg(pl.col("ratio").product())
    found = frame.join(days, on=["symbol", "session"], how="left", maintain_order="left")
    for name in _FIELDS:
        apart = (pl.col(name) / pl.col("close")).log()
        printed = ((apart - pl.col("ratio").log()).abs() <= _tolerance(pl.col("ratio"))).fill_null(False)
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


def _mend_split_levels(frame: pl.DataFrame, splits: pl.DataFrame) -> pl.DataFrame:
    """Stretches of bars that are apart from the partition's last ones by a split's ratio."""
    numbered = frame.with_row_index("row")
    runs = numbered.group_by("run", "symbol").agg(
        pl.col("session").min().alias("first"), pl.col("session").max().alias("last")
    )
    near = (
        _large(splits)
        .join(runs, on="symbol")
        .filter(pl.col("first") <= pl.col("ex") + SPLIT_REACH, pl.col("last") >= pl.col("ex") - SPLIT_REACH)
        .select("run", "ex", "ratio")
    )
    if near.is_empty():
        return frame
    move = (pl.col("steady") / pl.col("steady").shift()).log()
    close_by = (pl.col("session") - pl.col("ex")).abs() <= SPLIT_REACH
    up = close_by & ((move - pl.col("ratio").log()).abs() <= _tolerance(pl.col("ratio")))
    down = close_by & ((move + pl.col("ratio").log()).abs() <= _tolerance(pl.col("ratio")))
    level = (up.fill_null(False).cast(pl.Int8) - down.fill_null(False).cast(pl.Int8)).cum_sum()
    before = (pl.col("session") < pl.col("ex")) & (pl.col("adjustment") == "none")
    off = (
        numbered.join(near, on="run")
        .sort("run", "ex", "row")
        .with_columns((level - level.last()).over("run", "ex", order_by="row").alias("off"))
        .filter(pl.col("off") != 0)
        .with_columns((pl.when(before).then(pl.col("off") < 0).otherwise(pl.col("off") > 0)).alias("missing"))
        .group_by("row")
        .agg(
            pl.col("ratio").pow(pl.col("off")).product().alias("factor"),
            pl.col("missing").any().alias("is_missing"),
            (~pl.col("missing")).any().alias("is_doubled"),
        )
    )
    factor = pl.col("factor").fill_null(1.0)
    return (
        numbered.join(off, on="row", how="left", maintain_order="left")
        .with_columns(
            pl.col("is_missing").fill_null(False).alias("missing_split"),
            pl.col("is_doubled").fill_null(False).alias("doubled_split"),
            (pl.col("uses_later_bars") | pl.col("factor").is_not_null()).alias("uses_later_bars"),
            *(pl.col(name) / factor for name in (*_PRICES, "steady")),
            pl.col("volume") * factor,
        )
        .drop("row", "factor", "is_missing", "is_doubled")
    )


def _mend_hundreds(frame: pl.DataFrame) -> pl.DataFrame:
    """Stretches of bars that are a hundred times above or below the level at which most bars were traded."""
    times = pl.col("steady") / pl.col("steady").shift()
    within = math.exp(HUNDRED_TOLERANCE)
    same_run = pl.col("run") == pl.col("run").shift()
    step = (
        pl.when(same_run & times.is_between(100 / within, 100 * within))
        .then(1.0)
        .when(same_run & times.is_between(0.01 / within, 0.01 * within))
        .then(-1.0)
        .otherwise(0.0)
    )
    numbered = frame.with_row_index("row").with_columns(step.fill_null(0.0).alias("step"))
    odd = numbered.filter((pl.col("step") != 0).any().over("run"))
    if odd.is_empty():
        return frame
    levelled = odd.with_columns(pl.col("step").cum_sum().over("run", order_by="row").alias("level"))
    right = (
        levelled.group_by("run", "level")
        .agg((pl.col("volume") > 0).sum().alias("traded"), pl.len().alias("bars"))
        .sort("run", "traded", "bars", "level")
        .group_by("run", maintain_order=True)
        .agg(pl.col("level").last().alias("right"))
    )
    off = levelled.join(right, on="run").select("row", (pl.col("level") - pl.col("right")).alias("off"))
    factor = pl.lit(100.0).pow(pl.col("off").fill_null(0.0))
    is_off = pl.col("off").fill_null(0.0) != 0
    return (
        numbered.join(off, on="row", how="left", maintain_order="left")
        .with_columns(
            (pl.col("times_100") | is_off).alias("times_100"),
            (pl.col("uses_later_bars") | is_off).alias("uses_later_bars"),
            *(pl.col(name) / factor for name in _PRICES),
        )
        .drop("row", "step", "off")
    )

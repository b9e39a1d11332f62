"""At which level a symbol's prices are: a hundred times off, or off by the ratio of a known split, bar by bar.

A level is right or wrong beside others only, and a month that is served in pence shows nothing by itself. So a
partition is compared with two partitions before it and two after it, as far as they are near. What is needed of them
is little: the bars at which a level can begin or end (`price_levels`), which the lake keeps for each partition.

The result for a partition follows from its own bars, those of its neighbours and the known splits, in whatever order
they were cleaned. Functions are pure; what must be cleaned again is decided in `services.clean`.
"""

from __future__ import annotations

import math
from datetime import timedelta

import polars as pl

from quantlytic_assets.market_data.actions.adjustment import basis, factor_at, split_steps
from quantlytic_assets.schemas.clean import PRICE_LEVELS

LEVELS_SCHEMA = PRICE_LEVELS.polars

# How far a move may be from the factor it is taken for, in logs: that much of the market's own may be in it.
HUNDRED_TOLERANCE = 0.4
SPLIT_TOLERANCE = 0.25
SPLIT_TOLERANCE_MOST = 1.0
# A ratio nearer to one than this can't be told from a day's move.
LEAST_SPLIT = math.log(1.5)
# Vendors put a split some days early or late. Further off, a move has to be nearer to the split's ratio.
SPLIT_NEAR = timedelta(days=7)
SPLIT_REACH = timedelta(days=30)
FAR_TOLERANCE = 0.5
# Partitions on either side that a partition is compared with.
NEIGHBOURS = 2

# No move that is smaller is taken for a defect.
_LEAST_MOVE = LEAST_SPLIT * (1 - SPLIT_TOLERANCE)
_OUTLINE = ("symbol", "partition", "session", "bar", "step", "close", "traded", "bars", "adjustment", "fetched_at")
_MARKS = ("times_100", "missing_split", "doubled_split")


def neighbours_within(partition: str) -> timedelta:
    """How far from a partition its neighbours may be, of datasets partitioned by `month` or `session`."""
    return timedelta(days=70 if partition == "month" else 10)


def price_levels(
    bars: pl.DataFrame, splits: pl.DataFrame, within: timedelta, context: pl.DataFrame | None = None
) -> pl.DataFrame:
    """The bars at which levels begin or end, with what each is off by; bars between two of them are as the later one.

    bars: symbol, partition, session, close, volume, adjustment, fetched_at, sorted by symbol and time; splits: symbol,
    session (ex-date), value (new shares for one old); within: see `neighbours_within`; context: LEVELS_SCHEMA rows of
    other partitions, with `partition`.

    Columns: those of LEVELS_SCHEMA but for dataset, `partition`, `row` (position in `bars`) and whether the bar is
    `times_100`, `missing_split` or `doubled_split`. `factor` is what prices are to be divided by, `split_factor` its
    part that is shares: volumes are to be multiplied by it.
    """
    own = _outline(bars, splits)
    if context is not None and len(context):
        # Symbols and neighbourhoods in which nothing moves need no comparison.
        known = context.select(_OUTLINE).join(own.select("symbol").unique(), on="symbol", how="semi")
        own = pl.concat([own, known.with_columns(pl.lit(None, pl.Int64).alias("row")).select(own.columns)])
    return with_factors(own, splits, within).filter(pl.col("row").is_not_null()).sort("row")


def with_factors(levels: pl.DataFrame, splits: pl.DataFrame, within: timedelta) -> pl.DataFrame:
    """`levels` (LEVELS_SCHEMA with `partition`) with factor, split_factor and marks anew, by symbol and time.

    Each partition is compared with those of its neighbours that are among the rows.
    """
    ordered = levels.drop("factor", strict=False).sort("symbol", "session", "bar").with_row_index("at")
    chain = ordered.with_columns(
        pl.struct("symbol", "partition").rle_id().cast(pl.Int64).alias("part"),
        (pl.col("close") * _shares(ordered, splits)).alias("steady"),
        pl.col("session").shift().alias("before"),
    ).with_columns(
        # Between two rows of a partition there are others, unless the second one says that it follows a step.
        pl.when(
            (pl.col("symbol") == pl.col("symbol").shift())
            & (pl.col("step") | (pl.col("part") != pl.col("part").shift()))
        )
        .then((pl.col("steady") / pl.col("steady").shift()).log())
        .alias("move")
    )
    window = _windows(chain, within)
    unmarked = [pl.lit(1.0).alias("factor"), pl.lit(1.0).alias("split_factor")]
    unmarked += [pl.lit(False).alias(name) for name in _MARKS]
    if window.is_empty():
        return ordered.with_columns(unmarked).drop("at")
    found = _hundreds(_splits_off(window, splits)).filter(pl.col("run") == pl.col("part"))
    found = found.select("at", (pl.col("split_factor") * pl.col("hundred")).alias("factor"), "split_factor", *_MARKS)
    filled = ordered.join(found, on="at", how="left", maintain_order="left")
    return filled.with_columns(pl.col("factor", "split_factor").fill_null(1.0), pl.col(_MARKS).fill_null(False)).drop(
        "at"
    )


def _outline(bars: pl.DataFrame, splits: pl.DataFrame) -> pl.DataFrame:
    """_OUTLINE and `row` of first and last bars of a symbol's partition, and of those on either side of a large move.

    traded, bars: how many bars since the outline's row before, this one included, had a volume, and were.
    """
    frame = bars.select(
        "symbol",
        "partition",
        "session",
        "close",
        "adjustment",
        "fetched_at",
        pl.struct("symbol", "partition").rle_id().alias("run"),
        (pl.col("volume") > 0).cast(pl.Int64).cum_sum().alias("traded"),
        _shares(bars, splits).alias("shares"),
    ).with_row_index("row")
    begins = (pl.col("run") != pl.col("run").shift()).fill_null(True)
    ends = (pl.col("run") != pl.col("run").shift(-1)).fill_null(True)
    raw, shares = (pl.col(name) / pl.col(name).shift() for name in ("close", "shares"))
    moved = (raw.log().abs() >= _LEAST_MOVE) | ((raw * shares).log().abs() >= _LEAST_MOVE)
    marked = frame.with_columns(begins.alias("begins"), (moved & ~begins).fill_null(False).alias("step"))
    kept = marked.filter(pl.col("begins") | ends | pl.col("step") | pl.col("step").shift(-1).fill_null(False))
    return kept.with_columns(
        pl.col("row").cast(pl.Int64),
        (pl.col("row").cast(pl.Int64) - pl.col("row").cast(pl.Int64).first().over("run")).alias("bar"),
        pl.col("traded").diff().fill_null(pl.col("traded")),
        pl.col("row").cast(pl.Int64).diff().fill_null(pl.col("row").cast(pl.Int64) + 1).alias("bars"),
    ).select(*_OUTLINE, "row")


def _shares(bars: pl.DataFrame, splits: pl.DataFrame) -> pl.Series:
    """What one share of long ago has become on the day in whose shares each bar's prices are."""
    steps = split_steps(
        splits.select(pl.col("symbol").alias("instrument"), "session", "value", pl.lit(True).alias("known"))
    )
    if steps.is_empty():
        return pl.repeat(1.0, len(bars), dtype=pl.Float64, eager=True)
    placed = bars.select(pl.col("symbol").alias("instrument"), basis().alias("basis"))
    return factor_at(placed, steps, "basis", "shares")


def steady_close(bars: pl.DataFrame, splits: pl.DataFrame) -> pl.Series:
    """Closes of `bars` in shares of long ago, whatever they are adjusted for: without a defect no split moves them."""
    return (bars["close"] * _shares(bars, splits)).alias("steady")


def large_splits(splits: pl.DataFrame) -> pl.DataFrame:
    """symbol, ex and ratio of the splits that can be told from a day's move."""
    return splits.filter(pl.col("value").log().abs() >= LEAST_SPLIT).select(
        "symbol", pl.col("session").alias("ex"), pl.col("value").alias("ratio")
    )


def split_tolerance(ratio: pl.Expr) -> pl.Expr:
    """How far a move may be from a split's ratio, in logs."""
    return (ratio.log().abs() * SPLIT_TOLERANCE).clip(upper_bound=SPLIT_TOLERANCE_MOST)


def _windows(chain: pl.DataFrame, within: timedelta) -> pl.DataFrame:
    """The rows of each partition (`run`) that has a large move in its neighbourhood, and of the partitions there."""
    moved = chain.filter(pl.col("move").abs() >= _LEAST_MOVE)["part"].unique()
    parts = chain.group_by("part", "symbol").agg(
        pl.col("session").min().alias("first"), pl.col("session").max().alias("last")
    )
    # A move at the beginning of a partition is also one at the end of the partition before.
    near = pl.DataFrame({"part": moved}).join(
        pl.DataFrame({"by": list(range(-NEIGHBOURS - 1, NEIGHBOURS + 1))}), how="cross"
    )
    runs = parts.join(near.select(pl.col("part") + pl.col("by")).unique(), on="part", how="semi")
    apart = pl.DataFrame({"by": list(range(-NEIGHBOURS, NEIGHBOURS + 1))}, schema={"by": pl.Int64})
    pairs = (
        runs.rename({"part": "run"})
        .join(apart, how="cross")
        .with_columns((pl.col("run") + pl.col("by")).alias("part"))
        .join(parts, on=["part", "symbol"], suffix="_there")
        .filter(
            pl.col("last_there") >= pl.col("first") - within,
            pl.col("first_there") <= pl.col("last") + within,
        )
        .select("run", "part")
    )
    window = pairs.join(chain, on="part").sort("run", "at")
    begins = pl.col("run") != pl.col("run").shift()
    return window.with_columns(pl.when(~begins).then("move").alias("move"))


def _splits_off(window: pl.DataFrame, splits: pl.DataFrame) -> pl.DataFrame:
    """`window` with split_factor and marks of bars that are apart from the window's last ones by a split's ratio."""
    runs = window.group_by("run", "symbol").agg(
        pl.col("session").min().alias("first"), pl.col("session").max().alias("last")
    )
    near = (
        large_splits(splits)
        .join(runs, on="symbol")
        .filter(pl.col("first") <= pl.col("ex") + SPLIT_REACH, pl.col("last") >= pl.col("ex") - SPLIT_REACH)
        .select("run", "ex", "ratio")
    )
    # Bars may be missing: the move is somewhere between the two.
    between = (pl.col("before") < pl.col("ex")) & (pl.col("session") >= pl.col("ex"))
    days = pl.min_horizontal((pl.col(name) - pl.col("ex")).abs() for name in ("session", "before"))
    distance = pl.when(between).then(pl.duration(days=0)).otherwise(days)
    strict = pl.when(distance <= SPLIT_NEAR).then(1.0).when(distance <= SPLIT_REACH).then(FAR_TOLERANCE)
    tolerance = split_tolerance(pl.col("ratio")) * strict
    up = (pl.col("move") - pl.col("ratio").log()).abs() <= tolerance
    down = (pl.col("move") + pl.col("ratio").log()).abs() <= tolerance
    level = (up.fill_null(False).cast(pl.Int8) - down.fill_null(False).cast(pl.Int8)).cum_sum()
    untouched = (pl.col("session") < pl.col("ex")) & (pl.col("adjustment") == "none")
    off = (
        window.join(near, on="run")
        .sort("run", "ex", "at")
        .with_columns((level - level.last()).over("run", "ex", order_by="at").alias("off"))
        .filter(pl.col("off") != 0)
        .with_columns((pl.when(untouched).then(pl.col("off") < 0).otherwise(pl.col("off") > 0)).alias("missing"))
        .group_by("run", "at")
        .agg(
            pl.col("ratio").pow(pl.col("off")).product().alias("split_factor"),
            pl.col("missing").any().alias("missing_split"),
            (~pl.col("missing")).any().alias("doubled_split"),
        )
    )
    return (
        window.join(off, on=["run", "at"], how="left", maintain_order="left")
        .with_columns(pl.col("split_factor").fill_null(1.0), pl.col("missing_split", "doubled_split").fill_null(False))
        .with_columns(
            # What is left of the moves once the splits are mended.
            (pl.col("move") - (pl.col("split_factor") / pl.col("split_factor").shift()).log()).alias("move")
        )
    )


def _hundreds(window: pl.DataFrame) -> pl.DataFrame:
    """`window` with `hundred` and times_100: off the level at which most of the window's bars were traded."""
    by_hundred = (pl.col("move").abs() - math.log(100)).abs() <= HUNDRED_TOLERANCE
    step = pl.when(by_hundred).then(pl.col("move").sign()).otherwise(0.0).fill_null(0.0)
    levelled = window.with_columns(step.cum_sum().over("run", order_by="at").alias("level"))
    own = pl.col("part") == pl.col("run")
    right = (
        levelled.group_by("run", "level")
        # Where as many were traded at either level a partition's own are taken to be right.
        .agg(pl.col("traded", "bars").sum(), pl.col("bars").filter(own).sum().alias("own"))
        .sort("run", "traded", "bars", "own", "level")
        .group_by("run", maintain_order=True)
        .agg(pl.col("level").last().alias("right"))
    )
    off = pl.col("level") - pl.col("right")
    return (
        levelled.join(right, on="run", how="left", maintain_order="left")
        .with_columns(pl.lit(100.0).pow(off).alias("hundred"), (off != 0).alias("times_100"))
        .drop("level", "right")
    )

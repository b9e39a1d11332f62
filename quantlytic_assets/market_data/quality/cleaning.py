"""Which archived rows become bars: every rule by which a row is placed, rejected, preferred to another or flagged.

Pure functions on frames. Where rows come from and go to is decided in `storage`; which sessions there are, in
`sessions`; what is not there at all, in `coverage`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.calendars.intervals import INTERVALS, TIME
from quantlytic_assets.calendars.sessions import assign_sessions, calendar_timezone
from quantlytic_assets.market_data.bars import CLEAN_SCHEMA, QUARANTINE_SCHEMA, RAW_SCHEMA, SOURCED_SCHEMA
from quantlytic_assets.market_data.quality.defects import REPAIRS_SCHEMA, find_defects
from quantlytic_assets.market_data.quality.levels import LEVELS_SCHEMA, neighbours_within, price_levels, steady_close
from quantlytic_assets.market_data.quality.vendor_comparison import DEFAULT_TOLERANCE_BPS, between_vendors
from quantlytic_assets.schemas.clean import OHLC_TOLERANCE
from quantlytic_assets.schemas.vocabulary import ADJUSTMENTS, DEFECTS, FLAGS
from quantlytic_assets.universe.membership import is_member

if TYPE_CHECKING:
    from quantlytic_assets.universe.models import Dataset

# Reason → what is wrong with the row. The first that applies is the row's reason: whether it belongs here at all
# comes before what it says, and only rows that are good by themselves compete for the same bar.
REASONS: dict[str, str] = {
    "not_in_universe": "The symbol is not in the dataset's universe on that session, or the session is outside the "
    "dataset's first and last one.",
    "out_of_session": "The bar opens when the exchange is closed, by the dataset's calendar.",
    "off_grid": "The bar does not open a whole number of intervals after the session's open (or its lunch break).",
    "unknown_adjustment": "The adjustment is neither none nor split, so the prices can't be compared with others.",
    "null_price": "One of open, high, low and close is missing or not a number.",
    "non_finite_price": "A price or the volume is infinite.",
    "non_positive_price": "A price is zero or negative.",
    "bad_ohlc": "The high is below the open or close, or the low is above one of them.",
    "null_volume": "The volume is missing or not a number although the prices are there.",
    "negative_volume": "The volume is negative.",
    "superseded": "Another row for the same symbol and open time was fetched, or archived, later with other values.",
}

# A jump is a log return beyond the floor and beyond so many times the symbol's usual one in the partition, where
# there are enough returns for a usual one: the median of two would be half a jump itself.
JUMP_MULTIPLE = 12.0
JUMP_RETURNS_NEEDED = 10
JUMP_FLOOR_DAILY = 0.25
JUMP_FLOOR_INTRADAY = 0.05

_PRICES = ("open", "high", "low", "close")
_VALUES = (*_PRICES, "volume", "vwap", "trade_count", "adjustment")
_KEY = ["symbol", "_start"]
_NO_SPLITS = {"symbol": pl.String, "session": pl.Date, "value": pl.Float64}
# A symbol's records stand in one partition of the bus, in the order of their offsets; those of a topic that was made
# anew come after all of the one before it. Where they came from decides what would be a matter of chance otherwise.
_PRECEDENCE = ["fetched_at", "_life", "bus_offset", "source_object", "source_row"]
# `<topic>@<n>` is the n-th topic of its name after the first.
_LIFE = r"@(\d+)\.\d+\.\d+-\d+\.parquet$"


@dataclass(frozen=True)
class Cleaned:
    """The two ways out: `bars` (CLEAN_SCHEMA by symbol, open_time) and `quarantine` (QUARANTINE_SCHEMA).

    Beside them `repairs` (REPAIRS_SCHEMA): what those of `bars` that are flagged with one of DEFECTS should probably
    be, `differences` (DIFFERENCES_SCHEMA): where another vendor said something else of one of `bars`, and `levels`
    (LEVELS_SCHEMA): what other partitions are compared with.
    """

    bars: pl.DataFrame
    quarantine: pl.DataFrame
    repairs: pl.DataFrame
    differences: pl.DataFrame
    levels: pl.DataFrame


def clean(
    raw: pl.DataFrame,
    dataset: Dataset,
    sessions: pl.DataFrame,
    splits: pl.DataFrame | None = None,
    neighbours: pl.DataFrame | None = None,
) -> Cleaned:
    """Place, check, de-duplicate and flag archived rows.

    `raw`: SOURCED_SCHEMA rows in any order, of whole partitions; the result depends on the set of rows alone.
    `sessions`: `session_table` of the dataset's calendar over all of them, with the `partition` (text) each session
    belongs to: what is usual for a symbol, and so what a jump is, is decided within its partition. `splits`: the known
    ones (symbol, session, value); None: none. `neighbours`: LEVELS_SCHEMA rows of other partitions with their
    `partition`, which the levels of prices are compared with; None: none.

    Each row ends as a bar, in quarantine, or nowhere when it repeats a bar that was archived later value for value.
    A rejected row never supersedes a good one. The quarantine names a row's own `open_time` as archived, also where a
    1d bar was moved to its session's open. Needs about 0.5 KB of memory a row at its peak, the rows included.

    Raises `ValueError` when `sessions` lacks the session of a row of the universe.
    """
    checked = placed(raw.select(SOURCED_SCHEMA.names()), dataset, sessions)
    good = checked.filter(pl.col("_reason").is_null()).with_columns(_life()).sort(*_KEY, *_PRECEDENCE)
    rejected = checked.filter(pl.col("_reason").is_not_null())
    del checked
    winners, superseded = _resolve(good)
    splits = pl.DataFrame(schema=_NO_SPLITS) if splits is None else splits
    named = winners.rename({"_partition": "partition"})
    levels = price_levels(named, splits, neighbours_within(dataset.partition), neighbours)
    defects = find_defects(named, splits, levels)
    bars = winners.with_columns(_flags(winners, dataset, splits, defects)).select(
        pl.lit(dataset.name).alias("dataset"),
        "symbol",
        "session",
        pl.col("_start").alias("open_time"),
        pl.col("_end").alias("close_time"),
        *_PRICES,
        "volume",
        "vwap",
        "trade_count",
        "vendor",
        "fetched_at",
        "adjustment",
        (pl.col("_end") + pl.lit(dataset.delay, pl.Duration("us"))).alias("available_at"),
        "flags",
    )
    bars = bars.match_to_schema(CLEAN_SCHEMA)
    tolerance = dataset.compare_with.tolerance_bps if dataset.compare_with else DEFAULT_TOLERANCE_BPS
    timed_winners, timed_good = (part.with_columns(pl.col("_start").alias("open_time")) for part in (winners, good))
    differences = between_vendors(timed_winners, timed_good, splits, tolerance, dataset.name)
    levels = levels.with_columns(pl.lit(dataset.name).alias("dataset")).match_to_schema(
        LEVELS_SCHEMA, extra_columns="ignore"
    )
    return Cleaned(bars, _quarantine([rejected, superseded], dataset), _repairs(bars, defects), differences, levels)


def placed(raw: pl.DataFrame, dataset: Dataset, sessions: pl.DataFrame) -> pl.DataFrame:
    """`raw` with `session`, `_start` and `_end` of each row's bar, and `_reason`: why it is rejected, or null.

    A row is judged by itself here: which of two rows of one bar counts, and what is flagged, is decided in `clean`,
    whose `sessions` these are. Raises `ValueError` as `clean` does.
    """
    return _place(raw, dataset, sessions).with_columns(_reason(dataset))


def _repairs(bars: pl.DataFrame, defects: pl.DataFrame) -> pl.DataFrame:
    """REPAIRS_SCHEMA of the bars that have a defect."""
    some = defects.select(pl.any_horizontal(*DEFECTS)).to_series()
    named = pl.concat_list(pl.when(name).then(pl.lit(name)) for name in DEFECTS).list.drop_nulls().list.join(",")
    mended = defects.filter(some).select(named.alias("defect"), *_PRICES, "volume", "uses_later_bars")
    keys = bars.filter(some).select("dataset", "symbol", "session", "open_time")
    return pl.concat([keys, mended], how="horizontal").match_to_schema(REPAIRS_SCHEMA)


def _place(raw: pl.DataFrame, dataset: Dataset, sessions: pl.DataFrame) -> pl.DataFrame:
    """`raw` with session, _partition, _start and _end of its bar, and whether it is in the universe, session, grid."""
    own = assign_sessions(raw.select("open_time"), dataset.calendar)["session"]
    calendar = sessions.select(
        "session",
        pl.col("partition").alias("_partition"),
        pl.col("open_time").alias("_open"),
        pl.col("close_time").alias("_close"),
        pl.col("break_start").alias("_break_start"),
        pl.col("break_end").alias("_break_end"),
    )
    placed = raw.with_columns(own.alias("session")).join(calendar, on="session", how="left", validate="m:1")
    placed = placed.with_columns(is_member(dataset, placed).alias("_member"))
    uncovered = placed.filter(pl.col("_member"), pl.col("_open").is_null())
    if len(uncovered):
        raise ValueError(
            f"the session table ends before the data: it lacks {uncovered['session'].min()}"
            f" of {dataset.name}; extend it over all sessions of the rows"
        )
    if dataset.interval == "1d":
        placed = _place_daily(placed, dataset)
    else:
        placed = _place_intraday(placed, dataset)
    return placed.drop("_open", "_close", "_break_start", "_break_end")


def _place_daily(placed: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    """A 1d bar is its session, whatever hour of that day the vendor stamped it with."""
    local = pl.col("open_time").dt.convert_time_zone(calendar_timezone(dataset.calendar)).dt.date()
    inside = pl.col("open_time").is_between("_open", "_close", closed="left") | (local == pl.col("session"))
    return placed.with_columns(
        inside.fill_null(False).alias("_inside"),
        pl.lit(True).alias("_on_grid"),
        pl.col("_open").alias("_start"),
        pl.col("_close").alias("_end"),
    )


def _place_intraday(placed: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    step = pl.lit(INTERVALS[dataset.interval], pl.Duration("us"))
    time, end = pl.col("open_time"), pl.col("open_time") + step
    at_lunch = time.is_between("_break_start", "_break_end", closed="left").fill_null(False)
    inside = (time.is_between("_open", "_close", closed="left") & ~at_lunch).fill_null(False)
    # The grid starts anew after a lunch break; its last bar before one ends with it.
    anchor = pl.when(time >= pl.col("_break_end")).then("_break_end").otherwise("_open")
    limit = pl.when(time < pl.col("_break_start")).then("_break_start").otherwise("_close")
    off = (time - anchor).dt.total_microseconds() % (INTERVALS[dataset.interval].total_seconds() * 1e6)
    return placed.with_columns(
        inside.alias("_inside"),
        (off == 0).fill_null(False).alias("_on_grid"),
        time.alias("_start"),
        pl.when(inside).then(pl.min_horizontal(end, limit)).otherwise(end).alias("_end"),
    )


def _reason(dataset: Dataset) -> pl.Expr:
    """The first reason of REASONS that applies to a placed row, as `_reason`; null for a good row."""
    numbers = [pl.col(name) for name in (*_PRICES, "volume")]
    top, bottom = pl.max_horizontal("open", "close"), pl.min_horizontal("open", "close")
    drops = dataset.out_of_session == "drop" or dataset.interval == "1d"
    rules: dict[str, pl.Expr] = {
        "not_in_universe": ~pl.col("_member"),
        "out_of_session": ~pl.col("_inside") & pl.lit(drops),
        "off_grid": ~pl.col("_on_grid"),
        "unknown_adjustment": ~pl.col("adjustment").is_in(ADJUSTMENTS).fill_null(False),
        "null_price": pl.any_horizontal(pl.col(name).is_null() | pl.col(name).is_nan() for name in _PRICES),
        "non_finite_price": pl.any_horizontal(number.is_infinite() for number in numbers),
        "non_positive_price": pl.any_horizontal(pl.col(name) <= 0 for name in _PRICES),
        "bad_ohlc": (pl.col("high") < top * (1 - OHLC_TOLERANCE)) | (pl.col("low") > bottom * (1 + OHLC_TOLERANCE)),
        "null_volume": pl.col("volume").is_null() | pl.col("volume").is_nan(),
        "negative_volume": pl.col("volume") < 0,
    }
    return pl.coalesce(pl.when(rule).then(pl.lit(reason)) for reason, rule in rules.items()).alias("_reason")


def _life() -> pl.Expr:
    """Which topic of its name a row's object was landed from, 0 being the first."""
    return pl.col("source_object").str.extract(_LIFE, 1).cast(pl.Int64).fill_null(0).alias("_life")


def _resolve(good: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One row a key out of rows sorted by key and precedence, and the losers that say something else."""
    ends_key = good.select(
        pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift(-1)) for name in _KEY)
    ).to_series()
    if ends_key.all():
        return good, good.clear().with_columns(pl.lit("superseded").alias("_reason"))
    winners = good.filter(ends_key)
    # The winner of a row stands where the next key end is: as many winners on as keys have ended before the row.
    at = ends_key.cast(pl.UInt32).cum_sum() - ends_key.cast(pl.UInt32)
    losing = ~ends_key
    losers, against = good.filter(losing), winners[at.filter(losing)].select(_VALUES)
    differs = losers.select(pl.any_horizontal(pl.col(name).ne_missing(against[name]) for name in _VALUES)).to_series()
    return winners, losers.filter(differs).with_columns(pl.lit("superseded").alias("_reason"))


def _flags(winners: pl.DataFrame, dataset: Dataset, splits: pl.DataFrame, defects: pl.DataFrame) -> pl.Series:
    """The `flags` column of rows sorted by symbol and time."""
    marks = winners.select(
        (pl.col("volume") == 0).alias("zero_volume"),
        _jumps(winners, dataset, splits).alias("jump"),
        (~pl.col("_inside")).alias("out_of_session"),
        *(defects[name] for name in DEFECTS),
    )
    # Few combinations exist: number them, write each once, and look every row's up.
    names = list(FLAGS)
    combinations = [[name for bit, name in enumerate(names) if number >> bit & 1] for number in range(2 ** len(names))]
    number = marks.select(
        pl.sum_horizontal(pl.col(name).cast(pl.UInt32) * 2**bit for bit, name in enumerate(names))
    ).to_series()
    return pl.Series("flags", combinations, dtype=pl.List(pl.String)).gather(number)


def _jumps(winners: pl.DataFrame, dataset: Dataset, splits: pl.DataFrame) -> pl.Series:
    """Whether the open or close is too far from the close before it in the same partition. Log returns."""
    floor = JUMP_FLOOR_DAILY if dataset.interval == "1d" else JUMP_FLOOR_INTRADAY
    steady = steady_close(winners.rename({"_partition": "partition"}), splits)
    moves = (
        winners.with_columns((steady / pl.col("close")).alias("_shares"), steady.shift().alias("_before"))
        .select(
            pl.struct("symbol", "_partition").rle_id().alias("run"),
            (pl.col("close") * pl.col("_shares") / pl.col("_before")).log().abs().alias("close"),
            (pl.col("open") * pl.col("_shares") / pl.col("_before")).log().abs().alias("open"),
        )
        .with_columns(pl.when(pl.col("run") == pl.col("run").shift()).then(pl.col("close", "open")))
    )
    enough = pl.col("close").count() >= JUMP_RETURNS_NEEDED
    usual = moves.group_by("run").agg(pl.when(enough).then(pl.col("close").median()).fill_null(0.0)).sort("run")
    limit = (usual["close"] * JUMP_MULTIPLE).clip(lower_bound=floor).gather(moves["run"])
    return moves.select((pl.max_horizontal("close", "open") > limit).fill_null(False)).to_series()


def _quarantine(parts: list[pl.DataFrame], dataset: Dataset) -> pl.DataFrame:
    """Rejected rows with what the archive holds of them, in the order of the archive."""
    rows = pl.concat(part.select(*SOURCED_SCHEMA.names(), "session", "_reason") for part in parts)
    rows = rows.sort("symbol", "open_time", "bus_offset", "source_object", "source_row", "_reason")
    return rows.select(
        pl.lit(dataset.name).alias("dataset"),
        "symbol",
        "session",
        "open_time",
        pl.col("_reason").alias("reason"),
        _as_json(rows).alias("raw"),
        "source_object",
        "source_row",
    ).match_to_schema(QUARANTINE_SCHEMA)


def _as_json(rows: pl.DataFrame) -> pl.Series:
    """Each row's RAW_SCHEMA fields as compact JSON. JSON has no NaN or infinity: such a row's numbers are text."""
    floats = [name for name, kind in RAW_SCHEMA.items() if kind == pl.Float64]
    times = [name for name, kind in RAW_SCHEMA.items() if kind == TIME]
    texts = rows.select(RAW_SCHEMA.names()).with_columns(pl.col(times).dt.to_string("iso:strict"))
    odd = pl.any_horizontal(~pl.col(name).is_finite().fill_null(True) for name in floats)
    as_text = [pl.col(name).cast(pl.String) if name in floats else pl.col(name) for name in texts.columns]
    plain, text = pl.struct(texts.columns).struct.json_encode(), pl.struct(as_text).struct.json_encode()
    return texts.select(pl.when(odd).then(text).otherwise(plain)).to_series()

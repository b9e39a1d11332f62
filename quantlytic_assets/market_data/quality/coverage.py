"""What should be there, what is, and why the rest is not: one row a symbol and session.

Pure functions on frames. The grid comes from `sessions`, bars from `cleaning`, what was asked from `storage.attempts`;
what to ask for next is decided in `fetch_plan`.
"""

from __future__ import annotations

from datetime import datetime
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Protocol

import polars as pl

from quantlytic_assets.calendars.intervals import INTERVALS, TIME
from quantlytic_assets.calendars.sessions import ROUND_THE_CLOCK
from quantlytic_assets.market_data.bars import COVERAGE_SCHEMA
from quantlytic_assets.schemas.vocabulary import CAUSES
from quantlytic_assets.universe.membership import symbol_sessions

if TYPE_CHECKING:
    from quantlytic_assets.universe.models import Dataset

OUTAGE_SHARE = 0.75
OUTAGE_SYMBOLS = 2
# Thin symbols of a vendor that omits empty bars miss the same minute by chance; so many in a row they don't.
OUTAGE_BARS_IF_EMPTY_OMITTED = 5
# Round the clock, so many bars without a trade at midnight are no missing end of a file.
_QUIET_EDGE_BARS = 15


class Traits(Protocol):
    """What must be known of a vendor to read its silence."""

    @property
    def omits_empty_bars(self) -> bool:
        """Whether it serves no bar for an interval without a trade."""
        ...

    @property
    def attempts_before_hole(self) -> int:
        """After how many answers without a bar it counts as a hole of the vendor's."""
        ...


def coverage(
    bars: pl.DataFrame,
    dataset: Dataset,
    grid: pl.DataFrame,
    attempts: pl.DataFrame,
    traits: Traits | None,
    now: datetime,
) -> pl.DataFrame:
    """COVERAGE_SCHEMA rows, by symbol and session, for every symbol of the universe on each session of the grid.

    `bars`: symbol, open_time of clean bars, one a key, those of the sessions next to the grid's among them where there
    are any (a quiet minute at midnight has its neighbours there); `grid`: `sessions.expected_bars` of whole sessions;
    `attempts`: symbol, session, attempts, answered (Int64); `traits`: of the vendor, None without one; `now`: aware.

    A bar is expected once its close and the dataset's delay are past, so that a running session counts as far as it
    has gone. Bars beside the grid (kept out of session) don't count. `missing_ranges` are [start, end), exact, oldest
    first: unbroken in the grid (so none spans a night or a lunch break) and of one cause each.

    Causes are those of CAUSES. Bars that open in a known outage of the venue (`Dataset.outages`) need no further
    evidence. Another stretch that most of the venue misses is an `outage` only on evidence from two of
    its symbols: an answer of the vendor for that session, or bars before and after the stretch in it. Files that all
    end at the same minute, with nobody having asked for the rest, were not fetched. A single bar that one symbol has
    amid such a stretch, or at its very edge, leaves it whole for the others.

    The cost is that of the bars plus that of the missing ones.
    """
    names = sorted(one.symbol for one in dataset.symbols)
    due = _due(grid, dataset, now)
    sessions = _symbol_sessions(names, dataset, grid, due)
    present = _present(bars, names, due)
    counted = _count(sessions, present, attempts, names)
    missing = _missing(counted, present, due)
    if len(missing):
        quiet = _quiet_edges(counted, bars, due, dataset, traits)
        missing = _with_cause(missing, counted.join(quiet, on=["symbol", "session"], how="left"), due, dataset, traits)
    found = counted.join(_ranges(missing), on=["symbol", "session"], how="left")
    return (
        found.sort("symbol", "session")
        .select(
            pl.lit(dataset.name).alias("dataset"),
            pl.col("symbol").cast(pl.String),
            "session",
            pl.col("expected").alias("expected_bars"),
            pl.col("present").alias("present_bars"),
            (pl.col("expected") - pl.col("present")).alias("missing_bars"),
            pl.col("cause").cast(pl.String),
            pl.col("missing_ranges").fill_null([]),
            "attempts",
            pl.lit(now).dt.convert_time_zone("UTC").cast(TIME).alias("checked_at"),
        )
        .cast(dict(COVERAGE_SCHEMA))
    )


def _due(grid: pl.DataFrame, dataset: Dataset, now: datetime) -> pl.DataFrame:
    """The grid's bars that should exist by now, oldest first, numbered in `at`; `joined` where one follows the last."""
    return (
        grid.filter(pl.col("close_time") + pl.lit(dataset.delay, pl.Duration("us")) <= now)
        .sort("open_time")
        .with_columns(
            pl.int_range(pl.len(), dtype=pl.Int64).alias("at"),
            ((pl.col("session") == pl.col("session").shift()) & (pl.col("open_time") == pl.col("close_time").shift()))
            .fill_null(False)
            .alias("joined"),
        )
    )


def _symbol_sessions(names: list[str], dataset: Dataset, grid: pl.DataFrame, due: pl.DataFrame) -> pl.DataFrame:
    """Symbol (Enum), session, expected: each session of the grid on which the symbol is in the universe."""
    sessions = (
        grid.select(pl.col("session").unique())
        .join(due.group_by("session").agg(pl.len().cast(pl.Int64).alias("expected")), on="session", how="left")
        .with_columns(pl.col("expected").fill_null(0))
    )
    return symbol_sessions(dataset, sessions, pl.Enum(names))


def _present(bars: pl.DataFrame, names: list[str], due: pl.DataFrame) -> pl.DataFrame:
    """symbol, session, at: which due bars are there."""
    return (
        bars.select(pl.col("symbol").cast(pl.Enum(names), strict=False), "open_time")
        .filter(pl.col("symbol").is_not_null())
        .join(due.select("open_time", "session", "at"), on="open_time", how="inner")
        .select("symbol", "session", "at")
    )


def _count(sessions: pl.DataFrame, present: pl.DataFrame, attempts: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """`sessions` with present, first_at and last_at (null without any), attempts and answered."""
    there = present.group_by("symbol", "session").agg(
        pl.len().cast(pl.Int64).alias("present"),
        pl.col("at").min().alias("first_at"),
        pl.col("at").max().alias("last_at"),
    )
    asked = (
        attempts.with_columns(pl.col("symbol").cast(pl.Enum(names), strict=False))
        .group_by("symbol", "session")
        .agg(pl.col("attempts", "answered").max())
    )
    return (
        sessions.join(there, on=["symbol", "session"], how="left")
        .join(asked, on=["symbol", "session"], how="left")
        .with_columns(pl.col("present", "attempts", "answered").fill_null(0))
    )


def _missing(counted: pl.DataFrame, present: pl.DataFrame, due: pl.DataFrame) -> pl.DataFrame:
    """symbol, session, at of each bar that is not there; only sessions with a hole are laid out."""
    holed = counted.filter(pl.col("present") < pl.col("expected")).select("symbol", "session")
    return (
        holed.join(due.select("session", "at"), on="session", how="inner")
        .join(present.select("symbol", "at"), on=["symbol", "at"], how="anti")
        .sort("symbol", "at")
    )


def _quiet_edges(
    counted: pl.DataFrame, bars: pl.DataFrame, due: pl.DataFrame, dataset: Dataset, traits: Traits | None
) -> pl.DataFrame:
    """symbol, session, quiet_head, quiet_tail: whether the symbol only didn't trade at the session's very begin or end.

    It has a bar a few minutes beyond then. That is so only where a session begins as the one before it ends.
    """
    keys = counted.select("symbol", "session").with_columns(
        pl.lit(False).alias("quiet_head"), pl.lit(False).alias("quiet_tail")
    )
    if traits is None or not traits.omits_empty_bars or dataset.calendar != ROUND_THE_CLOCK:
        return keys
    near = _QUIET_EDGE_BARS * INTERVALS[dataset.interval]
    times = (
        bars.select(pl.col("symbol").cast(counted.schema["symbol"], strict=False), pl.col("open_time").alias("beyond"))
        .drop_nulls()
        .sort("beyond")
    )
    bounds = due.group_by("session").agg(
        pl.col("open_time").min().alias("begin"),
        pl.col("close_time").max().alias("end"),
        pl.col("at").min().alias("first_of_all"),
        pl.col("at").max().alias("last_of_all"),
    )
    edges = counted.join(bounds, on="session", how="inner").filter(pl.col("present") > 0)
    head = edges.sort("begin").join_asof(
        times, left_on="begin", right_on="beyond", by="symbol", strategy="backward", tolerance=near,
        allow_exact_matches=False, check_sortedness=False,
    )  # fmt: skip
    tail = edges.sort("end").join_asof(
        times, left_on="end", right_on="beyond", by="symbol", strategy="forward", tolerance=near, check_sortedness=False
    )
    short_head = pl.col("first_at") - pl.col("first_of_all") <= _QUIET_EDGE_BARS
    short_tail = pl.col("last_of_all") - pl.col("last_at") <= _QUIET_EDGE_BARS
    return (
        keys.select("symbol", "session")
        .join(
            head.select("symbol", "session", (pl.col("beyond").is_not_null() & short_head).alias("quiet_head")),
            on=["symbol", "session"],
            how="left",
        )
        .join(
            tail.select("symbol", "session", (pl.col("beyond").is_not_null() & short_tail).alias("quiet_tail")),
            on=["symbol", "session"],
            how="left",
        )
        .with_columns(pl.col("quiet_head", "quiet_tail").fill_null(False))
    )


def _with_cause(
    missing: pl.DataFrame, counted: pl.DataFrame, due: pl.DataFrame, dataset: Dataset, traits: Traits | None
) -> pl.DataFrame:
    """`missing` with the bars' grid columns and their `cause`."""
    placed = missing.join(due.select("at", "open_time", "close_time", "joined"), on="at", how="left").join(
        counted.select("symbol", "session", "first_at", "last_at", "answered", "quiet_head", "quiet_tail"),
        on=["symbol", "session"],
        how="left",
    )
    known = in_known_outage(placed["open_time"], dataset)
    placed = placed.with_columns(known.alias("known"))
    outages = _outages(placed, counted, due, traits)
    out = (
        placed.select(pl.col("at").unique().sort())
        .join_asof(outages, left_on="at", right_on="first", strategy="backward")
        .filter(pl.col("at") <= pl.col("last"))
        .select("at", pl.lit(True).alias("out"))
    )
    after_start = (pl.col("at") > pl.col("first_at")) | pl.col("quiet_head")
    inside = after_start & ((pl.col("at") < pl.col("last_at")) | pl.col("quiet_tail"))
    rules = [("outage", pl.col("known") | pl.col("out").fill_null(False))]
    if traits is not None:
        rules.append(("no_trade", inside & pl.lit(traits.omits_empty_bars)))
        rules.append(("vendor_hole", pl.col("answered") >= traits.attempts_before_hole))
    rules.append(("not_fetched" if dataset.vendors else "unknown", pl.lit(True)))
    kind = pl.Enum(list(CAUSES))
    return (
        placed.join(out, on="at", how="left")
        .with_columns(pl.coalesce(pl.when(rule).then(pl.lit(cause, kind)) for cause, rule in rules).alias("cause"))
        .sort("symbol", "at")
    )


def in_known_outage(open_times: pl.Series, dataset: Dataset) -> pl.Series:
    """Whether each bar opens in a known outage of the dataset's venue."""
    inside = [open_times.is_between(one.start, one.end, closed="left") for one in dataset.outages]
    nowhere = pl.Series(open_times.name, [False], pl.Boolean).new_from_index(0, len(open_times))
    return reduce(or_, inside, nowhere)


def _outages(placed: pl.DataFrame, counted: pl.DataFrame, due: pl.DataFrame, traits: Traits | None) -> pl.DataFrame:
    """first, last (positions in the grid, both inclusive) of each stretch that was an outage, oldest first."""
    code = pl.col("symbol").to_physical().cast(pl.Int64)
    expected = counted.group_by("session").agg(pl.len().alias("symbols"), code.sum().alias("all_codes"))
    minutes = (
        placed.group_by("session", "at")
        .agg(pl.len().alias("lacking"), code.sum().alias("codes"))
        .join(expected, on="session", how="left")
        .join(due.select("at", "joined"), on="at", how="left")
        .with_columns(
            # That two symbols miss it is seen to where the witnesses are counted.
            (pl.col("lacking") >= OUTAGE_SHARE * pl.col("symbols")).alias("out"),
            # Where one symbol alone has a bar, its code is what the others' leave of the sum.
            pl.when(pl.col("lacking") == pl.col("symbols") - 1)
            .then(pl.col("all_codes") - pl.col("codes"))
            .alias("holder"),
        )
        .filter(pl.col("out") | pl.col("holder").is_not_null())
        .sort("at")
    )
    goes_on = ((pl.col("at") - pl.col("at").shift() == 1) & pl.col("joined")).fill_null(False)
    quiet = ~pl.col("out")
    again = quiet & quiet.shift() & goes_on & (pl.col("holder") == pl.col("holder").shift())
    # A symbol with two bars in a row traded on; a single one of its bars doesn't break what the others went through.
    lone = minutes.with_columns(again.fill_null(False).alias("again")).filter(
        pl.col("out") | ~(pl.col("again") | pl.col("again").shift(-1, fill_value=False))
    )
    at_out = pl.col("at").filter("out")
    stretches = (
        lone.with_columns((~goes_on).cum_sum().alias("stretch"))
        .group_by("stretch")
        .agg(
            # At its ends a stretch takes in one such bar, when one symbol stopped (or started) a bar later than all.
            pl.max_horizontal(pl.col("at").min(), at_out.min() - 1).alias("first"),
            pl.min_horizontal(pl.col("at").max(), at_out.max() + 1).alias("last"),
            pl.col("out").any(),
        )
        .filter("out")
        .select("first", "last")
        .sort("first")
    )
    if traits is not None and traits.omits_empty_bars:
        stretches = stretches.filter(pl.col("last") - pl.col("first") + 1 >= OUTAGE_BARS_IF_EMPTY_OMITTED)
    surrounded = (pl.col("first_at") < pl.col("first")) & (pl.col("last_at") > pl.col("last"))
    proven = (
        placed.sort("at")
        .join_asof(stretches, left_on="at", right_on="first", strategy="backward")
        .filter(pl.col("at") <= pl.col("last"))
        .filter((pl.col("answered") >= 1) | surrounded)
        .group_by("first")
        .agg(pl.col("symbol").n_unique().alias("witnesses"))
        .filter(pl.col("witnesses") >= OUTAGE_SYMBOLS)
    )
    return stretches.join(proven, on="first", how="semi").select("first", "last").sort("first")


def _ranges(missing: pl.DataFrame) -> pl.DataFrame:
    """symbol, session, missing_ranges, cause (the one that misses most bars) of each session with a hole."""
    if missing.is_empty():
        return pl.DataFrame(
            schema={
                "symbol": missing.schema["symbol"],
                "session": pl.Date,
                "missing_ranges": COVERAGE_SCHEMA["missing_ranges"],
                "cause": pl.Enum(list(CAUSES)),
            }
        )
    same = (
        (pl.col("symbol") == pl.col("symbol").shift())
        & (pl.col("at") - pl.col("at").shift() == 1)
        & pl.col("joined")
        & (pl.col("cause") == pl.col("cause").shift())
    ).fill_null(False)
    ranges = (
        missing.with_columns((~same).cum_sum().alias("range"))
        .group_by("range")
        .agg(
            pl.col("symbol", "session", "cause").first(),
            pl.col("open_time").min().alias("start"),
            pl.col("close_time").max().alias("end"),
            pl.len().alias("lacking"),
        )
        .sort("symbol", "start")
    )
    heaviest = (
        ranges.group_by("symbol", "session", "cause")
        .agg(pl.col("lacking").sum())
        .sort("symbol", "session", "lacking", "cause", descending=[False, False, True, False])
        .unique(["symbol", "session"], keep="first", maintain_order=True)
        .select("symbol", "session", "cause")
    )
    listed = ranges.group_by("symbol", "session", maintain_order=True).agg(
        pl.struct("start", "end", pl.col("cause").cast(pl.String)).alias("missing_ranges")
    )
    return listed.join(heaviest, on=["symbol", "session"], how="left")

"""The tables of `clean`: checked bars, what was rejected, what is missing, and what is known beside the bars."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.schemas.columns import (
    CLOSE,
    CLOSE_TIME,
    DATASET,
    HIGH,
    LOW,
    OPEN,
    OPEN_TIME,
    PRICE,
    SESSION,
    SYMBOL,
    VOLUME,
)
from quantlytic_assets.schemas.table import Column, Rule, Table, described
from quantlytic_assets.schemas.vocabulary import ACTION_KINDS, ADJUSTMENTS, CAUSES, COMPARED_FIELDS, FLAGS

# Rounding in a vendor's own arithmetic can put a high a hair below the close.
OHLC_TOLERANCE = 1e-9

_BY_DATASET_AND_YEAR = ("dataset", "year(session)")

BARS = Table(
    "clean.bars",
    writer="clean_bars",
    description="One checked bar per dataset, symbol and open time. Rejected rows are in `clean.quarantine`.",
    columns=(
        DATASET,
        SYMBOL,
        described(
            SESSION, "Trading day of the dataset's calendar the bar belongs to; a UTC day for round-the-clock markets."
        ),
        OPEN_TIME,
        CLOSE_TIME,
        OPEN,
        HIGH,
        LOW,
        CLOSE,
        VOLUME,
        Column(
            "vwap", pl.Float64, "Volume-weighted average price, where the vendor gives it.", nullable=True, unit=PRICE
        ),
        Column("trade_count", pl.Int64, "Number of trades, where the vendor gives it.", nullable=True),
        Column("vendor", pl.String, "Who served the bar."),
        Column("fetched_at", TIME, "When it was fetched, UTC."),
        Column("adjustment", pl.String, "What the prices are adjusted for: none or split.", allowed=ADJUSTMENTS),
        Column(
            "available_at",
            TIME,
            "Earliest time, UTC, at which a decision could have used the bar: its end plus the dataset's delay.",
        ),
        Column(
            "flags",
            pl.List(pl.String),
            "What is unusual about a bar that was kept, such as zero_volume; empty when nothing is.",
            allowed=tuple(FLAGS),
        ),
    ),
    key=("dataset", "symbol", "open_time"),
    partitioned_by=_BY_DATASET_AND_YEAR,
    rules=(
        Rule(
            "high_above_body",
            "high is not below open or close",
            f"high >= greatest(open, close) * {1 - OHLC_TOLERANCE!r}",
        ),
        Rule(
            "low_below_body",
            "low is not above open or close",
            f"low <= least(open, close) * {1 + OHLC_TOLERANCE!r}",
        ),
        Rule("times_ordered", "open_time is before close_time", "open_time < close_time"),
        Rule("available_after_close", "available_at is not before close_time", "available_at >= close_time"),
    ),
)

QUARANTINE = Table(
    "clean.quarantine",
    writer="clean_bars",
    description="Rows that were rejected, each with its reason and the archived row it came from.",
    columns=(
        DATASET,
        Column("symbol", pl.String, "Instrument, null where the row does not say.", nullable=True),
        Column("session", pl.Date, "Trading day, null where the row has no time.", nullable=True),
        Column("open_time", TIME, "Start of the bar, UTC, null where the row has none.", nullable=True),
        Column("reason", pl.String, "Why the row was rejected, such as out_of_session or superseded."),
        Column("raw", pl.String, "The row as it was archived, as JSON or the text of the file."),
        Column("source_object", pl.String, "Archive object or file the row came from."),
        Column("source_row", pl.Int64, "Row or line in that object, null where it has none.", nullable=True),
    ),
    partitioned_by=_BY_DATASET_AND_YEAR,
    rules=(Rule("reason_given", "reason is not empty", "length(reason) > 0"),),
)

COVERAGE = Table(
    "clean.coverage",
    writer="coverage",
    description="Per symbol and session, how many bars the calendar expects, how many there are, and why the rest is "
    "missing.",
    columns=(
        DATASET,
        SYMBOL,
        Column("session", pl.Date, "Trading day."),
        Column("expected_bars", pl.Int64, "Bars the calendar expects.", unit="bars", at_least=0),
        Column("present_bars", pl.Int64, "Expected bars that are there.", unit="bars", at_least=0),
        Column("missing_bars", pl.Int64, "Expected bars that are not.", unit="bars", at_least=0),
        Column(
            "cause",
            pl.String,
            "Cause of most missing bars; null when none is missing.",
            nullable=True,
            allowed=tuple(CAUSES),
        ),
        Column(
            "missing_ranges",
            pl.List(pl.Struct({"start": TIME, "end": TIME, "cause": pl.String})),
            "Each missing stretch with its start, end and cause, half-open, UTC.",
        ),
        Column("attempts", pl.Int64, "How often the vendors have been asked for the missing bars.", at_least=0),
        Column("checked_at", TIME, "When this was worked out, UTC."),
    ),
    key=("dataset", "symbol", "session"),
    partitioned_by=_BY_DATASET_AND_YEAR,
    rules=(
        Rule("counts_add_up", "expected is present and missing", "expected_bars = present_bars + missing_bars"),
        Rule("cause_given", "a cause where bars are missing only", "(cause is null) = (missing_bars = 0)"),
        Rule(
            "ranges_given",
            "ranges where bars are missing only",
            "(array_length(missing_ranges) = 0) = (missing_bars = 0)",
        ),
    ),
)

SESSIONS = Table(
    "clean.sessions",
    writer="clean_bars",
    description="When each session of a dataset opens, pauses and closes by its exchange calendar.",
    columns=(
        DATASET,
        Column("session", pl.Date, "Trading day."),
        Column("open_time", TIME, "Open of the session, UTC."),
        Column("close_time", TIME, "Close of the session, UTC; earlier on half days."),
        Column("break_start", TIME, "Start of the lunch break, UTC; null where there is none.", nullable=True),
        Column("break_end", TIME, "End of the lunch break, UTC; null where there is none.", nullable=True),
    ),
    key=("dataset", "session"),
    rules=(
        Rule("times_ordered", "the session opens before it closes", "open_time < close_time"),
        Rule("break_whole", "a break has a start and an end", "(break_start is null) = (break_end is null)"),
    ),
)

CORPORATE_ACTIONS = Table(
    "clean.corporate_actions",
    writer="corporate_actions",
    description="Splits, dividends and renames, one per dataset, symbol, session and kind, whoever reported them. "
    "Every report stays in the archive.",
    columns=(
        DATASET,
        Column("symbol", pl.String, "What the company was called on that session."),
        Column(
            "session",
            pl.Date,
            "First session on which it has happened: the ex-date, or the first one under a new name.",
        ),
        Column("kind", pl.String, "split, dividend or rename.", allowed=ACTION_KINDS),
        Column(
            "value",
            pl.Float64,
            "New shares for one old (4 for 4:1), or cash as paid on a share as it stands on the ex-date; null for a "
            "rename.",
            nullable=True,
            at_least=0,
        ),
        Column(
            "new_symbol",
            pl.String,
            "What a renamed symbol became; itself where from then on another company trades under it.",
            nullable=True,
        ),
        Column("known_on", pl.Date, "Day from which the public knew of it."),
        Column(
            "adjustment",
            pl.String,
            "How a dividend was reported: none as paid, split adjusted for later splits, which value is not.",
            allowed=ADJUSTMENTS,
        ),
        Column("vendor", pl.String, "Who reported it; import for a user's file, which wins over every vendor."),
        Column("recorded_at", TIME, "When it was reported, UTC."),
        Column("source_object", pl.String, "Archive object the report is in."),
        Column("source_row", pl.Int64, "Row of that object."),
    ),
    key=("dataset", "symbol", "session", "kind"),
    rules=(
        Rule("value_given", "splits and dividends have a value", "kind = 'rename' or value is not null"),
        Rule("split_positive", "a split's value is above 0", "kind <> 'split' or value > 0"),
        Rule("new_symbol_given", "a rename says what the symbol became", "kind <> 'rename' or new_symbol is not null"),
    ),
)

SPLIT_FACTORS = Table(
    "clean.split_factors",
    writer="clean_bars",
    description="What a symbol means from a day on, and how many shares one of its company's first shares has become: "
    "what keeps a split from looking like a return. Symbols without splits and renames have no rows.",
    columns=(
        DATASET,
        SYMBOL,
        Column("since", pl.Date, "First session of the step; 0001-01-01 where it has no beginning."),
        Column(
            "listing",
            pl.String,
            "The stretch of time in which the symbol means one company: symbol@first session, or the symbol alone.",
        ),
        Column("company", pl.String, "Which company, called like its first listing."),
        Column(
            "shares",
            pl.Float64,
            "Product of the company's split ratios up to and on that session.",
            unit="shares per first share",
            above=0,
        ),
    ),
    key=("dataset", "symbol", "since"),
    session="since",
)

REPAIRS = Table(
    "clean.repairs",
    writer="clean_bars",
    description="What flagged bars probably should have been. clean.bars keeps them as served; features.adjusted_bars "
    "uses these.",
    columns=(
        DATASET,
        SYMBOL,
        SESSION,
        OPEN_TIME,
        Column("defect", pl.String, "Flags of the bar that the repair mends, comma-separated."),
        described(OPEN, "First traded price, repaired."),
        described(HIGH, "Highest traded price, repaired."),
        described(LOW, "Lowest traded price, repaired."),
        described(CLOSE, "Last traded price, repaired."),
        described(VOLUME, "Traded shares or base units, repaired."),
        Column(
            "uses_later_bars",
            pl.Boolean,
            "Whether the repair rests on bars after this one. Features, labels and fills do not use such a repair; the "
            "bar has no price for them. Null in rows of before it was recorded, which counts as true.",
            nullable=True,
        ),
    ),
    key=("dataset", "symbol", "open_time"),
)

FOLLOWED_SPLIT_FACTORS = replace(
    SPLIT_FACTORS,
    name="clean.followed_split_factors",
    description="clean.split_factors as it was when all that depends on it had been cleaned. Where the two differ, "
    "what depends on the difference is cleaned again.",
)

PRICE_LEVELS = Table(
    "clean.price_levels",
    writer="clean_bars",
    description="Bars at which a symbol's price level begins or ends: the first and last of each partition, and those "
    "on either side of a large move. By them a partition is compared with its neighbours.",
    columns=(
        DATASET,
        SYMBOL,
        SESSION,
        Column("bar", pl.Int64, "Number of the bar within the symbol's partition, from 0.", at_least=0),
        Column("step", pl.Boolean, "Whether the move from the bar just before is a large one."),
        described(CLOSE, "Last traded price, as served."),
        Column("traded", pl.Int64, "Bars with volume since the row before, this one included.", at_least=0),
        Column("bars", pl.Int64, "Bars since the row before, this one included.", at_least=0),
        Column("adjustment", pl.String, "What the price is adjusted for.", allowed=ADJUSTMENTS),
        Column("fetched_at", TIME, "When the bar was fetched, UTC."),
        Column("factor", pl.Float64, "What the bar was found to be off by when it was cleaned; 1 if nothing.", above=0),
    ),
    key=("dataset", "symbol", "session", "bar"),
)

VENDOR_DIFFERENCES = Table(
    "clean.vendor_differences",
    writer="clean_bars",
    description="Where two vendors gave the same bar with prices further apart than the tolerance.",
    columns=(
        DATASET,
        SYMBOL,
        SESSION,
        OPEN_TIME,
        Column("field", pl.String, "close, high or low.", allowed=COMPARED_FIELDS),
        Column("vendor", pl.String, "Whose bar is in clean.bars."),
        Column("value", pl.Float64, "Its price, in shares as they were traded.", unit=PRICE),
        Column("other_vendor", pl.String, "Who said something else."),
        Column("other_value", pl.Float64, "That price, in shares as they were traded.", unit=PRICE),
        Column(
            "difference_bps",
            pl.Float64,
            "The second price over the first, less one, in hundredths of a percent.",
            unit="basis points",
        ),
    ),
    key=("dataset", "symbol", "open_time", "field", "other_vendor"),
)

TABLES = (
    BARS,
    QUARANTINE,
    COVERAGE,
    SESSIONS,
    CORPORATE_ACTIONS,
    SPLIT_FACTORS,
    FOLLOWED_SPLIT_FACTORS,
    REPAIRS,
    PRICE_LEVELS,
    VENDOR_DIFFERENCES,
)

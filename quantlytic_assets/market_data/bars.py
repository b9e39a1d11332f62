"""The shape of a bar at each layer, and nothing else: column names and types.

What a row must satisfy is decided in `cleaning`; where rows are kept is decided in `storage`.
"""

from __future__ import annotations

import polars as pl

from quantlytic_assets.calendars.intervals import TIME

ADJUSTMENTS = ("none", "split")

# One bar as a vendor, feed or file gave it. Prices and volume may be null: what to do with such a row is decided
# when it is cleaned, not at the door.
RAW_SCHEMA = pl.Schema(
    {
        "symbol": pl.String,
        "open_time": TIME,
        "close_time": TIME,
        "open": pl.Float64,
        "high": pl.Float64,
        "low": pl.Float64,
        "close": pl.Float64,
        "volume": pl.Float64,
        "vwap": pl.Float64,
        "trade_count": pl.Int64,
        "vendor": pl.String,
        "fetched_at": TIME,
        "adjustment": pl.String,
    }
)

# The archive adds where on the bus the record stood; reading it back adds which object and row it came from.
ARCHIVE_SCHEMA = pl.Schema({**RAW_SCHEMA, "bus_offset": pl.Int64})
SOURCED_SCHEMA = pl.Schema({**ARCHIVE_SCHEMA, "source_object": pl.String, "source_row": pl.Int64})

CLEAN_SCHEMA = pl.Schema(
    {
        "dataset": pl.String,
        "symbol": pl.String,
        "session": pl.Date,
        "open_time": TIME,
        "close_time": TIME,
        "open": pl.Float64,
        "high": pl.Float64,
        "low": pl.Float64,
        "close": pl.Float64,
        "volume": pl.Float64,
        "vwap": pl.Float64,
        "trade_count": pl.Int64,
        "vendor": pl.String,
        "fetched_at": TIME,
        "adjustment": pl.String,
        "available_at": TIME,
        "flags": pl.List(pl.String),
    }
)

QUARANTINE_SCHEMA = pl.Schema(
    {
        "dataset": pl.String,
        "symbol": pl.String,
        "session": pl.Date,
        "open_time": TIME,
        "reason": pl.String,
        "raw": pl.String,
        "source_object": pl.String,
        "source_row": pl.Int64,
    }
)

COVERAGE_SCHEMA = pl.Schema(
    {
        "dataset": pl.String,
        "symbol": pl.String,
        "session": pl.Date,
        "expected_bars": pl.Int64,
        "present_bars": pl.Int64,
        "missing_bars": pl.Int64,
        "cause": pl.String,
        "missing_ranges": pl.List(pl.Struct({"start": TIME, "end": TIME, "cause": pl.String})),
        "attempts": pl.Int64,
        "checked_at": TIME,
    }
)

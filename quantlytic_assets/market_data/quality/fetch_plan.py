"""What to ask vendors for: the expected bars that the archive lacks, gathered into as few ranges as say exactly that.

Pure functions on frames; asking is done in `vendors`, keeping in `storage`.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.calendars.sessions import calendar_timezone, session_table
from quantlytic_assets.market_data.quality.coverage import in_known_outage
from quantlytic_assets.universe.membership import symbol_sessions
from quantlytic_assets.universe.models import Dataset

# Vendors have a session's last bars some time after it, daily ones in the evening or the next day.
_LATE_BARS, _LATE_DAILY_BARS = timedelta(hours=1), timedelta(days=1)
PLAN_SCHEMA = pl.Schema({"symbol": pl.String, "start": TIME, "end": TIME, "bars": pl.Int64})


def expected_keys(dataset: Dataset, grid: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """Each bar that should exist by `now` (UTC) for each symbol of the universe on that session.

    `grid` is `sessions.expected_bars` of the wanted sessions. Columns: symbol, session, open_time, close_time.
    """
    closed = grid.filter(pl.col("close_time") + dataset.delay <= now)
    return symbol_sessions(dataset, closed)


def vendors_may_take(dataset: Dataset) -> timedelta:
    """How long after a session's close vendors may lack bars of it, and their silence says nothing.

    Taken for an answer, all symbols' lack of the newest session would be an outage, never to be asked about again.
    """
    return _LATE_DAILY_BARS if dataset.interval == "1d" else _LATE_BARS


def outside_outages(expected: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    """Expected bars less those of known outages of the dataset's venue, which nobody has."""
    return expected.filter(~in_known_outage(expected["open_time"], dataset)) if dataset.outages else expected


def asked_of_vendors(expected: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    """Expected bars less those of sessions that are left for `quantlytic replay`."""
    return expected if dataset.replay_from is None else expected.filter(pl.col("session") < dataset.replay_from)


def missing_keys(
    expected: pl.DataFrame, present: pl.DataFrame, attempts: pl.DataFrame, attempts_before_hole: int
) -> pl.DataFrame:
    """Expected bars that are not archived, less those of sessions that the vendor has answered often enough without.

    `present` has symbol and open_time; `attempts` is `AttemptLog.read`.
    """
    exhausted = attempts.filter(pl.col("answered") >= attempts_before_hole).select("symbol", "session")
    return expected.join(present, on=["symbol", "open_time"], how="anti").join(
        exhausted, on=["symbol", "session"], how="anti"
    )


def plan(missing: pl.DataFrame, expected: pl.DataFrame, calendar: str) -> pl.DataFrame:
    """The ranges to ask for (PLAN_SCHEMA), oldest first: per symbol, one for each unbroken run of missing bars.

    A run goes on over a night, for no bar is expected there. Where a whole session is missing the range is widened
    to the exchange-local day, so that bars outside the session are seen too (cleaning decides about those), but never
    into the session before or after.
    """
    if missing.is_empty():
        return pl.DataFrame(schema=PLAN_SCHEMA)
    keys = expected.sort("symbol", "open_time").with_columns(
        pl.int_range(pl.len()).over("symbol").alias("_index"), pl.len().over("symbol", "session").alias("_expected")
    )
    wanted = (
        missing.select("symbol", "open_time")
        .join(keys, on=["symbol", "open_time"])
        .join(_neighbours(keys["session"], calendar), on="session", how="left")
        .sort("symbol", "_index")
    )
    whole = pl.len().over("symbol", "session") == pl.col("_expected")
    zone = calendar_timezone(calendar)
    # Clocks may skip midnight, as Karachi's did: null, and nothing is widened there.
    day_start, day_end = (
        day.cast(pl.Datetime("us"))
        .dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
        .dt.convert_time_zone("UTC")
        for day in (pl.col("session"), pl.col("session").dt.offset_by("1d"))
    )
    wanted = wanted.with_columns(
        pl.when(whole)
        .then(pl.max_horizontal(pl.min_horizontal("open_time", day_start), "_closed_before"))
        .otherwise("open_time")
        .alias("start"),
        pl.when(whole)
        .then(pl.min_horizontal(pl.max_horizontal("close_time", day_end), "_opens_next"))
        .otherwise("close_time")
        .alias("end"),
        (pl.col("_index").diff().over("symbol") != 1).fill_null(True).cum_sum().alias("_run"),
    )
    return (
        wanted.group_by("symbol", "_run")
        .agg(pl.col("start").min(), pl.col("end").max(), pl.len().cast(pl.Int64).alias("bars"))
        .sort("start", "symbol")
        .select(PLAN_SCHEMA.names())
    )


def _neighbours(sessions: pl.Series, calendar: str) -> pl.DataFrame:
    """When the session before each closed and the one after it opens: session, _closed_before, _opens_next."""
    around = timedelta(days=60)
    table = session_table(calendar, sessions.min() - around, sessions.max() + around)
    return table.select(
        "session",
        pl.col("close_time").shift(1).alias("_closed_before"),
        pl.col("open_time").shift(-1).alias("_opens_next"),
    )

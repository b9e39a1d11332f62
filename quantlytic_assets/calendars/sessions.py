"""Exchange calendars: which sessions there are, when each opens and closes, and which bars each should hold.

Pure calendar arithmetic on polars frames; holidays, half days, lunch breaks and daylight saving are all
`exchange_calendars`' business. What a dataset makes of its calendar (partitions) is in `partitions`.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import polars as pl

from quantlytic_assets.calendars.intervals import INTERVALS, TIME
from quantlytic_assets.calendars.names import CALENDAR_ZONES

if TYPE_CHECKING:
    from exchange_calendars import ExchangeCalendar

ROUND_THE_CLOCK = "24/7"
_LONGEST_CLOSURE = timedelta(days=60)


class Tables(Protocol):
    """Where tables of sessions are kept between processes."""

    def read(self, calendar: str, first_year: int, last_year: int) -> pl.DataFrame | None:
        """The table of these years, if it is kept."""

    def write(self, calendar: str, first_year: int, last_year: int, table: pl.DataFrame) -> None:
        """Keep the table of these years."""


_kept: Tables | None = None


def keep_tables(tables: Tables | None) -> None:
    """From now on look for tables of sessions there first, and keep those that are made; None: nowhere."""
    global _kept
    _kept = tables


@lru_cache(maxsize=16)
def _calendar(name: str, first_year: int, last_year: int) -> ExchangeCalendar | None:
    """The calendar of these years (both inclusive), as far as it is known; None where nothing of them is."""
    import exchange_calendars

    start, end = date(first_year, 1, 1), date(last_year, 12, 31)
    try:
        return exchange_calendars.get_calendar(name, start=start, end=end)
    except ValueError:
        # It knows only the years between its bounds; a small one is built to ask for them.
        today = date.today().year
        small = exchange_calendars.get_calendar(name, start=f"{today - 1}-01-01", end=f"{today}-12-31")
    earliest, latest = type(small).bound_min(), type(small).bound_max()
    start = max(start, earliest.date()) if earliest is not None else start
    end = min(end, latest.date()) if latest is not None else end
    return exchange_calendars.get_calendar(name, start=start, end=end) if start < end else None


def _years_around(first: int, last: int) -> tuple[int, int]:
    """Whole decades that hold these years, and those from 2000 to now.

    To make a calendar takes a quarter of a second, of decades but little more than of a year: so one serves most
    questions of a process.
    """
    decade = date.today().year // 10
    return min(200, first // 10) * 10, max(decade, last // 10) * 10 + 9


def calendar_timezone(calendar: str) -> str:
    """The IANA name of the exchange's own time zone (`UTC` for round-the-clock markets)."""
    return CALENDAR_ZONES[calendar]


def session_table(calendar: str, first: date, last: date) -> pl.DataFrame:
    """Sessions of a calendar from `first` to `last`, both inclusive, oldest first.

    Columns: session (Date), open_time, close_time, break_start, break_end (UTC, microseconds; the break is null
    where the exchange has no lunch break). A half day has its early close. Years that the calendar does not know
    have no sessions. Raises `ValueError` for a calendar name that `exchange_calendars` does not know.
    """
    if last < first:
        return _empty_sessions()
    if calendar not in CALENDAR_ZONES:
        raise ValueError(f"unknown calendar {calendar!r}: take a name of exchange_calendars, such as XNYS")
    known = _all_sessions(calendar, *_years_around(first.year, last.year))
    return known.filter(pl.col("session").is_between(first, last))


@lru_cache(maxsize=16)
def _all_sessions(name: str, first_year: int, last_year: int) -> pl.DataFrame:
    """`session_table` of these years."""
    table = _kept.read(name, first_year, last_year) if _kept else None
    if table is None:
        table = _made_sessions(name, first_year, last_year)
        if _kept:
            _kept.write(name, first_year, last_year, table)
    return table


def _made_sessions(name: str, first_year: int, last_year: int) -> pl.DataFrame:
    known = _calendar(name, first_year, last_year)
    if known is None or known.schedule.empty:
        return _empty_sessions()
    schedule = known.schedule
    times = {"open_time": "open", "close_time": "close", "break_start": "break_start", "break_end": "break_end"}
    return pl.DataFrame(
        {
            "session": pl.Series(schedule.index.values).cast(pl.Date),
            **{
                name: pl.Series(schedule[column].dt.tz_localize(None).values).cast(pl.Datetime("us"))
                for name, column in times.items()
            },
        }
    ).with_columns(pl.exclude("session").dt.replace_time_zone("UTC"))


def _empty_sessions() -> pl.DataFrame:
    return pl.DataFrame(
        schema={"session": pl.Date, "open_time": TIME, "close_time": TIME, "break_start": TIME, "break_end": TIME}
    )


def assign_sessions(frame: pl.DataFrame, calendar: str, column: str = "open_time") -> pl.DataFrame:
    """`frame` with a `session` column: the session each time belongs to.

    It is the session whose [open, close) holds the time; else (before the open, after the close) the session of
    the exchange-local date; else (a closed day) the last session before that date. `column` is UTC. Rows keep
    their order; a null time gets a null session, and so does one that is further from any session than exchanges
    ever closed, because the calendar does not know its years.
    """
    if frame.is_empty() or frame[column].null_count() == len(frame):
        return frame.with_columns(pl.lit(None, pl.Date).alias("session"))
    first = frame[column].min().date() - 2 * _LONGEST_CLOSURE
    last = frame[column].max().date() + timedelta(days=2)
    table = session_table(calendar, first, last)
    times = frame.select(pl.col(column).alias("_time")).unique().drop_nulls().sort("_time")
    opened = table.select(pl.col("session").alias("_holding"), "open_time", "close_time").sort("open_time")
    dated = table.select(pl.col("session").alias("_dated")).sort("_dated")
    times = times.join_asof(opened, left_on="_time", right_on="open_time", strategy="backward")
    times = times.with_columns(
        pl.col("_time").dt.convert_time_zone(calendar_timezone(calendar)).dt.date().alias("_local")
    )
    # The tolerance makes a row's session independent of how far back the other rows go.
    times = times.join_asof(
        dated, left_on="_local", right_on="_dated", strategy="backward", tolerance=_LONGEST_CLOSURE, coalesce=False
    )
    times = times.select(
        "_time",
        pl.when(pl.col("_time") < pl.col("close_time"))
        .then(pl.col("_holding"))
        .otherwise(pl.col("_dated"))
        .alias("session"),
    )
    kept = frame.drop("session", strict=False)
    return kept.join(times, left_on=column, right_on="_time", how="left", maintain_order="left")


def expected_bars(calendar: str, interval: str, first: date, last: date) -> pl.DataFrame:
    """Every bar that the sessions from `first` to `last` (inclusive) should hold.

    Columns: session, open_time, close_time (UTC). Bars are laid from the open (and again from the end of a lunch
    break); the last one of a stretch ends with it. A 1d bar is the session itself.
    """
    table = session_table(calendar, first, last)
    if interval == "1d" or table.is_empty():
        return table.select("session", "open_time", "close_time")
    step = INTERVALS[interval]
    stretches = pl.concat(
        [
            table.select(
                "session",
                pl.col("open_time").alias("start"),
                pl.coalesce("break_start", "close_time").alias("end"),
            ),
            table.filter(pl.col("break_end").is_not_null()).select(
                "session", pl.col("break_end").alias("start"), pl.col("close_time").alias("end")
            ),
        ]
    ).sort("session", "start")
    grid = stretches.with_columns(
        pl.datetime_ranges("start", "end", interval=step, closed="left").alias("open_time")
    ).explode("open_time")
    return grid.select(
        "session",
        "open_time",
        pl.min_horizontal(pl.col("open_time") + step, "end").alias("close_time"),
    )

"""When a daily bar opens and closes, for sources that give only its date."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from quantlytic_assets.calendars.sessions import calendar_timezone, session_table


def with_session_times(frame: pl.DataFrame, calendar: str) -> pl.DataFrame:
    """`frame` with open_time and close_time (UTC) of the session that its `session` (Date) names.

    Rows keep their order. A date on which the exchange is closed gets its local midnight, and the next one as close:
    such a bar is wrong, but what to do with it is for cleaning to say. A null session gets null times.
    """
    first, last = frame["session"].min(), frame["session"].max()
    if first is None:
        none = pl.lit(None, pl.Datetime("us", "UTC"))
        return frame.with_columns(none.alias("open_time"), none.alias("close_time"))
    sessions = session_table(calendar, first, last).select("session", "open_time", "close_time")
    zone = calendar_timezone(calendar)
    return (
        frame.drop("open_time", "close_time", strict=False)
        .join(sessions, on="session", how="left", maintain_order="left")
        .with_columns(
            pl.coalesce("open_time", local_midnight(pl.col("session"), zone)).alias("open_time"),
            pl.coalesce("close_time", local_midnight(pl.col("session") + timedelta(days=1), zone)).alias("close_time"),
        )
    )


def local_midnight(day: pl.Expr, zone: str) -> pl.Expr:
    """The moment (UTC) at which a date begins in a time zone: an hour late where the clock skips midnight."""
    naive = day.cast(pl.Datetime("us"))
    return pl.coalesce(
        naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null"),
        naive.dt.offset_by("1h").dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null"),
    ).dt.convert_time_zone("UTC")

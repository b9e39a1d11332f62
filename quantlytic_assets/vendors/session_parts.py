"""How a request lies on its calendar: cut into parts of whole sessions, and where its hours begin.

For vendors whose answers hold so many bars, and who have none for the time in which an exchange is closed.
"""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.calendars.sessions import session_table
from quantlytic_assets.vendors.parts import cut
from quantlytic_assets.vendors.protocol import BarRequest


def sessions_of(request: BarRequest) -> pl.DataFrame:
    """The sessions (as `session_table` gives them) that have a moment in common with the request's range."""
    around = timedelta(days=2)
    table = session_table(request.calendar, (request.start - around).date(), (request.end + around).date())
    return table.filter(pl.col("close_time") > request.start, pl.col("open_time") < request.end)


def parts_of_sessions(request: BarRequest, bars: int) -> list[BarRequest]:
    """The request in parts of as many sessions as hold at most `bars` bars together, oldest first; of one at least."""
    sessions = sessions_of(request)
    if sessions.is_empty():
        return [request]
    seconds = INTERVALS[request.interval].total_seconds()
    longest = 1 if request.interval == "1d" else -(-_longest(sessions).total_seconds() // seconds)
    together = max(1, int(bars // longest))
    return cut(request, sessions["open_time"][together::together])


def opens_within_an_hour(request: BarRequest) -> bool:
    """Whether the exchange opens at another time than a full hour, as New York does, also after a lunch break.

    Vendors that cut hours by the clock then have a short first bar under a full hour's name.
    """
    within = pl.any_horizontal(pl.col("open_time", "break_end").dt.minute() != 0)
    return not sessions_of(request).filter(within).is_empty()


def _longest(sessions: pl.DataFrame) -> timedelta:
    return (sessions["close_time"] - sessions["open_time"]).max()

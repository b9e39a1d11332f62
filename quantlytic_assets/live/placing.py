"""Where native bars stand among the sessions of their dataset: as cleaning places them, before the lake has them."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import NamedTuple

import numpy as np
import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.calendars.sessions import session_table
from quantlytic_assets.live.bars import Bar
from quantlytic_assets.market_data.quality.cleaning import placed
from quantlytic_assets.market_data.stream.messages import MINUTE
from quantlytic_assets.universe.membership import members
from quantlytic_assets.universe.models import Dataset, Instrument

# What is further from now than this has no session in any calendar's table.
_AROUND = timedelta(days=70)
_DAY = 24 * 60 * MINUTE
# Days whose minutes are remembered: trades come in about the order of their times.
_DAYS = 8


def native_bars(rows: pl.DataFrame, dataset: Dataset, final: bool) -> tuple[list[tuple[Bar, int]], int]:
    """Native bars of RAW_SCHEMA rows, each with the number of its row, and how many rows cleaning would reject."""
    if rows.is_empty():
        return [], 0
    first, last = rows["open_time"].min().date() - _AROUND, rows["open_time"].max().date() + _AROUND
    sessions = session_table(dataset.calendar, first, last).with_columns(pl.lit("").alias("partition"))
    told = placed(rows.with_row_index("_row"), dataset, sessions)
    good = told.filter(pl.col("_reason").is_null())
    delay = dataset.delay // timedelta(microseconds=1)
    plain = good.select(
        "symbol",
        "session",
        pl.col("_start").dt.epoch("us"),
        pl.col("_end").dt.epoch("us"),
        pl.col("_end").dt.epoch("us").alias("_available") + delay,
        *("open", "high", "low", "close", "volume", "vwap", "trade_count", "_row"),
    )
    found = [(Bar._make((*values, True, final)), number) for *values, number in plain.iter_rows()]
    return found, len(rows) - len(found)


class MinutePlace(NamedTuple):
    """The session of a minute, and when it is over and available, microseconds since 1970 UTC."""

    session: date
    close_time: int
    available_at: int


class MinutePlaces:
    """The minutes of a 1m dataset. Cleaning is asked for a whole day at once: that takes as long as for one minute."""

    def __init__(self, dataset: Dataset):
        self._dataset = dataset
        # A minute's place is that of any symbol; which symbols belong is a matter of its session.
        self._any = replace(dataset, symbols=(Instrument("any"),), first_session=date.min, last_session=None)
        self._days: dict[int, dict[int, MinutePlace]] = {}
        self._members: dict[date, frozenset[str]] = {}

    def of(self, symbol: str, open_time: int) -> MinutePlace | None:
        """Where a symbol's minute stands; None where cleaning would reject its bar."""
        day = open_time - open_time % _DAY
        minutes = self._days.get(day)
        if minutes is None:
            minutes = self._learn(day)
        found = minutes.get(open_time)
        return found if found is not None and symbol in self._of_session(found.session) else None

    def _learn(self, day: int) -> dict[int, MinutePlace]:
        if len(self._days) >= _DAYS:
            del self._days[next(iter(self._days))]
        opened = pl.Series("open_time", np.arange(day, day + _DAY, MINUTE)).cast(TIME)
        one = dict.fromkeys(("open", "high", "low", "close", "volume", "vwap"), 1.0)
        rows = pl.DataFrame({"symbol": "any", "open_time": opened, **one, "trade_count": 0, "adjustment": "none"})
        found, _ = native_bars(rows, self._any, final=False)
        self._days[day] = {
            bar.open_time: MinutePlace(bar.session, bar.close_time, bar.available_at) for bar, _ in found
        }
        return self._days[day]

    def _of_session(self, session: date) -> frozenset[str]:
        own = self._members.get(session)
        if own is None:
            own = self._members[session] = frozenset(one.symbol for one in members(self._dataset, session))
        return own

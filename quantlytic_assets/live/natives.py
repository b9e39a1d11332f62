"""The native bars of a dataset's symbols, and the bars of longer intervals that they make.

Buckets are those of dbt_project/models/features/bars.sql: they start at the session's open and again where a lunch
break ends, and 1d is the session.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.calendars.sessions import session_table
from quantlytic_assets.live.bars import Bar
from quantlytic_assets.market_data.stream.messages import micros

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Hours:
    """When a session opens, pauses, resumes and closes, microseconds since 1970; no break: None."""

    opens: int
    closes: int
    break_starts: int | None
    break_ends: int | None


@lru_cache(maxsize=4096)
def hours(calendar: str, session: date) -> Hours:
    """The hours of a session of a calendar. Raises `LookupError` for a day without one."""
    rows = session_table(calendar, session, session).rows(named=True)
    if not rows:
        raise LookupError(f"{session} is no session of {calendar}")
    row = rows[0]
    pause = [None if row[name] is None else micros(row[name]) for name in ("break_start", "break_end")]
    return Hours(micros(row["open_time"]), micros(row["close_time"]), pause[0], pause[1])


def bucket(opens: int, interval: str, native: int, session: Hours) -> tuple[int, int, int] | None:
    """Start, end and number of native bars of the bucket of a bar; None where a bar is in none.

    native: the length of a native bar, microseconds.
    """
    one = session
    if interval == "1d":
        if not one.opens <= opens < one.closes:
            return None
        if one.break_starts is None or one.break_ends is None:
            return one.opens, one.closes, -(-(one.closes - one.opens) // native)
        parts = -(-(one.break_starts - one.opens) // native) - (-(one.closes - one.break_ends) // native)
        return one.opens, one.closes, parts
    anchor, stretch_end = one.opens, one.closes if one.break_starts is None else one.break_starts
    if opens < one.opens:
        stretch_end = one.opens
    elif opens >= one.closes:
        anchor, stretch_end = one.closes, opens + 10 * INTERVALS["1d"] // _MICROSECOND
    elif one.break_ends is not None and opens >= one.break_ends:
        anchor, stretch_end = one.break_ends, one.closes
    elif one.break_starts is not None and one.break_ends is not None and opens >= one.break_starts:
        anchor, stretch_end = one.break_starts, one.break_ends
    step = INTERVALS[interval] // _MICROSECOND
    start = anchor + (opens - anchor) // step * step
    end = min(start + step, stretch_end)
    return start, end, -(-(end - start) // native)


@dataclass
class _Line:
    """One symbol: its bars by open time, the number of each one's revision, and minutes known to have no trade."""

    times: list[int] = field(default_factory=list)
    bars: dict[int, tuple[Bar, int]] = field(default_factory=dict)
    untraded: list[int] = field(default_factory=list)


class Natives:
    """The newest native bars of each symbol, as many as the longest interval may take twice."""

    def __init__(self, calendar: str, interval: str, intervals: Iterable[str], keep_incomplete: bool = False):
        self.calendar = calendar
        self.interval = interval
        self.coarser = tuple(one for one in intervals if one != interval)
        self._native = INTERVALS[interval] // _MICROSECOND
        self._keep_incomplete = keep_incomplete
        longest = max((INTERVALS[one] for one in self.coarser), default=INTERVALS[interval])
        self.keep = 2 * (longest // INTERVALS[interval]) + 120
        self._lines: dict[str, _Line] = {}

    def restore(self, bar: Bar, revision: int) -> None:
        """Take in a bar that is known, without any consequence."""
        line = self._lines.setdefault(bar.symbol, _Line())
        if bar.open_time not in line.bars:
            insort(line.times, bar.open_time)
        line.bars[bar.open_time] = (bar, revision)

    def put(self, bar: Bar) -> int | None:
        """Take in a bar; the number of its revision, None where it says nothing new or is older than what is kept.

        Whether a bar is final is worth a revision only where its prices differ.
        """
        line = self._lines.setdefault(bar.symbol, _Line())
        known = line.bars.get(bar.open_time)
        if known is None:
            if len(line.times) >= self.keep and bar.open_time < line.times[0]:
                return None
            insort(line.times, bar.open_time)
            line.bars[bar.open_time] = (bar, 0)
            return 0
        if known[0].says() == bar.says():
            return None
        line.bars[bar.open_time] = (bar, known[1] + 1)
        return known[1] + 1

    def overdue(self, symbol: str) -> list[int]:
        """The times of bars beyond those that are kept; they are forgotten here."""
        line = self._lines[symbol]
        gone = line.times[: max(0, len(line.times) - self.keep)]
        if gone:
            del line.times[: len(gone)]
            for time in gone:
                del line.bars[time]
            del line.untraded[: bisect_left(line.untraded, gone[-1])]
        return gone

    def untraded(self, symbol: str, time: int) -> None:
        """Take note that a symbol had no trade in the native bar of this time."""
        line = self._lines.setdefault(symbol, _Line())
        at = bisect_left(line.untraded, time)
        if at == len(line.untraded) or line.untraded[at] != time:
            line.untraded.insert(at, time)

    def newest(self, symbol: str) -> int:
        """The open time of a symbol's newest bar, -1 without one."""
        line = self._lines.get(symbol)
        return line.times[-1] if line is not None and line.times else -1

    def oldest(self, symbol: str) -> int:
        """The open time of a symbol's oldest bar that is kept; beyond all times without one."""
        line = self._lines.get(symbol)
        return line.times[0] if line is not None and line.times else 1 << 62

    def known(self, symbol: str, time: int) -> Bar | None:
        """The bar of a symbol that opens at a time, if it is kept."""
        line = self._lines.get(symbol)
        found = None if line is None else line.bars.get(time)
        return None if found is None else found[0]

    def first_session(self) -> date | None:
        """The session of the oldest bar that is kept; None without bars."""
        return min((line.bars[line.times[0]][0].session for line in self._lines.values() if line.times), default=None)

    def made(self, symbol: str, session: date, time: int) -> Iterator[tuple[str, Bar]]:
        """(interval, bar) of the longer bars that follow from what is known of a native bar's time.

        One is given once it is complete; where incomplete ones are kept, as soon as it has ended too.
        """
        line = self._lines[symbol]
        for interval in self.coarser:
            place = bucket(time, interval, self._native, hours(self.calendar, session))
            if place is None:
                continue
            start, end, expected = place
            first, last = bisect_left(line.times, start), bisect_left(line.times, end)
            idle = [
                one
                for one in line.untraded[bisect_left(line.untraded, start) : bisect_left(line.untraded, end)]
                if one not in line.bars
            ]
            if first == last:
                continue
            complete = last - first + len(idle) == expected
            ended = complete or last < len(line.times) or line.times[last - 1] + self._native >= end
            if complete or (ended and self._keep_incomplete):
                yield interval, _joined([line.bars[one][0] for one in line.times[first:last]], start, end, complete)


def _joined(bars: list[Bar], start: int, end: int, complete: bool) -> Bar:
    """One bar of bars in their order."""
    delay = max(one.available_at - one.close_time for one in bars)
    counts = [one.trade_count for one in bars if one.trade_count is not None]
    volume = sum(one.volume for one in bars)
    weighted = [one.vwap * one.volume for one in bars if one.vwap is not None]
    return Bar(
        bars[0].symbol, bars[0].session, start, end, end + delay,
        bars[0].open, max(one.high for one in bars), min(one.low for one in bars), bars[-1].close, volume,
        sum(weighted) / volume if volume > 0 and len(weighted) == len(bars) else None,
        sum(counts) if len(counts) == len(bars) else None, complete, all(one.final for one in bars),
    )  # fmt: skip

"""The bars of one interval with their features, symbol by symbol, each as soon as it is there.

What is kept of a symbol is its last bars. A feature's handle is always what opening it on the first of them and
updating it with the others gives, so that a line that is made again from the same bars gives the same bits. A bar that
is revised, or comes after later ones, is put in its place, and the rows from there on follow anew.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from operator import itemgetter
from typing import NamedTuple
from zlib import crc32

import numpy as np
import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.features.kernels.cross_section import CrossSection
from quantlytic_assets.features.online import Board
from quantlytic_assets.features.registry import Registry
from quantlytic_assets.features.spec import Feature, column_names
from quantlytic_assets.live.bars import Bar
from quantlytic_assets.market_data.stream.messages import moment

# A close of another symbol that is older says nothing any more; `services.features` has the same rule.
_OLDEST = timedelta(days=30) // timedelta(microseconds=1)
_MOST_CLOSES = 50_000
# Rows of a symbol beyond those that rules look back on: symbols of a backlog do not come side by side.
KEPT_ROWS = 240
# Bars of a symbol that may be taken in at once, for none of their rows, and of those that rules look back on, to be
# forgotten on the way.
BARS_AT_ONCE = 32
_PRICES = ("open", "high", "low", "close", "volume")


class Row(NamedTuple):
    """A bar and the values of its features, in the order of the columns; NaN where one is not defined."""

    bar: Bar
    values: tuple[float, ...]


@dataclass(frozen=True)
class Listing:
    """Which company a symbol is now, and how many shares one of its first shares has become."""

    name: str
    shares: float = 1.0


@dataclass
class Closes:
    """Closes of another symbol in the order in which they became available, times its shares."""

    available: list[int] = field(default_factory=list)
    closes: list[float] = field(default_factory=list)

    def put(self, available_at: int, close: float) -> None:
        """Add a close, in place of one that became available at the same time."""
        at = bisect_left(self.available, available_at)
        if at < len(self.available) and self.available[at] == available_at:
            self.closes[at] = close
        else:
            self.available.insert(at, available_at)
            self.closes.insert(at, close)
        if len(self.available) > 2 * _MOST_CLOSES:
            del self.available[:_MOST_CLOSES], self.closes[:_MOST_CLOSES]

    def before(self, available_at: int) -> tuple[float, float]:
        """The last close that was available by then, and for how many minutes it had been; NaN without one."""
        at = bisect_right(self.available, available_at) - 1
        if at < 0 or available_at - self.available[at] > _OLDEST:
            return float("nan"), float("nan")
        return self.closes[at], (available_at - self.available[at]) / 60e6


@dataclass(slots=True)
class _Line:
    """One symbol's bars, the rows of the last of them by their times, and with how many the oldest are forgotten."""

    most: int
    bars: list[Bar] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    rows: dict[int, Row] = field(default_factory=dict)
    revisions: dict[int, int] = field(default_factory=dict)


class Lines:
    """The lines of one interval.

    features: those of the dataset. look_back: how many rows before the newest one are kept for rules. listings: by
    symbol, where they are known. closes: of the other symbols that features read, by the name that they are read with;
    own: which of these are of this dataset, by symbol.
    """

    def __init__(
        self,
        interval: str,
        features: Sequence[Feature],
        registry: Registry,
        look_back: int,
        listings: Mapping[str, Listing] | None = None,
        closes: Mapping[str, Closes] | None = None,
        own: Mapping[str, str] | None = None,
    ):
        self.interval = interval
        self.columns = tuple(column_names(features))
        singles = [one for one in features if one.spec.kind != "cross_section"]
        self._across = [(one.inputs[0], one.columns[0], one.kernel()) for one in features
                        if one.spec.kind == "cross_section"]  # fmt: skip
        known = set(column_names(singles))
        needed = dict.fromkeys(name for name, _, _ in self._across if name not in known and name not in _PRICES)
        self._features = (*singles, *(registry.of_column(name) for name in needed))
        self._listings = dict(listings or {})
        self._closes = dict(closes or {})
        self._own = dict(own or {})
        self._board = Board(self._features)
        self._sums = [name for one in self._features if one.spec.cumulative for name in one.columns]
        self._stored: dict[str, tuple[int, tuple[float, ...]]] = {}
        self.warmup = self._board.warmup
        self.look_back = look_back
        self.keep = self.warmup + look_back + BARS_AT_ONCE
        self._lines: dict[str, _Line] = {}
        # Where each column of a row is found: among the board's, or in a cross-section.
        places = {name: at for at, name in enumerate(self._board.columns)}
        self._places = [places.get(name, -1) for name in self.columns]
        self._straight = self._places == list(range(len(places)))
        # Whether a feature reads when a bar opens.
        self._timed = "time" in self._board.inputs
        self._wide: dict[int, dict[str, dict[str, float]]] = {}

    @property
    def others(self) -> tuple[str, ...]:
        """The names of other symbols whose closes are read."""
        return tuple(self._closes)

    @property
    def sums(self) -> tuple[str, ...]:
        """The columns that are sums since the first bar."""
        return tuple(self._sums)

    def stored(self, symbol: str) -> tuple[int, tuple[float, ...]] | None:
        """A time of one of the symbol's bars, and its sums there, from which those of later bars go on."""
        return self._stored.get(symbol)

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols that have a bar."""
        return tuple(self._lines)

    def open(
        self, bars: Iterable[tuple[Bar, int]], stored: Mapping[str, tuple[int, tuple[float, ...]]] | None = None
    ) -> None:
        """Begin with known bars and the numbers of their revisions, in any order.

        stored: by symbol, the time of one of its bars and what sums since the first bar had come to there (`sums`).
        """
        self._stored = dict(stored or {})
        for bar, revision in sorted(bars, key=lambda one: one[0].open_time):
            line = self._line(bar.symbol)
            line.bars.append(bar)
            line.times.append(bar.open_time)
            line.revisions[bar.open_time] = revision
        for symbol in self._lines:
            self._learn(self._lines[symbol].bars)
        for symbol, line in self._lines.items():
            at = max(0, len(line.bars) - self.look_back - 33)
            self._reopen(symbol, line, at)
            for bar in line.bars[at:]:
                self._update([(line, bar)])
        if self._across:
            for time in sorted({time for line in self._lines.values() for time in line.rows}):
                self._cross(time)

    def _learn(self, bars: Iterable[Bar]) -> None:
        for bar in bars:
            name = self._own.get(bar.symbol)
            if name is not None:
                self._closes[name].put(bar.available_at, bar.close * self._listing(bar.symbol).shares)

    def _listing(self, symbol: str) -> Listing:
        return self._listings.get(symbol) or Listing(symbol)

    def row(self, symbol: str, time: int) -> Row | None:
        """The row of a symbol's bar of a time, if it is kept."""
        line = self._lines.get(symbol)
        return None if line is None else line.rows.get(time)

    def oldest_row(self) -> tuple[date, int] | None:
        """Session and time of the oldest row that is kept; None without any."""
        first = [line.bars[-len(line.rows)] for line in self._lines.values() if line.rows]
        return min(((one.session, one.open_time) for one in first), key=itemgetter(1), default=None)

    def adopt(self, row: Row) -> bool:
        """Put a row in place of the one that was made of its bar; whether that one is still kept."""
        rows = self._lines[row.bar.symbol].rows
        kept = row.bar.open_time in rows
        if kept:
            rows[row.bar.open_time] = row
        return kept

    def revise(self, bar: Bar) -> int | None:
        """The number of a bar's revision, to be taken in next; None where it says nothing new, or is too old."""
        line = self._line(bar.symbol)
        at = bisect_left(line.times, bar.open_time)
        if at < len(line.times) and line.times[at] == bar.open_time:
            if line.bars[at].says() == bar.says() and line.bars[at].complete == bar.complete:
                return None
            line.revisions[bar.open_time] += 1
        elif at == 0 and len(line.times) >= self.keep:
            return None
        else:
            line.revisions[bar.open_time] = 0
        return line.revisions[bar.open_time]

    def trim(self) -> None:
        """Forget rows that no rule looks back on; to be called when what follows from a batch is known."""
        most = self.look_back + KEPT_ROWS
        for line in self._lines.values():
            gone = len(line.rows) - most
            if gone > 0:
                # Rows are those of the last bars, without a hole.
                first = len(line.times) - len(line.rows)
                for time in line.times[first : first + gone]:
                    del line.rows[time]
        if len(self._wide) > 2 * most:
            for time in sorted(self._wide)[:-most]:
                del self._wide[time]

    def begins(self, symbol: str) -> int:
        """The open time of the oldest bar that is kept of a symbol, -1 without one."""
        line = self._lines.get(symbol)
        return line.times[0] if line is not None and line.times else -1

    def take(self, bars: Iterable[Bar]) -> list[Row]:
        """Take in bars that are new or revised; the rows that follow from them, by time and symbol."""
        ordered = sorted(bars, key=lambda one: (one.open_time, one.symbol))
        self._learn(ordered)
        changed: set[tuple[int, str]] = set()
        behind: dict[str, int] = {}
        # Bars that follow the newest one of their symbol are computed side by side, as long as no symbol comes twice.
        fresh: dict[str, tuple[_Line, Bar]] = {}
        for bar in ordered:
            line = self._line(bar.symbol)
            if bar.symbol in fresh:
                self._update(list(fresh.values()))
                fresh = {}
            if bar.symbol not in behind and (not line.times or bar.open_time > line.times[-1]):
                if not line.times:
                    self._reopen(bar.symbol, line, 0)
                if len(line.bars) >= line.most:
                    self._cut(bar.symbol, line)
                    self._reopen(bar.symbol, line, len(line.bars))
                line.bars.append(bar)
                line.times.append(bar.open_time)
                fresh[bar.symbol] = (line, bar)
                changed.add((bar.open_time, bar.symbol))
                continue
            at = bisect_left(line.times, bar.open_time)
            if at == 0 and len(line.times) >= self.keep and bar.open_time != line.times[0]:
                continue
            if at < len(line.times) and line.times[at] == bar.open_time:
                line.bars[at] = bar
            else:
                line.bars.insert(at, bar)
                line.times.insert(at, bar.open_time)
            behind[bar.symbol] = min(bar.open_time, behind.get(bar.symbol, bar.open_time))
        self._update(list(fresh.values()))
        # What reads another symbol's close follows that where it came after the bar.
        for bar in ordered:
            if bar.symbol in self._own:
                for symbol, line in self._lines.items():
                    at = next((i for i in range(len(line.bars) - 1, -1, -1)
                               if line.bars[i].available_at < bar.available_at), -1) + 1  # fmt: skip
                    if at < len(line.bars) and (line.times[at], symbol) not in changed:
                        behind[symbol] = min(line.times[at], behind.get(symbol, line.times[at]))
        for symbol, since in behind.items():
            changed |= self._again(symbol, since)
        if self._across:
            for time in sorted({time for time, _ in changed}):
                changed |= {(time, symbol) for symbol in self._cross(time)}
        found = [(self._lines[symbol].rows.get(time)) for time, symbol in sorted(changed)]
        return [row for row in found if row is not None]

    def _line(self, symbol: str) -> _Line:
        """The line of a symbol, which begins where there is none yet."""
        line = self._lines.get(symbol)
        if line is None:
            # Another number for each: opening the handles of all symbols anew at one time would keep signals waiting.
            most = 2 * self.keep - crc32(symbol.encode()) % max(1, self.keep // 2)
            line = self._lines[symbol] = _Line(most)
        return line

    def _again(self, symbol: str, since: int) -> set[tuple[int, str]]:
        """Make the rows from a time on anew; those that are others now."""
        line = self._lines[symbol]
        at = bisect_left(line.times, since)
        before = dict(line.rows)
        self._reopen(symbol, line, at)
        for bar in line.bars[at:]:
            self._update([(line, bar)])
        return {(one, symbol) for one in line.times[at:] if not _same(before.get(one), line.rows.get(one))}

    def _cut(self, symbol: str, line: _Line) -> None:
        """Forget the oldest bars beyond those that are kept."""
        if self._sums and line.rows:
            # From there sums go on, also where a bar after it is revised.
            row = line.rows[sorted(line.rows)[-min(len(line.rows), self.look_back + 33)]]
            self._stored[symbol] = (
                row.bar.open_time,
                tuple(row.values[self.columns.index(name)] for name in self._sums),
            )
        gone = max(0, len(line.bars) - self.keep)
        for time in line.times[:gone]:
            line.rows.pop(time, None)
            line.revisions.pop(time, None)
        del line.bars[:gone], line.times[:gone]

    def _reopen(self, symbol: str, line: _Line, at: int) -> None:
        """Open a symbol's handles on the bars before a place."""
        known = line.bars[:at]
        if not known:
            self._board.close(symbol)
            return
        stored = self._stored.get(symbol)
        sums = None
        if stored is not None:
            time, values = stored
            sums = pl.DataFrame(
                {
                    "symbol": [symbol], "interval": [self.interval],
                    "open_time": pl.Series([time], dtype=pl.Int64).cast(TIME),
                    **{name: [value] for name, value in zip(self._sums, values, strict=True)},
                }
            )  # fmt: skip
        self._board.open(self._frame(known), sums)

    def _frame(self, bars: Sequence[Bar]) -> pl.DataFrame:
        """Bars as `Board.open` reads them."""
        columns: dict[str, object] = {
            "symbol": [one.symbol for one in bars],
            "interval": [self.interval] * len(bars),
            "session": [one.session for one in bars],
            "open_time": pl.Series([one.open_time for one in bars], dtype=pl.Int64).cast(TIME),
            **{name: [getattr(one, name) for one in bars] for name in _PRICES},
            "listing": [self._listing(one.symbol).name for one in bars],
            "shares": [self._listing(one.symbol).shares for one in bars],
        }
        for name, closes in self._closes.items():
            found = [closes.before(one.available_at) for one in bars]
            columns[f"close:{name}"] = [close for close, _ in found]
            columns[f"age:{name}"] = [age for _, age in found]
        return pl.DataFrame(columns, strict=False).with_columns(pl.selectors.float().fill_nan(None))

    def _update(self, bars: Sequence[tuple[_Line, Bar]]) -> None:
        """Make the rows of the next bars of different symbols, which are in their lines already."""
        if len(bars) == 1:
            told = [self._board.values(bars[0][1].symbol, self._given(bars[0][1]))]
        else:
            told = self._board.values_of([(bar.symbol, self._given(bar)) for _, bar in bars]) if bars else []
        for (line, bar), found in zip(bars, told, strict=True):
            values = found if self._straight else [found[at] if at >= 0 else float("nan") for at in self._places]
            line.rows[bar.open_time] = Row(bar, tuple(values))
            if self._across:
                wide = self._wide.setdefault(bar.open_time, {})
                for name, _, _ in self._across:
                    value = getattr(bar, name) if name in _PRICES else found[self._board.columns.index(name)]
                    wide.setdefault(name, {})[bar.symbol] = value

    def _given(self, bar: Bar) -> dict[str, object]:
        """A bar as `Board.values` reads it."""
        listing = self._listing(bar.symbol)
        given: dict[str, object] = {
            "session": bar.session, "open": bar.open, "high": bar.high, "low": bar.low, "close": bar.close,
            "volume": bar.volume, "listing": listing.name, "shares": listing.shares,
        }  # fmt: skip
        if self._timed:
            given["open_time"] = moment(bar.open_time)
        for name, closes in self._closes.items():
            given[f"close:{name}"], given[f"age:{name}"] = closes.before(bar.available_at)
        return given

    def _cross(self, time: int) -> set[str]:
        """Fill in the cross-sections of a time; the symbols whose rows are others now."""
        wide = self._wide.get(time)
        if wide is None:
            return set()
        rows = {symbol: line.rows[time] for symbol, line in self._lines.items() if time in line.rows}
        values = {symbol: list(row.values) for symbol, row in rows.items()}
        for name, column, kernel in self._across:
            assert isinstance(kernel, CrossSection), "features of all symbols of a time are cross-sections"
            given = {symbol: wide.get(name, {}).get(symbol, float("nan")) for symbol in sorted(rows)}
            at = self.columns.index(column)
            for symbol, value in zip(given, kernel.at(list(given.values())).tolist(), strict=True):
                values[symbol][at] = value
        changed = set()
        for symbol, row in rows.items():
            new = Row(row.bar, tuple(values[symbol]))
            if not _same(row, new):
                self._lines[symbol].rows[time] = new
                changed.add(symbol)
        return changed

    def kept(self, symbol: str) -> Sequence[Bar]:
        """The bars of a symbol that are kept, oldest first."""
        line = self._lines.get(symbol)
        return () if line is None else line.bars

    def rows(self, since: int, symbols: Iterable[str]) -> list[Row]:
        """The rows of these symbols from a time on, by symbol and time."""
        found: list[Row] = []
        for symbol in symbols:
            line = self._lines.get(symbol)
            if line is not None:
                found += [line.rows[time] for time in line.times[bisect_left(line.times, since) :] if time in line.rows]
        return found

    def has_before(self, symbol: str, time: int, bars: int) -> bool:
        """Whether the rows of so many bars before a symbol's bar of a time are kept, or of all bars that there were."""
        line = self._lines[symbol]
        at = bisect_left(line.times, time)
        return all(one in line.rows for one in line.times[max(0, at - bars) : at])

    def earlier(self, symbol: str, time: int, bars: int) -> int:
        """The time of the bar that is so many bars before a symbol's bar of a time, or of the first that is kept."""
        line = self._lines[symbol]
        return line.times[max(0, bisect_left(line.times, time) - bars)]


def _same(one: Row | None, other: Row | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.bar.says() == other.bar.says() and bool(
        np.array_equal(np.array(one.values), np.array(other.values), equal_nan=True)
    )

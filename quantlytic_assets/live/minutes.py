"""Trades into 1-minute bars as they come, many at once: the bars of `trade_bars.bars_from_ticks`, and revisions.

A minute of a symbol is over when a later trade of it has come, when the market is `grace` beyond it, or when the clock
says so. A trade that comes later makes its bar a revised one. A trade counts once, by its number; what numbers are
missing is remembered, so that one that overtook others is told from one that came twice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import orjson

from quantlytic_assets.features.kernels.compiling import compiled
from quantlytic_assets.market_data.stream.messages import MINUTE

# Minutes of a symbol that a late trade can still change, and stretches of missing numbers that are remembered.
SLOTS = 8
GAPS = 1024
# Minutes without a trade that are told of a symbol at once: of longer silence nothing follows.
_MOST_IDLE = 1_500
# Of a symbol: first and last number, time of the last one, the first minute that is not over, the first that is whole,
# missing stretches, the time of the newest price, and up to where minutes without a trade were told.
_FIRST, _LAST, _TIME, _OVER, _WHOLE, _GAPS, _PRICED, _IDLE = range(8)
# Of a minute of a symbol: when it begins, time and number of its first and last trade, trades, whether it was told and
# whether it changed since, and where on the bus its last trade stands.
_MINUTE, _FIRST_TIME, _FIRST_ID, _LAST_TIME, _LAST_ID, _COUNT, _TOLD, _CHANGED, _PART, _OFFSET = range(10)
_OPEN, _HIGH, _LOW, _CLOSE, _VOLUME, _QUOTE = range(6)
# Of what has changed: of how many symbols, and how many minutes.
_HEAD = struct.Struct(">II")
_UNKNOWN = -1
# What became of trades.
TAKEN, TWICE, TOO_LATE = range(3)


@compiled
def _new(line, gaps, number, time):
    """Whether a trade of this number was not seen; keeps account of those that are missing."""
    if line[_LAST] == _UNKNOWN:
        line[_FIRST], line[_LAST], line[_TIME] = number, number, time
        return True
    if number > line[_LAST]:
        if number > line[_LAST] + 1:
            if line[_GAPS] == GAPS:
                # Trades of the stretch that is forgotten count as seen.
                line[_GAPS] -= 1
                gaps[0, 0], gaps[0, 1] = gaps[line[_GAPS], 0], gaps[line[_GAPS], 1]
            gaps[line[_GAPS], 0] = line[_LAST] + 1
            gaps[line[_GAPS], 1] = number - 1
            line[_GAPS] += 1
        line[_LAST] = number
        line[_TIME] = max(time, line[_TIME])
        return True
    for at in range(line[_GAPS]):
        first, last = gaps[at, 0], gaps[at, 1]
        if first <= number <= last:
            if first == last:
                line[_GAPS] -= 1
                gaps[at, 0], gaps[at, 1] = gaps[line[_GAPS], 0], gaps[line[_GAPS], 1]
            elif number == first:
                gaps[at, 0] = number + 1
            elif number == last:
                gaps[at, 1] = number - 1
            elif line[_GAPS] < GAPS:
                gaps[line[_GAPS], 0] = number + 1
                gaps[line[_GAPS], 1] = last
                gaps[at, 1] = number - 1
                line[_GAPS] += 1
            else:
                gaps[at, 1] = number - 1
            return True
    if time > line[_TIME] + MINUTE:
        # Numbers don't go down within a market: the venue has begun to count anew.
        line[_FIRST], line[_LAST], line[_TIME], line[_GAPS] = number, number, time, 0
        return True
    if number < line[_FIRST]:
        # Overtaken by the very first one that came.
        if number < line[_FIRST] - 1 and line[_GAPS] < GAPS:
            gaps[line[_GAPS], 0] = number + 1
            gaps[line[_GAPS], 1] = line[_FIRST] - 1
            line[_GAPS] += 1
        line[_FIRST] = number
        return True
    return False


@compiled
def _take(
    symbols, numbers, times, prices, sizes, parts, offsets, begins, lines, gaps, ints, floats, newest, counts, due,
    touched, changed,
):  # fmt: skip
    """Add trades to their minutes. begins: of each, the minute of which not everything was seen.

    due: is set of symbols of which a minute may be over that was not told; touched and changed: of symbols, and of
    minutes of each, that are others than before. Returns how many were taken: all, or those before one for which a
    minute that was not told yet would be forgotten.
    """
    for i in range(len(symbols)):
        symbol, time, price, size = symbols[i], times[i], prices[i], sizes[i]
        line = lines[symbol]
        touched[symbol] = True
        minute = time - time % MINUTE
        if line[_WHOLE] == _UNKNOWN:
            line[_WHOLE] = begins[i] + MINUTE if begins[i] >= 0 else 0
            line[_OVER] = line[_IDLE] = max(minute, line[_WHOLE])
        at, oldest = -1, 0
        for slot in range(SLOTS):
            if ints[symbol, slot, _MINUTE] == minute:
                at = slot
                break
            if ints[symbol, slot, _MINUTE] < ints[symbol, oldest, _MINUTE]:
                oldest = slot
        if at < 0 and minute > ints[symbol, oldest, _MINUTE] and ints[symbol, oldest, _CHANGED]:
            return i
        if not _new(line, gaps[symbol], numbers[i], time):
            counts[TWICE] += 1
            continue
        if time >= line[_PRICED]:
            due[symbol] |= line[_PRICED] == _UNKNOWN
            line[_PRICED] = time
            newest[symbol, 0], newest[symbol, 1] = price, size
        if minute < line[_WHOLE]:
            continue
        if at < 0:
            if minute < ints[symbol, oldest, _MINUTE]:
                counts[TOO_LATE] += 1
                continue
            at = oldest
            one, values = ints[symbol, at], floats[symbol, at]
            one[:] = 0
            one[_MINUTE] = minute
            one[_FIRST_TIME] = one[_LAST_TIME] = time
            one[_FIRST_ID] = one[_LAST_ID] = numbers[i]
            one[_PART], one[_OFFSET] = parts[i], offsets[i]
            values[:] = price
            values[_VOLUME] = values[_QUOTE] = 0.0
        changed[symbol, at] = True
        one, values = ints[symbol, at], floats[symbol, at]
        if (time, numbers[i]) < (one[_FIRST_TIME], one[_FIRST_ID]):
            one[_FIRST_TIME], one[_FIRST_ID], values[_OPEN] = time, numbers[i], price
        if (time, numbers[i]) > (one[_LAST_TIME], one[_LAST_ID]):
            one[_LAST_TIME], one[_LAST_ID], values[_CLOSE] = time, numbers[i], price
            one[_PART], one[_OFFSET] = parts[i], offsets[i]
        values[_HIGH] = max(values[_HIGH], price)
        values[_LOW] = min(values[_LOW], price)
        values[_VOLUME] += size
        values[_QUOTE] += price * size
        one[_COUNT] += 1
        one[_CHANGED] = 1
        counts[TAKEN] += 1
        due[symbol] |= minute != line[_OVER]
        line[_OVER] = max(minute, line[_OVER])
    return len(symbols)


@compiled
def _pass(lines, ints, due, touched, now, found):
    """End the minutes before `now`; returns how many symbols have minutes without a trade, which are `found`."""
    count = 0
    for symbol in range(len(lines)):
        line = lines[symbol]
        if line[_WHOLE] == _UNKNOWN or line[_PRICED] == _UNKNOWN:
            continue
        if line[_OVER] < now:
            line[_OVER] = now
            due[symbol] = touched[symbol] = True
        if line[_IDLE] >= line[_OVER]:
            continue
        traded = line[_OVER] - line[_IDLE] <= SLOTS * MINUTE
        minute = line[_IDLE]
        while traded and minute < line[_OVER]:
            traded = False
            for slot in range(SLOTS):
                traded |= ints[symbol, slot, _MINUTE] == minute
            minute += MINUTE
        if traded:
            line[_IDLE] = line[_OVER]
            touched[symbol] = True
        else:
            found[count] = symbol
            count += 1
    return count


@compiled
def _ripe(lines, ints, due, changed, found):
    """(symbol, slot) of minutes that are over and changed since they were told; returns how many there are."""
    count = 0
    for symbol in range(len(lines)):
        if not due[symbol]:
            continue
        due[symbol] = False
        for slot in range(SLOTS):
            one = ints[symbol, slot]
            if one[_CHANGED] and one[_MINUTE] < lines[symbol, _OVER]:
                found[count, 0], found[count, 1] = symbol, slot
                count += 1
                one[_CHANGED] = 0
                one[_TOLD] = 1
                changed[symbol, slot] = True
    return count


class Minute(NamedTuple):
    """A minute of a symbol: its bar, and where on the bus its last trade stands."""

    symbol: str
    open_time: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    quote_volume: float
    trade_count: int
    partition: int
    offset: int


class Minutes:
    """The minutes of many symbols.

    since: by symbol, the first minute (microseconds) that is wanted. grace: how far the market must be beyond a minute
    for it to be over for a symbol of which nothing later has come, microseconds.
    """

    def __init__(self, symbols: Sequence[str], since: dict[str, int], grace: int):
        self.symbols = list(symbols)
        count = len(self.symbols)
        self._places = {symbol: at for at, symbol in enumerate(self.symbols)}
        self._grace = grace
        self._lines = np.full((count, 8), _UNKNOWN, dtype=np.int64)
        self._lines[:, _GAPS] = 0
        self._gaps = np.zeros((count, GAPS, 2), dtype=np.int64)
        self._ints = np.zeros((count, SLOTS, 10), dtype=np.int64)
        self._floats = np.zeros((count, SLOTS, 6))
        self.newest = np.full((count, 2), np.nan)
        # Of which symbols a minute may be over that was not told, and up to where all were ended last.
        self._due = np.ones(count, dtype=np.bool_)
        self._ended = _UNKNOWN
        # What is other than it was kept last: lines of symbols with their gaps, and minutes.
        self._touched = np.zeros(count, dtype=np.bool_)
        self._changed = np.zeros((count, SLOTS), dtype=np.bool_)
        self.counts = np.zeros(3, dtype=np.int64)
        self._minutes: list[Minute] = []
        self._untraded: list[tuple[str, int]] = []
        for symbol, minute in since.items():
            if symbol in self._places:
                self._lines[self._places[symbol], (_WHOLE, _OVER, _IDLE)] = minute

    def take(self, symbols: np.ndarray, numbers: np.ndarray, times: np.ndarray, prices: np.ndarray, sizes: np.ndarray,
             parts: np.ndarray, offsets: np.ndarray, begins: np.ndarray) -> None:  # fmt: skip
        """Take in trades. symbols: their places among `symbols`; begins: of each, the minute in which its part begins.

        Minutes that are over wait for `told`, also those that later ones would take the place of.
        """
        arrays = (symbols, numbers, times, prices, sizes, parts, offsets, begins)
        start = 0
        while start < len(symbols):
            start += _take(
                *(one[start:] for one in arrays), self._lines, self._gaps, self._ints, self._floats, self.newest,
                self.counts, self._due, self._touched, self._changed,
            )  # fmt: skip
            if start < len(symbols):
                self._end(_UNKNOWN)

    def prices(self) -> list[tuple[str, float, float, int]]:
        """(symbol, price, size, time) of the symbols with a newer price than when this was asked last."""
        found = np.flatnonzero(~np.isnan(self.newest[:, 0]))
        rows = zip(found.tolist(), self.newest[found].tolist(), self._lines[found, _PRICED].tolist(), strict=True)
        told = [(self.symbols[at], price, size, time) for at, (price, size), time in rows]
        self.newest[found] = np.nan
        return told

    @property
    def market_time(self) -> int:
        """The time of the newest trade of all symbols."""
        return int(self._lines[:, _PRICED].max(initial=_UNKNOWN))

    def told(self, until: int) -> tuple[list[Minute], list[tuple[str, int]]]:
        """What is new of minutes that are over: their bars, and (symbol, minute) of those without a trade.

        until: how far the market, or the clock, is, microseconds. Both are by time and symbol.
        """
        self._end((until - self._grace) // MINUTE * MINUTE)
        minutes, untraded = self._minutes, self._untraded
        self._minutes, self._untraded = [], []
        return sorted(minutes, key=lambda one: (one.open_time, one.symbol)), sorted(untraded, key=lambda one: one[::-1])

    def _end(self, now: int) -> None:
        """End the minutes before `now`, and note what is over."""
        if now <= self._ended and not self._due.any():
            return
        self._ended = now
        silent = np.empty(len(self.symbols), dtype=np.int64)
        count = _pass(self._lines, self._ints, self._due, self._touched, now, silent)
        for at in silent[:count].tolist():
            there, over = set(self._ints[at, :, _MINUTE].tolist()), int(self._lines[at, _OVER])
            first = max(int(self._lines[at, _IDLE]), over - _MOST_IDLE * MINUTE)
            missing = (minute for minute in range(first, over, MINUTE) if minute not in there)
            self._untraded += [(self.symbols[at], minute) for minute in missing]
            self._lines[at, _IDLE] = over
            self._touched[at] = True
        found = np.empty((len(self.symbols) * SLOTS, 2), dtype=np.int64)
        symbols, slots = found[: _ripe(self._lines, self._ints, self._due, self._changed, found)].T
        ints = self._ints[symbols, slots][:, (_MINUTE, _COUNT, _PART, _OFFSET)]
        rows = zip(symbols.tolist(), ints.tolist(), self._floats[symbols, slots].tolist(), strict=True)
        self._minutes += [Minute._make((self.symbols[at], one[0], *floats, *one[1:])) for at, one, floats in rows]

    def missing(self) -> int:
        """How many numbers of trades have not been seen among those that have."""
        total = 0
        for at in np.flatnonzero(self._lines[:, _GAPS]).tolist():
            own = self._gaps[at, : self._lines[at, _GAPS]]
            total += int((own[:, 1] - own[:, 0] + 1).sum())
        return total

    def kept(self) -> bytes:
        """Everything, as bytes."""
        head = orjson.dumps(self.symbols)
        gaps = self._kept_gaps(range(len(self.symbols)))
        arrays = (self._lines, self._ints, self._floats, self.counts)
        self._touched[:] = self._changed[:] = False
        return b"".join([len(head).to_bytes(4, "big"), head, *(one.data for one in arrays), *gaps])

    def changes(self) -> bytes:
        """What is other than it was when this or `kept` was asked last: a tenth of it, for most minutes are over."""
        rows, slots = np.flatnonzero(self._touched), np.flatnonzero(self._changed)
        ints, floats = (one.reshape(-1, one.shape[2])[slots] for one in (self._ints, self._floats))
        arrays = (rows, slots, self._lines[rows], ints, floats, self.counts)
        gaps = self._kept_gaps(rows.tolist())
        self._touched[:] = self._changed[:] = False
        return b"".join([_HEAD.pack(len(rows), len(slots)), *(one.data for one in arrays), *gaps])

    def _kept_gaps(self, rows: Iterable[int]) -> list[memoryview]:
        used = self._lines[:, _GAPS].tolist()
        return [self._gaps[at, : used[at]].data for at in rows if used[at]]

    def restore(self, kept: bytes, changes: Iterable[bytes] = ()) -> None:
        """Take up what was kept, and what had changed then, in that order, of the symbols that are the same."""
        size = int.from_bytes(kept[:4], "big")
        symbols = orjson.loads(kept[4 : 4 + size])
        # Where in this one each symbol is.
        places = np.array([self._places.get(symbol, -1) for symbol in symbols], dtype=np.int64)
        every, slots = np.arange(len(symbols)), np.arange(len(symbols) * SLOTS)
        self._take_up(memoryview(kept)[4 + size :], every, slots, places)
        for one in changes:
            rows, changed = _HEAD.unpack_from(one)
            numbers = np.frombuffer(one, np.int64, rows + changed, _HEAD.size)
            self._take_up(memoryview(one)[_HEAD.size + numbers.nbytes :], numbers[:rows], numbers[rows:], places)
        self._due[:] = True

    def _take_up(self, kept: memoryview, rows: np.ndarray, slots: np.ndarray, places: np.ndarray) -> None:
        """Take up lines of symbols and their minutes, by their numbers in what was kept. places: of symbols in this."""
        at = 0

        def read(count: int, width: int, kind: type = np.int64) -> np.ndarray:
            nonlocal at
            found: np.ndarray = np.frombuffer(kept, kind, count * width, at).reshape(count, width)
            at += found.nbytes
            return found

        lines = read(len(rows), self._lines.shape[1])
        ints, floats = read(len(slots), self._ints.shape[2]), read(len(slots), self._floats.shape[2], np.float64)
        self.counts[:] = read(1, len(self.counts))[0]
        homes, there = places[rows], places[slots // SLOTS] >= 0
        self._lines[homes[homes >= 0]] = lines[homes >= 0]
        own = (places[slots[there] // SLOTS], slots[there] % SLOTS)
        self._ints[own], self._floats[own] = ints[there], floats[there]
        for home, used in zip(homes.tolist(), lines[:, _GAPS].tolist(), strict=True):
            gaps = read(used, 2)
            if home >= 0:
                self._gaps[home, :used] = gaps

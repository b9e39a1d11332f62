"""One bar of the live path, and how it is kept as bytes."""

from __future__ import annotations

import struct
from datetime import date, timedelta
from typing import NamedTuple

_FORM = struct.Struct(">iqqq6dq??I")
_EPOCH = date(1970, 1, 1)
_NONE = float("nan")


class Bar(NamedTuple):
    """A bar as features and strategies use it; times are microseconds since 1970 UTC.

    complete: its time is over, and each native bar of it is there or is known not to have traded. final: nothing that
    comes on the stream is expected to change it.
    """

    symbol: str
    session: date
    open_time: int
    close_time: int
    available_at: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    vwap: float | None = None
    trade_count: int | None = None
    complete: bool = True
    final: bool = True

    def says(self) -> tuple[object, ...]:
        """What makes it another bar where it differs: prices and volumes."""
        return self[5:13]

    def packed(self, revision: int) -> bytes:
        """As it is kept, with the number of its revision; the symbol is part of the key."""
        return _FORM.pack(
            (self.session - _EPOCH).days, self.open_time, self.close_time, self.available_at, self.open, self.high,
            self.low, self.close, self.volume, _NONE if self.vwap is None else self.vwap,
            -1 if self.trade_count is None else self.trade_count, self.complete, self.final, revision,
        )  # fmt: skip

    @classmethod
    def unpacked(cls, symbol: str, kept: bytes) -> tuple[Bar, int]:
        """What `packed` gave: the bar, and the number of its revision."""
        day, opens, closes, available, *values, complete, final, revision = _FORM.unpack(kept)
        first, high, low, close, volume, vwap, count = values
        bar = cls(
            symbol, _EPOCH + timedelta(days=day), opens, closes, available, first, high, low, close, volume,
            None if vwap != vwap else vwap, None if count < 0 else count, complete, final,
        )  # fmt: skip
        return bar, revision


class Revised(NamedTuple):
    """A bar with the number of its revision, 0 for the first word on it, and the trace of what it came from."""

    bar: Bar
    revision: int
    trace: str

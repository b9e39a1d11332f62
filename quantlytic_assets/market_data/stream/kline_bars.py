"""A venue's own 1-minute klines, as a live stream brings them, into bars; what the stream missed is named.

Pure, as `trade_bars`, whose rules these share where they can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import polars as pl

from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.market_data.stream.messages import MINUTE, Kline, Message, Trade
from quantlytic_assets.market_data.stream.trade_bars import Decided, vwap


@dataclass
class _Line:
    """One symbol: the klines of minutes not decided yet, and the number of the last trade of the minute before."""

    decided: int
    last_id: int | None = None
    klines: dict[int, Kline] = field(default_factory=dict)


class KlineBars:
    """Takes finished klines of one venue's symbols.

    A minute whose kline is not there `patience` after its end is wanted; so is one whose trades don't follow the minute
    before it number by number, and that minute with it.

    `since`: by symbol, the first minute to decide (microseconds).
    """

    def __init__(self, vendor: str, since: Mapping[str, int], grace: timedelta, patience: timedelta):
        self.vendor = vendor
        self._lines = {symbol: _Line(minute) for symbol, minute in since.items()}
        self._grace = grace // timedelta(microseconds=1)
        self._patience = patience // timedelta(microseconds=1)
        self._connected = False

    def connected(self) -> None:
        """A new connection stands."""
        self._connected = True

    def disconnected(self) -> None:
        """The connection is gone: klines of minutes that are over will not come."""
        self._connected = False

    def take(self, message: Message) -> list[Trade]:
        """Take in a message. Klines hold no single trades, so none are returned."""
        for kline in message.klines:
            line = self._lines.get(kline.symbol)
            # A kline of a minute that was decided without it has been asked for already.
            if line is not None and kline.closed and kline.open_time >= line.decided:
                line.klines.setdefault(kline.open_time, kline)
        return []

    def decide(self, now: int, fetched_at: datetime) -> Decided:
        """Decide the minutes that are over at `now`, the venue's time; `fetched_at` goes on the bars."""
        good: list[Kline] = []
        wanted: list[tuple[str, int]] = []
        for symbol, line in self._lines.items():
            while self._ripe(line, now):
                minute, kline = line.decided, line.klines.pop(line.decided, None)
                if kline is None:
                    wanted.append((symbol, minute))
                    line.last_id = None
                else:
                    if follows(line.last_id, kline):
                        good.append(kline)
                    else:
                        wanted += [(symbol, minute - MINUTE), (symbol, minute)]
                    # A minute without trades hands the number on.
                    line.last_id = kline.last_id if kline.last_id >= 0 else line.last_id
                line.decided = minute + MINUTE
        return Decided(bars_from_klines(good, self.vendor, fetched_at), wanted)

    def _ripe(self, line: _Line, now: int) -> bool:
        if line.decided in line.klines:
            return True
        return now >= line.decided + MINUTE + (self._patience if self._connected else self._grace)


def follows(last_id: int | None, kline: Kline) -> bool:
    """Whether the kline's first trade is the one after `last_id`. True where either is not known."""
    return last_id is None or kline.first_id < 0 or kline.first_id == last_id + 1


def bars_from_klines(klines: Sequence[Kline], vendor: str, fetched_at: datetime) -> pl.DataFrame:
    """Klines as RAW_SCHEMA rows, in their order."""
    if not klines:
        return pl.DataFrame(schema=RAW_SCHEMA)
    opened = pl.col("open_time").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return (
        pl.DataFrame(klines, schema=Kline._fields, orient="row")
        .with_columns(
            opened.alias("open_time"),
            (opened + timedelta(minutes=1)).alias("close_time"),
            vwap(pl.col("quote_volume"), pl.col("volume")).alias("vwap"),
            pl.lit(vendor).alias("vendor"),
            pl.lit(fetched_at).cast(RAW_SCHEMA["fetched_at"]).alias("fetched_at"),
            pl.lit("none").alias("adjustment"),
        )
        .select(RAW_SCHEMA.names())
        .cast(dict(RAW_SCHEMA))
    )

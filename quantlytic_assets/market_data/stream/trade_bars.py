"""Trades into 1-minute bars: of a whole frame at once, or minute by minute as a live stream brings them.

Pure: no clock is read and nothing is fetched. A minute of a stream is built only when it is certain that every trade of
it was seen; any other is named, for somebody to fetch from the venue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from math import floor, log10

import polars as pl

from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.market_data.stream.messages import MINUTE, Announced, Message, Trade
from quantlytic_assets.market_data.stream.ticks import tick_frame

# Both venues give sizes to at most 8 decimals: rounding takes the noise of adding them up away, and nothing else.
SIZE_DECIMALS = 8
_VWAP_DIGITS = 12
# Within these all powers of ten that round a volume or a price are exact, so that any way to round gives the same bits.
_USUAL_VOLUME = 1e14
_USUAL_PRICES = (1e-10, 1e11)
_LONG_AGO = -1


def vwap(quote_volume: pl.Expr, volume: pl.Expr) -> pl.Expr:
    """Quote volume by volume, to 12 digits, so that it is the same by whatever way the volumes were added up."""
    return pl.when(volume > 0).then((quote_volume / volume).round_sig_figs(_VWAP_DIGITS))


def rounded(volume: float, quote_volume: float) -> tuple[float, float | None]:
    """Volume and VWAP of one bar, of the sums of its sizes and of its prices times sizes.

    The same bits as in `bars_from_ticks`, without a frame, which takes a hundred times as long for one bar.
    """
    if volume < _USUAL_VOLUME:
        exact = round(volume * 10.0**SIZE_DECIMALS) / 10.0**SIZE_DECIMALS
        if not exact:
            return exact, None
        price = quote_volume / exact
        if _USUAL_PRICES[0] <= price < _USUAL_PRICES[1]:
            scale = 10.0 ** (_VWAP_DIGITS - 1 - floor(log10(price)))
            return exact, int(price * scale + 0.5) / scale
    sums = pl.DataFrame({"volume": [volume], "quote": [quote_volume]})
    size = pl.col("volume").round(SIZE_DECIMALS)
    return sums.select(size, vwap(pl.col("quote"), size).alias("vwap")).row(0)


def bars_from_ticks(ticks: pl.DataFrame, fetched_at: datetime) -> pl.DataFrame:
    """1-minute bars (RAW_SCHEMA, by symbol and time) of all trades of a TICK_SCHEMA frame, in any order.

    A trade that is there twice, by symbol and trade_id, counts once. Open and close are the first and last trade by
    (time, trade_id); a minute without a trade has no bar.
    """
    return (
        ticks.unique(["symbol", "trade_id"], keep="first")
        .sort("symbol", "time", "trade_id")
        .group_by("symbol", pl.col("time").dt.truncate("1m").alias("open_time"), maintain_order=True)
        .agg(
            pl.col("price").first().alias("open"),
            pl.col("price").max().alias("high"),
            pl.col("price").min().alias("low"),
            pl.col("price").last().alias("close"),
            pl.col("size").sum().round(SIZE_DECIMALS).alias("volume"),
            (pl.col("price") * pl.col("size")).sum().alias("quote_volume"),
            pl.len().cast(pl.Int64).alias("trade_count"),
            pl.col("vendor").first(),
        )
        .with_columns(
            (pl.col("open_time") + timedelta(minutes=1)).alias("close_time"),
            vwap(pl.col("quote_volume"), pl.col("volume")).alias("vwap"),
            pl.lit(fetched_at).cast(RAW_SCHEMA["fetched_at"]).alias("fetched_at"),
            pl.lit("none").alias("adjustment"),
        )
        .select(RAW_SCHEMA.names())
    )


@dataclass(frozen=True)
class Decided:
    """What became of the minutes that are over: `bars` (RAW_SCHEMA), and (symbol, minute) whom the venue must be asked.

    A minute that was whole and had no trade is in neither.
    """

    bars: pl.DataFrame
    wanted: list[tuple[str, int]]


@dataclass
class _Gap:
    """Trades numbered first … last that were not seen; they happened between `since` and `until`.

    Minutes before `decided` had been decided when it showed.
    """

    first: int
    last: int
    since: int
    until: int
    decided: int

    def touches(self, start: int, end: int) -> bool:
        """Whether one of the trades may have happened in [start, end)."""
        return self.since < end and self.until >= start


@dataclass
class _Break:
    """A time in which nothing of the symbol could be heard; `until` is None while it goes on."""

    since: int
    until: int | None = None


@dataclass
class _Chain:
    """One symbol: how far its trades are known without a break, and the trades of minutes not decided yet.

    Minutes before `begin` are nobody's business here, those from there to `decided` are decided.
    """

    begin: int
    decided: int
    known_since: int = 0
    first_id: int = 0
    last_id: int | None = None
    last_time: int = 0
    away: _Break | None = field(default_factory=lambda: _Break(_LONG_AGO))
    gaps: list[_Gap] = field(default_factory=list)
    minutes: dict[int, list[Trade]] = field(default_factory=dict)

    def knows(self, start: int, end: int) -> bool:
        """Whether every trade with start <= time < end is here."""
        if start < self.known_since:
            return False
        if self.away is not None and self.away.since < end and (self.away.until is None or self.away.until > start):
            return False
        return not any(gap.touches(start, end) for gap in self.gaps)

    def may_still_know(self, start: int, end: int, fresh: int) -> bool:
        """Whether a trade missing there showed after `fresh` only, so that it may be just late."""
        return any(gap.touches(start, end) and gap.until > fresh for gap in self.gaps)


class TradeBars:
    """Builds the bars of one venue's symbols from a stream of trades.

    `since`: by symbol, the first minute to decide (microseconds). A minute is decided when the venue's time is `grace`
    past its end and something was heard from beyond its end; where nothing is heard, after `patience`. Trades may
    arrive in any order within the grace. One that comes later, or turns out later to have been missed, makes its minute
    wanted again: what was built of it was wrong.
    """

    def __init__(self, vendor: str, since: Mapping[str, int], grace: timedelta, patience: timedelta):
        self.vendor = vendor
        self._chains = {symbol: _Chain(minute, minute) for symbol, minute in since.items()}
        self._grace = grace // timedelta(microseconds=1)
        self._patience = patience // timedelta(microseconds=1)
        self._connected = False
        self._heard = _LONG_AGO
        self._wanted: dict[tuple[str, int], None] = {}

    def connected(self) -> None:
        """A new connection stands; what it brings of a symbol is complete from its first message about it on."""
        self._connected = True
        self._heard = _LONG_AGO

    def disconnected(self) -> None:
        """The connection is gone, and with it whatever happened since the last message on it."""
        if not self._connected:
            return
        self._connected = False
        if self._heard == _LONG_AGO:
            return
        for chain in self._chains.values():
            # Streams of one connection run beside each other, so that one may be a little behind what was heard last.
            since = self._heard - self._grace
            chain.away = _Break(since if chain.away is None else min(chain.away.since, since))

    def take(self, message: Message) -> list[Trade]:
        """Take in a message; returns its trades that were not known before."""
        if message.time is not None and message.symbol in self._chains:
            self._heard = max(self._heard, message.time)
            chain = self._chains[message.symbol]
            if chain.away is not None and chain.away.until is None:
                chain.away.until = message.time
        for announced in message.announced:
            self._announce(announced)
        return [trade for trade in message.trades if self._add(trade)]

    def _add(self, trade: Trade) -> bool:
        chain = self._chains.get(trade.symbol)
        if chain is None or not self._number(chain, trade.trade_id, trade.time):
            return False
        minute = trade.time - trade.time % MINUTE
        if chain.begin <= minute < chain.decided:
            self._wanted[trade.symbol, minute] = None
        elif minute >= chain.decided:
            chain.minutes.setdefault(minute, []).append(trade)
        return True

    def _number(self, chain: _Chain, trade_id: int, time: int) -> bool:
        """Whether a trade of this number is new; keeps account of the numbers that are still missing."""
        if chain.last_id is None:
            self._begin(chain, trade_id, time)
        elif trade_id > chain.last_id:
            if trade_id > chain.last_id + 1:
                chain.gaps.append(_Gap(chain.last_id + 1, trade_id - 1, chain.last_time, time, chain.decided))
            # Whatever was missed while away has a number, and so is a gap now.
            chain.away = None
        elif self._late(chain, trade_id):
            return True
        elif time > chain.last_time + MINUTE:
            # Numbers don't go down within a market: the venue has begun to count anew.
            chain.gaps.append(_Gap(0, -1, chain.last_time, time, chain.decided))
            chain.first_id = trade_id
        elif trade_id < chain.first_id:
            # Overtaken by the very first one that came.
            if trade_id < chain.first_id - 1:
                chain.gaps.append(_Gap(trade_id + 1, chain.first_id - 1, time, chain.last_time, chain.decided))
            chain.first_id = trade_id
            return True
        else:
            if trade_id == chain.last_id:
                chain.away = None
            return False
        chain.last_id, chain.last_time = trade_id, max(time, chain.last_time)
        return True

    def _begin(self, chain: _Chain, first_id: int, time: int) -> None:
        """Nothing is known of the numbers before `first_id`, nor of what was traded before the symbol was heard of."""
        chain.first_id = first_id
        heard = chain.away.until if chain.away is not None else None
        chain.known_since = time if heard is None else min(time, heard)
        chain.away = None

    def _late(self, chain: _Chain, trade_id: int) -> bool:
        """Whether the number is one of those missing; it is not any more."""
        for at, gap in enumerate(chain.gaps):
            if gap.first <= trade_id <= gap.last:
                parts = [replace(gap, last=trade_id - 1), replace(gap, first=trade_id + 1)]
                chain.gaps[at : at + 1] = [part for part in parts if part.first <= part.last]
                return True
        return False

    def _announce(self, announced: Announced) -> None:
        chain = self._chains.get(announced.symbol)
        if chain is None:
            return
        if chain.last_id is None:
            # The numbers begin after this one; should its own trade be on its way, it is one overtaken by the first.
            self._begin(chain, announced.last_id + 1, announced.time)
            chain.last_id, chain.last_time = announced.last_id, announced.time
            return
        if announced.last_id < chain.last_id:
            return
        if announced.last_id > chain.last_id:
            gap = _Gap(chain.last_id + 1, announced.last_id, chain.last_time, announced.time, chain.decided)
            chain.gaps.append(gap)
            chain.last_id, chain.last_time = announced.last_id, max(announced.time, chain.last_time)
        chain.away = None

    def decide(self, now: int, fetched_at: datetime) -> Decided:
        """Decide the minutes that are over at `now`, the venue's time; `fetched_at` goes on the bars."""
        whole: list[Trade] = []
        for symbol, chain in self._chains.items():
            while self._ripe(chain.decided + MINUTE, now):
                minute = chain.decided
                if chain.may_still_know(minute, minute + MINUTE, now - self._grace):
                    break
                trades = chain.minutes.pop(minute, [])
                if chain.knows(minute, minute + MINUTE):
                    whole += trades
                else:
                    self._wanted[symbol, minute] = None
                chain.decided = minute + MINUTE
            self._expire(symbol, chain, now)
        wanted, self._wanted = list(self._wanted), {}
        bars = bars_from_ticks(tick_frame(whole, self.vendor), fetched_at) if whole else pl.DataFrame(schema=RAW_SCHEMA)
        return Decided(bars, wanted)

    def _ripe(self, end: int, now: int) -> bool:
        if now < end + self._grace:
            return False
        if self._heard >= end or not self._connected:
            return True
        if now < end + self._patience:
            return False
        # Connected by name only: what happened since the last message may never come.
        self.disconnected()
        self._connected = True
        return True

    def _expire(self, symbol: str, chain: _Chain, now: int) -> None:
        """Give up gaps that the grace has not filled: minutes built in spite of them were built too early."""
        for gap in chain.gaps:
            if gap.until + self._grace <= now:
                first = max(gap.since - gap.since % MINUTE, chain.begin)
                for minute in range(first, min(gap.until + 1, gap.decided), MINUTE):
                    self._wanted[symbol, minute] = None
                gap.decided = _LONG_AGO
        # One that reaches into a minute not decided yet is needed to decide it.
        chain.gaps = [gap for gap in chain.gaps if gap.until + self._grace > now or gap.until >= chain.decided]

"""What a feed has to publish: kept until the bus has it, however long that takes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import islice

import polars as pl

from quantlytic_assets.feeds.background import in_background
from quantlytic_assets.feeds.on_bus import KnownBars, bars_on_bus, newest_ticks
from quantlytic_assets.feeds.report import Report
from quantlytic_assets.market_data.stream.messages import Trade
from quantlytic_assets.market_data.stream.ticks import TICK_HEADERS, encode_ticks, tick_frame
from quantlytic_assets.market_data.wire.records import BAR_HEADERS, encode_bars
from quantlytic_assets.storage.bus import Bus, bars_topic, ticks_topic

_LONGEST_WAIT = 30.0
_TRADES_AT_ONCE = 5_000
# A few hundred megabytes. Bars are never dropped; trades are of use only while they are new.
_MOST_TRADES = 1_000_000


class Outbox:
    """Publishes one dataset's bars and trades, each once; knows which bars of the last `memory` are on the bus.

    One call to the bus at a time. When a call fails the bus may have taken some of it: what it has is read before it is
    tried again. `now` is the venue's time, `every` the seconds between calls; after failures they double.
    """

    def __init__(
        self,
        bus: Bus,
        dataset: str,
        vendor: str,
        report: Report,
        now: Callable[[], datetime],
        memory: timedelta,
        every: float = 0.5,
    ):
        self._bus = bus
        self._bars_topic = bars_topic(dataset)
        self._ticks_topic = ticks_topic(dataset)
        self._vendor = vendor
        self._report = report
        self._now = now
        self._memory = memory
        self._every = every
        self._trades: deque[Trade] = deque(maxlen=_MOST_TRADES)
        self._bars: list[pl.DataFrame] = []
        self._known = KnownBars()
        self._sure_of_bars = False
        self._sure_of_trades = True
        self._failures = 0
        self._begun = False
        self.ready = asyncio.Event()

    def begin(self) -> None:
        """`now` is the venue's time from here on; nothing is published before."""
        self._begun = True

    def put_trades(self, trades: list[Trade]) -> None:
        """Trades to be published. When the bus stays away too long the oldest are dropped, and that is said."""
        self._report.count("trades dropped", max(0, len(self._trades) + len(trades) - _MOST_TRADES))
        self._trades.extend(trades)

    def put_bars(self, bars: pl.DataFrame) -> None:
        """RAW_SCHEMA bars to be published, unless they are on the bus already."""
        if len(bars):
            self._bars.append(bars)

    def missing(self, minutes: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """Those of (symbol, minute) of which no bar is on the bus. To be asked once `ready` is set."""
        return self._known.missing(minutes)

    @property
    def waiting(self) -> int:
        """Bars not published yet."""
        return sum(map(len, self._bars))

    async def run(self, stopping: asyncio.Event) -> None:
        """Publish what comes until `stopping` is set, then what is left, while the bus takes it."""
        while not stopping.is_set():
            fine = await self._publish()
            wait = self._every if fine else min(self._every * 2 ** min(self._failures, 30), _LONGEST_WAIT)
            try:
                async with asyncio.timeout(wait):
                    await stopping.wait()
            except TimeoutError:
                continue
        await self._publish()

    async def _publish(self) -> bool:
        """One round: see what is on the bus where that is in doubt, then bars, then trades. False: the bus failed."""
        if not self._begun:
            return True
        try:
            await self._publish_bars()
            await self._publish_trades()
        except Exception as error:
            # Whatever a bus raises: what is to be published stays, and is tried again.
            self._sure_of_bars = self._sure_of_trades = False
            self._failures += 1
            self._report.note(f"the bus does not take it: {error}")
            return False
        if self._failures:
            self._report.note("the bus takes it again")
            self._failures = 0
        return True

    async def _publish_bars(self) -> None:
        if not self._sure_of_bars:
            since = self._now() - self._memory
            self._known.learn(await in_background(lambda: bars_on_bus(self._bus, self._bars_topic, since)))
            self._sure_of_bars = True
            self.ready.set()
        taken = len(self._bars)
        if not taken:
            return
        bars = pl.concat(self._bars[:taken]).unique(["symbol", "open_time"], keep="last").sort("open_time", "symbol")
        fresh = self._known.fresh(bars)
        if len(fresh):
            await self._send(self._bars_topic, encode_bars(fresh), fresh["symbol"].to_list(), BAR_HEADERS)
            self._known.learn(fresh)
            self._known.forget(self._now() - self._memory)
            self._report.count("bars", len(fresh))
        del self._bars[:taken]

    async def _publish_trades(self) -> None:
        while self._trades:
            batch = list(islice(self._trades, _TRADES_AT_ONCE))
            ticks = tick_frame(batch, self._vendor)
            if not self._sure_of_trades:
                there = await in_background(lambda: newest_ticks(self._bus, self._ticks_topic))
                ticks = ticks.join(there, on=["symbol", "trade_id"], how="anti", maintain_order="left")
                self._sure_of_trades = True
            if len(ticks):
                await self._send(self._ticks_topic, encode_ticks(ticks), ticks["symbol"].to_list(), TICK_HEADERS)
                self._report.count("trades", len(ticks))
            # Trades that came meanwhile may have pushed some of these out at the front.
            for trade in batch:
                if self._trades and self._trades[0] is trade:
                    self._trades.popleft()

    async def _send(self, topic: str, values: list[bytes], keys: list[str], headers: dict[str, str]) -> None:
        await in_background(lambda: self._bus.publish(topic, values, keys, headers))

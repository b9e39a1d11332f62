"""A live feed: a venue's stream in, trades and whole 1-minute bars out onto the bus, whatever breaks on the way.

What a minute is made of is decided in `market_data.trade_bars` and `kline_bars`, how a connection is kept in
`connection`, what is published in `outbox`, what is fetched instead in `backlog`. Here they are tied together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from quantlytic_assets.feeds.backlog import Backlog, BacklogRules
from quantlytic_assets.feeds.clock import VenueClock
from quantlytic_assets.feeds.connection import Connection, ConnectionRules, Lost, Opened, Received
from quantlytic_assets.feeds.outbox import Outbox
from quantlytic_assets.feeds.report import Report
from quantlytic_assets.feeds.venue import Venue
from quantlytic_assets.market_data.stream.kline_bars import KlineBars
from quantlytic_assets.market_data.stream.messages import MINUTE, micros, moment
from quantlytic_assets.market_data.stream.trade_bars import TradeBars
from quantlytic_assets.storage.bus import Bus
from quantlytic_assets.universe.membership import member_spans
from quantlytic_assets.universe.models import Dataset, Instrument
from quantlytic_assets.vendors.policy import Budget
from quantlytic_assets.vendors.protocol import Vendor, VendorError


@dataclass(frozen=True)
class FeedRules:
    """How patient a feed is.

    grace: how long after a minute's end its trades may still come.
    patience: when a minute is fetched although the connection stands, because nothing was heard since its end.
    lookback: how far back missing minutes are fetched.
    greeting: how long to wait for the venue's first word, which tells its time, before going by our clock.
    tick, publish: how often to look whether a minute is over, and how often what is ready is published.
    stop: how long publishing may take at the end.
    connection, backlog: None means the venue's own figures and the usual waits.
    """

    grace: timedelta = timedelta(seconds=2)
    patience: timedelta = timedelta(seconds=10)
    lookback: timedelta = timedelta(hours=24)
    greeting: timedelta = timedelta(seconds=15)
    tick: timedelta = timedelta(seconds=0.2)
    publish: timedelta = timedelta(seconds=0.5)
    stop: timedelta = timedelta(seconds=20)
    connection: ConnectionRules | None = None
    backlog: BacklogRules | None = None


class Feed:
    """Feeds one dataset with its `instruments`. `clock` tells our time (UTC), `write` takes a line for people.

    Raises `ValueError` where the venue's address is none.
    """

    def __init__(
        self,
        dataset: Dataset,
        instruments: Sequence[Instrument],
        venue: Venue,
        vendor: Vendor,
        bus: Bus,
        write: Callable[[str], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        rules: FeedRules | None = None,
        budget: Budget | None = None,
    ):
        rules = rules or FeedRules()
        self._dataset = dataset
        self._instruments = list(instruments)
        self._venue = venue
        self._rules = rules
        self._report = Report(dataset.name, write)
        self._clock = VenueClock(clock)
        self._connection = Connection(
            venue.url, venue.greetings, rules.connection or ConnectionRules(silence=venue.silence)
        )
        names = {one.symbol: one.names[venue.name] for one in instruments if venue.name in one.names}
        backlog = rules.backlog or BacklogRules(after=venue.rest_after)
        self._backlog = Backlog(dataset, vendor, names, backlog, venue.gives == "klines", budget)
        self._outbox = Outbox(
            bus,
            dataset.name,
            venue.name,
            self._report,
            self._now,
            memory=rules.lookback + timedelta(hours=1),
            every=rules.publish.total_seconds(),
        )
        self._open = False
        self._bars: TradeBars | KlineBars | None = None
        self._began = 0
        # Minutes from before this feed began, to be fetched unless the bus has them.
        self._unchecked: list[tuple[str, int]] = []

    def _now(self) -> datetime:
        return moment(self._clock.now())

    async def run(self, stopping: asyncio.Event) -> None:
        """Feed until `stopping` is set. Ends otherwise only by a fault of the program."""
        self._report.note(f"{len(self._instruments)} symbols from {self._venue.name}")
        async with asyncio.TaskGroup() as tasks:
            publishing = tasks.create_task(self._outbox.run(stopping))
            others = [tasks.create_task(part()) for part in (self._listen, self._decide, self._fetch, self._tell)]
            await stopping.wait()
            for other in others:
                other.cancel()
            try:
                # A call to the bus can't be cancelled: it is waited for, so that nothing is published twice.
                async with asyncio.timeout(self._rules.stop.total_seconds()):
                    await asyncio.wait([publishing])
            except TimeoutError:
                publishing.cancel()
        if self._outbox.waiting:
            self._report.note(f"{self._outbox.waiting} bars are not published; the next start fetches them")
        self._report.note("stopped")
        self._report.line()

    async def _listen(self) -> None:
        async for event in self._connection.events():
            match event:
                case Received(text):
                    self._hear(text)
                case Opened():
                    self._open = True
                    if self._bars is not None:
                        self._bars.connected()
                case Lost(reason):
                    self._open = False
                    if self._bars is not None:
                        self._bars.disconnected()
                    self._report.note(f"connection {reason}")

    def _hear(self, text: str | bytes) -> None:
        received = self._clock.ours()
        message = self._venue.read(text, received)
        if message.alive:
            self._connection.alive()
        if message.time is not None:
            if not self._clock.hear(message.time, received):
                self._report.note(f"{self._venue.name} says that it is {moment(message.time):%Y-%m-%d}")
                return
            if self._bars is None:
                self._begin()
        if message.notice is not None:
            self._report.note(message.notice)
        if message.shutdown:
            self._connection.renew("left before its server goes")
        if self._bars is not None:
            self._outbox.put_trades(self._bars.take(message))

    def _begin(self) -> None:
        """Start to account for minutes; before, it is not known what time it is."""
        now = self._now()
        earliest = now - self._rules.lookback
        first = dict(member_spans(self._dataset).select("symbol", "first").iter_rows())
        since = {
            one.symbol: micros(max(earliest, datetime.combine(first[one.symbol], time.min, UTC)))
            for one in self._instruments
        }
        since = {symbol: begin + -begin % MINUTE for symbol, begin in since.items()}
        kind = TradeBars if self._venue.gives == "trades" else KlineBars
        self._bars = kind(self._venue.name, since, self._rules.grace, self._rules.patience)
        self._began = micros(now)
        self._outbox.begin()
        if self._open:
            self._bars.connected()

    async def _decide(self) -> None:
        loop = asyncio.get_running_loop()
        by_ours = loop.time() + self._rules.greeting.total_seconds()
        while True:
            await asyncio.sleep(self._rules.tick.total_seconds())
            if self._bars is None and loop.time() >= by_ours:
                self._begin()
            if self._bars is None:
                continue
            now = self._clock.now()
            # By our own clock a bar is not over yet when that one is slow.
            decided = self._bars.decide(now, moment(max(now, self._clock.ours())))
            self._outbox.put_bars(decided.bars)
            self._report.count("minutes to be fetched", len(decided.wanted))
            self._backlog.want(one for one in decided.wanted if one[1] >= self._began)
            self._unchecked += [one for one in decided.wanted if one[1] < self._began]

    async def _fetch(self) -> None:
        await self._outbox.ready.wait()
        while True:
            if self._unchecked:
                self._backlog.want(self._outbox.missing(self._unchecked))
                self._unchecked = []
            request = self._backlog.next_request(self._clock.now())
            if request is None:
                await asyncio.sleep(self._rules.tick.total_seconds())
                continue
            try:
                bars = await self._backlog.ask(request)
            except VendorError as error:
                wait = self._backlog.failed(request, error, self._clock.now())
                again = f"asked again in {wait:.0f} s"
                self._report.note(f"{self._venue.name} does not give {request.symbol}, {again}: {error}")
                continue
            self._outbox.put_bars(self._backlog.answered(request, bars, self._clock.now()))

    async def _tell(self) -> None:
        while True:
            self._report.tick()
            await asyncio.sleep(1)
            dropped = self._backlog.drop(micros(self._now() - self._rules.lookback - timedelta(hours=1)))
            if dropped:
                self._report.note(f"{dropped} minutes are too old to wait for; a backfill fetches them")

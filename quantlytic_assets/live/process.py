"""The loop of the live path: new records, what follows from them, one transaction, and then out to the bus.

What is published was committed before, with the offsets of what it follows from: a process that dies anywhere goes on
from its last transaction, looks which of its records the bus has, and publishes the others. So each record is there
once, whenever a process is killed. What the API serves of it is written after that (`write_behind`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING

import orjson

from quantlytic_assets.calendars.sessions import session_table
from quantlytic_assets.live import older_state, publishing
from quantlytic_assets.live.bars import Bar
from quantlytic_assets.live.bursts import Burst
from quantlytic_assets.live.comparing import Compared, Comparison
from quantlytic_assets.live.counts import Counts
from quantlytic_assets.live.deciding import Deciders, Scorer
from quantlytic_assets.live.garbage import Garbage
from quantlytic_assets.live.graph_watch import Graph, GraphReader, GraphWatch, Since
from quantlytic_assets.live.health import Health
from quantlytic_assets.live.lines import Closes, Lines, Listing, Row
from quantlytic_assets.live.natives import Natives
from quantlytic_assets.live.newest_prices import PRICES_EVERY, NewestPrices
from quantlytic_assets.live.pipeline import GRAPH, Made, Pipeline
from quantlytic_assets.live.sending import Sender, Stopped, pause
from quantlytic_assets.live.source_memory import SourceMemory
from quantlytic_assets.live.sources import BarSource, Source, Taken
from quantlytic_assets.live.stages import Stages
from quantlytic_assets.live.state import LiveState, Place, version
from quantlytic_assets.live.trading import Desk, Rehearsal
from quantlytic_assets.live.warm_start import History, other_closes, read_history
from quantlytic_assets.live.write_behind import WriteBehind
from quantlytic_assets.market_data.stream.messages import moment
from quantlytic_assets.storage.bus import BusUnavailable, made_bars_topic, signals_topic
from quantlytic_assets.universe.feature_choice import features_of
from quantlytic_assets.universe.plugins import registry_with

if TYPE_CHECKING:
    from quantlytic_assets.services.paper_account import Books
    from quantlytic_assets.serving.hot_store import HotStore
    from quantlytic_assets.storage.broker_ledger import BrokerLedger
    from quantlytic_assets.storage.bus import Bus, Records
    from quantlytic_assets.storage.lake import Lake
    from quantlytic_assets.universe.models import Dataset, Strategy

# How long the loop waits for records before it looks whether it should stop.
_WAIT = 0.5
# Seconds from one batch to the next, where there is no end of records. With 5 ms each batch costs more, for what it is
# computed with has left the processor's caches by then, and signals come a quarter later.
_WINDOW = 0.002
# The same while no bar is due: a batch costs nearly as much whether it is of ten trades or of a hundred.
_CALM_WINDOW = 0.01
# How much may be under way to the bus when a batch is committed: the last one's signals, and the bars before them.
_MOST_SENDINGS = 2
# Seconds for which a batch from which nothing follows may wait for its transaction: a killed process reads it again.
_COMMIT_EVERY = 0.05
# Seconds between two health reports.
_HEALTH_EVERY = 1.0
# Seconds between two looks whether a topic is still the one that is read, and where it ends.
_LOOK_EVERY = 5.0
# Seconds by which these may be late.
_OVERDUE = 2.0
# Seconds between two looks at the lake.
_COMPARE_EVERY = 15.0


class LiveProcess:
    """The live path of one dataset. Whoever runs it holds the lock of the dataset: there is one at a time.

    strategies: those on the dataset; scorers: of those with a model. report: is told what a person should know. books:
    their accounts, None where none is to be traded, not even in memory; trade: whether what is traded is written.
    ledger: where orders are written then that a broker fills.
    """

    def __init__(
        self,
        dataset: Dataset,
        strategies: Sequence[Strategy],
        bus: Bus,
        hot: HotStore,
        lake: Lake,
        scorers: Mapping[str, Scorer],
        report: Callable[[str], None],
        make_source: Callable[[Dataset, Mapping[str, int]], Source] = BarSource,
        books: Books | None = None,
        trade: bool = False,
        clock: Callable[[], float] = time.time,
        ledger: BrokerLedger | None = None,
    ):
        self.dataset = dataset
        self._strategies = [one for one in strategies if one.interval in dataset.feature_intervals]
        self._bus = bus
        self._hot = hot
        self._lake = lake
        self._scorers = scorers
        self._report = report
        self._make_source = make_source
        self._desks = {}
        if books is not None:
            self._desks = {
                one.name: Desk(
                    dataset, one, books if trade else Rehearsal(books), lake, report,
                    ledger if trade and one.at_broker else None, clock,
                )
                for one in self._strategies
            }  # fmt: skip
        self._traded = "real" if trade else "rehearsal"
        self._clock = clock
        topic = make_source(dataset, {}).topic
        self._state = LiveState(dataset.name, version(dataset, self._strategies, topic))
        self._sender = Sender(bus, report, self._arrived)
        self._prices = NewestPrices(dataset.name, clock)
        self._floor: dict[str, int] = {}
        # Bars that were revised since the graph was looked at last.
        self._revised: set[tuple[str, int]] = set()
        self._stages = Stages()
        self._garbage = Garbage()
        self._received = 0.0
        # Bars whose signals are out, and of which the rest is still to be done.
        self._burst = Burst()
        # Batches of which the bars are not sent yet, each with when its records came.
        self._unsent: list[tuple[Made, float]] = []
        # When the last transaction was, and whether batches wait for the next.
        self._committed = -inf
        self._uncommitted = False
        self.counts = Counts()
        self._health = Health(bus, hot, dataset.name, clock)
        self._next_health = 0.0
        self._next_look = 0.0
        # The time of the newest price, microseconds.
        self._newest = -1

    # Beginning ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Go on from the kept state, or begin with what the lake has, from the oldest record that is on the bus."""
        with self._hot.read() as reader:
            usable = self._state.usable(reader)
        if not usable:
            self._begin_anew()
            return
        with self._hot.read() as reader:
            kept = orjson.loads(reader.state("live", self.dataset.name, "floor") or b"{}")
            listings = orjson.loads(reader.state("live", self.dataset.name, "listings") or b"{}")
        self._source = self._make_source(self.dataset, kept)
        self._memory = SourceMemory(self._state, self._source)
        self._make_pipeline(History(floor=kept), listings)
        self._behind = WriteBehind(self._state, self.dataset, self._columns)
        with self._hot.write() as writer:
            waiting = self._behind.take_up(writer)
        with self._hot.read() as reader:
            self._state.restore(reader, self._pipeline)
            self._places = self._state.places(reader)
            outbox = older_state.outbox(reader, self.dataset)
            self.counts = Counts.of(self._state.counts(reader))
            self._memory.take_up(reader)
        self._warm_up()
        self._check_identity()
        self._report(f"going on from {_shown(self._places)}")
        for made in waiting:
            outbox += publishing.signal_messages(self.dataset.name, made)
            outbox += publishing.bar_messages(self.dataset.name, made)
        if outbox:
            self._sender.publish_missing(outbox)
        with self._hot.write() as writer:
            older_state.forget_outbox(writer, self.dataset)
            self._behind.forget(writer, self._behind.next)
        self._floor = kept
        self._make_ready()
        # A process that was killed may have said what is to be traded, and not have traded it.
        for desk in self._desks.values():
            rows = desk.untraded(self._pipeline.lines[desk.strategy.interval])
            if rows:
                self._burst.add(time.perf_counter(), {desk.strategy.interval: rows})

    def _make_ready(self) -> None:
        pipeline = self._pipeline
        columns = {interval: lines.columns for interval, lines in pipeline.lines.items()}
        strategies = {name: interval for interval, one in pipeline.deciders.items() for name in one.names}
        reader = GraphReader(self._lake, self.dataset.name, columns, strategies)
        self._watch = GraphWatch(reader, self._lake, _COMPARE_EVERY, self._report)
        self._comparison = Comparison(self._floor)
        for interval in {pipeline.natives.interval, *pipeline.lines}:
            self._bus.prepare(made_bars_topic(interval, self.dataset.name))
        for name in strategies:
            self._bus.prepare(signals_topic(name))
        for desk in self._desks.values():
            desk.begin(self._pipeline.lines[desk.strategy.interval])

    def _make_pipeline(self, history: History, listings: Mapping[str, Sequence]) -> None:
        dataset = self.dataset
        known = {symbol: Listing(name, shares) for symbol, (name, shares) in listings.items()}
        registry = registry_with(dataset.plugins)
        newest = max(history.floor.values(), default=None)
        since = datetime.now(UTC) if newest is None else moment(newest)
        closes, own = other_closes(self._lake, dataset, since)
        deciders = {
            interval: Deciders([one for one in self._strategies if one.interval == interval], self._scorers)
            for interval in dataset.feature_intervals
        }
        lines = {
            interval: Lines(
                interval, features_of(dataset), registry, deciders[interval].look_back, known or history.listings,
                closes, own,
            )
            for interval in dataset.feature_intervals
        }  # fmt: skip
        keep_incomplete = dataset.incomplete_bars == "keep"
        natives = Natives(dataset.calendar, dataset.interval, dataset.feature_intervals, keep_incomplete)
        self._pipeline = Pipeline(natives, lines, deciders, self._reached)

    def _warm_up(self) -> None:
        """Load what bars are placed and features are computed with: the first bar shall not wait for it."""
        session_table(self.dataset.calendar, datetime.now(UTC).date(), datetime.now(UTC).date())
        for interval, lines in self._pipeline.lines.items():
            symbol, at = self.dataset.symbols[0].symbol, datetime(2000, 1, 3, tzinfo=UTC)
            first = Bar(symbol, at.date(), *(int(at.timestamp() * 1e6),) * 3, 1.0, 1.0, 1.0, 1.0, 1.0)
            closes = {name: Closes() for name in lines.others}
            tried = Lines(interval, features_of(self.dataset), registry_with(self.dataset.plugins), 0, {}, closes)
            tried.open([(first, 0)])
            tried.take([first._replace(open_time=first.open_time + 1)])
            # Bars of several symbols at once go another way.
            tried.take([first._replace(open_time=first.open_time + 2, symbol=one) for one in (symbol, f"{symbol}'")])

    def _begin_anew(self) -> None:
        # Made once without listings to learn how many bars are wanted.
        self._make_pipeline(History(), {})
        pipeline = self._pipeline
        history = read_history(
            self._lake,
            self.dataset,
            {interval: lines.keep for interval, lines in pipeline.lines.items()},
            {interval: lines.sums for interval, lines in pipeline.lines.items()},
            pipeline.natives.keep,
        )
        self._make_pipeline(history, {})
        self._warm_up()
        pipeline = self._pipeline
        for bar in history.natives:
            pipeline.natives.restore(bar, 0)
        for interval, lines in pipeline.lines.items():
            lines.open([(bar, 0) for bar in history.lines.get(interval, ())], history.sums.get(interval))
        self._source = self._make_source(self.dataset, history.floor)
        self._memory = SourceMemory(self._state, self._source)
        self._places = {self._source.topic: self._start(self._source.topic)}
        listings = {symbol: (one.name, one.shares) for symbol, one in history.listings.items()}
        self._behind = WriteBehind(self._state, self.dataset, self._columns)
        with self._hot.write() as writer:
            self._state.begin(writer)
            self._state.keep_all(writer, history.natives, history.lines, history.sums)
            self._state.put_places(writer, self._places)
            writer.put_state(orjson.dumps(history.floor), "live", self.dataset.name, "floor")
            writer.put_state(orjson.dumps(listings), "live", self.dataset.name, "listings")
        self._floor = history.floor
        self._make_ready()
        count = sum(map(len, history.lines.values()))
        self._report(
            f"beginning with {len(history.natives)} native and {count} feature bars of the lake, and with "
            f"{_shown(self._places)}"
        )

    def _start(self, topic: str) -> Place:
        """The oldest records of a topic, which is made if need be."""
        self._bus.create(topic)
        identity = self._bus.identity(topic)
        marks = self._bus.watermarks(topic)
        return Place(identity or "", {partition: first for partition, (first, _) in marks.items()})

    # The loop -------------------------------------------------------------------------------------------------

    def run(self, stopping: Callable[[], bool]) -> None:
        """Take what comes until `stopping` says so. `begin` has been called."""
        self._sender.stopping = stopping
        self._watch.start()
        with self._garbage:
            self._loop(stopping)
        self._finish_burst()
        with suppress(Stopped):
            self._sender.settle()
        self._watch.stop()
        self._health.look(self._source.topic)
        self._tell_health()

    def _loop(self, stopping: Callable[[], bool]) -> None:
        failures = 0
        while not stopping():
            try:
                begun = time.monotonic()
                if self.step(PRICES_EVERY if self._prices.waiting else _WAIT):
                    calm = self._source.calm and not self._burst
                    time.sleep(max(0.0, begun + (_CALM_WINDOW if calm else _WINDOW) - time.monotonic()))
                if failures:
                    self._report("the bus answers again")
                failures = 0
            except BusUnavailable as error:
                failures += 1
                if failures == 1:
                    self._report(f"the bus does not answer, trying again: {error}")
                self._finish_burst()
                time.sleep(pause(failures))
            except Stopped:
                break

    def step(self, wait: float) -> int:
        """Take one batch, if any comes within `wait` seconds; how many records it had."""
        place = self._places[self._source.topic]
        try:
            # While what was sent is on its way, the next batch is taken if it is there already.
            busy = self._sender.busy or bool(self._burst)
            records = self._tail(min(wait, self._burst.over_in) if busy else wait)
            if not records and busy:
                self._finish_burst()
                self._sender.settle()
                records = self._tail(wait)
        except LookupError as error:
            records = {}
            self._skip(error)
        count = sum(map(len, records.values()))
        self._received = time.perf_counter()
        if count:
            taken = self._source.take(records)
            offsets = {number: one.offsets[-1] + 1 for number, one in records.items() if len(one)}
            self._places[self._source.topic] = Place(place.identity, place.offsets | offsets)
        else:
            taken = self._source.idle(int(self._clock() * 1e6))
        graph = self._watch.take()
        found = Compared() if graph is None else self._beside_graph(graph, taken)
        if taken.bars:
            self._reached("bars")
        made = self._pipeline.take(taken.bars, taken.untraded, found.rows, found.signals)
        told = made.bars.get(self.dataset.interval, ())
        self._revised |= {(one.bar.symbol, one.bar.open_time) for one in told if one.revision and one.trace != GRAPH}
        if count or made or made.rows or self._prices.waiting or self._uncommitted:
            self._note(count, taken, made)
            self._sender.look()
            self._uncommitted = made.nothing and count > 0 and time.monotonic() - self._committed < _COMMIT_EVERY
            if not self._uncommitted:
                signals = publishing.signal_messages(self.dataset.name, made)
                # The bus has taken what was sent before the last while this batch was worked on.
                self._sender.settle(_MOST_SENDINGS)
                self._commit(made)
                if signals:
                    self._sender.send(signals, self._received)
            if not made.nothing:
                self._burst.add(self._received, {name: [row for row, _ in rows] for name, rows in made.rows.items()})
                self._unsent.append((made, self._received))
        if not made:
            self._send_bars()
        if self._burst and (not count or self._burst.over_in <= 0 or self._behind.full):
            self._finish_burst()
        self._look_around(bool(made))
        return count

    def _tail(self, wait: float) -> dict[int, Records]:
        source = self._source
        return self._bus.tail(source.topic, self._places[source.topic].offsets, wait, only_values=source.only_values)

    def _send_bars(self) -> None:
        """Send the bars of batches whose signals are out."""
        if not self._unsent:
            return
        bars = [message for made, _ in self._unsent for message in publishing.bar_messages(self.dataset.name, made)]
        (_, received), self._unsent = self._unsent[0], []
        self._sender.send(bars, received, self._behind.next)

    def _finish_burst(self) -> None:
        """Do what follows from bars whose signals are out: their records, orders, and what is served."""
        self._send_bars()
        self._trade(*self._burst.end())
        self._serve()

    def _beside_graph(self, graph: Graph, taken: Taken) -> Compared:
        """Count what the graph has otherwise, and take its bars in."""
        found = self._comparison.of(self._pipeline, graph)
        taken.bars += [(bar, GRAPH) for bar in found.bars]
        counted = {
            "differing": found.differing,
            "missing": found.missing,
            "compared": found.same + found.differing + found.missing,
            "features_differing": sum(map(len, found.rows.values())),
            "signals_differing": len(found.signals),
        }
        for name, count in counted.items():
            self.counts.other[name] = self.counts.other.get(name, 0) + count
        if told := found.told(len(graph.bars)):
            self._report(told)
        self._watch.look(self._since(), found.doubted)
        return found

    def _trade(self, received: float, changed: Mapping[str, Sequence[Row]]) -> None:
        """Let the accounts go on with rows that changed, by interval; the first of their records came at `received`."""
        for desk in self._desks.values():
            interval = desk.strategy.interval
            rows = changed.get(interval)
            if not rows:
                continue
            wants = self._pipeline.deciders[interval].wants(desk.strategy.name)
            events = desk.trade(self._pipeline.lines[interval], rows, wants)
            if len(events):
                self._stages.reached("orders", time.perf_counter() - received)
                self.counts.other["order_events"] = self.counts.other.get("order_events", 0) + len(events)
                self._serve()
                with self._hot.write() as writer:
                    publishing.tell_orders(writer, desk.strategy.name, events, self._traded)

    def _reached(self, stage: str) -> None:
        self._stages.reached(stage, time.perf_counter() - self._received)

    def _arrived(self, received: float) -> None:
        """Count a transaction's records as published."""
        self._stages.reached("published", time.perf_counter() - received)

    def _skip(self, error: LookupError) -> None:
        """Go on behind what the bus no longer has."""
        topic = self._source.topic
        place, marks = self._places[topic], self._bus.watermarks(topic)
        offsets = {number: max(offset, marks.get(number, (0, 0))[0]) for number, offset in place.offsets.items()}
        lost = sum(offsets.values()) - sum(place.offsets.values())
        self._report(f"{lost} records of {topic} are gone before they were read ({error}); the graph has them")
        self.counts.other["lost"] = self.counts.other.get("lost", 0) + lost
        self._places[topic] = Place(place.identity, offsets)

    def _serve(self) -> None:
        """Write what is served of the batches that were committed, and what they have changed of the state."""
        if len(self._behind):
            with self._hot.write() as writer:
                self._behind.write(writer)
                self._behind.forget(writer, self._sender.published)
                self._state.forget(writer, self._pipeline)
                self._prices.put(writer, self._source.prices())

    def _note(self, count: int, taken: Taken, made: Made) -> None:
        """Take note of a batch's counts, and of how far the market is."""
        self.counts.add(count, taken, made)
        self._prices.waiting |= taken.newest >= 0 and count > 0
        self._newest = taken.newest

    def _commit(self, made: Made) -> None:
        """Write a batch and what it follows from, in one transaction.

        Batches that waited, for nothing followed from them, are in it by their offsets and trades.
        """
        self._committed = time.monotonic()
        with self._hot.write() as writer:
            self._behind.keep(writer, made)
            if not made:
                self._behind.forget(writer, self._sender.published)
                self._prices.put(writer, self._source.prices())
            self._memory.keep(writer, waited_for=bool(made) or bool(self._burst))
            self._state.put_places(writer, self._places)
            self._state.put_counts(writer, self.counts.told())

    @property
    def _columns(self) -> dict[str, Sequence[str]]:
        return {interval: lines.columns for interval, lines in self._pipeline.lines.items()}

    # Beside the records ---------------------------------------------------------------------------------------

    def _look_around(self, working: bool) -> None:
        """Do what is due beside the records, which waits for the broker; while bars come, only what is overdue."""
        now = self._clock() - (_OVERDUE if working else 0.0)
        if now >= self._next_look:
            self._next_look = self._clock() + _LOOK_EVERY
            self._check_identity()
            self._look_at_others()
        if now >= self._next_health:
            self._tell_health()
        self._garbage.after(working)

    def _check_identity(self) -> None:
        """Begin a topic that was deleted and made anew at its start."""
        topic = self._source.topic
        if self._bus.identity(topic) != self._places[topic].identity:
            self._report(f"topic {topic} was deleted and made anew: reading it from its start")
            self._places[topic] = self._start(topic)

    def _look_at_others(self) -> None:
        """Learn where the topic ends, and say what the graph is to be compared of."""
        self._health.look(self._source.topic)
        self._watch.look(self._since(), {"": self._revised})
        self._revised = set()

    def _tell_health(self) -> None:
        self._next_health = self._clock() + _HEALTH_EVERY
        place = self._places[self._source.topic]
        self._health.tell(self._source.topic, place.offsets, self._newest, self.counts, self._stages)

    def _since(self) -> Since | None:
        """Of what the graph is to be compared."""
        first = self._pipeline.natives.first_session()
        rows = {interval: lines.oldest_row() for interval, lines in self._pipeline.lines.items()}
        if first is None:
            return None
        return Since(first, {interval: one for interval, one in rows.items() if one is not None})


def _shown(places: Mapping[str, Place]) -> str:
    return "; ".join(
        f"{topic} {', '.join(f'{number}:{offset}' for number, offset in sorted(one.offsets.items()))}"
        for topic, one in places.items()
    )

"""`python -m quantlytic_tests.live.killing [--live N] [--kafka N]`: kills under load, and what is there afterwards.

Trades are published without a pause, some of them late, some twice. The live path is killed with SIGKILL again and
again and started anew; or its broker is. Then the same trades are taken once more, undisturbed, and everything that was
published is compared: no record twice, and for each bar and signal the last word the same. What is served is compared
with what was published. Prints a line a round; exits 1 where anything differs.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from multiprocessing.synchronize import Event
from pathlib import Path

import orjson
import polars as pl

from quantlytic_assets.live.process import LiveProcess
from quantlytic_assets.live.sources import TickSource
from quantlytic_assets.market_data.stream.messages import MINUTE, Trade, micros
from quantlytic_assets.market_data.stream.ticks import TICK_HEADERS, decode_ticks, encode_ticks, tick_frame
from quantlytic_assets.market_data.stream.trade_bars import bars_from_ticks
from quantlytic_assets.serving.rows import iso
from quantlytic_assets.settings import Settings
from quantlytic_assets.storage.bus import (
    Bus,
    BusUnavailable,
    LocalBus,
    Records,
    Sending,
    made_bars_topic,
    signals_topic,
    ticks_topic,
)
from quantlytic_assets.trading.engine.settings import EngineSettings
from quantlytic_assets.universe.models import Strategy
from quantlytic_tests.frames import make_dataset, utc
from quantlytic_tests.live.running import bars_on
from quantlytic_tests.storage.places import Place, close_all, make_settings
from quantlytic_tests.storage.processes import context

SYMBOLS = tuple(f"K{i}-USD" for i in range(8))
START = micros(utc("2025-05-10T00:00:00"))
FEATURES = ("core", "obv", "rank(ret_1)", "roc(20)")
DATASET = make_dataset(
    "24/7", "1m", None, date(2025, 5, 1), None, SYMBOLS, name="killed_1m", features=FEATURES,
    feature_intervals=("1m", "5m"),
)  # fmt: skip
RULES = {
    "cross": ("1m", {"ma_cross": {"fast": 20, "slow": 50}}),
    "slow": ("5m", {"ma_cross": {"fast": 20, "slow": 50}}),
    "rotation": ("1m", {"momentum_rotation": {"window": 20, "top": 2}}),
}
STRATEGIES = [
    Strategy(name, DATASET.name, interval, SYMBOLS, rule, EngineSettings(100_000.0), FEATURES)
    for name, (interval, rule) in RULES.items()
]
TOPICS = [*(made_bars_topic(one, DATASET.name) for one in ("1m", "5m")), *map(signals_topic, RULES)]
TICKS = ticks_topic(DATASET.name)
_PATIENCE = 120.0
# Minutes of trades that there are at least: how many come between the kills of a broker depends on the machine.
_MINUTES = 120


def stream(seed: int) -> Iterator[list[Trade]]:
    """Batches of trades without an end; a few come up to a minute late, a few twice."""
    drawn, time_of = random.Random(seed), START
    numbers, prices = dict.fromkeys(SYMBOLS, 0), dict.fromkeys(SYMBOLS, 100.0)
    late: list[tuple[int, Trade]] = []
    while True:
        batch = []
        for _ in range(30):
            time_of += drawn.randrange(2_000_000)
            symbol = drawn.choice(SYMBOLS)
            numbers[symbol] += 1
            prices[symbol] *= 1 + drawn.gauss(0, 0.002)
            one = Trade(
                symbol, numbers[symbol], time_of, round(prices[symbol], 4), drawn.uniform(0.1, 2), "buy", time_of
            )
            if drawn.random() < 0.01:
                late.append((time_of + drawn.randrange(MINUTE), one))
            else:
                batch.append(one)
        batch += [one for due, one in late if due <= time_of]
        late = [(due, one) for due, one in late if due > time_of]
        if drawn.random() < 0.1:
            batch.append(drawn.choice(batch))
        yield batch


def process(place: Place, bus: Bus) -> LiveProcess:
    """The live path of a place."""
    resources = place.resources
    return LiveProcess(DATASET, STRATEGIES, bus, resources.hot, resources.lake, {}, lambda _: None, TickSource)


def live_forever(settings: Settings, ready: Event, stop: Event) -> None:
    """What is killed: the live path, until there is nothing more to take and it is told to stop."""
    place = Place(settings)
    live = process(place, place.resources.bus)
    while True:
        try:
            live.begin()
            break
        except BusUnavailable:
            time.sleep(0.1)
    ready.set()
    live.run(lambda: stop.is_set() and _behind(live, place.resources.bus) == 0)


def _behind(live: LiveProcess, bus: Bus) -> int:
    try:
        return sum(end for _, end in bus.watermarks(TICKS).values()) - live.counts.records
    except BusUnavailable:
        return 1


class Apart:
    """A bus whose trades are another one's: what is published stands on its own."""

    def __init__(self, source: Bus, own: Bus):
        self._source, self._own = source, own

    def create(self, topic: str) -> None:
        """See `Bus.create`."""

    def prepare(self, topic: str) -> None:
        """See `Bus.prepare`."""
        self._own.prepare(topic)

    def identity(self, topic: str) -> str | None:
        """See `Bus.identity`."""
        return self._source.identity(topic)

    def watermarks(self, topic: str) -> dict[int, tuple[int, int]]:
        """See `Bus.watermarks`."""
        return self._source.watermarks(topic)

    def read(self, topic: str, partition: int, first: int, last: int) -> Records:
        """See `Bus.read`."""
        return self._source.read(topic, partition, first, last)

    def tail(
        self, topic: str, after: Mapping[int, int], wait: float, most: int = 50_000, only_values: bool = False
    ) -> dict[int, Records]:
        """See `Bus.tail`."""
        return self._source.tail(topic, after, wait, most, only_values)

    def publish(
        self, topic: str, values: Sequence[bytes], keys: Sequence[str | None], headers: Mapping[str, str]
    ) -> None:
        """See `Bus.publish`."""
        self._own.publish(topic, values, keys, headers)

    def send(
        self, topic: str, values: Sequence[bytes], keys: Sequence[str | None], headers: Mapping[str, str]
    ) -> Sending:
        """See `Bus.send`."""
        return self._own.send(topic, values, keys, headers)


@dataclass
class Publisher:
    """Publishes trades from a thread, whatever becomes of the bus."""

    bus: Bus
    seed: int
    every: float = 0.01
    stopping: threading.Event = field(default_factory=threading.Event)
    enough: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Publish until told to stop."""
        for batch in stream(self.seed):
            if self.stopping.is_set():
                return
            values, keys = encode_ticks(tick_frame(batch, "killing")), [one.symbol for one in batch]
            while True:
                try:
                    self.bus.publish(TICKS, values, keys, TICK_HEADERS)
                    break
                except BusUnavailable:
                    # Some of it may be there: then those trades are there twice.
                    time.sleep(0.1)
            if batch[0].time >= START + _MINUTES * MINUTE:
                self.enough.set()
            time.sleep(self.every)


def killed(place: Place, kills: int, seed: int, strike: Callable[[], None] | None = None) -> str:
    """Run under load with so many kills, of the live path or by `strike`; what was found, empty if all is well."""
    bus = place.resources.bus
    for topic in (TICKS, *TOPICS):
        bus.create(topic)
    publisher, drawn = Publisher(bus, seed), random.Random(seed)
    publishing = threading.Thread(target=publisher.run)
    publishing.start()
    ready, stop = context().Event(), context().Event()
    try:
        child = _start(place, ready, stop)
        for number in range(kills):
            if strike is None and number:
                ready.clear()
                child = _start(place, ready, stop)
            if drawn.random() < 0.9:
                ready.wait(_PATIENCE)
            time.sleep(drawn.uniform(0, 0.4))
            if strike is None:
                child.kill()
                child.join()
            else:
                strike()
        publisher.enough.wait(_PATIENCE)
    finally:
        publisher.stopping.set()
        publishing.join()
    if strike is None:
        child = _start(place, ready, stop)
    stop.set()
    child.join(_PATIENCE)
    if child.exitcode != 0:
        return f"the live path did not end ({child.exitcode})"
    return differences(place)


def _start(place: Place, ready: Event, stop: Event):
    child = context().Process(target=live_forever, args=(place.settings, ready, stop), daemon=True)
    child.start()
    return child


def differences(place: Place) -> str:
    """What is not as an undisturbed live path has it, or not as all trades at once give it; empty where nothing."""
    bus = place.resources.bus
    with tempfile.TemporaryDirectory() as directory:
        calm = Place(make_settings("embedded", Path(directory)))
        own = LocalBus(Path(directory) / "own")
        live = process(calm, Apart(bus, own))
        live.begin()
        while live.step(0.2):
            pass
        live.step(0)
        found = []
        for topic in TOPICS:
            mine, other = bars_on(bus, topic), bars_on(own, topic)
            if mine["id"].n_unique() != len(mine):
                found.append(f"{topic}: {len(mine) - mine['id'].n_unique()} records twice")
            rows = [_last(one) for one in (mine, other)]
            # The minute in which trades end is over by the clock, sooner or later than the others.
            last = min(one["open_time"].max() for one in rows)
            mine, other = (one.filter(pl.col("open_time") < last) for one in rows)
            if len(other) < 50:
                found.append(f"{topic}: {len(other)} rows are too few to say anything")
            if not mine.equals(other):
                found.append(f"{topic}: {len(mine)} and {len(other)} rows differ")
        return "; ".join(found) or _unlike_the_whole(bus) or _served_otherwise(place)


def _last(rows: pl.DataFrame) -> pl.DataFrame:
    """Of each symbol and time what was said last, without what says how often."""
    newest = rows.sort("revision").unique(["symbol", "open_time"], keep="last")
    return newest.drop("id", "revision", "trace").sort("symbol", "open_time")


def _unlike_the_whole(bus: Bus) -> str:
    marks = bus.watermarks(TICKS)
    values = [v for number, (first, end) in marks.items() for v in bus.read(TICKS, number, first, end).values]
    wanted = bars_from_ticks(decode_ticks(values), utc("2026-01-01")).sort("symbol", "open_time")
    columns = ["symbol", "open_time", "open", "high", "low", "close", "volume", "vwap", "trade_count"]
    found = _last(bars_on(bus, TOPICS[0])).select(columns)
    both = wanted.filter(pl.col("open_time") < found["open_time"].max()).join(
        found, on=["symbol", "open_time"], how="left", suffix="_found"
    )
    # Sums in another order differ in their last digits, and so may what they are rounded to.
    sums = ("volume", "vwap")
    wrong = [
        (pl.col(name) - pl.col(f"{name}_found")).abs() > 1e-9 * pl.col(name)
        if name in sums
        else pl.col(name).ne_missing(pl.col(f"{name}_found"))
        for name in columns[2:]
    ]
    off = both.filter(pl.any_horizontal(one.fill_null(True) for one in wrong))
    return f"{len(off)} of {len(both)} bars are not those of all trades at once: {off.row(0)}" if len(off) else ""


def _served_otherwise(place: Place) -> str:
    """What the hot store has otherwise than the bus: in its series the last word on a bar, in its journal each once."""
    found = []
    with place.resources.hot.read() as reader:
        told = [(one.channel, orjson.loads(one.body)) for one in reader.journal(0, 10_000_000)]
        for interval, topic in zip(("1m", "5m"), TOPICS, strict=False):
            rows = bars_on(place.resources.bus, topic)
            wanted = sorted((symbol, iso(time), revision) for symbol, time, revision in _times(rows).iter_rows())
            pushed = sorted(
                (channel[3], one["t"], one["revision"])
                for channel, one in told
                if channel[:3] == ("bars", DATASET.name, interval)
            )
            if pushed != wanted:
                found.append(f"the journal has {len(pushed)} entries of {len(wanted)} bars of {interval}")
            served = {
                (symbol, one["t"]): (one["o"], one["h"], one["l"], one["c"], one["v"])
                for symbol in SYMBOLS
                for _, block in reader.blocks(DATASET.name, f"bars/{interval}", symbol)
                for one in orjson.loads(b"[" + block.body + b"]")
            }
            last = rows.sort("revision").unique(["symbol", "open_time"], keep="last")
            prices = zip(_times(last).iter_rows(), last[["open", "high", "low", "close", "volume"]].rows(), strict=True)
            if served != {(symbol, iso(time)): row for (symbol, time, _), row in prices}:
                found.append(f"{len(served)} bars of {interval} are served otherwise than the {len(last)} on the bus")
    return "; ".join(found)


def _times(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select("symbol", pl.col("open_time").dt.epoch("us"), "revision")


def main() -> int:
    """Kill what is asked for; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m quantlytic_tests.live.killing", description=__doc__)
    parser.add_argument("--live", type=int, default=200, help="kills of the live path, embedded")
    parser.add_argument("--kafka", type=int, default=50, help="kills of Kafka")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    bad = False
    with tempfile.TemporaryDirectory() as directory:
        rounds: list[tuple[str, int, Callable[[], str]]] = []
        if options.live:
            place = Place(make_settings("embedded", Path(directory) / "embedded"))
            rounds.append(("live path killed", options.live, lambda: killed(place, options.live, options.seed)))
        if options.kafka:
            rounds.append(("Kafka killed", options.kafka, lambda: _kafka_killed(Path(directory), options)))
        for name, count, run in rounds:
            began = time.monotonic()
            told = run()
            bad |= bool(told)
            print(f"{name} {count} times in {time.monotonic() - began:.0f} s: {told or 'nothing lost, nothing twice'}")
    close_all()
    return int(bad)


def _kafka_killed(directory: Path, options: argparse.Namespace) -> str:
    """The broker of servers of our own is killed and started again."""
    import os

    from quantlytic_tests.faults.servers import Servers

    servers = Servers(directory / "servers")
    servers.up()
    try:
        os.environ.update(servers.environment)
        changes = {"kafka_partitions": 3, "kafka_driver": "confluent"}
        place = Place(make_settings("services", directory / "services", **changes))

        def strike() -> None:
            servers.kill("kafka")
            servers.start("kafka")

        return killed(place, options.kafka, options.seed, strike)
    finally:
        close_all()
        servers.down()


if __name__ == "__main__":
    sys.exit(main())

"""The live path under load: trades onto Kafka, and how long until the signals that follow are there to be read.

Broker, producer, live path and reader share the machine's cores. A signal follows from the trade with which a minute of
its symbol is over; its latency runs from when that trade was produced to when the signal was read from its topic. The
clock of the trades runs `SPEED` times as fast as ours, so that a minute is over every second and not sixty times as
rarely. The live path is that of the command, with the account of its strategy. The baseline in the same run is a bare
loop of consuming and producing, which is given the same trades and answers as many of them, as close together, with
records of a signal's size. The two are given their trades in turns, for a machine is not as fast in one minute as it is
ten minutes later; the first turn of each is left out. Afterwards the bars are compared with those of the whole, and the
live path's processor time is told by trade.

`scripts/services run --free-ports -- python -m quantlytic_tests.benchmarks.live [TRADES_A_SECOND] [SECONDS]`
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from itertools import chain
from math import inf
from pathlib import Path

import numpy as np
import orjson
import polars as pl
from confluent_kafka import Consumer, Producer, TopicPartition

from quantlytic_assets.live.process import LiveProcess
from quantlytic_assets.live.sources import GRACE, TickSource
from quantlytic_assets.market_data.stream.messages import MINUTE, micros
from quantlytic_assets.market_data.stream.ticks import TICK_HEADERS, TICK_SCHEMA, decode_ticks, encode_ticks
from quantlytic_assets.market_data.stream.trade_bars import bars_from_ticks
from quantlytic_assets.settings import Settings
from quantlytic_assets.storage.bus import made_bars_topic, signals_topic, ticks_topic
from quantlytic_assets.trading.engine.settings import EngineSettings
from quantlytic_assets.universe.models import Dataset, Strategy
from quantlytic_tests.frames import make_dataset
from quantlytic_tests.storage.places import Place, opened

SYMBOLS = tuple(f"S{i:02d}-USD" for i in range(100))
SPEED = 60
PARTITIONS = 3
START = micros(datetime(2025, 5, 10, tzinfo=UTC))
BARE = "bare"
EVERY = 0.005
SIGNAL_BYTES = 400
TURNS = 10
# Of the times of a processor, that which the host gave to other machines.
STOLEN = 7
# Seconds after the trades of a turn until the other's begin.
REST = 2.0


def dataset() -> Dataset:
    """A hundred coins at one minute, with the features of `core`."""
    return make_dataset(
        "24/7", "1m", first=date(2025, 5, 1), last=None, symbols=SYMBOLS, name="bench_1m", features=("core", "sma(5)")
    )


def strategy() -> Strategy:
    """A rule on each of them."""
    rule = {"ma_cross": {"fast": 5, "slow": 20}}
    return Strategy("bench", "bench_1m", "1m", SYMBOLS, rule, EngineSettings(100_000.0), ("core", "sma(5)"))


def traded(count: int, turn: int) -> np.ndarray:
    """The symbol of each trade of a turn, by its place in `SYMBOLS`: in turn but for chance."""
    return np.random.default_rng(turn).integers(0, len(SYMBOLS), count)


def trades(rate: int, seconds: int, turn: int) -> pl.DataFrame:
    """TICK_SCHEMA rows of a turn, evenly in time. A symbol's trades are numbered without a hole, over all turns."""
    count = rate * seconds
    random, symbols = np.random.default_rng((turn, 1)), traded(count, turn)
    before = sum(
        (np.bincount(traded(count, one), minlength=len(SYMBOLS)) for one in range(turn)), np.zeros(len(SYMBOLS), int)
    )
    first = START + turn * seconds * SPEED * 1_000_000
    time_of = first + (np.arange(count) * (SPEED * 1_000_000 / rate)).astype(np.int64)
    frame = pl.DataFrame(
        {
            "symbol": pl.Series(np.array(SYMBOLS)[symbols]),
            "time": time_of,
            "before": before[symbols],
            "price": 100 + symbols + random.normal(0, 0.5, count).round(2),
            "size": random.uniform(0.001, 2, count).round(8),
            "side": "buy",
            "vendor": "benchmark",
            "received_at": time_of,
        }
    )
    number = (pl.col("before") + pl.int_range(pl.len()).over("symbol")).alias("trade_id")
    return frame.with_columns(number).select(TICK_SCHEMA.names()).cast(TICK_SCHEMA)


def produce(servers: str, rate: int, seconds: int, *topics: str) -> None:
    """Produce trades at their rate: those of a turn to each topic, one after the other, when a line comes in."""
    head = [(name, text.encode()) for name, text in sorted(TICK_HEADERS.items())]
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 1, "queue.buffering.max.messages": 2_000_000})
    for topic in topics:
        producer.list_topics(topic)
    for turn in range(TURNS):
        ticks = trades(rate, seconds, turn)
        values = [value for part in ticks.iter_slices(100_000) for value in encode_ticks(part)]
        homes = [int(symbol[1:3]) % PARTITIONS for symbol in ticks["symbol"]]
        keys = ticks["symbol"].to_list()
        for topic in topics:
            print("ready", flush=True)
            sys.stdin.readline()
            began, at, behind = time.monotonic(), 0, 0.0
            while at < len(values):
                due = min(len(values), int((time.monotonic() - began) * rate))
                for i in range(at, due):
                    producer.produce(topic, values[i], keys[i], homes[i], headers=head)
                at = due
                producer.poll(0)
                behind = max(behind, time.monotonic() - began - at / rate)
                time.sleep(EVERY)
            producer.flush(30)
            print(json.dumps({"behind": behind}), flush=True)


def live(settings: Settings) -> None:
    """The live path, until it is told to stop; then its figures."""
    place = Place(settings)
    process = LiveProcess(
        dataset(), [strategy()], place.resources.bus, place.resources.hot, place.resources.lake, {},
        lambda line: print(line, file=sys.stderr), TickSource, place.resources.accounts,
    )  # fmt: skip
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    process.begin()
    print("ready", flush=True)
    before = resource.getrusage(resource.RUSAGE_SELF)
    process.run(stopping.is_set)
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"cpu": cpu, **process.counts.told()}), flush=True)


def bare(servers: str, source: str, target: str) -> None:
    """Consume and produce and nothing else: a record for each symbol's first trade of a second, with the trade's place.

    Minutes of all symbols end together, and so do seconds: what is produced comes in the same bursts.
    """
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "bare", "fetch.wait.max.ms": 5})
    consumer.assign([TopicPartition(source, number, 0) for number in range(PARTITIONS)])
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 2})
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    print("ready", flush=True)
    seen, seconds = 0, dict.fromkeys(SYMBOLS, 0)
    while not stopping.is_set():
        first = consumer.poll(0.2)
        if first is None:
            continue
        for one in [first, *consumer.consume(20_000, timeout=0)]:
            seen += 1
            symbol, second = one.key().decode(), one.timestamp()[1] // 1000
            if seconds[symbol] != second:
                seconds[symbol] = second
                producer.produce(target, f"{one.partition()}:{one.offset()}".ljust(SIGNAL_BYTES).encode())
        producer.flush(5)
    print(json.dumps({"records": seen}), flush=True)


def reader(servers: str, topic: str, stop: threading.Event) -> list[tuple[bytes, float]]:
    """The values of a topic, each with the time at which it was read (seconds since 1970)."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "reader", "fetch.wait.max.ms": 5})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    found: list[tuple[bytes, float]] = []
    while not stop.is_set():
        first = consumer.poll(0.2)
        if first is not None:
            now = time.time()
            found += [(one.value(), now) for one in [first, *consumer.consume(20_000, timeout=0)] if not one.error()]
    consumer.close()
    return found


class Phase:
    """A program that answers trades, and what was read of its answers."""

    def __init__(self, place: Place, program: Sequence[str], source: str, target: str):
        bus = place.resources.bus
        self.source = bus.place.name(source)
        self.found: list[tuple[bytes, float]] = []
        self._stop = threading.Event()
        self._child = child(*program)
        said(self._child, "ready")
        topic = bus.place.name(target)
        self._reading = threading.Thread(target=lambda: self.found.extend(reader(bus.place.servers, topic, self._stop)))
        self._reading.start()

    def end(self) -> dict:
        """Stop the program and the reader; the program's figures."""
        self._child.send_signal(signal.SIGTERM)
        told = said(self._child)
        self._child.wait(30)
        self._stop.set()
        self._reading.join()
        return told


def child(*arguments: str) -> subprocess.Popen:
    """This benchmark in a process of its own, as one of its programs."""
    command = [sys.executable, "-m", __spec__.name, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(program: subprocess.Popen, wanted: str = "") -> dict:
    """The next line of a program: the word that is wanted, or else its figures."""
    assert program.stdout is not None
    line = program.stdout.readline().strip()
    assert not wanted or line == wanted, line
    return {} if wanted else json.loads(line)


def take_turns(servers: str, rate: int, seconds: int, phases: Sequence[Phase]) -> list[list[float]]:
    """Give the phases their trades, a turn each, one after the other; when the turns of each began (Unix seconds)."""
    began: list[list[float]] = [[] for _ in phases]
    producer = child("produce", servers, str(rate), str(seconds), *(phase.source for phase in phases))
    assert producer.stdin is not None
    for _ in range(TURNS):
        for times in began:
            said(producer, "ready")
            times.append(time.time())
            producer.stdin.write("go\n")
            producer.stdin.flush()
            said(producer)
            time.sleep(REST)
    producer.wait(30)
    return began


def produced(place: Place, topic: str) -> pl.DataFrame:
    """partition, offset and `at` (seconds since 1970, by the millisecond) of each record, with the trade it is."""
    bus = place.resources.bus
    consumer = Consumer({"bootstrap.servers": bus.place.servers, "group.id": "after"})
    parts = []
    for number, (first, end) in bus.watermarks(topic).items():
        consumer.assign([TopicPartition(bus.place.name(topic), number, first)])
        rows: list = []
        while len(rows) < end - first:
            rows += [
                one for one in consumer.consume(min(20_000, end - first - len(rows)), timeout=1) if not one.error()
            ]
        ticks = decode_ticks([one.value() for one in rows])
        at = pl.Series("at", [one.timestamp()[1] / 1000 for one in rows])
        offset = pl.Series("offset", [one.offset() for one in rows])
        parts.append(ticks.with_columns(at, offset, pl.lit(number, pl.Int64).alias("partition")))
    consumer.close()
    return pl.concat(parts)


def percentiles(name: str, latencies: Sequence[float]) -> float:
    """Print the distribution of latencies (seconds); the 99th percentile, milliseconds."""
    values = np.array(latencies) * 1000
    p50, p99, most = np.percentile(values, 50), np.percentile(values, 99), values.max()
    print(f"{name}: {len(values):,} records, p50 {p50:.1f} ms, p99 {p99:.1f} ms, most {most:.1f} ms", flush=True)
    return float(p99)


def bare_latencies(found: Sequence[tuple[bytes, float]], ticks: pl.DataFrame) -> list[tuple[float, float]]:
    """When each trade was produced that the bare loop answered, and how long until its answer was read (seconds)."""
    at = {rows["partition"][0]: rows.sort("offset")["at"].to_numpy() for rows in ticks.partition_by("partition")}
    places = [tuple(map(int, value.split(b":"))) for value, _ in found]
    times = [at[number][offset] for number, offset in places]
    return [(time_of, then - time_of) for time_of, (_, then) in zip(times, found, strict=True)]


def live_latencies(found: Sequence[tuple[bytes, float]], ticks: pl.DataFrame) -> list[tuple[float, float]]:
    """When each minute was over, and how long until the signal on it was read (seconds).

    The last minute of a turn is over by the clock, before the first trade of the next.
    """
    closing = closings(ticks)
    latencies = []
    for value, then in found:
        one = orjson.loads(value)
        key = (one["symbol"], micros(datetime.fromisoformat(one["open_time"])))
        if one["revision"] == 0 and then > closing.get(key, inf):
            latencies.append((closing[key], then - closing[key]))
    return latencies


def by_turn(latencies: Sequence[tuple[float, float]], began: Sequence[float]) -> list[list[float]]:
    """The latencies of each turn, but for its first second, in which no minute is over."""
    turns = np.searchsorted(began, [at for at, _ in latencies], side="right") - 1
    found: list[list[float]] = [[] for _ in began]
    for turn, (at, one) in zip(turns, latencies, strict=True):
        if at >= began[turn] + 1.0:
            found[turn].append(one)
    return found


def processor_times() -> np.ndarray:
    """What the processors have done since the machine began, by the first line of `/proc/stat` (`man proc_stat`)."""
    return np.array(Path("/proc/stat").read_text().split("\n")[0].split()[1:9], dtype=np.int64)


def main() -> None:
    """`live [RATE] [SECONDS]` runs all; its children are told what they are."""
    if sys.argv[1:2] == ["produce"]:
        produce(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
        return
    if sys.argv[1:2] == ["bare"]:
        bare(*sys.argv[2:5])
        return
    if sys.argv[1:2] == ["live"]:
        changes = {"profile": "services", "namespace": sys.argv[2], "home": Path(sys.argv[3])}
        live(Settings(**changes, kafka_driver="confluent", kafka_partitions=PARTITIONS))
        return
    rate = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    turn = max(2, (int(sys.argv[2]) if len(sys.argv) > 2 else 60) // TURNS)
    load, before = os.getloadavg()[0], processor_times()
    print(f"{rate:,} trades/s of {len(SYMBOLS)} symbols, {TURNS} turns of {turn} s each; load {load:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as home, opened(
        "services", Path(home), kafka_partitions=PARTITIONS, kafka_driver="confluent"
    ) as place:  # fmt: skip
        bus = place.resources.bus
        first, second, target = ticks_topic("bare"), ticks_topic("bench_1m"), signals_topic("bench")
        for topic in (first, second, target, BARE, made_bars_topic("1m", "bench_1m")):
            bus.create(topic)
        servers = bus.place.servers
        phases = [
            Phase(place, ["bare", servers, bus.place.name(first), bus.place.name(BARE)], first, BARE),
            Phase(place, ["live", place.settings.namespace, str(place.settings.data)], second, target),
        ]
        began = take_turns(servers, rate, turn, phases)
        _, told = [phase.end() for phase in phases]
        print(f"live path: {told['cpu'] / told['trades'] * 1e6:.1f} us of processor a trade, {told}", flush=True)
        ticks = produced(place, second)
        compare(place, ticks)
        own = by_turn(bare_latencies(phases[0].found, produced(place, first)), began[0])[1:]
        mine = by_turn(live_latencies(phases[1].found, ticks), began[1])[1:]
        for number, pair in enumerate(zip(own, mine, strict=True), 1):
            a, b = (np.percentile(one, 99) * 1000 for one in pair)
            print(f"turn {number}: p99 of the bare loop {a:.1f} ms, of the live path {b:.1f} ms: {b / a:.2f}")
        base = percentiles("bare loop, produce to read", list(chain.from_iterable(own)))
        p99 = percentiles("live path, produce to signal", list(chain.from_iterable(mine)))
        taken = processor_times() - before
        print(
            f"p99 of the live path / bare loop = {p99 / base:.2f}; load {os.getloadavg()[0]:.1f}, "
            f"{taken[STOLEN] / taken.sum():.1%} of the processors' time went to other machines"
        )


def closings(ticks: pl.DataFrame) -> dict[tuple[str, int], float]:
    """When the trade was produced with which each symbol's minute was over.

    That is the first later one of the symbol, or one of another that is so much later that it is not waited for.
    """
    ticks = ticks.with_columns(pl.col("time").dt.epoch("us")).sort("time")
    minutes = ticks.with_columns((pl.col("time") // MINUTE * MINUTE).alias("minute"))
    first = minutes.group_by("symbol", "minute").agg(pl.col("at").min()).sort("symbol", "minute")
    before = first.with_columns(pl.col("minute").shift(1).over("symbol").alias("closed")).drop_nulls("closed")
    beyond = ticks["time"].search_sorted(before["closed"] + MINUTE + GRACE)
    any_other = pl.Series([*ticks["at"], inf], dtype=pl.Float64).gather(beyond)
    before = before.with_columns(pl.min_horizontal("at", any_other))
    return {(symbol, closed): at for symbol, closed, at in before.select("symbol", "closed", "at").iter_rows()}


def compare(place: Place, ticks: pl.DataFrame) -> None:
    """Whether the bars that were published last are those of all trades at once."""
    bus, topic = place.resources.bus, made_bars_topic("1m", "bench_1m")
    values = [
        v for number, (first, end) in bus.watermarks(topic).items() for v in bus.read(topic, number, first, end).values
    ]
    names = ["symbol", "open_time", "open", "high", "low", "close", "volume", "vwap", "trade_count", "revision"]
    said = [orjson.loads(value) for value in values]
    found = pl.DataFrame([{name: one[name] for name in names} for one in said]).sort("revision")
    found = found.unique(["symbol", "open_time"], keep="last").drop("revision").sort("symbol", "open_time")
    wanted = bars_from_ticks(ticks.select(TICK_SCHEMA.names()), datetime.now(UTC)).sort("symbol", "open_time")
    wanted = wanted.with_columns(pl.col("open_time").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).select(found.columns)
    # Sums of sizes depend on the order of their terms in the last digits; all else is the same.
    exact = found.drop("volume", "vwap").equals(wanted.drop("volume", "vwap"))
    same = exact and all(
        ((found[name] - wanted[name]).abs() <= 1e-9 * wanted[name]).all() for name in ("volume", "vwap")
    )
    print(f"bars: {len(found):,}, those of all trades at once {len(wanted):,}: {'equal' if same else 'NOT equal'}")
    assert same, found.join(wanted, on=["symbol", "open_time"], how="anti")


if __name__ == "__main__":
    main()

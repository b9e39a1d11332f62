"""The live path under load: trades onto Kafka, and how long until the signals that follow are there to be read.

Broker, producer, live path and reader share the machine's cores. A signal follows from the trade with which a minute of
its symbol is over; its latency runs from when that trade was produced to when the signal was read from its topic. The
clock of the trades runs `SPEED` times as fast as ours, so that a minute is over every second and not sixty times as
rarely. The live path is that of the command, with the account of its strategy. The baseline in the same run is a bare
loop of consuming and producing, which is given the same trades and answers as many of them, as close together, with
records of a signal's size. Afterwards the bars are compared with those of the whole, and the live path's processor time
is told by trade.

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
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import orjson
import polars as pl
from confluent_kafka import Consumer, Producer, TopicPartition

from quantlytic_assets.live.process import LiveProcess
from quantlytic_assets.live.sources import TickSource
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


def dataset() -> Dataset:
    """A hundred coins at one minute, with the features of `core`."""
    return make_dataset(
        "24/7", "1m", first=date(2025, 5, 1), last=None, symbols=SYMBOLS, name="bench_1m", features=("core", "sma(5)")
    )


def strategy() -> Strategy:
    """A rule on each of them."""
    rule = {"ma_cross": {"fast": 5, "slow": 20}}
    return Strategy("bench", "bench_1m", "1m", SYMBOLS, rule, EngineSettings(100_000.0), ("core", "sma(5)"))


def trades(rate: int, seconds: int) -> pl.DataFrame:
    """TICK_SCHEMA rows evenly in time, symbols in turn but for chance."""
    random, count = np.random.default_rng(3), rate * seconds
    symbols = random.integers(0, len(SYMBOLS), count)
    time_of = START + (np.arange(count) * (SPEED * 1_000_000 / rate)).astype(np.int64)
    frame = pl.DataFrame(
        {
            "symbol": pl.Series(np.array(SYMBOLS)[symbols]),
            "time": time_of,
            "price": 100 + symbols + random.normal(0, 0.5, count).round(2),
            "size": random.uniform(0.001, 2, count).round(8),
            "side": "buy",
            "vendor": "benchmark",
            "received_at": time_of,
        }
    )
    return (
        frame.with_columns(pl.int_range(pl.len()).over("symbol").alias("trade_id"))
        .select(TICK_SCHEMA.names())
        .cast(TICK_SCHEMA)
    )


def produce(servers: str, topic: str, rate: int, seconds: int) -> None:
    """Produce the trades at their rate; says how far it fell behind."""
    ticks = trades(rate, seconds)
    values = [value for part in ticks.iter_slices(100_000) for value in encode_ticks(part)]
    homes = [int(symbol[1:3]) % PARTITIONS for symbol in ticks["symbol"]]
    keys = ticks["symbol"].to_list()
    head = [(name, text.encode()) for name, text in sorted(TICK_HEADERS.items())]
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 1, "queue.buffering.max.messages": 2_000_000})
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


def reader(servers: str, topic: str, partitions: int, stop: threading.Event) -> list[tuple[bytes, float]]:
    """The values of a topic, each with the time at which it was read (seconds since 1970)."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "reader", "fetch.wait.max.ms": 5})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    found: list[tuple[bytes, float]] = []
    while not stop.is_set():
        first = consumer.poll(0.2)
        if first is not None:
            now = time.time()
            found += [(one.value(), now) for one in [first, *consumer.consume(20_000, timeout=0)] if not one.error()]
    consumer.close()
    return found


def run_phase(
    place: Place, program: list[str], topic: str, target: str, rate: int, seconds: int
) -> tuple[list[tuple[bytes, float]], dict]:
    """Start a program, produce trades for it, read what it publishes; that, and its figures."""
    bus = place.resources.bus
    servers = bus.place.servers
    found: list[tuple[bytes, float]] = []
    stop = threading.Event()
    child = subprocess.Popen([sys.executable, "-m", __spec__.name, *program], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline().strip() == "ready"
    reading = threading.Thread(target=lambda: found.extend(reader(servers, bus.place.name(target), PARTITIONS, stop)))
    reading.start()
    arguments = ["produce", servers, bus.place.name(topic), str(rate), str(seconds)]
    subprocess.run([sys.executable, "-m", __spec__.name, *arguments], check=True)
    time.sleep(2.0)
    child.send_signal(signal.SIGTERM)
    told = json.loads(child.stdout.read())
    child.wait(30)
    stop.set()
    reading.join()
    return found, told


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


def percentiles(name: str, latencies: list[float]) -> float:
    """Print the distribution of latencies (seconds); the 99th percentile, milliseconds."""
    values = np.array(latencies) * 1000
    p50, p99, most = np.percentile(values, 50), np.percentile(values, 99), values.max()
    print(f"{name}: {len(values):,} records, p50 {p50:.1f} ms, p99 {p99:.1f} ms, most {most:.1f} ms", flush=True)
    return float(p99)


def main() -> None:
    """`live [RATE] [SECONDS]` runs all; its children are told what they are."""
    if sys.argv[1:2] == ["produce"]:
        produce(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
        return
    if sys.argv[1:2] == ["bare"]:
        bare(*sys.argv[2:5])
        return
    if sys.argv[1:2] == ["live"]:
        changes = {"profile": "services", "namespace": sys.argv[2], "home": Path(sys.argv[3])}
        live(Settings(**changes, kafka_driver="confluent", kafka_partitions=PARTITIONS))
        return
    rate = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 60
    print(f"{rate:,} trades/s of {len(SYMBOLS)} symbols for {seconds} s; load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as home, opened(
        "services", Path(home), kafka_partitions=PARTITIONS, kafka_driver="confluent"
    ) as place:  # fmt: skip
        bus = place.resources.bus
        first, second, target = ticks_topic("bare"), ticks_topic("bench_1m"), signals_topic("bench")
        for topic in (first, second, target, BARE, made_bars_topic("1m", "bench_1m")):
            bus.create(topic)
        servers = bus.place.servers
        # The bare loop.
        program = ["bare", servers, bus.place.name(first), bus.place.name(BARE)]
        found, _ = run_phase(place, program, first, BARE, rate, seconds)
        at = {
            rows["partition"][0]: rows.sort("offset")["at"].to_numpy()
            for rows in produced(place, first).partition_by("partition")
        }
        places = [tuple(map(int, value.split(b":"))) for value, _ in found]
        own = [then - at[number][offset] for (number, offset), (_, then) in zip(places, found, strict=True)]
        base = percentiles("bare loop, produce to read", own[len(own) // 10 :])
        # The live path.
        program = ["live", place.settings.namespace, str(place.settings.data)]
        found, told = run_phase(place, program, second, target, rate, seconds)
        ticks = produced(place, second)
        print(f"live path: {told['cpu'] / told['trades'] * 1e6:.1f} us of processor a trade, {told}", flush=True)
        compare(place, ticks)
        closing = closings(ticks)
        waited = []
        for value, then in found:
            said = orjson.loads(value)
            if said["revision"] == 0:
                key = (said["symbol"], micros(datetime.fromisoformat(said["open_time"])))
                if key in closing:
                    waited.append(then - closing[key])
        mine = percentiles("live path, produce to signal", waited[len(waited) // 10 :])
        print(f"p99 of the live path / bare loop = {mine / base:.2f}; load {os.getloadavg()[0]:.1f}")


def closings(ticks: pl.DataFrame) -> dict[tuple[str, int], float]:
    """When the trade was produced with which each symbol's minute was over: the first later one of that symbol."""
    minutes = ticks.with_columns((pl.col("time").dt.epoch("us") // MINUTE * MINUTE).alias("minute"))
    first = minutes.group_by("symbol", "minute").agg(pl.col("at").min()).sort("symbol", "minute")
    before = first.with_columns(pl.col("minute").shift(1).over("symbol").alias("closed")).drop_nulls("closed")
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

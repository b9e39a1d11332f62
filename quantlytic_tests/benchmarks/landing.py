"""Landing: bars from Kafka into the S3 archive with each driver, beside a bare kafka-python poll loop.

All read the same records in the same run, turn by turn; the figures are the medians of the turns. Then
five million records are landed in one process whose memory is looked at after every claim. Wants the real servers:
`make bench`, or `scripts/services run -- python -m quantlytic_tests.benchmarks.landing [RECORDS]`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import polars as pl

from quantlytic_assets.calendars.partitions import archive_keys
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.storage.bus import bars_topic
from quantlytic_assets.storage.landing import Lander
from quantlytic_assets.universe.models import Dataset, Instrument
from quantlytic_tests.storage.places import Place, opened

SYMBOLS = 50
RECORDS = 600_000
MANY = 5_000_000
TURNS = 3
DRIVERS = ("kafka-python", "confluent")
FIRST = datetime(2025, 1, 1, tzinfo=UTC)


def dataset() -> Dataset:
    """Minutes of many symbols, round the clock."""
    return Dataset(
        name="landing_1m",
        calendar="24/7",
        interval="1m",
        partition="session",
        first_session=FIRST.date(),
        last_session=None,
        vendors=(),
        venue="benchmark",
        out_of_session="drop",
        delay=timedelta(0),
        feature_intervals=("1m",),
        symbols=tuple(Instrument(f"S{i:02d}-USD") for i in range(SYMBOLS)),
    )


def make_lander(bus: Place, archive: Place, claim_records: int) -> Lander:
    """A lander of the benchmark's dataset."""
    keys = partial(archive_keys, dataset=dataset())
    return Lander(bus.resources.bus, archive.resources.archive, dataset().name, keys, claim_records)


def fill(place: Place, records: int) -> float:
    """Publish bars minute by minute, every symbol's; returns the seconds it took."""
    lander = make_lander(place, place, 1)
    began, at_once = time.monotonic(), 2_000
    for minute in range(0, records // SYMBOLS, at_once):
        count = min(at_once, records // SYMBOLS - minute)
        opens = pl.datetime_range(
            FIRST + timedelta(minutes=minute),
            FIRST + timedelta(minutes=minute + count),
            "1m",
            closed="left",
            eager=True,
        ).cast(RAW_SCHEMA["open_time"])
        times = pl.DataFrame({"open_time": opens}).with_row_index("at", offset=minute)
        symbols = pl.DataFrame({"symbol": [one.symbol for one in dataset().symbols]}).with_row_index("number")
        price = 100 + 10 * (pl.col("at") / 500 + pl.col("number")).sin()
        bars = times.join(symbols, how="cross").with_columns(
            close_time=pl.col("open_time") + timedelta(minutes=1),
            open=price,
            high=price * 1.0007,
            low=price * 0.9991,
            close=price * 1.0003,
            volume=(pl.col("at") % 977) * 0.125 + 1,
            vwap=price * 1.0001,
            trade_count=(pl.col("at") % 311).cast(pl.Int64) + 1,
            vendor=pl.lit("benchmark"),
            fetched_at=pl.lit(datetime(2026, 1, 1, tzinfo=UTC)),
            adjustment=pl.lit("none"),
        )
        lander.publish(bars.select(RAW_SCHEMA.names()).cast(dict(RAW_SCHEMA)))
    return time.monotonic() - began


def poll_only(place: Place) -> int:
    """Read the whole topic with the consumer's poll and nothing else; returns the records seen."""
    from kafka import KafkaConsumer, TopicPartition

    bus = Place(place.settings.model_copy(update={"kafka_driver": "kafka-python"})).resources.bus
    topic = bars_topic(dataset().name)
    consumer = KafkaConsumer(
        bootstrap_servers=bus.place.servers.split(","),
        enable_auto_commit=False,
        auto_offset_reset="none",
        max_poll_records=50_000,
        fetch_max_bytes=64 << 20,
        max_partition_fetch_bytes=16 << 20,
        metrics_enabled=False,
        **bus.place.security,
    )
    marks = bus.watermarks(topic)
    parts = [TopicPartition(bus.place.name(topic), partition) for partition in marks]
    consumer.assign(parts)
    for part in parts:
        consumer.seek(part, marks[part.partition][0])
    left, seen = sum(end - first for first, end in marks.values()), 0
    while seen < left:
        seen += sum(len(records) for records in consumer.poll(timeout_ms=1000).values())
    consumer.close()
    return seen


def compare(place: Place, claim_records: int) -> None:
    """Print the rates of a bare poll loop and of landing with each driver, turn by turn, and their ratios."""
    rates: dict[str, list[float]] = {"poll": [], **{driver: [] for driver in DRIVERS}}
    for turn in range(TURNS):
        began = time.monotonic()
        seen = poll_only(place)
        rates["poll"].append(seen / (time.monotonic() - began))
        for driver in DRIVERS:
            bus = Place(place.settings.model_copy(update={"kafka_driver": driver}))
            lander = make_lander(bus, place / f"{driver.replace('-', '')}{turn}", claim_records)
            # Connections are made once a process.
            bus.resources.bus.read(lander.topic, 0, 0, 1)
            began = time.monotonic()
            landed = lander.land()
            rates[driver].append(landed.rows / (time.monotonic() - began))
            assert landed.rows == seen and not landed.rejected, landed
        told = ", ".join(f"{name} {values[-1]:,.0f}/s" for name, values in rates.items())
        print(f"  turn {turn + 1}: {told}", flush=True)
    middle = {name: statistics.median(values) for name, values in rates.items()}
    for driver in DRIVERS:
        ratios = [mine / bare for mine, bare in zip(rates[driver], rates["poll"], strict=True)]
        print(f"landing by {driver}: {middle[driver]:,.0f} bars/s; / bare poll loop = {statistics.median(ratios):.2f}")
    ratios = [one / other for one, other in zip(rates["confluent"], rates["kafka-python"], strict=True)]
    print(f"landing: confluent / kafka-python = {statistics.median(ratios):.2f}")


def land_and_watch(place: Place, claim_records: int) -> None:
    """Land everything, one claim at a time, and print how memory went."""
    lander = make_lander(place, place, claim_records)
    resident: list[int] = []
    mark_done = lander.archive.mark_done

    def watch(*arguments: object) -> object:
        done = mark_done(*arguments)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident.append(pages * 4096 >> 20)
        return done

    lander.archive.mark_done = watch
    landed = lander.land()
    third = max(1, len(resident) // 3)
    print(
        f"memory over {landed.rows:,} records, {len(resident)} claims: first third at most {max(resident[:third])} "
        f"MiB, last third at most {max(resident[-third:])} MiB"
    )


def main() -> None:
    """`landing` prints all; `landing watch NAMESPACE` is the child that lands the many."""
    if sys.argv[1:2] == ["watch"]:
        from quantlytic_assets.settings import Settings

        settings = Settings(profile="services", namespace=sys.argv[2], home=Path(sys.argv[3]))
        land_and_watch(Place(settings), settings.claim_records)
        return
    records = int(sys.argv[1]) if len(sys.argv) > 1 else RECORDS
    many = int(sys.argv[2]) if len(sys.argv) > 2 else MANY
    with tempfile.TemporaryDirectory() as home, opened("services", Path(home), kafka_partitions=3) as place:
        seconds = fill(place, records)
        print(f"published {records:,} bars at {records / seconds:,.0f}/s", flush=True)
        compare(place, place.settings.claim_records)
        if not many:
            return
        crowd = place / "many"
        fill(crowd, many)
        command = [sys.executable, "-m", __spec__.name, "watch", crowd.settings.namespace, home]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()

"""What stands on the bus already, so that a feed publishes nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import polars as pl

from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.market_data.stream.ticks import TICK_SCHEMA, decode_ticks
from quantlytic_assets.market_data.wire.records import decode
from quantlytic_assets.storage.bus import Bus, Records

_KEY = ["symbol", "open_time"]
_VALUES = ["open", "high", "low", "close", "volume"]
# Sums of floating-point numbers differ in their last digits by the order of adding up.
_TOLERANCE = 1e-9
_READ_AT_ONCE = 50_000


class KnownBars:
    """Bars by symbol and minute, with the values they were published with last."""

    def __init__(self) -> None:
        self._bars = pl.DataFrame(schema={name: RAW_SCHEMA[name] for name in (*_KEY, *_VALUES)})

    def learn(self, bars: pl.DataFrame) -> None:
        """Take note of published bars; of one minute the latest counts."""
        self._bars = pl.concat([self._bars, bars.select(self._bars.columns)]).unique(
            _KEY, keep="last", maintain_order=True
        )

    def forget(self, before: datetime) -> None:
        """Drop bars that opened before a time."""
        self._bars = self._bars.filter(pl.col("open_time") >= before)

    def fresh(self, bars: pl.DataFrame) -> pl.DataFrame:
        """Those of `bars` that are not known, or known with other values."""
        known = self._bars.with_columns(pl.lit(True).alias("_seen"))
        merged = bars.join(known, on=_KEY, how="left", suffix="_known", maintain_order="left")
        # A price may be null in a bar of a file's: null is like null only.
        same = pl.all_horizontal(
            pl.col(name).eq_missing(pl.col(f"{name}_known"))
            | ((pl.col(name) - pl.col(f"{name}_known")).abs() <= _TOLERANCE * pl.col(name).abs()).fill_null(False)
            for name in _VALUES
        )
        return merged.filter(~(same & pl.col("_seen").fill_null(False))).select(bars.columns)

    def missing(self, minutes: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """Those (symbol, minute in microseconds) of which no bar is known."""
        wanted = pl.DataFrame(minutes, schema={"symbol": pl.String, "minute": pl.Int64}, orient="row")
        known = self._bars.select("symbol", pl.col("open_time").dt.timestamp("us").alias("minute"))
        return wanted.join(known, on=["symbol", "minute"], how="anti", maintain_order="left").rows()


def bars_on_bus(bus: Bus, topic: str, since: datetime, at_once: int = _READ_AT_ONCE) -> pl.DataFrame:
    """The bars (RAW_SCHEMA) of a topic that opened at `since` or later; those of one symbol in their order.

    Read backwards from the end: a bar is fetched after it opened, and records stand on the bus about in the order they
    were fetched in, so that a stretch of `at_once` records fetched before `since` ends it.
    """
    found = [pl.DataFrame(schema=RAW_SCHEMA)]
    for partition in bus.watermarks(topic):
        parts: list[pl.DataFrame] = []
        for records in _backwards(bus, topic, partition, at_once):
            bars = decode(records.offsets, records.headers, records.values).bars.select(RAW_SCHEMA.names())
            parts.append(bars.filter(pl.col("open_time") >= since))
            if len(bars) and bars["fetched_at"].max() < since:
                break
        found += reversed(parts)
    return pl.concat(found)


def newest_ticks(bus: Bus, topic: str, at_once: int = _READ_AT_ONCE) -> pl.DataFrame:
    """The last trades (TICK_SCHEMA) of a topic: `at_once` of each partition."""
    found = [pl.DataFrame(schema=TICK_SCHEMA)]
    for partition in bus.watermarks(topic):
        newest = next(_backwards(bus, topic, partition, at_once), None)
        if newest is not None:
            found.append(decode_ticks(newest.values))
    return pl.concat(found)


def _backwards(bus: Bus, topic: str, partition: int, at_once: int) -> Iterator[Records]:
    """Stretches of a topic partition, the newest first."""
    end = None
    while True:
        # Asked each time, for retention may be at work.
        first, newest = bus.watermarks(topic).get(partition, (0, 0))
        end = newest if end is None else end
        start = max(first, end - at_once)
        if start >= end:
            return
        yield bus.read(topic, partition, start, end)
        end = start

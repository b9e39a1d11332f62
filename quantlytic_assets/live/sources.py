"""What the live path reads of the bus, made into native bars: bars as they are published, or trades summed up.

A source is given the records of a batch and gives native bars with their traces. Its own memory, if it has any, is kept
with the rest of the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, Protocol

import polars as pl

from quantlytic_assets.calendars.sessions import session_table
from quantlytic_assets.live.bars import Bar
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.market_data.quality.cleaning import placed
from quantlytic_assets.market_data.wire.records import decode
from quantlytic_assets.storage.bus import bars_topic

if TYPE_CHECKING:
    from quantlytic_assets.storage.bus import Records
    from quantlytic_assets.universe.models import Dataset

# What is further from now than this has no session in any calendar's table.
_AROUND = timedelta(days=70)


class Price(NamedTuple):
    """The newest price of a symbol, and when it was, microseconds since 1970 UTC."""

    price: float
    size: float | None
    time: int


@dataclass
class Taken:
    """What a batch of records holds.

    bars: native bars with their traces, in their order. untraded: bars that are known not to be, of which only symbol,
    session and time count. prices: by symbol. received_at: of the newest record, seconds since 1970, None where it does
    not say. counts: what there is to be counted.
    """

    bars: list[tuple[Bar, str]] = field(default_factory=list)
    untraded: list[Bar] = field(default_factory=list)
    prices: dict[str, Price] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


class Source(Protocol):
    """What makes native bars of records."""

    topic: str

    def take(self, records: Mapping[int, Records]) -> Taken:
        """What a batch, by partition, holds."""

    def idle(self, now: int) -> Taken:
        """What the time alone decides, microseconds since 1970 UTC, when nothing more is on the bus."""

    def kept(self) -> bytes | None:
        """What it has to remember, None where nothing."""

    def restore(self, kept: bytes) -> None:
        """Take up what was kept."""


def native_bars(rows: pl.DataFrame, dataset: Dataset, final: bool) -> tuple[list[tuple[Bar, int]], int]:
    """Native bars of RAW_SCHEMA rows, each with the number of its row, and how many rows cleaning would reject."""
    if rows.is_empty():
        return [], 0
    first, last = rows["open_time"].min().date() - _AROUND, rows["open_time"].max().date() + _AROUND
    sessions = session_table(dataset.calendar, first, last).with_columns(pl.lit("").alias("partition"))
    told = placed(rows.with_row_index("_row"), dataset, sessions)
    good = told.filter(pl.col("_reason").is_null())
    delay = dataset.delay // timedelta(microseconds=1)
    plain = good.select(
        "symbol",
        "session",
        pl.col("_start").dt.epoch("us"),
        pl.col("_end").dt.epoch("us"),
        pl.col("_end").dt.epoch("us").alias("_available") + delay,
        *("open", "high", "low", "close", "volume", "vwap", "trade_count", "_row"),
    )
    found = [(Bar._make((*values, True, final)), number) for *values, number in plain.iter_rows()]
    return found, len(rows) - len(found)


class BarSource:
    """Bars of `bars.<dataset>`; each is final until another one of its time is published."""

    def __init__(self, dataset: Dataset, floor: Mapping[str, int]):
        self.topic = bars_topic(dataset.name)
        self._dataset = dataset
        self._floor = dict(floor)

    def take(self, records: Mapping[int, Records]) -> Taken:
        """See `Source.take`. Bars that the lake has are left out."""
        taken = Taken()
        parts, traces = [], []
        for partition, one in records.items():
            decoded = decode(one.offsets, one.headers, one.values)
            taken.counts["malformed"] = taken.counts.get("malformed", 0) + len(decoded.rejected)
            parts.append(decoded.bars)
            traces += [f"{self.topic}:{partition}:{offset}" for offset in decoded.bars["bus_offset"]]
        rows = pl.concat(parts)
        bars, rejected = native_bars(rows.select(RAW_SCHEMA.names()), self._dataset, final=True)
        taken.counts["rejected"] = rejected
        for bar, number in bars:
            if bar.open_time <= self._floor.get(bar.symbol, -1):
                taken.counts["known"] = taken.counts.get("known", 0) + 1
                continue
            taken.bars.append((bar, traces[number]))
            newest = taken.prices.get(bar.symbol)
            if newest is None or bar.close_time >= newest.time:
                taken.prices[bar.symbol] = Price(bar.close, bar.volume, bar.close_time)
        return taken

    def idle(self, now: int) -> Taken:
        """See `Source.idle`: a bar is there when it is published, and not before."""
        return Taken()

    def kept(self) -> bytes | None:
        """See `Source.kept`."""
        return None

    def restore(self, kept: bytes) -> None:
        """See `Source.restore`."""

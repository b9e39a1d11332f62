"""What the live path reads of the bus, made into native bars: bars as they are published, or trades summed up.

A source is given the records of a batch and gives native bars with their traces. Its own memory, if it has any, is kept
with the rest of the state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import orjson
import polars as pl

from quantlytic_assets.live.bars import Bar
from quantlytic_assets.live.minutes import TAKEN, TOO_LATE, TWICE, Minutes
from quantlytic_assets.live.placing import MinutePlaces, native_bars
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.market_data.stream.messages import MINUTE
from quantlytic_assets.market_data.stream.trade_bars import SIZE_DECIMALS, vwap
from quantlytic_assets.market_data.wire.avro_records import record_schema
from quantlytic_assets.market_data.wire.records import decode
from quantlytic_assets.storage.bus import bars_topic, ticks_topic

if TYPE_CHECKING:
    from quantlytic_assets.storage.bus import Records
    from quantlytic_assets.universe.models import Dataset

# How far the market must be beyond a minute for it to be over for a symbol that is silent, microseconds.
_GRACE = 1_000_000


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


@cache
def _rounded() -> list[pl.Expr]:
    """Volume and volume-weighted price as bars have them, of sums of sizes and of prices times sizes."""
    volume = pl.col("volume").round(SIZE_DECIMALS)
    return [volume, vwap(pl.col("quote"), volume).alias("vwap")]


class TickSource:
    """Trades of `ticks.<dataset>`, summed up to minutes. Their bars are provisional: the venue's own may say otherwise.

    The minute in which a partition begins is left out, unless it is read from its very first record.
    """

    def __init__(self, dataset: Dataset, floor: Mapping[str, int]):
        if dataset.interval != "1m":
            raise ValueError(f"{dataset.name} has bars of {dataset.interval}: trades are summed up to 1m")
        self.topic = ticks_topic(dataset.name)
        self._dataset = dataset
        since = {symbol: opened + MINUTE for symbol, opened in floor.items()}
        self._minutes = Minutes([one.symbol for one in dataset.symbols], since, _GRACE)
        self._places = {symbol: at for at, symbol in enumerate(self._minutes.symbols)}
        self._grid = MinutePlaces(dataset)
        # By partition, the minute in which its reading began.
        self._begun: dict[str, int] = {}

    def take(self, records: Mapping[int, Records]) -> Taken:
        """See `Source.take`."""
        taken = Taken()
        before = self._minutes.counts.copy()
        # All partitions at once: a decoding costs more than the trades in it.
        batch = sorted(records.items())
        rows, faults = record_schema("market_tick").decode([value for _, one in batch for value in one.values])
        offsets = np.array([offset for _, one in batch for offset in one.offsets], dtype=np.int64)
        parts = np.repeat(np.array([number for number, _ in batch], dtype=np.int64), [len(one) for _, one in batch])
        if faults:
            taken.counts["malformed"] = len(faults)
            offsets, parts = np.delete(offsets, list(faults)), np.delete(parts, list(faults))
        # Arrays, not expressions: a batch is small, and each expression costs more than its rows.
        places = np.array([self._places.get(one, -1) for one in rows["symbol"].to_list()], dtype=np.int64)
        columns = [rows["trade_id"], rows["time"], rows["price"], rows["size"]]
        # Copies: polars gives read-only arrays, for which the loop would be compiled a second time.
        numbers, times, prices, sizes = (column.to_numpy().copy() for column in columns)
        times = times.view(np.int64)
        good = (places >= 0) & np.isfinite(prices) & (prices > 0) & np.isfinite(sizes) & (sizes >= 0)
        arrays = (places, numbers, times, prices, sizes, parts, offsets)
        if not good.all():
            taken.counts["rejected"] = int((~good).sum())
            arrays = tuple(one[good] for one in arrays)
        self._minutes.take(*arrays, self._begins([number for number, _ in batch], *arrays[5:], arrays[2]))
        taken.prices = {symbol: Price(price, size, time) for symbol, price, size, time in self._minutes.prices()}
        self._told(taken, self._minutes.market_time)
        for name, kind in (("trades", TAKEN), ("twice", TWICE), ("too_late", TOO_LATE)):
            taken.counts[name] = int(self._minutes.counts[kind] - before[kind])
        return taken

    def _begins(
        self, partitions: Sequence[int], parts: np.ndarray, offsets: np.ndarray, times: np.ndarray
    ) -> np.ndarray:
        """Of each good trade the minute in which the reading of its partition began, -1 where that was its start."""
        for partition in partitions:
            if str(partition) not in self._begun and len(own := np.flatnonzero(parts == partition)):
                minute = int(times[own].min()) // MINUTE * MINUTE
                self._begun[str(partition)] = minute if offsets[own[0]] else -1
        begun = np.full(max(partitions) + 1, -1, dtype=np.int64)
        for partition in partitions:
            begun[partition] = self._begun.get(str(partition), -1)
        return begun[parts]

    def idle(self, now: int) -> Taken:
        """See `Source.idle`: the minute of the newest trade is over when its time is, though nothing later was traded.

        Of minutes after that one nothing is known, for trades may be under way, or be those of another day.
        """
        taken = Taken()
        end = self._minutes.market_time // MINUTE * MINUTE + MINUTE + _GRACE
        if now >= end:
            self._told(taken, end)
        return taken

    def _told(self, taken: Taken, until: int) -> None:
        """The bars of minutes that are over, and those that are known not to be."""
        minutes, untraded = self._minutes.told(until)
        if minutes:
            sums = pl.DataFrame(
                {"volume": [one.volume for one in minutes], "quote": [one.quote_volume for one in minutes]}
            )
            for one, (volume, price) in zip(minutes, sums.select_seq(_rounded()).iter_rows(), strict=True):
                place = self._grid.of(one.symbol, one.open_time)
                if place is None:
                    taken.counts["rejected"] = taken.counts.get("rejected", 0) + 1
                    continue
                bar = Bar(
                    one.symbol, place.session, one.open_time, place.close_time, place.available_at, one.open, one.high,
                    one.low, one.close, volume, price, one.trade_count, final=False,
                )  # fmt: skip
                taken.bars.append((bar, f"{self.topic}:{one.partition}:{one.offset}"))
        for symbol, opened in untraded:
            place = self._grid.of(symbol, opened)
            if place is not None:
                nothing = Bar(
                    symbol, place.session, opened, place.close_time, place.available_at, 1.0, 1.0, 1.0, 1.0, 0.0,
                    final=False,
                )  # fmt: skip
                taken.untraded.append(nothing)

    def kept(self) -> bytes | None:
        """See `Source.kept`."""
        head = orjson.dumps(self._begun)
        return len(head).to_bytes(4, "big") + head + self._minutes.kept()

    def restore(self, kept: bytes) -> None:
        """See `Source.restore`."""
        size = 4 + int.from_bytes(kept[:4], "big")
        self._begun = orjson.loads(kept[4:size])
        self._minutes.restore(kept[size:])

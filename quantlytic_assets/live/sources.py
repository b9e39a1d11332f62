"""What the live path reads of the bus, made into native bars: bars as they are published, or trades summed up.

A source is given the records of a batch and gives native bars with their traces. Its own memory, if it has any, is kept
with the rest of the state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import orjson
import polars as pl

from quantlytic_assets.live.bars import Bar
from quantlytic_assets.live.minutes import TAKEN, TOO_LATE, TWICE, Minutes
from quantlytic_assets.live.placing import MinutePlaces, native_bars
from quantlytic_assets.live.tick_columns import tick_columns
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.market_data.stream.messages import MINUTE
from quantlytic_assets.market_data.stream.trade_bars import rounded
from quantlytic_assets.market_data.wire.records import decode
from quantlytic_assets.storage.bus import bars_topic, ticks_topic

if TYPE_CHECKING:
    from quantlytic_assets.storage.bus import Records
    from quantlytic_assets.universe.models import Dataset

# How far the market must be beyond a minute for it to be over for a symbol that is silent, microseconds.
GRACE = 1_000_000
# Where in a minute the market is when no bar is due, microseconds: after the grace, and well before the minute's end,
# which is not far away where trades are caught up with.
_CALM_FROM, _CALM_UNTIL = 4_000_000, 55_000_000


class Price(NamedTuple):
    """The newest price of a symbol, and when it was, microseconds since 1970 UTC."""

    price: float
    size: float | None
    time: int


@dataclass
class Taken:
    """What a batch of records holds.

    bars: native bars with their traces, in their order. untraded: bars that are known not to be, of which only symbol,
    session and time count. newest: the time of the newest price so far, microseconds since 1970 UTC, -1 where there is
    none. counts: what there is to be counted.
    """

    bars: list[tuple[Bar, str]] = field(default_factory=list)
    untraded: list[Bar] = field(default_factory=list)
    newest: int = -1
    counts: dict[str, int] = field(default_factory=dict)


class Source(Protocol):
    """What makes native bars of records. only_values: whether it reads neither keys nor headers of them."""

    topic: str
    only_values: bool

    @property
    def calm(self) -> bool:
        """Whether no bar is to be expected of what comes next."""

    def take(self, records: Mapping[int, Records]) -> Taken:
        """What a batch, by partition, holds."""

    def idle(self, now: int) -> Taken:
        """What the time alone decides, microseconds since 1970 UTC, when nothing more is on the bus."""

    def prices(self) -> dict[str, Price]:
        """By symbol, the prices that are newer than when this was asked last."""

    def kept(self) -> bytes | None:
        """What it has to remember, None where nothing."""

    def changes(self) -> bytes:
        """What is other of it than it was when this or `kept` was asked last."""

    def restore(self, kept: bytes, changes: Sequence[bytes]) -> None:
        """Take up what was kept."""


class BarSource:
    """Bars of `bars.<dataset>`; each is final until another one of its time is published."""

    only_values = False
    calm = False

    def __init__(self, dataset: Dataset, floor: Mapping[str, int]):
        self.topic = bars_topic(dataset.name)
        self._dataset = dataset
        self._floor = dict(floor)
        self._prices: dict[str, Price] = {}
        self._newest = -1

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
            newest = self._prices.get(bar.symbol)
            if newest is None or bar.close_time >= newest.time:
                self._prices[bar.symbol] = Price(bar.close, bar.volume, bar.close_time)
                self._newest = max(self._newest, bar.close_time)
        taken.newest = self._newest
        return taken

    def idle(self, now: int) -> Taken:
        """See `Source.idle`: a bar is there when it is published, and not before."""
        return Taken(newest=self._newest)

    def prices(self) -> dict[str, Price]:
        """See `Source.prices`."""
        found, self._prices = self._prices, {}
        return found

    def kept(self) -> bytes | None:
        """See `Source.kept`."""
        return None

    def changes(self) -> bytes:
        """See `Source.changes`."""
        return b""

    def restore(self, kept: bytes, changes: Sequence[bytes]) -> None:
        """See `Source.restore`."""


class TickSource:
    """Trades of `ticks.<dataset>`, summed up to minutes. Their bars are provisional: the venue's own may say otherwise.

    The minute in which a partition begins is left out, unless it is read from its very first record.
    """

    only_values = True

    def __init__(self, dataset: Dataset, floor: Mapping[str, int]):
        if dataset.interval != "1m":
            raise ValueError(f"{dataset.name} has bars of {dataset.interval}: trades are summed up to 1m")
        self.topic = ticks_topic(dataset.name)
        self._dataset = dataset
        since = {symbol: opened + MINUTE for symbol, opened in floor.items()}
        self._minutes = Minutes([one.symbol for one in dataset.symbols], since, GRACE)
        self._places = {symbol: at for at, symbol in enumerate(self._minutes.symbols)}
        self._grid = MinutePlaces(dataset)
        # By partition, the minute in which its reading began.
        self._begun: dict[str, int] = {}

    def take(self, records: Mapping[int, Records]) -> Taken:
        """See `Source.take`."""
        taken = Taken()
        before = self._minutes.counts.copy()
        # All partitions at once, for a call costs more than the trades in it.
        batch = sorted(records.items())
        columns, faults = tick_columns([value for _, one in batch for value in one.values])
        offsets = np.array([offset for _, one in batch for offset in one.offsets], dtype=np.int64)
        parts = np.repeat(np.array([number for number, _ in batch], dtype=np.int64), [len(one) for _, one in batch])
        if faults:
            taken.counts["malformed"] = len(faults)
            offsets, parts = np.delete(offsets, faults), np.delete(parts, faults)
        symbols, numbers, times, prices, sizes = columns
        places = np.array([self._places.get(one, -1) for one in symbols], dtype=np.int64)
        good = (places >= 0) & np.isfinite(prices) & (prices > 0) & np.isfinite(sizes) & (sizes >= 0)
        arrays = (places, numbers, times, prices, sizes, parts, offsets)
        if not good.all():
            taken.counts["rejected"] = int((~good).sum())
            arrays = tuple(one[good] for one in arrays)
        self._minutes.take(*arrays, self._begins([number for number, _ in batch], *arrays[5:], arrays[2]))
        taken.newest = self._minutes.market_time
        self._told(taken, taken.newest)
        for name, kind in (("trades", TAKEN), ("twice", TWICE), ("too_late", TOO_LATE)):
            taken.counts[name] = int(self._minutes.counts[kind] - before[kind])
        return taken

    @property
    def calm(self) -> bool:
        """See `Source.calm`: the market is in the middle of a minute, and all are told that were over before."""
        return _CALM_FROM < self._minutes.market_time % MINUTE < _CALM_UNTIL

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
        end = self._minutes.market_time // MINUTE * MINUTE + MINUTE + GRACE
        if now >= end:
            self._told(taken, end)
        taken.newest = self._minutes.market_time
        return taken

    def prices(self) -> dict[str, Price]:
        """See `Source.prices`."""
        return {symbol: Price(price, size, time) for symbol, price, size, time in self._minutes.prices()}

    def _told(self, taken: Taken, until: int) -> None:
        """The bars of minutes that are over, and those that are known not to be."""
        minutes, untraded = self._minutes.told(until)
        for one in minutes:
            place = self._grid.of(one.symbol, one.open_time)
            if place is None:
                taken.counts["rejected"] = taken.counts.get("rejected", 0) + 1
                continue
            bar = Bar(
                one.symbol, place.session, one.open_time, place.close_time, place.available_at, one.open, one.high,
                one.low, one.close, *rounded(one.volume, one.quote_volume), one.trade_count, final=False,
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
        return self._head() + self._minutes.kept()

    def changes(self) -> bytes:
        """See `Source.changes`."""
        return self._head() + self._minutes.changes()

    def _head(self) -> bytes:
        head = orjson.dumps(self._begun)
        return len(head).to_bytes(4, "big") + head

    def restore(self, kept: bytes, changes: Sequence[bytes]) -> None:
        """See `Source.restore`."""
        parts = []
        for one in (kept, *changes):
            size = 4 + int.from_bytes(one[:4], "big")
            self._begun = orjson.loads(one[4:size])
            parts.append(one[size:])
        self._minutes.restore(parts[0], parts[1:])

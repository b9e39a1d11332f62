"""What follows from a batch as the hot store serves it, as the journal pushes it, and as the bus carries it.

A record's id says what it is about (symbol, time, revision), so that one that is made again is told from another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import orjson
import polars as pl

from quantlytic_assets.calendars.partitions import partition_key
from quantlytic_assets.live.bars import Bar, Revised
from quantlytic_assets.live.deciding import Said
from quantlytic_assets.live.pipeline import Made
from quantlytic_assets.live.state import Message
from quantlytic_assets.serving.hot_store import Writer
from quantlytic_assets.serving.rows import iso, row
from quantlytic_assets.storage.bus import made_bars_topic, signals_topic
from quantlytic_assets.universe.models import Dataset

HEADERS = {"schema": "live", "version": "1", "encoding": "json"}


def bar_values(bar: Bar) -> dict[str, Any]:
    """A bar's prices, volume, trades and volume-weighted price, by the names that they are served with."""
    return {
        "o": bar.open, "h": bar.high, "l": bar.low, "c": bar.close, "v": bar.volume, "n": bar.trade_count,
        "vw": bar.vwap,
    }  # fmt: skip


def signal_values(said: Said) -> dict[str, Any]:
    """What is served of a signal."""
    return {
        "signal": said.signal, "target": said.target, "strength": said.strength, "reason": said.reason,
        "available_at": iso(said.available_at), "revision": said.revision,
    }  # fmt: skip


def write(writer: Writer, of: Dataset, made: Made, columns: Mapping[str, Sequence[str]]) -> None:
    """Put a batch into the hot store: series, and the journal. columns: those of features, by interval."""
    dataset = of.name
    series: dict[tuple[str, str, date], list[tuple[int, bytes]]] = {}
    for interval, bars in made.bars.items():
        for bar, revision, trace in bars:
            told = row(bar.open_time, bar_values(bar))
            series.setdefault((f"bars/{interval}", bar.symbol, bar.session), []).append((bar.open_time, told))
            said = {"revision": revision, "final": bar.final, "trace": trace}
            writer.tell(("bars", dataset, interval, bar.symbol), told[:-1] + b"," + orjson.dumps(said)[1:])
    for interval, rows in made.rows.items():
        names = columns[interval]
        for (bar, values), trace in rows:
            told = row(bar.open_time, dict(zip(names, values, strict=True)))
            series.setdefault((f"features/{interval}", bar.symbol, bar.session), []).append((bar.open_time, told))
            said = {"trace": trace}
            writer.tell(("features", dataset, interval, bar.symbol), told[:-1] + b"," + orjson.dumps(said)[1:])
    for one, _, trace in made.signals:
        told = row(one.time, signal_values(one))
        series.setdefault((f"signals/{one.strategy}", one.symbol, one.session), []).append((one.time, told))
        said = {"symbol": one.symbol, "trace": trace}
        writer.tell(("signals", one.strategy, one.symbol), told[:-1] + b"," + orjson.dumps(said)[1:])
    for (kind, symbol, session), told_rows in series.items():
        # A block holds a partition, as in what is published of the lake. Of a bar that was revised within the batch the
        # last word counts.
        first = date.fromisoformat(partition_key(of, session))
        writer.add_rows(dataset, kind, symbol, first, list(dict(told_rows).items()))


def tell_orders(writer: Writer, strategy: str, events: pl.DataFrame, account: str) -> None:
    """Put what happened to an account into the journal. account: `real`, or `rehearsal` where nothing was written."""
    for event in events.drop("recorded_at").iter_rows(named=True):
        payload = orjson.loads(event.pop("payload") or b"{}")
        writer.tell(("orders", strategy), orjson.dumps({**event, "payload": payload, "account": account}))


def latest(price: float, size: float | None, time: int) -> bytes:
    """The newest price of a symbol as it is served."""
    return orjson.dumps({"t": iso(time), "p": price, "s": size, "source": "live"})


def messages(dataset: str, made: Made) -> list[Message]:
    """A batch as records of the bus: signals by strategy, for which somebody may wait, and then bars by interval."""
    found = [_signal_message(dataset, interval, said, trace) for said, interval, trace in made.signals]
    return found + [
        _bar_message(made_bars_topic(interval, dataset), dataset, interval, one)
        for interval, bars in made.bars.items()
        for one in bars
    ]


def _bar_message(topic: str, dataset: str, interval: str, revised: Revised) -> Message:
    bar = revised.bar
    name = f"{bar.symbol}/{iso(bar.open_time)}/{revised.revision}"
    said = {
        "id": name, "dataset": dataset, "interval": interval, "symbol": bar.symbol, "session": bar.session,
        "open_time": iso(bar.open_time), "close_time": iso(bar.close_time), "available_at": iso(bar.available_at),
        "open": bar.open, "high": bar.high, "low": bar.low, "close": bar.close, "volume": bar.volume,
        "vwap": bar.vwap, "trade_count": bar.trade_count, "complete": bar.complete, "final": bar.final,
        "revision": revised.revision, "trace": revised.trace,
    }  # fmt: skip
    return Message(topic, bar.symbol, name, orjson.dumps(said))


def _signal_message(dataset: str, interval: str, said: Said, trace: str) -> Message:
    symbol = said.symbol
    name = f"{symbol}/{iso(said.time)}/{said.revision}"
    told = {
        "id": name, "strategy": said.strategy, "dataset": dataset, "interval": interval, "symbol": symbol,
        "session": said.session, "open_time": iso(said.time), **signal_values(said), "trace": trace,
    }  # fmt: skip
    return Message(signals_topic(said.strategy), symbol, name, orjson.dumps(told))

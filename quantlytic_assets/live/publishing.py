"""What follows from a batch as the hot store serves it, as the journal pushes it, and as the bus carries it.

A record's id says what it is about (symbol, time, revision), so that one that is made again is told from another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import NamedTuple

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


_BAR_NAMES = ("o", "h", "l", "c", "v", "n", "vw")
_SIGNAL_NAMES = ("signal", "target", "strength", "reason", "available_at", "revision")


class Served(NamedTuple):
    """A row as it is to be served, before it is made into JSON.

    kind: `bars`, `features` or `signals`. of: the interval, or the strategy of a signal. time: microseconds since 1970
    UTC. values: by the names of its kind. said: what the journal says beside them.
    """

    kind: str
    of: str
    symbol: str
    session: date
    time: int
    values: Sequence[object]
    said: Mapping[str, object]


def bar_values(bar: Bar) -> tuple[object, ...]:
    """A bar's values by `_BAR_NAMES`, those of Alpaca."""
    return bar.open, bar.high, bar.low, bar.close, bar.volume, bar.trade_count, bar.vwap


def signal_values(said: Said) -> tuple[object, ...]:
    """A signal's values by `_SIGNAL_NAMES`."""
    return said.signal, said.target, said.strength, said.reason, iso(said.available_at), said.revision


def served(made: Made) -> list[Served]:
    """What is to be served of a batch, in the order in which the journal tells it."""
    found = [
        Served("bars", interval, bar.symbol, bar.session, bar.open_time, bar_values(bar),
               {"revision": revision, "final": bar.final, "trace": trace})
        for interval, bars in made.bars.items()
        for bar, revision, trace in bars
    ]  # fmt: skip
    found += [
        Served("features", interval, bar.symbol, bar.session, bar.open_time, values, {"trace": trace})
        for interval, rows in made.rows.items()
        for (bar, values), trace in rows
    ]
    found += [
        Served("signals", one.strategy, one.symbol, one.session, one.time, signal_values(one),
               {"symbol": one.symbol, "trace": trace})
        for one, _, trace in made.signals
    ]  # fmt: skip
    return found


def write(writer: Writer, of: Dataset, rows: Iterable[Served], columns: Mapping[str, Sequence[str]]) -> None:
    """Put rows into the hot store: series, and the journal. columns: those of features, by interval."""
    series: dict[tuple[str, str, date], list[tuple[int, bytes]]] = {}
    for kind, name, symbol, session, time, values, said in rows:
        names = columns[name] if kind == "features" else _BAR_NAMES if kind == "bars" else _SIGNAL_NAMES
        told = row(time, dict(zip(names, values, strict=True)))
        series.setdefault((f"{kind}/{name}", symbol, session), []).append((time, told))
        channel = ("signals", name, symbol) if kind == "signals" else (kind, of.name, name, symbol)
        writer.tell(channel, told[:-1] + b"," + orjson.dumps(said)[1:])
    for (place, symbol, session), told_rows in series.items():
        # A block holds a partition, as in what is published of the lake. Of a bar that was revised among these rows the
        # last word counts.
        first = date.fromisoformat(partition_key(of, session))
        writer.add_rows(of.name, place, symbol, first, list(dict(told_rows).items()))


def tell_orders(writer: Writer, strategy: str, events: pl.DataFrame, account: str) -> None:
    """Put what happened to an account into the journal. account: `real`, or `rehearsal` where nothing was written."""
    for event in events.drop("recorded_at").iter_rows(named=True):
        payload = orjson.loads(event.pop("payload") or b"{}")
        writer.tell(("orders", strategy), orjson.dumps({**event, "payload": payload, "account": account}))


def latest(price: float, size: float | None, time: int) -> bytes:
    """The newest price of a symbol as it is served."""
    return orjson.dumps({"t": iso(time), "p": price, "s": size, "source": "live"})


def signal_messages(dataset: str, made: Made) -> list[Message]:
    """The signals of a batch as records of the bus, by strategy."""
    return [_signal_message(dataset, interval, said, trace) for said, interval, trace in made.signals]


def bar_messages(dataset: str, made: Made) -> list[Message]:
    """The bars of a batch as records of the bus, by interval."""
    return [
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
        "session": said.session, "open_time": iso(said.time),
        **dict(zip(_SIGNAL_NAMES, signal_values(said), strict=True)), "trace": trace,
    }  # fmt: skip
    return Message(signals_topic(said.strategy), symbol, name, orjson.dumps(told))

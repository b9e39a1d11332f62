"""What the graph has made anew of a dataset, as the live path compares it: bars, features and signals."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.schemas.features import CLOSES
from quantlytic_assets.schemas.trading import SIGNALS
from quantlytic_assets.schemas.vocabulary import DEFECTS
from quantlytic_assets.tables.bars import clean_bars
from quantlytic_assets.tables.features import indicators
from quantlytic_assets.tables.signals import signals_since

if TYPE_CHECKING:
    from quantlytic_assets.storage.lake import Lake

BAR_COLUMNS = (
    "symbol", "session", "open_time", "close_time", "available_at", "open", "high", "low", "close", "volume", "vwap",
    "trade_count",
)  # fmt: skip
# Columns of features beside their values, and of signals.
ROW_COLUMNS = ("symbol", "open_time", "close")
SIGNAL_COLUMNS = (
    "strategy", "symbol", "session", "open_time", "available_at", "signal", "strength", "target", "reason",
)  # fmt: skip
# A row: the table or interval, its symbol, and its time as polars compares it.
Keys = Collection[tuple[str, int]]


@dataclass
class Graph:
    """Rows of the graph that are new or others than at the look before, or were asked for again.

    bars: `BAR_COLUMNS` of clean.bars without those that are known to be wrong. features: by interval, `ROW_COLUMNS` and
    the values. signals: by strategy, `SIGNAL_COLUMNS`.
    """

    bars: pl.DataFrame
    features: dict[str, pl.DataFrame] = field(default_factory=dict)
    signals: dict[str, pl.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class Since:
    """The first session of which bars are compared, and, by interval, session and time of the first row.

    A row is one of features and signals; its time is microseconds since 1970.
    """

    bars: date
    rows: Mapping[str, tuple[date, int]]


class GraphReader:
    """Reads what is new of a dataset in the lake.

    columns: those of features, by interval. strategies: of the dataset, with their intervals.
    """

    def __init__(self, lake: Lake, dataset: str, columns: Mapping[str, Sequence[str]], strategies: Mapping[str, str]):
        self._lake = lake
        self._dataset = dataset
        self._columns = columns
        self._strategies = strategies
        # What each row was at the look before.
        self._known: dict[str, pl.Series] = {}

    def read(self, since: Since, again: Mapping[str, Keys]) -> Graph:
        """What is new or another since the call before, and what is asked for: by interval, or name of a strategy.

        Where it raises, nothing counts as read.
        """
        hashes: dict[str, pl.Series] = {}
        defect = pl.col("flags").list.set_intersection(list(DEFECTS)).list.len() > 0
        bars = clean_bars(self._lake, self._dataset, (*BAR_COLUMNS, "flags"), since=since.bars)
        graph = Graph(
            self._new("", bars.filter(~defect).select(BAR_COLUMNS), again, hashes).sort("open_time", "symbol")
        )
        if self._lake.has_table(CLOSES.name):
            for interval, (first, time) in since.rows.items():
                there = (*ROW_COLUMNS, *self._columns[interval])
                found = indicators(self._lake, self._dataset, interval, there, since=first)
                graph.features[interval] = self._new(interval, _from(found, time), again, hashes)
        if self._lake.has_table(SIGNALS.name):
            for strategy, interval in self._strategies.items():
                if interval in since.rows:
                    first, time = since.rows[interval]
                    found = signals_since(self._lake, strategy, SIGNAL_COLUMNS, first)
                    graph.signals[strategy] = self._new(strategy, _from(found, time), again, hashes)
        self._known |= hashes
        return graph

    def _new(
        self, name: str, rows: pl.DataFrame, again: Mapping[str, Keys], hashes: dict[str, pl.Series]
    ) -> pl.DataFrame:
        """The rows that are new or asked for; what each of them is now goes into `hashes`."""
        hashes[name] = rows.hash_rows()
        known = self._known.get(name)
        wanted = pl.repeat(True, len(rows), eager=True) if known is None else ~hashes[name].is_in(known.implode())
        asked = again.get(name)
        if asked:
            keys = pl.DataFrame(list(asked), schema={"symbol": pl.String, "open_time": pl.Int64}, orient="row")
            times = pl.col("open_time").dt.epoch("us").alias("open_time")
            there = (
                rows.select("symbol", times).with_row_index("row").join(keys, on=["symbol", "open_time"], how="semi")
            )
            wanted = wanted | pl.int_range(len(rows), eager=True).is_in(there["row"].implode())
        return rows.filter(wanted)


def _from(rows: pl.DataFrame, time: int) -> pl.DataFrame:
    return rows.filter(pl.col("open_time").dt.epoch("us") >= time)


class GraphWatch:
    """Looks at the lake from a thread of its own: reading it takes longer than a batch may.

    every: seconds between two looks. failed: is told what went wrong.
    """

    def __init__(self, reader: GraphReader, lake: Lake, every: float, failed: Callable[[str], None]):
        self._reader = reader
        self._lake = lake
        self._every = every
        self._failed = failed
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._since: Since | None = None
        self._again: dict[str, set[tuple[str, int]]] = {}
        self._fresh: Graph | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="graph-watch")

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        self._thread.join(10)

    def look(self, since: Since | None, again: Mapping[str, Keys]) -> None:
        """What the next look is for. again: rows that are wanted though they are as they were."""
        with self._lock:
            self._since = since
            for name, keys in again.items():
                if keys:
                    self._again.setdefault(name, set()).update(keys)

    def take(self) -> Graph | None:
        """What is new, where there was a look since this was asked last."""
        with self._lock:
            fresh, self._fresh = self._fresh, None
        return fresh

    def _run(self) -> None:
        seen, failing = -1, False
        while not self._stopping.wait(self._every):
            with self._lock:
                since, again, waits = self._since, self._again, self._fresh is not None
                if since is None or waits:
                    continue
                self._again = {}
            try:
                snapshot = self._lake.snapshot()
                if snapshot == seen and not again:
                    continue
                graph = self._reader.read(since, again)
                seen, failing = snapshot, False
            except Exception as error:  # whatever a lake raises: the live path goes on without it
                if not failing:
                    self._failed(f"the lake can't be read, live rows are not compared: {error}")
                failing = True
                self.look(since, again)
                continue
            with self._lock:
                self._fresh = graph

"""What the live path said beside what the graph made of the same bars: the graph is right.

A bar that the graph has otherwise, or has and the live path has not, is taken in like one that came late, so that all
that follows from it is revised as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.live.bars import Bar
from quantlytic_assets.live.natives import Natives
from quantlytic_assets.market_data.stream.messages import micros
from quantlytic_assets.schemas.vocabulary import DEFECTS
from quantlytic_assets.tables.bars import clean_bars

if TYPE_CHECKING:
    from quantlytic_assets.storage.lake import Lake

_COLUMNS = (
    "symbol", "session", "open_time", "close_time", "available_at", "open", "high", "low", "close", "volume", "vwap",
    "trade_count", "flags",
)  # fmt: skip
# Sums in another order differ in their last digits.
_TOLERANCE = 1e-9


@dataclass
class Compared:
    """What a comparison found.

    bars: those of the graph that are to be taken in. same, differing, missing: how many bars of the graph the live path
    has as they are, otherwise, or not at all.
    """

    bars: list[Bar] = field(default_factory=list)
    same: int = 0
    differing: int = 0
    missing: int = 0


def compared(natives: Natives, graph: pl.DataFrame, floor: Mapping[str, int]) -> Compared:
    """The graph's bars (columns of clean.bars) beside those that are kept, from each symbol's floor on."""
    found = Compared()
    for row in graph.iter_rows():
        symbol, session, opens, closes, available, *values, flags = row
        time = micros(opens)
        if time <= floor.get(symbol, -1) or time < natives.oldest(symbol) or {*flags} & {*DEFECTS}:
            continue
        known = natives.known(symbol, time)
        bar = Bar._make((symbol, session, time, micros(closes), micros(available), *values, True, True))
        if known is None:
            found.missing += 1
        elif _alike(known, bar):
            found.same += 1
            continue
        else:
            found.differing += 1
        found.bars.append(bar)
    return found


def _alike(one: Bar, other: Bar) -> bool:
    return all(
        abs(mine - theirs) <= _TOLERANCE * abs(theirs) for mine, theirs in zip(one[5:10], other[5:10], strict=True)
    )


class GraphWatch:
    """Looks at the lake from a thread of its own: reading it takes longer than a batch may.

    since: the first session of which bars are wanted, None for none yet. failed: is told what went wrong.
    """

    def __init__(
        self, lake: Lake, dataset: str, since: Callable[[], date | None], every: float, failed: Callable[[str], None]
    ):
        self._lake = lake
        self._dataset = dataset
        self._since = since
        self._every = every
        self._failed = failed
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._fresh: pl.DataFrame | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="graph-watch")

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        self._thread.join(10)

    def take(self) -> pl.DataFrame | None:
        """The graph's bars, where they are others than when this was asked last."""
        with self._lock:
            fresh, self._fresh = self._fresh, None
        return fresh

    def _run(self) -> None:
        seen, failing = -1, False
        while not self._stopping.wait(self._every):
            try:
                snapshot, since = self._lake.snapshot(), self._since()
                if snapshot == seen or since is None:
                    continue
                rows = read_graph(self._lake, self._dataset, since)
                seen, failing = snapshot, False
            except Exception as error:  # whatever a lake raises: the live path goes on without it
                if not failing:
                    self._failed(f"the lake can't be read, live bars are not compared: {error}")
                failing = True
                continue
            with self._lock:
                self._fresh = rows


def read_graph(lake: Lake, dataset: str, since: date) -> pl.DataFrame:
    """The clean bars of a dataset from a session on, as `compared` takes them."""
    return clean_bars(lake, dataset, _COLUMNS, since=since).sort("open_time", "symbol")

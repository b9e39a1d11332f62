"""What the live path said beside what the graph made of the same bars: the graph is right.

A bar that the graph has otherwise, or has and the live path has not, is taken in like one that came late, so that all
that follows from it is revised as well. Features and signals that the graph has otherwise at two looks in a row take
the place of the live path's: at one look the graph may be about to make them anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from quantlytic_assets.live.bars import Bar
from quantlytic_assets.live.deciding import Deciders, Said
from quantlytic_assets.live.graph_watch import Graph
from quantlytic_assets.live.lines import Lines, Row
from quantlytic_assets.live.natives import Natives
from quantlytic_assets.live.pipeline import Pipeline
from quantlytic_assets.market_data.stream.messages import micros, moment

# Sums in another order differ in their last digits; so do features, which go on bar by bar here.
_TOLERANCE = 1e-9
_FEATURE_TOLERANCE = 1e-6


@dataclass
class Compared:
    """What a comparison found.

    bars: those of the graph that are to be taken in. same, differing, missing: how many bars of the graph the live path
    has as they are, otherwise, or not at all. rows: by interval, the graph's rows that take the place of the live
    path's; signals: likewise, with their intervals. doubted: rows that are to be looked at again, by interval or
    strategy.
    """

    bars: list[Bar] = field(default_factory=list)
    same: int = 0
    differing: int = 0
    missing: int = 0
    rows: dict[str, list[Row]] = field(default_factory=dict)
    signals: list[tuple[Said, str]] = field(default_factory=list)
    doubted: dict[str, set[tuple[str, int]]] = field(default_factory=dict)

    def doubt(self, name: str, key: tuple[str, int]) -> None:
        """Have a row looked at again. name: its interval or strategy; key: its symbol and time."""
        self.doubted.setdefault(name, set()).add(key)

    def told(self, bars: int) -> str:
        """What differs, in words, of so many bars; empty where nothing does."""
        parts = []
        if self.bars:
            parts.append(
                f"of {bars} bars of the graph {self.differing} were said otherwise and {self.missing} not at all"
            )
        for interval, rows in self.rows.items():
            parts.append(f"features of {len(rows)} bars of {interval} were others, such as {_place(rows[0].bar)}")
        if self.signals:
            said = self.signals[0][0]
            parts.append(
                f"{len(self.signals)} signals were others, such as {said.strategy}'s of {said.symbol} at "
                f"{moment(said.time)}"
            )
        return f"{'; '.join(parts)}; they are corrected" if parts else ""


class Comparison:
    """Compares what is new in the graph, look by look.

    floor: by symbol, the newest bar that the live path began with: it said nothing of those up to it.
    """

    def __init__(self, floor: Mapping[str, int]):
        self._floor = floor
        self._doubted: dict[str, set[tuple[str, int]]] = {}

    def of(self, pipeline: Pipeline, graph: Graph) -> Compared:
        """What the graph has otherwise."""
        found = Compared()
        self._bars(pipeline.natives, graph.bars, found)
        # Where bars differ, what follows from them is made anew first.
        clean = not found.bars
        before, self._doubted = self._doubted, found.doubted
        for interval, rows in graph.features.items():
            lines = pipeline.lines[interval]
            for row in self._features(lines, rows):
                key = (row.bar.symbol, row.bar.open_time)
                if clean and key in before.get(interval, ()):
                    found.rows.setdefault(interval, []).append(row)
                else:
                    found.doubt(interval, key)
        # Signals that follow from other features are made anew first.
        clean = clean and not found.rows
        for strategy, rows in graph.signals.items():
            interval, deciders = next((one, two) for one, two in pipeline.deciders.items() if strategy in two.names)
            for said in self._signals(deciders, rows):
                key = (said.symbol, said.time)
                if clean and key in before.get(strategy, ()):
                    found.signals.append((said, interval))
                else:
                    found.doubt(strategy, key)
        return found

    def _bars(self, natives: Natives, rows: pl.DataFrame, found: Compared) -> None:
        for symbol, session, opens, closes, available, *values in rows.iter_rows():
            time = micros(opens)
            if time <= self._floor.get(symbol, -1) or time < natives.oldest(symbol):
                continue
            known = natives.known(symbol, time)
            bar = Bar._make((symbol, session, time, micros(closes), micros(available), *values, True, True))
            if known is None:
                found.missing += 1
            elif _alike(known[5:10], bar[5:10], _TOLERANCE):
                found.same += 1
                continue
            else:
                found.differing += 1
            found.bars.append(bar)

    def _features(self, lines: Lines, rows: pl.DataFrame) -> Iterable[Row]:
        """The rows of which the graph has other values, with these."""
        values = rows.select(lines.columns).fill_null(float("nan")).rows()
        keys = rows.select("symbol", pl.col("open_time").dt.epoch("us"), "close").rows()
        for (symbol, time, close), given in zip(keys, values, strict=True):
            known = lines.row(symbol, time)
            if known is None or time <= self._floor.get(symbol, -1):
                continue
            # A row of another bar is none of this one.
            if _alike([known.bar.close], [close], _TOLERANCE) and not _alike(known.values, given, _FEATURE_TOLERANCE):
                yield Row(known.bar, given)

    def _signals(self, deciders: Deciders, rows: pl.DataFrame) -> Iterable[Said]:
        """The graph's signals of which the live path said something else."""
        times = pl.col("open_time", "available_at").dt.epoch("us")
        for strategy, symbol, session, time, available, *says in rows.with_columns(times).iter_rows():
            known = deciders.said(strategy, symbol, time)
            if known is None or time <= self._floor.get(symbol, -1):
                continue
            said, revision = known
            mine, theirs = ([float("nan") if one is None else one for one in both[1:3]] for both in (said, says))
            if said[0] != says[0] or not _alike(mine, theirs, _FEATURE_TOLERANCE):
                yield Said._make((strategy, symbol, session, time, available, *says, revision + 1))


def _alike(mine: Iterable[Any], theirs: Iterable[Any], tolerance: float) -> bool:
    """Whether numbers are the same but for their last digits; NaN is like NaN."""
    return all(
        one == other or abs(one - other) <= tolerance * abs(other) or (one != one and other != other)
        for one, other in zip(mine, theirs, strict=True)
    )


def _place(bar: Bar) -> str:
    return f"{bar.symbol} at {moment(bar.open_time)}"

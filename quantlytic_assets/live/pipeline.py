"""From native bars to everything that follows from them: longer bars, features, signals. Pure, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from quantlytic_assets.live.bars import Bar, Revised
from quantlytic_assets.live.deciding import Deciders, Said
from quantlytic_assets.live.lines import BARS_AT_ONCE, Lines, Row
from quantlytic_assets.live.natives import Natives

# The trace of what the graph has otherwise.
GRAPH = "graph"


@dataclass
class Made:
    """What follows from a batch.

    bars: by interval. rows: of features, by interval, each with the trace of the bar it follows. signals: with their
    intervals and traces. untraded: symbols and times that are known to have no bar. forgotten: by interval, symbol and
    open time, bars that are no longer kept. moved: by interval, symbols of which older bars were let go, each with the
    time of the oldest that is kept, and what its sums go on from (`Lines.stored`). late: how many bars came after later
    ones of their symbol; revised: how many were said otherwise before.
    """

    bars: dict[str, list[Revised]] = field(default_factory=dict)
    rows: dict[str, list[tuple[Row, str]]] = field(default_factory=dict)
    signals: list[tuple[Said, str, str]] = field(default_factory=list)
    untraded: list[tuple[str, int]] = field(default_factory=list)
    forgotten: list[tuple[str, str, int]] = field(default_factory=list)
    moved: list[tuple[str, str, int, tuple[int, tuple[float, ...]] | None]] = field(default_factory=list)
    late: int = 0
    revised: int = 0

    def __len__(self) -> int:
        return sum(map(len, self.bars.values())) + len(self.signals)

    @property
    def nothing(self) -> bool:
        """Whether the computation is as it was before the batch."""
        return not (self or self.rows or self.untraded or self.forgotten or self.moved)


@dataclass
class Pipeline:
    """The live computation of one dataset.

    lines and deciders are by interval. reached: is told when features, and signals, of an interval's bars are there.
    """

    natives: Natives
    lines: Mapping[str, Lines]
    deciders: Mapping[str, Deciders]
    reached: Callable[[str], None] = lambda stage: None

    def take(
        self,
        bars: Iterable[tuple[Bar, str]],
        untraded: Iterable[Bar] = (),
        rows: Mapping[str, Sequence[Row]] = MappingProxyType({}),
        signals: Iterable[tuple[Said, str]] = (),
    ) -> Made:
        """Take in native bars with their traces.

        untraded: bars that are known not to be, of which only symbol, session and time count. rows and signals: those
        of the graph, in place of what was made and said here; rows by interval, signals with theirs.
        """
        made = Made()
        untraded = list(untraded)
        for none in untraded:
            self.natives.untraded(none.symbol, none.open_time)
            made.untraded.append((none.symbol, none.open_time))
        *parts, last = _parts(bars)
        for part in parts:
            self._take(part, (), made)
        self._take(last, untraded, made)
        for interval, adopted in rows.items():
            # The bars that were taken in above may have been the last for which one of them was kept.
            kept = [row for row in adopted if self.lines[interval].adopt(row)]
            made.rows.setdefault(interval, []).extend((row, GRAPH) for row in adopted)
            for said in self.deciders[interval].decide(self.lines[interval], kept):
                made.signals.append((said, interval, GRAPH))
        for said, interval in signals:
            self.deciders[interval].adopt(said)
            made.signals.append((said, interval, GRAPH))
        return made

    def _take(self, bars: Iterable[tuple[Bar, str]], untraded: Iterable[Bar], made: Made) -> None:
        """Add what follows from some bars."""
        longer: dict[str, dict[tuple[str, int], tuple[Bar, str]]] = {one: {} for one in self.lines}
        for bar, trace in bars:
            newest = self.natives.newest(bar.symbol)
            revision = self.natives.put(bar)
            if revision is None:
                continue
            made.revised += revision > 0
            made.late += revision == 0 and bar.open_time < newest
            made.bars.setdefault(self.natives.interval, []).append(Revised(bar, revision, trace))
            if self.natives.interval in longer:
                longer[self.natives.interval][bar.symbol, bar.open_time] = (bar, trace)
            self._longer(bar, trace, made, longer)
            made.forgotten += [(self.natives.interval, bar.symbol, time) for time in self.natives.overdue(bar.symbol)]
        for none in untraded:
            if self.natives.newest(none.symbol) >= 0:
                self._longer(none, "", made, longer)
        for interval, changed in longer.items():
            if changed:
                self._follow(interval, changed, made)

    def _longer(
        self, bar: Bar, trace: str, made: Made, longer: dict[str, dict[tuple[str, int], tuple[Bar, str]]]
    ) -> None:
        for interval, one in self.natives.made(bar.symbol, bar.session, bar.open_time):
            longer.setdefault(interval, {})[one.symbol, one.open_time] = (one, trace)

    def _follow(self, interval: str, changed: dict[tuple[str, int], tuple[Bar, str]], made: Made) -> None:
        """Features and signals of an interval's bars."""
        lines = self.lines[interval]
        # Bars of the native interval have the numbers of their revisions already.
        traces = {key: trace for key, (_, trace) in changed.items()}
        fresh = [bar for bar, _ in changed.values()]
        if interval != self.natives.interval:
            told = [(bar, lines.revise(bar), traces[bar.symbol, bar.open_time]) for bar in fresh]
            new = [Revised(bar, revision, trace) for bar, revision, trace in told if revision is not None]
            if not new:
                return
            made.bars.setdefault(interval, []).extend(new)
            fresh = [one.bar for one in new]
        before = {bar.symbol: lines.begins(bar.symbol) for bar in fresh}
        rows = lines.take(fresh)
        self.reached("features")
        own = next((traces[one.symbol, one.open_time] for one in fresh), "")
        told_rows = [(row, traces.get((row.bar.symbol, row.bar.open_time), own)) for row in rows]
        made.rows.setdefault(interval, []).extend(told_rows)
        made.moved += [
            (interval, symbol, lines.begins(symbol), lines.stored(symbol))
            for symbol, first in before.items()
            if -1 < first < lines.begins(symbol)
        ]
        for said in self.deciders[interval].decide(lines, rows):
            made.signals.append((said, interval, traces.get((said.symbol, said.time), own)))
        self.reached("signals")
        lines.trim()


def _parts(bars: Iterable[tuple[Bar, str]]) -> list[list[tuple[Bar, str]]]:
    """Bars in parts, in order, of which none has more than `BARS_AT_ONCE` of a symbol; one part where there is none."""
    parts: list[list[tuple[Bar, str]]] = [[]]
    counts: dict[str, int] = {}
    for bar, trace in bars:
        counts[bar.symbol] = counts.get(bar.symbol, 0) + 1
        if counts[bar.symbol] > BARS_AT_ONCE:
            parts.append([])
            counts = {bar.symbol: 1}
        parts[-1].append((bar, trace))
    return parts

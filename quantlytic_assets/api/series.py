"""Bars and other series out of the hot store: which blocks a range needs, and what is missing in them.

Nothing here knows HTTP. A block of a whole session goes into an answer as it is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import orjson

from quantlytic_assets.api.parameters import BEGINNING, END, day_of
from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.serving.rows import Block, iso, micros

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantlytic_assets.serving.hot_store import Reader
    from quantlytic_assets.universe.models import Dataset

NOTHING = Block(0, -1, b"")
ADJUSTMENTS = ("raw", "split", "dividend", "all")
_MICROSECONDS = {name: step // timedelta(microseconds=1) for name, step in INTERVALS.items()}


@dataclass(frozen=True)
class Page:
    """Rows of a range, oldest first: `following` is the time of the row after them, if there is one in the range.

    start, end: what they were taken from, microseconds since 1970, open where nothing was asked and nothing is there.
    """

    block: Block
    start: int
    end: int
    following: int | None = None


def bars_kind(interval: str, adjustment: str) -> tuple[str, ...]:
    """Kinds of series that have these bars, the first that has a session counts."""
    plain = f"bars/{interval}"
    return (plain,) if adjustment == "raw" else (f"{plain}/{adjustment}", plain)


def page(
    store: Reader, dataset: Dataset, kinds: tuple[str, ...], symbol: str, start: int, end: int, limit: int
) -> Page:
    """The first rows of a range that has a start, the last ones of a range without, at most `limit`."""
    if start == BEGINNING:
        return _newest(store, dataset, kinds, symbol, end, limit)
    found: list[Block] = []
    count = 0
    for day, block in store.blocks(dataset.name, kinds[-1], symbol, _since(dataset, start), _before(end)):
        part = _of_kind(store, dataset, kinds, symbol, day, block).between(start, end)
        found.append(part)
        count += part.count
        if count > limit:
            break
    rows = Block.joined(found)
    if count <= limit:
        return Page(rows, start, end)
    following = rows.newest(count - limit).first
    return Page(rows.oldest(limit), start, following, following)


def session_page(store: Reader, dataset: Dataset, kinds: tuple[str, ...], symbol: str, day: date) -> Page:
    """All rows of a block."""
    for kind in kinds:
        block = store.block(dataset.name, kind, symbol, day)
        if block is not None:
            return Page(block, block.first, block.last + 1)
    return Page(NOTHING, BEGINNING, END)


def _newest(store: Reader, dataset: Dataset, kinds: tuple[str, ...], symbol: str, end: int, limit: int) -> Page:
    found: list[Block] = []
    count = 0
    for day, block in store.newest_blocks(dataset.name, kinds[-1], symbol, _before(end)):
        part = _of_kind(store, dataset, kinds, symbol, day, block).between(BEGINNING, end)
        found.append(part)
        count += part.count
        if count >= limit:
            break
    rows = Block.joined(found[::-1]).newest(limit)
    return Page(rows, rows.first if rows.count else BEGINNING, end)


def _of_kind(store: Reader, dataset: Dataset, kinds: tuple[str, ...], symbol: str, day: date, plain: Block) -> Block:
    """The block of the first kind that has the day; `plain` is that of the last one."""
    for kind in kinds[:-1]:
        other = store.block(dataset.name, kind, symbol, day)
        if other is not None:
            return other
    return plain


def _since(dataset: Dataset, start: int) -> date:
    """The first day of blocks that can hold a time; a session may begin on the evening before its date."""
    day = day_of(start)
    return day.replace(day=1) if dataset.partition == "month" else day - timedelta(days=1)


def _before(end: int) -> date:
    day = day_of(end)
    return day if day == date.max else day + timedelta(days=2)


@dataclass
class Covered:
    """What a range should hold in bars of a dataset's own interval, what it has, and each hole with its cause."""

    expected: int
    present: int
    holes: list[dict[str, Any]]
    adjustment: str
    asof: str

    @property
    def members(self) -> dict[str, Any]:
        """As it stands in an answer."""
        return {"asof": self.asof or None, "expected": self.expected, "present": self.present, "holes": self.holes}


def coverage_of_session(store: Reader, dataset: Dataset, symbol: str, day: date, block: Block) -> Covered:
    """What a block should hold; `block` is that of the dataset's own interval."""
    fact = store.fact("coverage", dataset.name, symbol, day.isoformat())
    if fact is None:
        return _uncovered(block)
    said = orjson.loads(fact)
    # Bars that came after the graph had looked.
    present = max(said["present"], block.count)
    return Covered(
        max(said["expected"], present), present, said["holes"], said["adjustment"], _later(said["asof"], block)
    )


def coverage(store: Reader, dataset: Dataset, symbol: str, start: int, end: int) -> Covered:
    """What the range [start, end) should hold. A session that is cut by it is counted bar by bar."""
    every: list[Covered] = []
    for day, block, fact in _sessions(store, dataset, symbol, start, end):
        if fact is None:
            part = block.between(start, end)
            if part.count:
                every.append(_uncovered(part))
            continue
        said = orjson.loads(fact)
        holes = said["holes"]
        first = min([block.first if block.count else END, *(micros(one["start"]) for one in holes[:1])])
        last = max([block.last, *(micros(one["end"]) - 1 for one in holes[-1:])])
        if first >= start and last < end:
            every.append(coverage_of_session(store, dataset, symbol, day, block))
            continue
        cut = [one for one in (_cut(hole, start, end, dataset.interval) for hole in holes) if one]
        present = block.between(start, end).count
        if present or cut:
            missing = sum(one["bars"] for one in cut)
            every.append(Covered(present + missing, present, cut, said["adjustment"], _later(said["asof"], block)))
    if not every:
        return Covered(0, 0, [], "none", "")
    kinds = {one.adjustment for one in every}
    return Covered(
        sum(one.expected for one in every),
        sum(one.present for one in every),
        [hole for one in every for hole in one.holes],
        kinds.pop() if len(kinds) == 1 else "mixed",
        max(one.asof for one in every),
    )


def _sessions(
    store: Reader, dataset: Dataset, symbol: str, start: int, end: int
) -> Iterator[tuple[date, Block, bytes | None]]:
    """Days with their block of the dataset's own interval and their coverage, where they have one of these."""
    since, before = _since(dataset, start) if start > BEGINNING else date.min, _before(end)
    blocks = dict(store.blocks(dataset.name, f"bars/{dataset.interval}", symbol, since, before))
    facts: dict[date, bytes] = {}
    for (name,), fact in store.facts("coverage", dataset.name, symbol, since=since.isoformat()):
        day = date.fromisoformat(name)
        if day >= before:
            break
        facts[day] = fact
    for day in sorted({*blocks, *facts}):
        yield day, blocks.get(day, NOTHING), facts.get(day)


def _cut(hole: dict[str, Any], start: int, end: int, interval: str) -> dict[str, Any] | None:
    """The part of a hole that is in a range, with the bars that are missing in it."""
    first, last = micros(hole["start"]), micros(hole["end"])
    step = _MICROSECONDS[interval]
    if hole["bars"] == 1:
        return hole if start <= first < end else None
    # A bar belongs to the range by its start.
    low = first if first >= start else first + -(-(start - first) // step) * step
    high = last if last <= end else first + -(-(end - first) // step) * step
    if low >= high:
        return None
    return {**hole, "start": iso(low), "end": iso(high), "bars": -(-(high - low) // step)}


def _uncovered(block: Block) -> Covered:
    """Rows that the graph has not looked at yet."""
    return Covered(block.count, block.count, [], "none", iso(block.last) if block.count else "")


def _later(asof: str, block: Block) -> str:
    return max(asof, iso(block.last)) if block.count else asof

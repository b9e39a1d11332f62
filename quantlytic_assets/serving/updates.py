"""What the asset graph says, put into the hot store in place of what was there; changes of known rows are told.

Rows come as frames of blocks (`encoding.blocks`). Writing is done in short transactions, for the live path waits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import orjson
import polars as pl

from quantlytic_assets.serving.rows import Block, iso, micros

if TYPE_CHECKING:
    from datetime import datetime

    from quantlytic_assets.serving.hot_store import HotStore, Writer

# About ten megabytes of minutes: some milliseconds for a writer that waits.
_BLOCKS_AT_ONCE = 100
# A row that comes for the first time is news, and told, if it is not older than this; else it is history.
_NEWS = timedelta(days=2)
Place = tuple[str, date]


@dataclass
class Updated:
    """What a publication did: blocks and rows that were written because they are others now, and changes told."""

    blocks: int = 0
    rows: int = 0
    told: int = 0

    def __iadd__(self, other: Updated) -> Updated:
        self.blocks += other.blocks
        self.rows += other.rows
        self.told += other.told
        return self


@dataclass(frozen=True)
class Series:
    """Where blocks go: `channel` is where changes of rows are told (dataset, interval), None where they are not.

    `live`: whether the live path adds rows too, which stay where they are newer than those that come.
    """

    dataset: str
    kind: str
    channel: tuple[str, ...] | None = None
    live: bool = False


def put_blocks(
    hot: HotStore, series: Series, frame: pl.DataFrame, expected: Collection[Place], now: datetime
) -> Updated:
    """Put blocks (symbol, day, body, rows, last) in place; those of `expected` that don't come are deleted.

    Blocks that are the same as before are not written. `now` (UTC) is what news are told by.
    """
    coming = {
        (symbol, day): Block(count, last, body.encode())
        for symbol, day, body, count, last in frame.select("symbol", "day", "body", "rows", "last").iter_rows()
    }
    done = Updated()
    for some in _batches(sorted({*coming, *expected}, key=lambda place: (place[1], place[0]))):
        with hot.write() as store:
            for place in some:
                done += _put(store, series, place, coming.get(place), micros(now - _NEWS))
    return done


def _batches(places: list[Place]) -> Iterator[list[Place]]:
    for start in range(0, len(places), _BLOCKS_AT_ONCE):
        yield places[start : start + _BLOCKS_AT_ONCE]


def _put(store: Writer, series: Series, place: Place, new: Block | None, news: int) -> Updated:
    symbol, day = place
    old = store.block(series.dataset, series.kind, symbol, day)
    if old is not None and series.live:
        newer = [(time, row) for time, row in old.between(max(news, new.last + 1 if new else 0), 2**62)]
        new = new.with_rows(newer) if new and newer else Block.of(newer) if newer else new
    if new == old:
        return Updated()
    told = _tell(store, series, place, old, new, news) if series.channel else 0
    if new is None:
        store.delete_block(series.dataset, series.kind, symbol, day)
        return Updated(1, 0, told)
    store.put_block(series.dataset, series.kind, symbol, day, new)
    return Updated(1, new.count, told)


def _tell(store: Writer, series: Series, place: Place, old: Block | None, new: Block | None, news: int) -> int:
    """Tell the rows of a block that are others now; of one that was not there, those that are news."""
    symbol, day = place
    if old is None:
        known = any(True for _ in store.newest_blocks(series.dataset, series.kind, symbol, before=day))
        if new is None or new.last < news or not known:
            return 0
    before = dict(old or ())
    after = dict((new or Block(0, -1, b"")).between(0 if old else news, 2**62))
    changed: dict[int, bytes | None] = {time: row for time, row in after.items() if before.get(time) != row}
    changed |= dict.fromkeys(before.keys() - after.keys())
    name = ("revisions", series.dataset, series.kind, symbol, day.isoformat())
    revisions: dict[str, int] = orjson.loads(store.fact(*name) or b"{}")
    for time, row in sorted(changed.items()):
        at = iso(time)
        revisions[at] = revisions.get(at, 0 if time in before else -1) + 1
        said = row or orjson.dumps({"t": at, "deleted": True})
        more = orjson.dumps({"revision": revisions[at], "final": True})
        store.tell(("bars", *(series.channel or ()), symbol), said[:-1] + b"," + more[1:])
    if changed:
        store.put_fact(orjson.dumps(revisions), *name)
    return len(changed)

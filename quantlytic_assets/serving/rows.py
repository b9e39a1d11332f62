"""Rows of a series as they are served: JSON objects of one session, joined and ready to be sent.

A row is an object whose first member is `t`, its time (ISO, UTC); bars have Alpaca's names `o h l c v`, and `n`
(trades) and `vw` (volume-weighted price) where they are known. A block of rows knows how many it has and the time of
its last, so that a later row is added without reading the others.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import orjson

_HEAD = struct.Struct(">qI")
_START = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# The beginning of a row and its time. A text within a row can't hold one: its quotation marks have backslashes.
_ROW = re.compile(rb'\{"t":"([^"]*)"')


@lru_cache(maxsize=4096)
def iso(micros: int) -> str:
    """A time (microseconds since 1970 UTC) as RFC 3339 text: `2026-01-02T14:30:00Z`, with a fraction if it has one."""
    time = _START + timedelta(microseconds=micros)
    text = time.isoformat(timespec="microseconds" if micros % 1_000_000 else "seconds")
    return text.removesuffix("+00:00") + "Z"


def micros(time: datetime | str) -> int:
    """Microseconds since 1970 of a time or its ISO text, UTC without a zone. Raises `ValueError` for other text."""
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return (time - _START) // _MICROSECOND


def row(time: int, values: Mapping[str, object]) -> bytes:
    """A row of this time (microseconds since 1970 UTC); values that are None or not finite are left out."""
    told = {name: value for name, value in values.items() if value is not None and value == value}
    return orjson.dumps({"t": iso(time), **told})


@dataclass(frozen=True)
class Block:
    """The rows of a stretch of time.

    count: how many; last: the time of the last, microseconds since 1970, -1 of none; body: the JSON objects in order of
    time, joined by commas, without brackets.
    """

    count: int
    last: int
    body: bytes

    def packed(self) -> bytes:
        """As it is stored."""
        return _HEAD.pack(self.last, self.count) + self.body

    @classmethod
    def unpacked(cls, stored: bytes | memoryview) -> Block:
        """What `packed` gave."""
        last, count = _HEAD.unpack_from(stored)
        return cls(count, last, bytes(stored[_HEAD.size :]))

    @staticmethod
    def last_of(stored: bytes | memoryview) -> int:
        """The `last` of what `packed` gave, without a copy of its rows."""
        return _HEAD.unpack_from(stored)[0]

    @classmethod
    def of(cls, rows: Sequence[tuple[int, bytes]]) -> Block:
        """Rows (time, JSON) in order of time, each time once."""
        return cls(len(rows), rows[-1][0] if rows else -1, b",".join(text for _, text in rows))

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        for found in orjson.loads(b"[" + self.body + b"]"):
            yield micros(found["t"]), orjson.dumps(found)

    def with_rows(self, rows: Iterable[tuple[int, bytes]]) -> Block:
        """These rows beside those that are there; one of a time that is there takes its place."""
        told = dict(sorted(rows))
        if not told:
            return self
        if next(iter(told)) <= self.last:
            told = dict(sorted({**dict(self), **told}.items()))
            return Block.of(list(told.items()))
        body = b",".join(told.values())
        return Block(self.count + len(told), max(told), self.body + b"," + body if self.count else body)

    def between(self, start: int, end: int) -> Block:
        """The rows of the times [start, end)."""
        if self.count == 0 or (start <= self.first and end > self.last):
            return self
        begins = self._begins()

        def time(begin: int) -> int:
            found = _ROW.match(self.body, begin)
            return micros(found[1].decode()) if found else 0

        return self._part(begins, bisect_left(begins, start, key=time), bisect_left(begins, end, key=time))

    def oldest(self, count: int) -> Block:
        """The first rows, at most so many."""
        return self if count >= self.count else self._part(self._begins(), 0, count)

    def newest(self, count: int) -> Block:
        """The last rows, at most so many."""
        return self if count >= self.count else self._part(self._begins(), self.count - count, self.count)

    @property
    def first(self) -> int:
        """The time of the first row, microseconds since 1970, -1 of none."""
        found = _ROW.match(self.body)
        return micros(found[1].decode()) if found else -1

    def reversed_body(self) -> bytes:
        """The body with the newest row first, of rows without texts beside their times."""
        return b"{" + b"},{".join(self.body[1:-1].split(b"},{")[::-1]) + b"}" if self.count else b""

    def _begins(self) -> list[int]:
        """Where in the body each row begins: found without reading what is in them."""
        return [found.start() for found in _ROW.finditer(self.body)]

    def _part(self, begins: list[int], low: int, high: int) -> Block:
        """The rows numbered [low, high), which begin there."""
        if low >= high:
            return Block(0, -1, b"")
        found = _ROW.match(self.body, begins[high - 1])
        last = micros(found[1].decode()) if found else -1
        end = begins[high] - 1 if high < len(begins) else len(self.body)
        return Block(high - low, last, self.body[begins[low] : end])

    @classmethod
    def joined(cls, blocks: Iterable[Block]) -> Block:
        """The rows of blocks that follow one another in time."""
        some = [one for one in blocks if one.count]
        if len(some) == 1:
            return some[0]
        last = some[-1].last if some else -1
        return cls(sum(one.count for one in some), last, b",".join(one.body for one in some))

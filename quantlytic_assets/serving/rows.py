"""Rows of a series as they are served: JSON objects of one session, joined and ready to be sent.

A row is an object whose first member is `t`, its time (ISO, UTC); bars have Alpaca's names `o h l c v`, and `n`
(trades) and `vw` (volume-weighted price) where they are known. A block of rows knows how many it has and the time of
its last, so that a later row is added without reading the others.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import orjson

_HEAD = struct.Struct(">qI")
_START = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


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
        if self.count == 0 or (start <= -(2**62) and end > self.last):
            return self
        return Block.of([(time, text) for time, text in self if start <= time < end])

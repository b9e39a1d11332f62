"""What minutes are summed up from, straight from the bytes of trades' records.

Trades come in batches of some dozen. A compiled loop walks their fields where they lie; a frame of so few takes several
times as long to make as to read. A batch with a record that is unusual in any way is left to `avro_records`, which says
what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from quantlytic_assets.features.kernels.compiling import compiled
from quantlytic_assets.market_data.wire.avro_records import record_schema

_TEXT, _LONG, _DOUBLE = range(3)
_KINDS = {"string": _TEXT, "long": _LONG, "double": _DOUBLE}
_WANTED = ("trade_id", "time", "price", "size")
# Longer numbers may not fit into 64 bits: they are looked at one by one.
_LONGEST_NUMBER = 8


class TickColumns(NamedTuple):
    """Columns of trades in the order of their records: time in microseconds since 1970 UTC."""

    symbol: list[str]
    trade_id: np.ndarray
    time: np.ndarray
    price: np.ndarray
    size: np.ndarray


@compiled
def _number(content, at, end):
    """A variable-length number and where it ends, -1 where it does not end within its record or is long."""
    value, shift = np.int64(0), 0
    for place in range(at, min(end, at + _LONGEST_NUMBER)):
        value |= (np.int64(content[place]) & 0x7F) << shift
        if content[place] < 0x80:
            return (value >> 1) ^ -(value & 1), place + 1
        shift += 7
    return value, -1


@compiled
def _walk(content, ends, kinds, columns, numbers, texts):
    """Read records that lie side by side; returns how many are plain: all, or those before the first that is not.

    columns: of each field the row of `numbers` (doubles by their bits) or, of the text that is wanted, 0; -1 where it
    is not wanted. texts: where that text begins and ends. Text of other than ASCII characters is not plain.
    """
    at = 0
    for i in range(len(ends)):
        end = ends[i]
        for field in range(len(kinds)):
            column = columns[field]
            if kinds[field] == _DOUBLE:
                if at + 8 > end:
                    return i
                if column >= 0:
                    bits = np.int64(0)
                    for place in range(8):
                        bits |= np.int64(content[at + place]) << (8 * place)
                    numbers[column, i] = bits
                at += 8
                continue
            value, at = _number(content, at, end)
            if at < 0:
                return i
            if kinds[field] == _LONG:
                if column >= 0:
                    numbers[column, i] = value
                continue
            if value < 0 or at + value > end:
                return i
            for place in range(at, at + value):
                if content[place] >= 0x80:
                    return i
            if column >= 0:
                texts[i, 0], texts[i, 1] = at, at + value
            at += value
        if at != end:
            return i
    return len(ends)


@lru_cache
def _plan() -> tuple[np.ndarray, np.ndarray]:
    """Of each field of a trade its kind, and where it goes."""
    fields = record_schema("market_tick").fields
    if any(nullable for _, _, nullable in fields):
        raise RuntimeError("a field of a trade may be missing, which the loop does not know")
    places = {name: at for at, name in enumerate(_WANTED)} | {"symbol": 0}
    return (
        np.array([_KINDS[kind] for _, kind, _ in fields]),
        np.array([places.get(name, -1) for name, _, _ in fields]),
    )


def tick_columns(values: Sequence[bytes]) -> tuple[TickColumns, list[int]]:
    """The columns of `market_tick` records, and the places of those that are none and are left out."""
    joined = b"".join(values)
    kinds, columns = _plan()
    numbers = np.empty((len(_WANTED), len(values)), dtype=np.int64)
    texts = np.empty((len(values), 2), dtype=np.int64)
    ends = np.cumsum(np.fromiter(map(len, values), np.int64, len(values)))
    if not joined or _walk(np.frombuffer(joined, np.uint8), ends, kinds, columns, numbers, texts) < len(values):
        return _unusual(values)
    symbols = [joined[first:end].decode() for first, end in texts.tolist()]
    return TickColumns(symbols, numbers[0], numbers[1], numbers[2].view(np.float64), numbers[3].view(np.float64)), []


def _unusual(values: Sequence[bytes]) -> tuple[TickColumns, list[int]]:
    rows, faults = record_schema("market_tick").decode(values)
    # Copies: polars gives read-only arrays, for which other loops would be compiled a second time.
    number, time, price, size = (rows[name].to_numpy().copy() for name in _WANTED)
    return TickColumns(rows["symbol"].to_list(), number, time.view(np.int64), price, size), sorted(faults)

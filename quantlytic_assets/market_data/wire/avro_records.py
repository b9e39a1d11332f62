"""Flat Avro records to frames and back, a whole batch at once: the schemas of `avro/*.avsc` and their binary encoding.

Knows text, doubles, whole numbers and times in microseconds, each nullable or required. What a record means and what
makes it unfit is decided in `wire`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl

from quantlytic_assets.calendars.intervals import TIME

_FOLDER = Path(__file__).parent / "schemas"
_KINDS = {"string": pl.String, "double": pl.Float64, "long": pl.Int64, "timestamp-micros": TIME}
# Records decoded at once: so many fit into a processor's cache.
_TOGETHER = 8_192
_SYNC = b"quantlytic-block"
_NULL, _PRESENT = 0, 2
# A variable-length number of n bytes is below the n-th of these.
_VARINT_STEPS = np.array([1 << 7 * n for n in range(1, 10)], dtype=np.uint64)
_LAST_BYTES = np.uint64(0x8080808080808080)
_PADDING = b"\x80" * 8


class RecordSchema:
    """One schema of this package by its name: `bar` or `market_tick`."""

    def __init__(self, name: str):
        self.definition: dict[str, Any] = json.loads((_FOLDER / f"{name}.avsc").read_text())

    @cached_property
    def polars(self) -> pl.Schema:
        """Field names in order with the polars types of their values."""
        return pl.Schema({field["name"]: _KINDS[_kind(field)] for field in self.definition["fields"]})

    @cached_property
    def required(self) -> tuple[str, ...]:
        """The fields that every record must have."""
        return tuple(field["name"] for field in self.definition["fields"] if not _nullable(field))

    @cached_property
    def fields(self) -> list[tuple[str, str, bool]]:
        """(name, string, double or long, whether it is nullable) of each field, in order."""
        plain = {"timestamp-micros": "long"}
        return [
            (field["name"], plain.get(_kind(field), _kind(field)), _nullable(field))
            for field in self.definition["fields"]
        ]

    @cached_property
    def _one_by_one(self) -> Any:
        """Fastavro's schema, times as the whole numbers that they are encoded as."""
        import fastavro

        fields = [{"name": name, "type": ["null", kind] if nullable else kind} for name, kind, nullable in self.fields]
        return fastavro.parse_schema({"type": "record", "name": self.definition["name"], "fields": fields})

    @cached_property
    def _file_header(self) -> bytes:
        """What stands before the blocks of an Avro file of such records."""
        entries = {b"avro.schema": json.dumps(self.definition).encode(), b"avro.codec": b"null"}
        named = b"".join(_varint(len(part)) + part for entry in entries.items() for part in entry)
        return b"Obj\x01" + _varint(len(entries)) + named + _varint(0) + _SYNC

    # Encoding --------------------------------------------------------------------------------------------------

    def encode(self, frame: pl.DataFrame) -> list[bytes]:
        """One binary record, without any header, a row. Raises `ValueError` where a required field is null."""
        rows = frame.select(pl.col(name).cast(kind).to_physical() for name, kind in self.polars.items()).rechunk()
        if rows.is_empty():
            return []
        for name in self.required:
            if rows[name].null_count():
                raise ValueError(f"a {self.definition['name']} can't be without its {name}")
        lengths = {name: _encoded_lengths(rows[name], kind) for name, kind, _ in self.fields}
        # Polars writes each field with a byte before it that says whether it is null; required ones have none.
        widths = np.stack(list(lengths.values())) + 1
        ends = np.cumsum(widths.sum(axis=0))
        written = self._written(rows, int(ends[-1]))
        keep = np.ones(len(written), dtype=bool)
        at = np.concatenate([[0], ends[:-1]])
        for (_, _, nullable), width in zip(self.fields, widths, strict=True):
            if not nullable:
                keep[at] = False
            at = at + width
        packed = memoryview(written[keep].data)
        stops = (ends - np.arange(1, len(rows) + 1) * len(self.required)).tolist()
        return [bytes(packed[start:stop]) for start, stop in zip([0, *stops[:-1]], stops, strict=True)]

    @staticmethod
    def _written(rows: pl.DataFrame, size: int) -> np.ndarray:
        """The rows as one Avro block of `size` bytes, all fields nullable."""
        file = io.BytesIO()
        rows.write_avro(file)
        content = file.getvalue()
        block = len(content) - size - len(_SYNC)
        counted = _varint(len(rows)) + _varint(size)
        if block < len(counted) or content[block - len(counted) : block] != counted:
            raise RuntimeError("polars wrote another Avro block than was reckoned with")
        return np.frombuffer(content, np.uint8, size, block)

    # Decoding --------------------------------------------------------------------------------------------------

    def decode(self, values: Sequence[bytes]) -> tuple[pl.DataFrame, dict[int, str]]:
        """The rows of binary records in their order, and for each record that is none, by its place, why not.

        One record never runs into the next: what becomes of it does not depend on those beside it.
        """
        if len(values) <= _TOGETHER:
            return self._decode_piece(values) if values else (self.polars.to_frame(), {})
        pieces: list[pl.DataFrame] = []
        faults: dict[int, str] = {}
        for first in range(0, len(values), _TOGETHER):
            frame, wrong = self._decode_piece(values[first : first + _TOGETHER])
            pieces.append(frame)
            faults |= {first + at: reason for at, reason in wrong.items()}
        return pl.concat(pieces), faults

    def _decode_piece(self, values: Sequence[bytes]) -> tuple[pl.DataFrame, dict[int, str]]:
        joined = b"".join(values)
        whole = self._whole(joined, np.fromiter(map(len, values), np.int64, len(values)))
        try:
            if whole.all():
                return self._decode_block(joined, len(values)), {}
            good = np.flatnonzero(whole)
            block = self._decode_block(b"".join([values[int(at)] for at in good]), len(good))
        except pl.exceptions.ComputeError:
            # Somewhere is text that is not UTF-8.
            return self._decode_singly(values)
        others = np.flatnonzero(~whole)
        rows, wrong = self._decode_singly([values[int(at)] for at in others])
        places = np.concatenate([good, np.delete(others, list(wrong))])
        return pl.concat([block, rows])[np.argsort(places)], {int(others[at]): why for at, why in wrong.items()}

    def _whole(self, joined: bytes, lengths: np.ndarray) -> np.ndarray:
        """Which of the joined records are plainly whole.

        Walked field by field, all of them at once, each ends where it should. False also for unusual ones: text of 64
        bytes or more, numbers of nine bytes or more.
        """
        if not joined:
            return np.zeros(len(lengths), dtype=bool)
        content = np.frombuffer(joined + _PADDING, np.uint8)
        words = np.ndarray((len(joined) + 1,), "<u8", content, strides=(1,))
        ends = np.cumsum(lengths)
        at = ends - lengths
        odd = np.zeros(len(lengths), dtype=bool)
        for _, kind, nullable in self.fields:
            there: np.ndarray | int = 1
            if nullable:
                branch = content.take(at, mode="clip")
                there = branch == _PRESENT
                odd |= ~(there | (branch == _NULL))
                at = at + 1
            if kind == "double":
                at = at + there * np.int64(8)
            elif kind == "string":
                # One byte of length, doubled; an odd one would be negative.
                size = content.take(at, mode="clip")
                odd |= ((size & 0x81) != 0) & (there != 0)
                at = at + there * (1 + (size >> 1).astype(np.int64))
            else:
                # The first byte whose highest bit is not set is a number's last.
                last = ~words[np.minimum(at, len(joined))] & _LAST_BYTES
                odd |= (last == 0) & (there != 0)
                at = at + there * (np.bitwise_count(last ^ (last - np.uint64(1))) >> 3).astype(np.int64)
        return ~odd & (at == ends)

    def _decode_block(self, joined: bytes, count: int) -> pl.DataFrame:
        file = b"".join((self._file_header, _varint(count), _varint(len(joined)), joined, _SYNC))
        frame = pl.read_avro(io.BytesIO(file))
        if len(frame) != count:
            raise RuntimeError(f"polars read {len(frame)} of {count} Avro records")
        return frame

    def _decode_singly(self, values: Sequence[bytes]) -> tuple[pl.DataFrame, dict[int, str]]:
        decoded = [self._decode_one(value) for value in values]
        numbers = {name: pl.Int64 if kind == TIME else kind for name, kind in self.polars.items()}
        rows = pl.DataFrame([row for row in decoded if not isinstance(row, str)], schema=numbers)
        return rows.cast(dict(self.polars)), {at: row for at, row in enumerate(decoded) if isinstance(row, str)}

    def _decode_one(self, value: bytes) -> dict[str, Any] | str:
        """The fields of one record, or what is wrong with it in words."""
        import fastavro

        content = io.BytesIO(value)
        try:
            row = fastavro.schemaless_reader(content, self._one_by_one)
        except (EOFError, IndexError, ValueError, OverflowError, MemoryError) as error:
            return f"not an Avro {self.definition['name']} ({type(error).__name__})"
        if content.tell() != len(value):
            return f"not an Avro {self.definition['name']} ({len(value) - content.tell()} bytes too long)"
        return cast("dict[str, Any]", row)


@lru_cache
def record_schema(name: str) -> RecordSchema:
    """A schema of this package, read once."""
    return RecordSchema(name)


def _nullable(field: dict[str, Any]) -> bool:
    return isinstance(field["type"], list)


def _kind(field: dict[str, Any]) -> str:
    """string, double, long or timestamp-micros."""
    kind = field["type"][1] if _nullable(field) else field["type"]
    return kind["logicalType"] if isinstance(kind, dict) else kind


def _varint(number: int) -> bytes:
    """A number of 0 or more as Avro encodes it."""
    number <<= 1
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _varint_lengths(numbers: np.ndarray) -> np.ndarray:
    """How many bytes Avro needs for each number."""
    zigzag = ((numbers << 1) ^ (numbers >> 63)).view(np.uint64)
    return np.searchsorted(_VARINT_STEPS, zigzag, side="right") + 1


def _encoded_lengths(column: pl.Series, kind: str) -> np.ndarray:
    """How many bytes each value takes, none for a null."""
    if kind == "string":
        sizes = column.str.len_bytes().cast(pl.Int64).fill_null(0).to_numpy()
        lengths = sizes + _varint_lengths(sizes)
    elif kind == "double":
        lengths = np.full(len(column), 8)
    else:
        lengths = _varint_lengths(column.fill_null(0).to_numpy())
    return lengths if column.null_count() == 0 else np.where(column.is_null().to_numpy(), 0, lengths)

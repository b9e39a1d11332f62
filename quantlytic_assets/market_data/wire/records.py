"""How a bar travels on the bus: encoding frames to records, decoding records to frames, rejecting what is neither.

What fields a bar has, and which it must have, is said by `avro/bar.avsc`. A value is Avro binary or JSON of that
schema, times in whole microseconds since 1970 UTC; the headers name schema, version and encoding. Whole batches are
decoded at once; only where a record is bad or unusual are records looked at one by one.
"""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.market_data.wire.avro_records import record_schema
from quantlytic_assets.schemas.vocabulary import ADJUSTMENTS

# Avro takes two fifths of JSON's bytes and a quarter of the time that JSON takes to decode.
BAR_HEADERS = {"schema": "bar", "version": "1", "encoding": "avro"}
JSON_BAR_HEADERS = {"schema": "bar", "version": "1", "encoding": "json"}
# The schema's name is what records on the bus carry since the first version; it stays.
REJECTED_HEADERS = {"schema": "refused_row", "version": "1", "encoding": "json"}

# Schemas known here, each with the encodings of its version 1.
_ENCODINGS = {"bar": ("avro", "json"), "refused_row": ("json",)}
# JSON values parsed at once. Where one of them is bad they are divided, until these few are looked at one by one.
_TOGETHER = 8_000
_FEW = 250
# A flat record has one bracket; with many more it is nested deeper than a parser's stack may hold.
_MOST_BRACKETS = 200
_LARGEST = sys.float_info.max
# Far outside of these a number is not a time in microseconds but one in another unit.
_EARLIEST_US, _LATEST_US = -2_208_988_800_000_000, 4_102_444_800_000_000

REJECTED_SCHEMA = pl.Schema(
    {
        "symbol": pl.String,
        "open_time": TIME,
        "reason": pl.String,
        "raw": pl.String,
        "line": pl.Int64,
        "fetched_at": TIME,
        "bus_offset": pl.Int64,
    }
)


@dataclass(frozen=True)
class Decoded:
    """Records made into rows: `bars` (raw schema + bus_offset) and `rejected` (REJECTED_SCHEMA), none in both."""

    bars: pl.DataFrame
    rejected: pl.DataFrame


def encode_bars(bars: pl.DataFrame, encoding: Literal["avro", "json"] = "avro") -> list[bytes]:
    """One value a row of a RAW_SCHEMA frame, in its order, for BAR_HEADERS or JSON_BAR_HEADERS.

    NaN and infinite numbers travel as null. Raises `ValueError` for a row that lacks a required field.
    """
    schema = record_schema("bar").polars
    floats = [name for name, kind in schema.items() if kind == pl.Float64]
    finite = bars.select(schema.names()).with_columns(
        pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name) for name in floats
    )
    if encoding == "avro":
        return record_schema("bar").encode(finite)
    return _lines(finite.with_columns(pl.selectors.datetime().dt.timestamp("us")))


def encode_rejected(rejected: pl.DataFrame) -> list[bytes]:
    """One JSON value a row that a file import rejected: symbol, open_time (may be null), reason, raw, line, fetched_at.

    `fetched_at` says which import it was and is left out where the frame has none.
    """
    times = [name for name in ("open_time", "fetched_at") if name in rejected.columns]
    return _lines(rejected.select("symbol", "reason", "raw", "line", pl.col(times).dt.timestamp("us")))


def _lines(frame: pl.DataFrame) -> list[bytes]:
    if frame.is_empty():
        return []
    return frame.write_ndjson().encode().rstrip(b"\n").split(b"\n")


def decode(offsets: Sequence[int], headers: Sequence[str], values: Sequence[bytes | None]) -> Decoded:
    """Rows of a stretch of records. Nothing raises: a record that is no bar ends in `rejected` with its reason.

    Reasons: `malformed` (not in its encoding, missing or mistyped fields), `unknown_version`, `unfinished` (fetched
    before its close), and those that a file import gave.
    """
    bars: list[pl.DataFrame] = [pl.DataFrame(schema={**RAW_SCHEMA, "bus_offset": pl.Int64})]
    rejected: list[pl.DataFrame] = [pl.DataFrame(schema=REJECTED_SCHEMA)]
    known = [b"" if value is None else value for value in values]
    for header, part_offsets, part_values in _by_header(offsets, headers, known):
        schema, encoding = _kind(header)
        if schema == "bar":
            good, bad = _decode_bars(part_offsets, part_values, encoding)
            bars.append(good)
            rejected.append(bad)
        elif schema == "refused_row":
            rejected.append(_decode_rejected(part_offsets, part_values))
        else:
            rejected.append(_reject(part_offsets, part_values, schema))
    return Decoded(bars=_in_order(bars), rejected=_in_order(rejected))


def _by_header(
    offsets: Sequence[int], headers: Sequence[str], values: Sequence[bytes]
) -> list[tuple[str, Sequence[int], Sequence[bytes]]]:
    """Offsets and values of each distinct header. Most often there is but one."""
    if not headers:
        return []
    if headers.count(headers[0]) == len(headers):
        return [(headers[0], offsets, values)]
    places: dict[str, list[int]] = {}
    for at, header in enumerate(headers):
        places.setdefault(header, []).append(at)
    return [(header, [offsets[at] for at in own], [values[at] for at in own]) for header, own in places.items()]


def _in_order(parts: list[pl.DataFrame]) -> pl.DataFrame:
    rows = pl.concat(parts)
    return rows if rows["bus_offset"].is_sorted() else rows.sort("bus_offset")


def _kind(header: str) -> tuple[str, str]:
    """(schema, encoding) that a record's headers name, or (why it can't be read, nothing)."""
    try:
        named = json.loads(header)
    except (ValueError, TypeError, RecursionError):
        return "malformed: headers are not JSON", ""
    schema = named.get("schema") if isinstance(named, dict) else None
    if not isinstance(schema, str) or schema not in _ENCODINGS:
        return "malformed: the headers name no schema known here", ""
    encoding = named.get("encoding", "json")
    if named.get("version") != "1" or encoding not in _ENCODINGS[schema]:
        return f"unknown_version: {schema} version {named.get('version')}, {encoding}", ""
    return schema, encoding


def _reject(offsets: Sequence[int], values: Sequence[bytes], reason: str | list[str]) -> pl.DataFrame:
    reasons = [reason] * len(offsets) if isinstance(reason, str) else reason
    return pl.DataFrame(
        {
            "symbol": pl.Series([None] * len(offsets), dtype=pl.String),
            "open_time": pl.Series([None] * len(offsets), dtype=TIME),
            "reason": pl.Series([_storable(text) for text in reasons], dtype=pl.String),
            "raw": pl.Series([value.decode("utf-8", "backslashreplace") for value in values], dtype=pl.String),
            "line": pl.Series([None] * len(offsets), dtype=pl.Int64),
            "fetched_at": pl.Series([None] * len(offsets), dtype=TIME),
            "bus_offset": pl.Series(list(offsets), dtype=pl.Int64),
        }
    )


def _storable(text: str) -> str:
    """Text without halves of surrogate pairs, which JSON can hold and UTF-8 can't."""
    return text.encode("utf-8", "backslashreplace").decode()


def _decode_bars(offsets: Sequence[int], values: Sequence[bytes], encoding: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    rows, reasons = record_schema("bar").decode(values) if encoding == "avro" else _parse_json(values)
    reasons = {at: f"malformed: {reason}" for at, reason in reasons.items()}
    own = [offset for at, offset in enumerate(offsets) if at not in reasons] if reasons else offsets
    bars = rows.with_columns(pl.Series("bus_offset", own, dtype=pl.Int64))
    faulty = bars.select(pl.any_horizontal(condition.fill_null(False) for condition, _ in _faults())).to_series()
    if faulty.any():
        good_at = [at for at in range(len(values)) if at not in reasons]
        found = bars.filter(faulty).select(
            pl.coalesce(pl.when(condition).then(pl.lit(reason)) for condition, reason in _faults())
        )
        places = (good_at[at] for at in faulty.arg_true())
        reasons |= zip(places, found.to_series(), strict=True)
        bars = bars.filter(~faulty)
    at = sorted(reasons)
    return bars, _reject([offsets[i] for i in at], [values[i] for i in at], [reasons[i] for i in at])


def _parse_json(values: Sequence[bytes]) -> tuple[pl.DataFrame, dict[int, str]]:
    """The rows of JSON values in their order, and for each that is no record, by its place, why not."""
    pieces: list[pl.DataFrame] = [pl.DataFrame(schema=_numbers())]
    faults: dict[int, str] = {}
    waiting = [(first, values[first : first + _TOGETHER]) for first in range(0, len(values), _TOGETHER)][::-1]
    while waiting:
        first, piece = waiting.pop()
        table = _parse_batch(piece)
        if table is not None:
            pieces.append(table)
        elif len(piece) > _FEW:
            step = -(-len(piece) // 4)
            waiting += [(first + at, piece[at : at + step]) for at in range(0, len(piece), step)][::-1]
        else:
            parsed = [_parse_one(value) for value in piece]
            pieces.append(pl.DataFrame([row for row in parsed if not isinstance(row, str)], schema=_numbers()))
            faults |= {first + at: row for at, row in enumerate(parsed) if isinstance(row, str)}
    times = [name for name, kind in RAW_SCHEMA.items() if kind == TIME]
    return pl.concat(pieces).with_columns(pl.col(times).cast(TIME)), faults


@lru_cache
def _numbers() -> pl.Schema:
    """A bar's fields as JSON has them, times as whole numbers."""
    fields = record_schema("bar").polars
    return pl.Schema({name: pl.Int64 if kind == TIME else kind for name, kind in fields.items()})


def _parse_batch(values: Sequence[bytes]) -> pl.DataFrame | None:
    """All values as one table, or None when any of them is not plainly one flat JSON object of the right types.

    Arrow's parser is fast and takes more than JSON, so whatever it and `_parse_one` might see differently is left to
    the latter: what becomes of a record must not depend on the records beside it.
    """
    import pyarrow as pa
    from pyarrow import json as arrow_json

    joined = b"\n".join(values)
    # As many lines as values, each with one brace, which it begins with.
    lines, braces = joined.count(b"\n") + 1, joined.count(b"{")
    flat = lines == braces == len(values) == joined.count(b"\n{") + 1 and joined.startswith(b"{") and b"[" not in joined
    if not flat or b"NaN" in joined or b"Inf" in joined:
        return None
    kinds = {pl.String: pa.string(), pl.Int64: pa.int64(), pl.Float64: pa.float64()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in _numbers().items()])
    try:
        joined.decode("utf-8")
        table = arrow_json.read_json(
            io.BytesIO(joined),
            read_options=arrow_json.ReadOptions(use_threads=False, block_size=max(1 << 20, len(joined) + 1)),
            parse_options=arrow_json.ParseOptions(
                explicit_schema=schema, unexpected_field_behavior="ignore", newlines_in_values=False
            ),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None
    if table.num_rows != len(values):
        return None
    frame = pl.from_arrow(table).select(schema.names)
    finite = frame.select(pl.all_horizontal(pl.selectors.float().is_finite().all()))
    return frame if finite.item() else None


def _parse_one(value: bytes) -> dict[str, object] | str:
    """The fields of one record, or what is wrong with it in words."""
    if value.count(b"[") + value.count(b"{") > _MOST_BRACKETS:
        return "nested too deeply"
    try:
        fields = _decoder().decode(value.decode("utf-8"))
    except ValueError as error:
        return f"not JSON ({error})"
    if not isinstance(fields, dict):
        return f"a JSON {type(fields).__name__}, where an object is wanted"
    record: dict[str, object] = {}
    for name, kind in _python_kinds().items():
        given = record[name] = fields.get(name)
        if given is None:
            continue
        if kind is str:
            if not isinstance(given, str):
                return f"{name} is not text"
            if given != _storable(given):
                return f"{name} holds half a surrogate pair"
        elif isinstance(given, bool) or not isinstance(given, (int, float)):
            return f"{name} is not a number"
        elif kind is int:
            if not (isinstance(given, int) and -(1 << 63) <= given < 1 << 63):
                return f"{name} is not a whole number of 64 bits"
        elif abs(given) > _LARGEST:
            return f"{name} is too large a number"
        else:
            record[name] = float(given)
    return record


@lru_cache
def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(parse_constant=_no_constant, parse_int=_whole)


@lru_cache
def _python_kinds() -> dict[str, type]:
    kinds = {pl.String: str, pl.Int64: int, pl.Float64: float}
    return {name: kinds[kind] for name, kind in _numbers().items()}


def _whole(digits: str) -> int | float:
    """An integer of any length: one too long for a number of 64 bits is infinite, as fractions are."""
    return int(digits) if len(digits) < 310 else math.inf


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _faults() -> list[tuple[pl.Expr, str]]:
    """When a well-typed record is still no bar, and why; the first that applies is its reason."""
    checks: list[tuple[pl.Expr, str]] = [
        (pl.col(name).is_null(), f"malformed: {name} is missing") for name in record_schema("bar").required
    ]
    checks.append((pl.col("symbol") == "", "malformed: symbol is empty"))
    earliest, latest = (pl.lit(at, pl.Int64).cast(TIME) for at in (_EARLIEST_US, _LATEST_US))
    for name, kind in RAW_SCHEMA.items():
        if kind == TIME:
            outside = ~pl.col(name).is_between(earliest, latest)
            checks.append((outside, f"malformed: {name} is not in microseconds since 1970"))
    checks.append((pl.col("close_time") <= pl.col("open_time"), "malformed: close_time is not after open_time"))
    checks.append((~pl.col("adjustment").is_in(ADJUSTMENTS), "malformed: adjustment is neither none nor split"))
    checks.append((pl.col("close_time") > pl.col("fetched_at"), "unfinished: fetched before its close_time"))
    return checks


def _decode_rejected(offsets: Sequence[int], values: Sequence[bytes]) -> pl.DataFrame:
    rows, malformed = [], []
    for offset, value in zip(offsets, values, strict=True):
        row = _rejected_row(value)
        if row is None:
            malformed.append((offset, value))
        else:
            rows.append({**row, "bus_offset": offset})
    times = dict.fromkeys(("open_time", "fetched_at"), pl.Int64)
    frame = pl.DataFrame(rows, schema={**REJECTED_SCHEMA, **times}).with_columns(
        pl.col(*times).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    )
    wrong = _reject([at for at, _ in malformed], [value for _, value in malformed], "malformed: not a rejected row")
    return pl.concat([frame, wrong])


def _rejected_row(value: bytes) -> dict[str, Any] | None:
    """The fields of a rejected row, or None when it is none."""
    try:
        fields = json.loads(value)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or not isinstance(fields.get("reason"), str):
        return None
    texts = {name: fields.get(name) for name in ("symbol", "reason", "raw")}
    numbers = {name: fields.get(name) for name in ("open_time", "line", "fetched_at")}
    if not all(text is None or isinstance(text, str) for text in texts.values()):
        return None
    if not all(number is None or type(number) is int for number in numbers.values()):
        return None
    # A time too far off to be one may be the very reason why the row was rejected.
    times = (_EARLIEST_US, _LATEST_US)
    for name, (least, most) in {"open_time": times, "line": (0, (1 << 63) - 1), "fetched_at": times}.items():
        number = numbers[name]
        if number is not None and not least <= number <= most:
            numbers[name] = None
    return {name: None if text is None else _storable(text) for name, text in texts.items()} | numbers

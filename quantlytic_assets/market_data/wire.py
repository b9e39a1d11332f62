"""How a bar travels on the bus: encoding frames to records, decoding records to frames, refusing what is neither.

A value is JSON of the raw bar's fields with times in whole microseconds since 1970 UTC; the headers name the schema
and its version. Whole batches are decoded at once; only a batch with a bad record in it is looked at one by one.
"""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from quantlytic_assets.market_data.bars import ADJUSTMENTS, RAW_SCHEMA, TIME

BAR_HEADERS = {"schema": "bar", "version": "1", "encoding": "json"}
REFUSED_HEADERS = {"schema": "refused_row", "version": "1", "encoding": "json"}

_TIMES = [name for name, kind in RAW_SCHEMA.items() if kind == TIME]
_WIRE_SCHEMA = pl.Schema({name: pl.Int64 if kind == TIME else kind for name, kind in RAW_SCHEMA.items()})
_REQUIRED = ["symbol", "open_time", "close_time", "vendor", "fetched_at", "adjustment"]
# Records parsed at once: a bad one among them costs a slow look at all of these.
_TOGETHER = 5_000
# A flat record has one bracket; with many more it is nested deeper than a parser's stack may hold.
_MOST_BRACKETS = 200
_LARGEST = sys.float_info.max
# Far outside of these a number is not a time in microseconds but one in another unit.
_EARLIEST_US, _LATEST_US = -2_208_988_800_000_000, 4_102_444_800_000_000

REFUSED_SCHEMA = pl.Schema(
    {
        "symbol": pl.String,
        "open_time": TIME,
        "reason": pl.String,
        "raw": pl.String,
        "line": pl.Int64,
        "bus_offset": pl.Int64,
    }
)


@dataclass(frozen=True)
class Decoded:
    """Records made into rows: `bars` (raw schema + bus_offset) and `refused` (REFUSED_SCHEMA), none in both."""

    bars: pl.DataFrame
    refused: pl.DataFrame


def encode_bars(bars: pl.DataFrame) -> list[bytes]:
    """One JSON value a row of a RAW_SCHEMA frame, in its order. NaN and infinite numbers travel as null."""
    floats = [name for name, kind in RAW_SCHEMA.items() if kind == pl.Float64]
    wire = bars.select(RAW_SCHEMA.names()).with_columns(
        [pl.col(name).dt.timestamp("us") for name in _TIMES]
        + [pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name) for name in floats]
    )
    return _lines(wire)


def encode_refused(refused: pl.DataFrame) -> list[bytes]:
    """One JSON value a row that a file import refused: symbol, open_time (may be null), reason, raw, line."""
    wire = refused.select("symbol", pl.col("open_time").dt.timestamp("us"), "reason", "raw", "line")
    return _lines(wire)


def _lines(frame: pl.DataFrame) -> list[bytes]:
    if frame.is_empty():
        return []
    return frame.write_ndjson().encode().rstrip(b"\n").split(b"\n")


def decode(offsets: Sequence[int], headers: Sequence[str], values: Sequence[bytes | None]) -> Decoded:
    """Rows of a stretch of records. Nothing raises: a record that is no bar ends in `refused` with its reason.

    Reasons: `malformed` (not JSON, missing or mistyped fields), `unknown_version`, `unfinished` (fetched before its
    close), and those that a file import gave.
    """
    bars: list[pl.DataFrame] = []
    refused: list[pl.DataFrame] = []
    for header in dict.fromkeys(headers):
        rows = [i for i, other in enumerate(headers) if other == header]
        part_offsets = [offsets[i] for i in rows]
        part_values = [values[i] if values[i] is not None else b"" for i in rows]
        kind = _kind(header)
        if kind == "bar":
            for at in range(0, len(rows), _TOGETHER):
                good, bad = _decode_bars(part_offsets[at : at + _TOGETHER], part_values[at : at + _TOGETHER])
                bars.append(good)
                refused.append(bad)
        elif kind == "refused_row":
            refused.append(_decode_refused(part_offsets, part_values))
        else:
            refused.append(_refuse(part_offsets, part_values, kind))
    empty = pl.DataFrame(schema={**RAW_SCHEMA, "bus_offset": pl.Int64})
    return Decoded(
        bars=pl.concat([empty, *bars]).sort("bus_offset"),
        refused=pl.concat([pl.DataFrame(schema=REFUSED_SCHEMA), *refused]).sort("bus_offset"),
    )


def _kind(header: str) -> str:
    """The schema that a record's headers name, or the reason why it can't be read."""
    try:
        named = json.loads(header)
    except (ValueError, TypeError, RecursionError):
        return "malformed: headers are not JSON"
    if not isinstance(named, dict) or named.get("schema") not in ("bar", "refused_row"):
        return "malformed: the headers name no schema known here"
    if named.get("version") != "1" or named.get("encoding", "json") != "json":
        return f"unknown_version: {named.get('schema')} version {named.get('version')}, {named.get('encoding')}"
    return named["schema"]


def _refuse(offsets: Sequence[int], values: Sequence[bytes], reason: str | list[str]) -> pl.DataFrame:
    reasons = [reason] * len(offsets) if isinstance(reason, str) else reason
    return pl.DataFrame(
        {
            "symbol": pl.Series([None] * len(offsets), dtype=pl.String),
            "open_time": pl.Series([None] * len(offsets), dtype=TIME),
            "reason": pl.Series([_storable(text) for text in reasons], dtype=pl.String),
            "raw": pl.Series([value.decode("utf-8", "backslashreplace") for value in values], dtype=pl.String),
            "line": pl.Series([None] * len(offsets), dtype=pl.Int64),
            "bus_offset": pl.Series(list(offsets), dtype=pl.Int64),
        }
    )


def _storable(text: str) -> str:
    """Text without halves of surrogate pairs, which JSON can hold and UTF-8 can't."""
    return text.encode("utf-8", "backslashreplace").decode()


def _decode_bars(offsets: list[int], values: list[bytes]) -> tuple[pl.DataFrame, pl.DataFrame]:
    good_at, table = list(range(len(values))), _parse_batch(values)
    reasons: dict[int, str] = {}
    if table is None:
        # Somewhere in this batch is a record that is no bar, or an unusual one: look at them one by one.
        parsed = [_parse_one(value) for value in values]
        reasons = {i: f"malformed: {one}" for i, one in enumerate(parsed) if isinstance(one, str)}
        good_at = [i for i in range(len(values)) if i not in reasons]
        table = pl.DataFrame([parsed[i] for i in good_at], schema=_WIRE_SCHEMA)
    bars = table.with_columns(
        [pl.col(name).cast(pl.Datetime("us")).dt.replace_time_zone("UTC") for name in _TIMES]
        + [pl.Series("bus_offset", [offsets[i] for i in good_at], dtype=pl.Int64)]
    ).with_columns(_row_fault().alias("_fault"))
    if bars["_fault"].null_count() < len(bars):
        faults = bars["_fault"].to_list()
        reasons |= {good_at[j]: fault for j, fault in enumerate(faults) if fault is not None}
    bars = bars.filter(pl.col("_fault").is_null()).drop("_fault").select(*RAW_SCHEMA.names(), "bus_offset")
    at = sorted(reasons)
    refused = _refuse([offsets[i] for i in at], [values[i] for i in at], [reasons[i] for i in at])
    return bars, refused


def _parse_batch(values: list[bytes]) -> pl.DataFrame | None:
    """All values as one table, or None when any of them is not plainly one flat JSON object of the right types.

    Arrow's parser is fast and takes more than JSON, so whatever it and `_parse_one` might see differently is left to
    the latter: what becomes of a record must not depend on the records beside it.
    """
    import pyarrow as pa
    from pyarrow import json as arrow_json

    if not values:
        return pl.DataFrame(schema=_WIRE_SCHEMA)
    joined = b"\n".join(values)
    flat = joined.count(b"{") == len(values) and b"[" not in joined
    if not flat or not all(value.startswith(b"{") for value in values) or b"NaN" in joined or b"Inf" in joined:
        return None
    kinds = {pl.String: pa.string(), pl.Int64: pa.int64(), pl.Float64: pa.float64()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in _WIRE_SCHEMA.items()])
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
    frame = pl.from_arrow(table).select(_WIRE_SCHEMA.names())
    finite = frame.select(pl.all_horizontal(pl.selectors.float().is_finite().all()))
    return frame if finite.item() else None


def _parse_one(value: bytes) -> dict[str, object] | str:
    """The fields of one record, or what is wrong with it in words."""
    if value.count(b"[") + value.count(b"{") > _MOST_BRACKETS:
        return "nested too deeply"
    try:
        fields = json.loads(value.decode("utf-8"), parse_constant=_no_constant, parse_int=_whole)
    except ValueError as error:
        return f"not JSON ({error})"
    if not isinstance(fields, dict):
        return f"a JSON {type(fields).__name__}, where an object is wanted"
    for name, kind in _WIRE_SCHEMA.items():
        given = fields.get(name)
        if given is None:
            continue
        if kind == pl.String:
            if not isinstance(given, str):
                return f"{name} is not text"
            if given != _storable(given):
                return f"{name} holds half a surrogate pair"
            continue
        if isinstance(given, bool) or not isinstance(given, (int, float)):
            return f"{name} is not a number"
        if kind == pl.Int64 and not (isinstance(given, int) and -(1 << 63) <= given < 1 << 63):
            return f"{name} is not a whole number of 64 bits"
        if kind == pl.Float64 and abs(given) > _LARGEST:
            return f"{name} is too large a number"
    return {
        name: float(fields[name]) if kind == pl.Float64 and fields.get(name) is not None else fields.get(name)
        for name, kind in _WIRE_SCHEMA.items()
    }


def _whole(digits: str) -> int | float:
    """An integer of any length: one too long for a number of 64 bits is infinite, as fractions are."""
    return int(digits) if len(digits) < 310 else math.inf


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _row_fault() -> pl.Expr:
    """Per row: why a well-typed record is still no bar, or null."""
    checks: list[tuple[pl.Expr, str]] = [
        (pl.col(name).is_null(), f"malformed: {name} is missing") for name in _REQUIRED
    ]
    checks.append((pl.col("symbol").str.len_chars() == 0, "malformed: symbol is empty"))
    for name in _TIMES:
        micros = pl.col(name).dt.timestamp("us")
        checks.append(
            (~micros.is_between(_EARLIEST_US, _LATEST_US), f"malformed: {name} is not in microseconds since 1970")
        )
    checks.append((pl.col("close_time") <= pl.col("open_time"), "malformed: close_time is not after open_time"))
    checks.append((~pl.col("adjustment").is_in(ADJUSTMENTS), "malformed: adjustment is neither none nor split"))
    checks.append((pl.col("close_time") > pl.col("fetched_at"), "unfinished: fetched before its close_time"))
    return pl.coalesce([pl.when(condition).then(pl.lit(reason)) for condition, reason in checks])


def _decode_refused(offsets: list[int], values: list[bytes]) -> pl.DataFrame:
    rows, malformed = [], []
    for offset, value in zip(offsets, values, strict=True):
        row = _refused_row(value)
        if row is None:
            malformed.append((offset, value))
        else:
            rows.append({**row, "bus_offset": offset})
    frame = pl.DataFrame(rows, schema={**REFUSED_SCHEMA, "open_time": pl.Int64}).with_columns(
        pl.col("open_time").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    )
    wrong = _refuse([at for at, _ in malformed], [value for _, value in malformed], "malformed: not a refused row")
    return pl.concat([frame, wrong])


def _refused_row(value: bytes) -> dict[str, object] | None:
    """The fields of a refused row, or None when it is none."""
    try:
        fields = json.loads(value)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or not isinstance(fields.get("reason"), str):
        return None
    texts = {name: fields.get(name) for name in ("symbol", "reason", "raw")}
    numbers = {name: fields.get(name) for name in ("open_time", "line")}
    if not all(text is None or isinstance(text, str) for text in texts.values()):
        return None
    if not all(number is None or type(number) is int for number in numbers.values()):
        return None
    # A time too far off to be one may be the very reason why the row was refused.
    for name, (least, most) in {"open_time": (_EARLIEST_US, _LATEST_US), "line": (0, (1 << 63) - 1)}.items():
        if numbers[name] is not None and not least <= numbers[name] <= most:
            numbers[name] = None
    return {name: None if text is None else _storable(text) for name, text in texts.items()} | numbers

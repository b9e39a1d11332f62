"""A user's file of bars (CSV, Parquet, Feather) read into raw bars, with each row that can't be one set aside.

A pure function of the file's content: nothing is published or stored here. What makes times of a time column is in
`tabular_times`; whether a well-formed bar is a sensible one is decided in `cleaning`. So duplicates, rows in any
order, missing and negative prices pass.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.imports.times import (
    BAD_TIME,
    UNFINISHED,
    StructuralFault,
    bar_times,
    check_whole,
    in_words,
    read_times,
)
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.schemas.vocabulary import ADJUSTMENTS

if TYPE_CHECKING:
    from quantlytic_assets.universe.models import Dataset

VENDOR = "import"
LABELS = ("start", "end")
NUMBERS = ("open", "high", "low", "close", "volume")
OURS = ("time", *NUMBERS)
TIME_NAMES = ("time", "timestamp", "datetime", "date", "open_time")

# Reasons are codes with at most a column's name, for they are counted by value; the row's text is kept beside them.
BAD_NUMBER = "bad_number"
FIELD_COUNT = "wrong_field_count"
QUOTES = "unbalanced_quotes"

REJECTED_SCHEMA = pl.Schema({"line": pl.Int64, "reason": pl.String, "raw": pl.String, "open_time": TIME})

# ASCII's own separator of fields, which no CSV file has in its text.
_UNIT = "\x1f"
_DELIMITERS = (",", ";", "\t", "|")
_NO_VALUE = ("", "null", "none", "nan", "na", "n/a", "#n/a", "nat")
_MAGIC = {
    b"PK\x03\x04": "a ZIP archive or Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG chart",
    b"GIF8": "a GIF chart",
    b"%PDF": "a PDF document",
    b"SQLite format 3\x00": "an SQLite database",
    b"\x89HDF": "an HDF5 file",
    b"FEA1": "a Feather file of the old version 1",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"(\xb5/\xfd": "compressed with zstd",
    b"\x7fELF": "a program",
}
_WANTED = "give a CSV, Parquet or Feather file"


class OptionError(ValueError):
    """An option of an import that makes no sense, whatever the file holds."""


class ColumnsError(OptionError):
    """A `--columns` text that can't be read."""


@dataclass(frozen=True)
class ImportedFile:
    """A file's rows: `bars` (RAW_SCHEMA, in the file's order), `rejected` (REJECTED_SCHEMA, likewise) and how many were
    `read`; every row is in exactly one of the two. A `line` counts from 1: in CSV the header's line and blank ones too,
    in Parquet and Feather the rows.
    """

    bars: pl.DataFrame
    rejected: pl.DataFrame
    read: int


@dataclass(frozen=True)
class _Table:
    """Columns as text or as the file types them, with each row's line, and its text or None for typed files.

    Names are the file's own and may repeat. `broken` has the rows (line, reason, raw) that don't fit the table at all.
    """

    names: list[str]
    columns: list[pl.Series]
    lines: pl.Series
    raw: pl.Series | None
    broken: pl.DataFrame


def parse_columns(text: str) -> dict[str, str]:
    """`time=tag,open=o` as {"time": "tag", "open": "o"}: ours to theirs. Raises `ColumnsError` saying what is wrong."""
    found: dict[str, str] = {}
    for part in text.split(","):
        ours, equals, theirs = (piece.strip() for piece in part.partition("="))
        if not equals or not ours or not theirs:
            raise ColumnsError(f"--columns: {part.strip() or 'an empty part'!r} is not ours=theirs, such as time=tag")
        ours = ours.lower()
        if ours not in OURS:
            near = get_close_matches(ours, OURS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"ours are {', '.join(OURS)}"
            raise ColumnsError(f"--columns: {ours!r} is not a column of ours, {hint} (write ours=theirs)")
        if ours in found:
            raise ColumnsError(f"--columns: {ours} is given twice, keep one")
        found[ours] = theirs
    return found


def read_bars(
    path: str | Path,
    *,
    dataset: Dataset,
    symbol: str,
    columns: Mapping[str, str] | None = None,
    time_zone: str | None = None,
    label: str = "start",
    adjustment: str = "none",
    fetched_at: datetime,
) -> ImportedFile:
    """Read the bars of one symbol from a file, known by its content and not by its name; gzip is looked into.

    `columns` maps ours (OURS) to the file's names; those not given are found by their usual names, upper and lower
    case being the same. `time_zone` (IANA) is that of times without an offset. `label` says whether times mark a
    bar's start or end. A row that is no bar, or whose bar closes after `fetched_at`, is rejected alone; local times
    that a clock change repeats are rejected too, for either hour could be meant. Raises `StructuralFault` for a file
    that can't be read as bars, `OptionError` for options that make no sense.
    """
    _check_options(columns, time_zone, label, adjustment)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise StructuralFault(f"the file can't be read ({error.strerror})", "check its path and permissions") from error
    table = _read_table(content)
    at = _match_columns(table.names, columns or {})
    time_column = table.columns[at["time"]]
    times = read_times(time_column, time_zone, table.lines)
    spans = bar_times(times, dataset.calendar, dataset.interval, label)
    check_whole(time_column, times, spans, dataset.interval)
    frame = pl.concat(
        [
            spans,
            *(_numbers(table.columns[at[ours]], ours) for ours in NUMBERS),
        ],
        how="horizontal",
    )
    closed = pl.col("close_time") <= fetched_at.astimezone(UTC)
    reason = pl.coalesce(
        # A time in range whose date no calendar can place.
        pl.coalesce("fault", pl.when(pl.col("open_time").is_null()).then(pl.lit(BAD_TIME))),
        *(pl.when(f"{ours}_bad").then(pl.lit(f"{BAD_NUMBER}: {ours}")) for ours in NUMBERS),
        pl.when(closed.not_()).then(pl.lit(UNFINISHED)),
    )
    frame = frame.with_columns(reason.alias("reason"), table.lines.alias("line"))
    bad = frame["reason"].is_not_null()
    bars = frame.filter(~bad).with_columns(
        pl.lit(symbol).alias("symbol"),
        pl.lit(None, pl.Float64).alias("vwap"),
        pl.lit(None, pl.Int64).alias("trade_count"),
        pl.lit(VENDOR).alias("vendor"),
        pl.lit(fetched_at, TIME).alias("fetched_at"),
        pl.lit(adjustment).alias("adjustment"),
    )
    rejected = frame.filter(bad).with_columns(
        _raw_text(table, bad).alias("raw"), pl.when(pl.col("fault").is_null()).then("open_time").alias("open_time")
    )
    rejected = pl.concat(
        [rejected.select(REJECTED_SCHEMA.names()), table.broken.with_columns(pl.lit(None, TIME).alias("open_time"))]
    ).sort("line")
    return ImportedFile(
        bars=bars.select(RAW_SCHEMA.names()).cast(RAW_SCHEMA), rejected=rejected, read=len(bars) + len(rejected)
    )


def _check_options(columns: Mapping[str, str] | None, time_zone: str | None, label: str, adjustment: str) -> None:
    unknown = [ours for ours in columns or {} if ours not in OURS]
    if unknown:
        raise ColumnsError(f"no columns of ours: {', '.join(unknown)}; ours are {', '.join(OURS)}")
    if label not in LABELS:
        raise OptionError(f"--label {label}: take one of {', '.join(LABELS)}")
    if adjustment not in ADJUSTMENTS:
        raise OptionError(f"--adjustment {adjustment}: take one of {', '.join(ADJUSTMENTS)}")
    if time_zone is not None:
        from zoneinfo import available_timezones

        known = available_timezones()
        if time_zone not in known:
            near = get_close_matches(time_zone, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "take an IANA name such as America/New_York"
            raise OptionError(f"--time-zone {time_zone}: no such time zone, {hint}")


def _match_columns(names: list[str], wanted: Mapping[str, str]) -> dict[str, int]:
    """Ours to the position in the file. Raises `StructuralFault` naming all that are missing or twice there."""
    matched: dict[str, int] = {}
    missing, doubled = [], []
    for ours in OURS:
        candidates = (wanted[ours],) if ours in wanted else TIME_NAMES if ours == "time" else (ours,)
        exact = [i for i, name in enumerate(names) if name in candidates] if ours in wanted else []
        folded = {one.casefold() for one in candidates}
        found = exact or [i for i, name in enumerate(names) if name.strip().casefold() in folded]
        if not found:
            missing.append(f"{wanted[ours]} (for {ours})" if ours in wanted else ours)
        elif len(found) > 1:
            doubled.append(f"{ours} ({', '.join(names[i] for i in found)})")
        else:
            matched[ours] = found[0]
    if missing:
        raise StructuralFault(
            f"missing columns: {', '.join(missing)}; found: {_shown(names)}",
            "name them with --columns ours=theirs,… (the first line of a CSV file has to be its header)",
        )
    if doubled:
        raise StructuralFault(
            f"more than one column could be {'; '.join(doubled)}", "name the right one with --columns ours=theirs"
        )
    return matched


def _shown(names: list[str]) -> str:
    short = [name if len(name) <= 40 else name[:37] + "..." for name in names[:30]]
    return ", ".join(short) + (f" and {len(names) - 30} more" if len(names) > 30 else "")


def _numbers(column: pl.Series, ours: str) -> pl.DataFrame:
    """A column as Float64 named `ours`, and `<ours>_bad` where the file holds something that is no finite number."""
    if column.dtype == pl.String:
        text = column.str.strip_chars()
        empty = text.is_null() | text.str.to_lowercase().is_in(_NO_VALUE)
        value = text.cast(pl.Float64, strict=False)
    elif column.dtype.is_numeric():
        value = column.cast(pl.Float64)
        empty = value.is_null() | value.is_nan().fill_null(False)
    elif column.dtype == pl.Null:
        value, empty = column.cast(pl.Float64), column.is_null()
    else:
        raise StructuralFault(
            f"column {column.name} (for {ours}) holds {column.dtype}, not numbers",
            f"name another one with --columns {ours}=…",
        )
    finite = value.is_finite().fill_null(False)
    return pl.DataFrame({ours: value.set(~finite, None), f"{ours}_bad": ~finite & ~empty})


def _raw_text(table: _Table, rows: pl.Series) -> pl.Series:
    """The text of the chosen rows: their line of the file, or for typed files the row as JSON."""
    if table.raw is not None:
        return table.raw.filter(rows)
    plain = [one.filter(rows) for one in table.columns if not one.dtype.is_nested() and one.dtype != pl.Binary]
    words = pl.DataFrame([in_words(one) for one in plain])
    return words.select(pl.struct(pl.all()).struct.json_encode().alias("raw"))["raw"]


def _read_table(content: bytes) -> _Table:
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise StructuralFault(f"a damaged gzip file ({error})", "get the file again") from error
    if not content.strip():
        raise StructuralFault("the file is empty", _WANTED)
    if content.startswith(b"PAR1"):
        return _typed_table(content, "Parquet")
    if content.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return _typed_table(content, "Feather")
    for magic, what in _MAGIC.items():
        if content.startswith(magic):
            raise StructuralFault(f"the file is not a table but {what}", f"unpack or export it: {_WANTED}")
    return _text_table(_decode(content))


def _typed_table(content: bytes, kind: str) -> _Table:
    source = io.BytesIO(content)
    try:
        if kind == "Parquet":
            columns = pl.read_parquet(source)
        elif content.startswith(b"ARROW1"):
            columns = pl.read_ipc(source)
        else:
            columns = pl.read_ipc_stream(source)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        first_line = str(error).partition("\n")[0]
        raise StructuralFault(f"a damaged {kind} file ({first_line})", "get or write the file again") from error
    if columns.is_empty():
        raise StructuralFault(f"the {kind} file has no rows", "nothing can be imported from it")
    columns = columns.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))
    lines = pl.Series("line", range(1, len(columns) + 1), dtype=pl.Int64)
    return _Table(columns.columns, columns.get_columns(), lines, None, _broken(lines.clear(), pl.Series([]), ""))


def _decode(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif b"\x00" in content:
        raise StructuralFault("the file is not a table but binary data", _WANTED)
    else:
        encoding = "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        fault = f"the file is not UTF-8 text (byte {error.start})"
        raise StructuralFault(fault, f"save it as UTF-8: {_WANTED}") from error
    start = text.lstrip()[:1]
    if start == "<":
        raise StructuralFault("the file is not a table but HTML or XML (an error page, perhaps)", _WANTED)
    if start in ("{", "["):
        raise StructuralFault("the file is not a table but JSON", f"convert it: {_WANTED}")
    return text


def _text_table(text: str) -> _Table:
    """Split the lines of a CSV file. A quoted field has to end on its own line, so that a row is a line."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    raw = pl.Series("raw", text.split("\n"), dtype=pl.String)
    lines = pl.Series("line", range(1, len(raw) + 1), dtype=pl.Int64)
    blank = raw.str.contains(r"^\s*$")
    raw, lines = raw.filter(~blank), lines.filter(~blank)
    delimiter = _delimiter(raw[0])
    names = _split_quoted([raw[0]], delimiter)[0].to_list()
    raw, lines = raw[1:], lines[1:]
    if raw.is_empty():
        raise StructuralFault("the file has a header and no rows", "nothing can be imported from it")

    quotes = raw.str.count_matches('"', literal=True)
    unbalanced = quotes % 2 == 1
    fields = _fields(raw, (quotes > 0) & ~unbalanced, delimiter)
    # Some writers end every row with a delimiter, but not the header.
    trailing = (fields.list.len() == len(names) + 1) & (fields.list.last() == "")
    misfit = ((fields.list.len() != len(names)) & ~trailing) & ~unbalanced
    broken = pl.concat(
        [
            _broken(lines.filter(unbalanced), raw.filter(unbalanced), QUOTES),
            _broken(lines.filter(misfit), raw.filter(misfit), FIELD_COUNT),
        ]
    )
    fits = ~(unbalanced | misfit)
    kept = fields.filter(fits)
    columns = [kept.list.get(i).alias(name) for i, name in enumerate(names)]
    return _Table(names, columns, lines.filter(fits), raw.filter(fits), broken)


def _broken(lines: pl.Series, raw: pl.Series, reason: str) -> pl.DataFrame:
    schema = {name: kind for name, kind in REJECTED_SCHEMA.items() if name != "open_time"}
    return pl.DataFrame({"line": lines, "raw": raw}).select("line", pl.lit(reason).alias("reason"), "raw").cast(schema)


def _delimiter(header: str) -> str:
    """The likeliest delimiter: the one that stands most often in the header, outside of quotes."""
    outside = "".join(header.split('"')[::2])
    return max(_DELIMITERS, key=outside.count)


def _fields(raw: pl.Series, quoted: pl.Series, delimiter: str) -> pl.Series:
    """Each line's fields; only the lines with quotes in them take the way through a CSV parser."""
    if not quoted.any():
        return raw.str.split(delimiter)
    at = pl.int_range(len(raw), eager=True).alias("at")
    parts = [
        pl.DataFrame({"at": at.filter(~quoted), "fields": raw.filter(~quoted).str.split(delimiter)}),
        pl.DataFrame({"at": at.filter(quoted), "fields": _split_quoted(raw.filter(quoted).to_list(), delimiter)}),
    ]
    return pl.concat(parts).sort("at")["fields"]


def _split_quoted(lines: list[str], delimiter: str) -> pl.Series:
    """Each line's fields, quotes taken off. Joined and split again, for a series of Python lists is slow to build."""
    try:
        joined = [_UNIT.join(row) for row in csv.reader(lines, delimiter=delimiter)]
        if len(joined) != len(lines):
            # A stray quote in an unquoted field made the parser run on into the next line.
            joined = [_UNIT.join(next(csv.reader([line], delimiter=delimiter))) for line in lines]
    except csv.Error as error:
        raise StructuralFault(f"the file can't be split into columns ({error})", _WANTED) from error
    return pl.Series("fields", joined, dtype=pl.String).str.split(_UNIT)

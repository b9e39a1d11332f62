"""What a file's bytes are (CSV, Excel, Parquet, Feather, JSON, any of them compressed), and its rows as they stand.

Told by content, never by name. A grid knows rows and fields, not what they mean.

CSV is split here and not by a library's reader: a row that is rejected, be it for its time, an hour that a clock change
repeats, or a number, is kept with its line and its text, and those are gone once a reader has typed the columns.
DuckDB's `read_csv` with `store_rejects` keeps them for rows that it rejects itself, and for no others.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import Protocol

import polars as pl

from quantlytic_assets.imports.times import StructuralFault, in_words

FIELD_COUNT = "wrong_field_count"
QUOTES = "unbalanced_quotes"
BROKEN_SCHEMA = pl.Schema({"line": pl.Int64, "reason": pl.String, "raw": pl.String})
WANTED = "give a CSV, Excel, Parquet, Feather or JSON file"

# So many rows are looked at to tell what a file is.
_HEAD = 5
_SAMPLE = 20
# ASCII's own separator of fields, which no CSV file has in its text.
_UNIT = "\x1f"
_DELIMITERS = (",", ";", "\t", "|")
# Lines that some writers put before the header: a comment, or the address the file is from.
_BEFORE_HEADER = r"^\s*(?:#|https?://\S*\s*$)"
_SEPARATOR_LINE = re.compile(r"sep=(.)\s*", re.IGNORECASE)
_LARGEST = 4 << 30
_MAGIC = {
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"%PDF": "a PDF document",
    b"SQLite format 3\x00": "an SQLite database",
    b"\x89HDF": "an HDF5 file",
    b"FEA1": "a Feather file of the old version 1",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"(\xb5/\xfd": "compressed with zstd",
    b"\x7fELF": "a program",
}


@dataclass(frozen=True)
class Table:
    """Columns as text or as the file types them, with each row's line, and its text or None for typed files.

    Names are the file's own and may repeat. `broken` (BROKEN_SCHEMA) has the rows that don't fit the table at all.
    """

    names: list[str]
    columns: list[pl.Series]
    lines: pl.Series
    raw: pl.Series | None
    broken: pl.DataFrame

    def raw_text(self, rows: pl.Series) -> pl.Series:
        """The text of the chosen rows: their line of the file, or for typed files the row as JSON."""
        if self.raw is not None:
            return self.raw.filter(rows)
        plain = [one.filter(rows) for one in self.columns if not one.dtype.is_nested() and one.dtype != pl.Binary]
        words = pl.DataFrame([in_words(one) for one in plain])
        return words.select(pl.struct(pl.all()).struct.json_encode().alias("raw"))["raw"]


class Grid(Protocol):
    """The rows of a file as they stand."""

    @property
    def named(self) -> bool:
        """Whether the format itself names the columns, as Parquet does and CSV does not."""

    def head(self) -> list[list[str]]:
        """The first rows as text; of a named grid the names come first."""

    def table(self, names: list[str], begin: int) -> Table:
        """The rows after the first `begin`, of columns with these names. Raises `StructuralFault` if there are none."""


def read_grid(content: bytes, decimal: str = ".") -> Grid:
    """What these bytes of a file are. Raises `StructuralFault` for what is no table. `decimal`: see ImportOptions."""
    content = _unpacked(content)
    if not content.strip():
        raise StructuralFault("the file is empty", WANTED)
    if content.startswith(b"PAR1"):
        return _typed_grid(content, "Parquet")
    if content.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return _typed_grid(content, "Feather")
    if content.startswith(b"PK\x03\x04"):
        return _workbook(content)
    for magic, what in _MAGIC.items():
        if content.startswith(magic):
            raise StructuralFault(f"the file is not a table but {what}", f"unpack or export it: {WANTED}")
    text = _decode(content)
    start = text.lstrip()[:1]
    if start == "<" and not re.match(r"\s*<\w+>\s*[,;\t|]\s*<", text):
        raise StructuralFault("the file is not a table but HTML or XML (an error page, perhaps)", WANTED)
    if start in ("{", "["):
        return _json_grid(text)
    return _text_grid(text, decimal)


def _unpacked(content: bytes) -> bytes:
    """What is in a gzip file, or in a ZIP archive of one file; other content as it is."""
    if content.startswith(b"\x1f\x8b"):
        try:
            return gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise StructuralFault(f"a damaged gzip file ({error})", "get the file again") from error
    if not content.startswith(b"PK\x03\x04"):
        return content
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [one for one in archive.infolist() if not one.is_dir()]
            if any(one.filename.startswith("xl/") for one in members):
                return content
            if len(members) != 1:
                raise StructuralFault(f"a ZIP archive of {len(members)} files", "unpack it and import its folder")
            if members[0].file_size > _LARGEST:
                raise StructuralFault("a ZIP archive with more than 4 GiB in it", "unpack it and split the file")
            return archive.read(members[0])
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise StructuralFault(
            f"a damaged ZIP archive or Excel workbook ({error})", "get or export the file again"
        ) from error


def _decode(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _decoded(content, "utf-16")
    if b"\x00" in content:
        raise StructuralFault("the file is not a table but binary data", WANTED)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        # What spreadsheets of the West write where nobody asks for UTF-8.
        return _decoded(content, "cp1252")


def _decoded(content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        fault = f"the file is neither UTF-8 text nor Windows' (byte {error.start})"
        raise StructuralFault(fault, f"save it as UTF-8: {WANTED}") from error


# Text ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TextGrid:
    """Lines of fields: the text and number of each row. A quoted field has to end on its own line."""

    raw: pl.Series
    lines: pl.Series
    delimiter: str
    quoted: bool = True
    named: bool = False

    def head(self) -> list[list[str]]:
        """See `Grid`."""
        return [self._split(line) for line in self.raw.head(_HEAD)]

    def _split(self, line: str) -> list[str]:
        if not self.quoted:
            return line.split(self.delimiter)
        return _split_quoted([line], self.delimiter)[0].to_list()

    def fields(self, begin: int) -> tuple[pl.Series, pl.Series]:
        """The fields of the rows after the first `begin`, and which of these rows leave a quote open."""
        raw = self.raw[begin:]
        quotes = raw.str.count_matches('"', literal=True) if self.quoted else pl.Series([0]).new_from_index(0, len(raw))
        unbalanced = quotes % 2 == 1
        return _fields(raw, (quotes > 0) & ~unbalanced, self.delimiter), unbalanced

    def table(self, names: list[str], begin: int) -> Table:
        """See `Grid`. A row of more or fewer fields than there are names is broken."""
        raw, lines = self.raw[begin:], self.lines[begin:]
        if raw.is_empty():
            raise StructuralFault("the file has a header and no rows", "nothing can be imported from it")
        fields, unbalanced = self.fields(begin)
        width = fields.list.len()
        # Some writers end every row with a delimiter, but not the header.
        trailing = (width == len(names) + 1) & (fields.list.last() == "")
        misfit = ((width != len(names)) & ~trailing) & ~unbalanced
        broken = pl.concat(
            [
                _broken(lines.filter(unbalanced), raw.filter(unbalanced), QUOTES),
                _broken(lines.filter(misfit), raw.filter(misfit), FIELD_COUNT),
            ]
        )
        fits = ~(unbalanced | misfit)
        kept = fields.filter(fits)
        columns = [kept.list.get(i).alias(name) for i, name in enumerate(names)]
        return Table(names, columns, lines.filter(fits), raw.filter(fits), broken)


def _text_grid(text: str, decimal: str = ".") -> TextGrid:
    """The lines of a CSV file. Raises `StructuralFault` where there are none."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    raw = pl.Series("raw", text.split("\n"), dtype=pl.String)
    lines = pl.Series("line", range(1, len(raw) + 1), dtype=pl.Int64)
    blank = raw.str.contains(r"^\s*$")
    raw, lines = raw.filter(~blank), lines.filter(~blank)
    said = _SEPARATOR_LINE.fullmatch(raw[0]) if len(raw) else None
    before = 1 if said else _leading(raw.head(_SAMPLE).str.contains(_BEFORE_HEADER))
    raw, lines = raw[before:], lines[before:]
    if raw.is_empty():
        raise StructuralFault("the file is empty", WANTED)
    delimiter = said[1] if said else _delimiter(raw.head(_SAMPLE).to_list(), decimal)
    return TextGrid(raw, lines, delimiter)


def _leading(marks: pl.Series) -> int:
    """How many are true before the first that is not."""
    return marks.arg_min() if not marks.all() else len(marks)


def _delimiter(lines: list[str], decimal: str) -> str:
    """The likeliest delimiter: the one that stands equally often in most of the lines, outside of quotes."""

    def likelihood(delimiter: str) -> tuple[bool, int, int]:
        counts = Counter("".join(line.split('"')[::2]).count(delimiter) for line in lines)
        del counts[0]
        often, lines_of_it = max(counts.items(), key=lambda entry: entry[1], default=(0, 0))
        return lines[0].count(delimiter) > 0, lines_of_it, often

    candidates = [one for one in _DELIMITERS if one != decimal] if decimal != "." else _DELIMITERS
    best = max(candidates, key=likelihood)
    return best if likelihood(best)[1] else ","


def _broken(lines: pl.Series, raw: pl.Series, reason: str) -> pl.DataFrame:
    rows = pl.DataFrame({"line": lines, "raw": raw}).select("line", pl.lit(reason).alias("reason"), "raw")
    return rows.cast(dict(BROKEN_SCHEMA))


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
        raise StructuralFault(f"the file can't be split into columns ({error})", WANTED) from error
    return pl.Series("fields", joined, dtype=pl.String).str.split(_UNIT)


# Excel, Parquet, Feather, JSON -----------------------------------------------------------------------------------


def _workbook(content: bytes) -> TextGrid:
    """The one sheet of an Excel workbook that has rows; a line is a row of the sheet, times are written as ISO 8601."""
    import fastexcel

    try:
        book = fastexcel.read_excel(content)
        sheets = {
            name: book.load_sheet(name, header_row=None, skip_rows=0, dtypes="string", skip_whitespace_tail_rows=True)
            for name in book.sheet_names
        }
        frames = {name: sheet.to_polars() for name, sheet in sheets.items() if sheet.width}
    except (fastexcel.FastExcelError, ValueError) as error:
        first_line = str(error).partition("\n")[0]
        raise StructuralFault(f"a damaged Excel workbook ({first_line})", "export the file again") from error
    filled = {name: frame for name, frame in frames.items() if len(frame)}
    if len(filled) != 1:
        which = f"its sheets {', '.join(filled)} have rows" if filled else "none of its sheets has rows"
        raise StructuralFault(which, "keep the sheet with the bars, or save it as CSV")
    (frame,) = filled.values()
    fields = frame.select(pl.all().fill_null("").str.replace_all(r"[\t\r\n]", " "))
    raw = fields.select(pl.concat_str(pl.all(), separator="\t").alias("raw"))["raw"]
    lines = pl.Series("line", range(1, len(raw) + 1), dtype=pl.Int64)
    blank = raw.str.contains(r"^\s*$")
    return TextGrid(raw.filter(~blank), lines.filter(~blank), "\t", quoted=False)


@dataclass(frozen=True)
class FrameGrid:
    """Rows that have types already, each with its line; `broken` are those that had to be left out."""

    frame: pl.DataFrame
    lines: pl.Series
    broken: pl.DataFrame
    named: bool

    def head(self) -> list[list[str]]:
        """See `Grid`."""
        plain = self.frame.head(_HEAD).select(
            in_words(one) if _plain(one) else pl.lit("").alias(one.name) for one in self.frame.head(_HEAD).get_columns()
        )
        rows = [["" if value is None else value for value in row] for row in plain.rows()]
        return [self.frame.columns, *rows] if self.named else rows

    def table(self, names: list[str], begin: int) -> Table:
        """See `Grid`."""
        columns = [one.alias(name) for name, one in zip(names, self.frame.get_columns(), strict=True)]
        return Table(names, columns, self.lines, None, self.broken)


def _plain(column: pl.Series) -> bool:
    return not column.dtype.is_nested() and column.dtype not in (pl.Binary, pl.Object)


def _typed_grid(content: bytes, kind: str) -> FrameGrid:
    source = io.BytesIO(content)
    try:
        if kind == "Parquet":
            frame = pl.read_parquet(source)
        elif content.startswith(b"ARROW1"):
            frame = pl.read_ipc(source)
        else:
            frame = pl.read_ipc_stream(source)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        first_line = str(error).partition("\n")[0]
        raise StructuralFault(f"a damaged {kind} file ({first_line})", "get or write the file again") from error
    if frame.is_empty():
        raise StructuralFault(f"the {kind} file has no rows", "nothing can be imported from it")
    frame = frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))
    lines = pl.Series("line", range(1, len(frame) + 1), dtype=pl.Int64)
    return FrameGrid(frame, lines, pl.DataFrame(schema=BROKEN_SCHEMA), named=True)


def _json_grid(text: str) -> FrameGrid:
    """A JSON array of arrays; a line is the number of a row."""
    wanted = "give an array of arrays [[time, open, high, low, close, volume], …], or a CSV file"
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StructuralFault(f"the file is damaged JSON ({error})", "get the file again") from error
    if not isinstance(content, list) or not content or not isinstance(content[0], list) or not content[0]:
        raise StructuralFault("the file is JSON, but no array of rows", wanted)
    lengths = Counter(len(row) for row in content if isinstance(row, list))
    width = lengths.most_common(1)[0][0]
    lines = pl.Series("line", range(1, len(content) + 1), dtype=pl.Int64)
    if lengths == {width: len(content)}:
        rows, broken = content, pl.DataFrame(schema=BROKEN_SCHEMA)
    else:
        fits = pl.Series([isinstance(row, list) and len(row) == width for row in content], dtype=pl.Boolean)
        rows = [row for row, fit in zip(content, fits, strict=True) if fit]
        left_out = [json.dumps(row) for row, fit in zip(content, fits, strict=True) if not fit]
        broken = _broken(lines.filter(~fits), pl.Series(left_out, dtype=pl.String), FIELD_COUNT)
        lines = lines.filter(fits)
    columns = [_json_column(f"column {at + 1}", values) for at, values in enumerate(zip(*rows, strict=True))]
    return FrameGrid(pl.DataFrame(columns), lines, broken, named=False)


def _json_column(name: str, values: tuple[object, ...]) -> pl.Series:
    """Numbers as numbers; where there is anything else, all of them as text."""
    kinds = {type(value) for value in values} - {type(None)}
    try:
        if kinds == {int}:
            return pl.Series(name, values, dtype=pl.Int64)
        if kinds and kinds <= {int, float}:
            return pl.Series(name, values, dtype=pl.Float64)
    except (OverflowError, TypeError, pl.exceptions.PolarsError):
        # A whole number of more than 64 bits: as text it is rejected by itself.
        pass
    return pl.Series(
        name,
        [value if value is None or isinstance(value, str) else json.dumps(value) for value in values],
        dtype=pl.String,
    )

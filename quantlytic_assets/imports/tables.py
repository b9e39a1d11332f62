"""A user's file of bars read into raw bars, with each row that can't be one set aside.

A pure function of the file's content: nothing is published or stored here. What the bytes are is in `grids`, what the
columns are in `shapes`, what makes times of a time column in `dates` and `times`; whether a well-formed bar is a
sensible one is decided in `cleaning`. So duplicates, rows in any order, missing and negative prices pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.imports.dates import by_format, year_first
from quantlytic_assets.imports.grids import Table, read_grid
from quantlytic_assets.imports.options import NUMBERS, OURS, ImportOptions
from quantlytic_assets.imports.shapes import PERIODS, Layout, by_position, layout_of
from quantlytic_assets.imports.symbols import SYMBOL_NAMES, SymbolNames
from quantlytic_assets.imports.times import (
    BAD_TIME,
    UNFINISHED,
    StructuralFault,
    bar_times,
    check_whole,
    read_times,
)
from quantlytic_assets.market_data.bars import RAW_SCHEMA

if TYPE_CHECKING:
    from quantlytic_assets.universe.models import Dataset

VENDOR = "import"
TIME_NAMES = ("time", "timestamp", "datetime", "date", "open_time")

# Reasons are codes with at most a column's name, for they are counted by value; the row's text is kept beside them.
BAD_NUMBER = "bad_number"
NO_SYMBOL = "no_symbol"

REJECTED_SCHEMA = pl.Schema(
    {"line": pl.Int64, "symbol": pl.String, "reason": pl.String, "raw": pl.String, "open_time": TIME}
)

_NO_VALUE = ("", "null", "none", "nan", "na", "n/a", "#n/a", "nat")
# European numbers, thousands apart by points, spaces or apostrophes.
_WITH_THOUSANDS = r"^[+-]?\d{1,3}(?:[.' \u00a0\u202f]\d{3})+(?:,\d*)?$"
_MOST_SYMBOLS_SHOWN = 5


@dataclass(frozen=True)
class ImportedFile:
    """A file's rows: `bars` (RAW_SCHEMA) and `rejected` (REJECTED_SCHEMA), both in the file's order.

    Every one of the `read` rows is in exactly one of the two. A `line` counts from 1: in text the header's line and
    blank ones too, in Parquet, Feather and JSON the rows. Where several symbols share a line, each counts as a row.
    `note`: what a user should know of files of this shape.
    """

    bars: pl.DataFrame
    rejected: pl.DataFrame
    read: int
    note: str = ""


def read_bars(
    path: str | Path,
    *,
    dataset: Dataset,
    symbol: str | None,
    fetched_at: datetime,
    options: ImportOptions | None = None,
) -> ImportedFile:
    """Read the bars of a file, known by its content and not by its name; gzip and ZIP are looked into.

    `symbol`: whose the bars are, or `OURS=THEIRS,…` for what the file calls ours; None: the file says it in a column.
    A row that is no bar, or whose bar closes after `fetched_at`, is rejected alone; local times that a clock change
    repeats are rejected too, for either hour could be meant. Raises `StructuralFault` for a file that can't be read as
    bars, `OptionError` for options that make no sense.
    """
    options = options or ImportOptions()
    names = SymbolNames(dataset, symbol)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise StructuralFault(f"the file can't be read ({error.strerror})", "check its path and permissions") from error
    grid = read_grid(content, options.decimal)
    head = grid.head()
    if options.header:
        layout = layout_of(head)
        if layout.begin and not grid.named and all(_looks_like_data(text) for text in head[0]):
            raise StructuralFault(
                "its first line is a row of numbers, and no header",
                "the first line of a CSV file has to be its header; where the columns are "
                "time,open,high,low,close,volume give --no-header",
            )
    else:
        layout = by_position(len(head[0]))
    table = grid.table(list(layout.names), layout.begin)
    parts = [
        _read_part(one, at, ours, dataset, options, layout, names, fetched_at)
        for one, at, ours in _parts(table, layout, options, names)
    ]
    # Rows that don't fit the table are in no part.
    broken = table.broken.select(
        "line", pl.lit(names.only).alias("symbol"), "reason", "raw", pl.lit(None, TIME).alias("open_time")
    )
    bars = pl.concat([part.bars for part in parts])
    rejected = pl.concat([*(part.rejected for part in parts), broken]).sort("line", maintain_order=True)
    return ImportedFile(bars, rejected, len(bars) + len(rejected), layout.note)


def _looks_like_data(text: str) -> bool:
    return bool(text.strip()) and not any(sign.isalpha() for sign in text.replace("T", "").replace("Z", ""))


def _parts(
    table: Table, layout: Layout, options: ImportOptions, names: SymbolNames
) -> Iterator[tuple[Table, Mapping[str, int], pl.Series]]:
    """The table, or that of each symbol that stands beside others: (table, places of our columns, symbols of rows)."""
    if not layout.blocks:
        places = _match_columns(table.names, dict(layout.columns) | dict(options.columns))
        yield table, places, _symbols(table, layout, options, names)
        return
    tickers = pl.Series("ticker", list(layout.blocks))
    ours = _owners(tickers, "Ticker", names)
    for (_, at), symbol in zip(layout.blocks.items(), ours, strict=True):
        missing = [name for name in OURS if name not in at]
        if missing:
            raise StructuralFault(f"missing columns: {', '.join(missing)} of {symbol}", "get the file again with them")
        # A row where this symbol has nothing is one of the others'.
        empty = pl.all_horizontal(_is_empty(table.columns[at[name]]) for name in NUMBERS)
        kept = ~pl.select(empty).to_series()
        columns = [one.filter(kept) for one in table.columns]
        raw = table.raw.filter(kept) if table.raw is not None else None
        part = Table(table.names, columns, table.lines.filter(kept), raw, table.broken)
        yield part, at, pl.Series("symbol", [symbol], dtype=pl.String).new_from_index(0, len(part.lines))


def _symbols(table: Table, layout: Layout, options: ImportOptions, names: SymbolNames) -> pl.Series:
    """The symbol of each row, null where the file's column has none."""
    column = _symbol_column(table, layout, options)
    if column is None:
        if names.only is None:
            raise StructuralFault(
                "neither the file nor the command says whose bars these are",
                "give --symbol S, or --symbol-column NAME for a file of several symbols",
            )
        return pl.Series("symbol", [names.only], dtype=pl.String).new_from_index(0, len(table.lines))
    theirs = table.columns[column]
    if options.symbol_column is not None:
        return names.of_rows(theirs, table.names[column])
    return _owners(theirs, table.names[column], names)


def _owners(theirs: pl.Series, name: str, names: SymbolNames) -> pl.Series:
    """Whose rows are whose by a column that nobody named. Where one symbol was given the column has to agree."""
    if names.only is None:
        return names.of_rows(theirs, name)
    text = theirs.cast(pl.String).str.strip_chars()
    there = [one for one in text.drop_nulls().unique(maintain_order=True) if one]
    others = [one for one in there if not names.means(one, names.only)]
    if others:
        shown = ", ".join(there[:_MOST_SYMBOLS_SHOWN]) + (" …" if len(there) > _MOST_SYMBOLS_SHOWN else "")
        remedy = f"give --symbol-column {name} instead of --symbol to import each row to its own symbol"
        if len(there) == 1:
            remedy = f"if these are bars of {names.only}, give --symbol {names.only}={there[0]}"
        raise StructuralFault(f"its column {name} says {shown}, and not {names.only}", remedy)
    return pl.Series("symbol", [names.only], dtype=pl.String).new_from_index(0, len(theirs))


def _symbol_column(table: Table, layout: Layout, options: ImportOptions) -> int | None:
    folded = [name.strip().casefold() for name in table.names]
    if options.symbol_column is not None:
        if options.symbol_column.casefold() not in folded:
            raise StructuralFault(
                f"it has no column {options.symbol_column}; found: {_shown(table.names)}",
                "name the column of symbols with --symbol-column",
            )
        return folded.index(options.symbol_column.casefold())
    wanted = [layout.symbol.casefold()] if layout.symbol else list(SYMBOL_NAMES)
    return next((folded.index(name) for name in wanted if name in folded), None)


def _read_part(
    table: Table,
    at: Mapping[str, int],
    symbols: pl.Series,
    dataset: Dataset,
    options: ImportOptions,
    layout: Layout,
    names: SymbolNames,
    fetched_at: datetime,
) -> ImportedFile:
    _check_period(table, layout, dataset)
    time_column = _time_column(table, at["time"], layout, options)
    times = read_times(time_column, options.time_zone, table.lines)
    spans = bar_times(times, dataset.calendar, dataset.interval, options.label)
    check_whole(table.columns[at["time"]], times, spans, dataset.interval)
    numbers = [_numbers(table.columns[at[ours]], ours, options.decimal) for ours in NUMBERS]
    frame = pl.concat([spans, symbols.to_frame(), *numbers], how="horizontal")
    closed = pl.col("close_time") <= fetched_at.astimezone(UTC)
    reason = pl.coalesce(
        pl.when(pl.col("symbol").is_null()).then(pl.lit(NO_SYMBOL)),
        # A time in range whose date no calendar can place.
        pl.coalesce("fault", pl.when(pl.col("open_time").is_null()).then(pl.lit(BAD_TIME))),
        *(pl.when(f"{ours}_bad").then(pl.lit(f"{BAD_NUMBER}: {ours}")) for ours in NUMBERS),
        pl.when(closed.not_()).then(pl.lit(UNFINISHED)),
    )
    frame = frame.with_columns(reason.alias("reason"), table.lines.alias("line"))
    bad = frame["reason"].is_not_null()
    bars = frame.filter(~bad).with_columns(
        pl.lit(None, pl.Float64).alias("vwap"),
        pl.lit(None, pl.Int64).alias("trade_count"),
        pl.lit(VENDOR).alias("vendor"),
        pl.lit(fetched_at, TIME).alias("fetched_at"),
        pl.lit(options.adjustment).alias("adjustment"),
    )
    rejected = frame.filter(bad).with_columns(
        table.raw_text(bad).alias("raw"),
        pl.when(pl.col("fault").is_null()).then("open_time").alias("open_time"),
        pl.col("symbol").fill_null(names.only or "").alias("symbol"),
    )
    bars = bars.select(RAW_SCHEMA.names()).cast(dict(RAW_SCHEMA))
    rejected = rejected.select(REJECTED_SCHEMA.names()).cast(dict(REJECTED_SCHEMA))
    return ImportedFile(bars, rejected, len(frame))


def _check_period(table: Table, layout: Layout, dataset: Dataset) -> None:
    if layout.period is None:
        return
    said = table.columns[table.names.index(layout.period)].str.strip_chars().unique()
    other = [PERIODS.get(one, one) for one in said.drop_nulls() if PERIODS.get(one, one) != dataset.interval]
    if other:
        raise StructuralFault(
            f"its column {layout.period} says {', '.join(sorted(other))}, the dataset has bars of {dataset.interval}",
            "import the file into a dataset of that interval",
        )


def _time_column(table: Table, at: int, layout: Layout, options: ImportOptions) -> pl.Series:
    """The times of the rows, as text with the year first or as the file types them."""
    column = table.columns[at]
    date_format = options.date_format or layout.date_format
    clock = table.columns[table.names.index(layout.clock)] if layout.clock else None
    if date_format is not None:
        text = column if clock is None else (column.cast(pl.String) + " " + clock.cast(pl.String)).alias(column.name)
        # A format of the date alone is meant for the column of dates.
        read = by_format(text, date_format)
        return by_format(column, date_format) if clock is not None and read.null_count() == len(read) else read
    if column.dtype != pl.String:
        return column
    column = year_first(column, table.lines)
    if clock is None:
        return column
    digits = clock.cast(pl.String).str.strip_chars().str.replace(r"^(\d{2})(\d{2})(\d{2})$", "$1:$2:$3")
    return (column.str.strip_chars() + " " + digits).alias(column.name)


def _match_columns(names: list[str], wanted: dict[str, str]) -> dict[str, int]:
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
            "name them with --columns ours=theirs,… (the first line of a CSV file has to be its header; "
            "for a file without one give --no-header)",
        )
    if doubled:
        raise StructuralFault(
            f"more than one column could be {'; '.join(doubled)}", "name the right one with --columns ours=theirs"
        )
    return matched


def _shown(names: list[str]) -> str:
    short = [name if len(name) <= 40 else name[:37] + "..." for name in names[:30]]
    return ", ".join(short) + (f" and {len(names) - 30} more" if len(names) > 30 else "")


def _is_empty(column: pl.Series) -> pl.Expr:
    """Whether each value says that there is none."""
    if column.dtype == pl.String:
        text = pl.lit(column).str.strip_chars()
        return text.is_null() | text.str.to_lowercase().is_in(_NO_VALUE)
    if column.dtype.is_numeric():
        return pl.lit(column).is_null() | pl.lit(column).is_nan().fill_null(False)
    return pl.lit(column).is_null()


def _numbers(column: pl.Series, ours: str, decimal: str) -> pl.DataFrame:
    """A column as Float64 named `ours`, and `<ours>_bad` where the file holds something that is no finite number."""
    if column.dtype == pl.String:
        value = _decimals(column.str.strip_chars(), decimal).cast(pl.Float64, strict=False)
    elif column.dtype.is_numeric() or column.dtype == pl.Null:
        value = column.cast(pl.Float64)
    else:
        raise StructuralFault(
            f"column {column.name} (for {ours}) holds {column.dtype}, not numbers",
            f"name another one with --columns {ours}=…",
        )
    finite = value.is_finite().fill_null(False)
    if finite.all():
        return pl.DataFrame({ours: value, f"{ours}_bad": ~finite})
    empty = pl.select(_is_empty(column)).to_series()
    return pl.DataFrame({ours: value.set(~finite, None), f"{ours}_bad": ~finite & ~empty})


def _decimals(text: pl.Series, decimal: str) -> pl.Series:
    """Numbers as they are written with this mark made into such with a point; null where the mark says otherwise."""
    if decimal == ".":
        return text
    value = pl.col(text.name)
    grouped = value.str.contains(_WITH_THOUSANDS)
    whole = pl.when(grouped).then(value.str.replace_all(r"[.' \u00a0\u202f]", "")).otherwise(value)
    # A point that sets no thousands apart is another country's decimal mark.
    plain = pl.when(whole.str.contains(".", literal=True).not_()).then(whole.str.replace(",", ".", literal=True))
    return text.to_frame().select(plain).to_series()

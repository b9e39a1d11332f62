"""Which option would take a file whose rows were rejected."""

from __future__ import annotations

import re

from quantlytic_assets.imports.dates import likely_format
from quantlytic_assets.imports.grids import FIELD_COUNT, QUOTES
from quantlytic_assets.imports.options import ImportOptions
from quantlytic_assets.imports.tables import BAD_NUMBER, NO_SYMBOL
from quantlytic_assets.imports.times import BAD_TIME, DATE_ALONE, REPEATED, SKIPPED, UNFINISHED


def advice(reason: str, raw: str, options: ImportOptions) -> str:
    """What to do about a row that was rejected for this reason; `raw` is its text."""
    if reason.startswith(BAD_NUMBER):
        column = reason.removeprefix(f"{BAD_NUMBER}: ")
        if options.decimal == "." and re.search(r"\d,\d", raw):
            return "if the comma is the decimal mark, give --decimal ,"
        if options.decimal == ",":
            return "if the point is the decimal mark, leave --decimal out"
        return f"if another column holds the numbers, name it with --columns {column}=…"
    if reason == BAD_TIME:
        return f"say how times are written, as with --date-format '{likely_format(raw) or '%d/%m/%Y %H:%M'}'"
    return {
        UNFINISHED: "if times mark the end of bars, give --label end; if they are not UTC, give --time-zone",
        DATE_ALONE: "import the file into a dataset of 1d bars",
        SKIPPED: "if times are of another zone, name it with --time-zone",
        REPEATED: "if times are of another zone, name it with --time-zone",
        NO_SYMBOL: "if another column holds the symbols, name it with --symbol-column",
        FIELD_COUNT: "rows need as many fields as the header; if decimals are commas, separate fields by semicolons",
        QUOTES: "close each quoted field on its own line",
    }.get(reason, "correct the rows and import the file again")

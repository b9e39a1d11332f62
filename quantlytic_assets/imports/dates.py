"""Dates that are not written year first: by a given format, or by what the whole file gives away.

31/12/2024 can only be day first, 12/31/2024 only month first; where no row of a file tells which, nothing is guessed.
"""

from __future__ import annotations

import polars as pl

from quantlytic_assets.imports.times import StructuralFault

_DAY_AND_MONTH = r"^(\d{1,2})([/.\-])(\d{1,2})[/.\-](\d{4})"
# Directives of a time of day, and of an offset from UTC. (%c and %s are a date and a time.)
_CLOCK = ("%H", "%I", "%M", "%S", "%p", "%X", "%T", "%R", "%c", "%f")
_OFFSET = "%z"


def by_format(column: pl.Series, date_format: str) -> pl.Series:
    """A column of text read by a strptime format: dates, times without a zone, or UTC; null where it does not fit."""
    if column.dtype != pl.String:
        if column.dtype.is_temporal():
            raise StructuralFault(f"column {column.name} holds times already, not text", "leave --date-format out")
        column = column.cast(pl.String)
    # A fraction is digits after a point here, where Python has up to six digits without one.
    fixed = date_format.replace(".%f", "%.f").replace("%f", "%6f")
    text = column.str.strip_chars()
    if any(hour in date_format for hour in ("%H", "%I")) and "%M" not in date_format:
        # An hour alone is the whole hour.
        fixed, text = fixed + " %M", text + " 00"
    try:
        if _OFFSET in date_format:
            return text.str.to_datetime(fixed, time_unit="us", strict=False, time_zone="UTC")
        if any(directive in date_format for directive in _CLOCK):
            return text.str.to_datetime(fixed, time_unit="us", strict=False)
        return text.str.to_date(fixed, strict=False)
    except pl.exceptions.ComputeError as error:
        first_line = str(error).partition("\n")[0]
        raise StructuralFault(
            f"--date-format {date_format} can't be used ({first_line})", "write it in full"
        ) from error


def year_first(column: pl.Series, lines: pl.Series) -> pl.Series:
    """A column of text with day-first or month-first dates turned to year first; any other text stays as it is.

    Which of the two it is follows from all rows together. Raises `StructuralFault` where they allow both or neither.
    """
    text = column.str.strip_chars()
    groups = text.str.extract_groups(_DAY_AND_MONTH).struct.unnest()
    first, second = (groups[name].cast(pl.Int32, strict=False) for name in ("1", "3"))
    if first.null_count() == len(first):
        return column
    day_first, month_first = (first > 12).fill_null(False), (second > 12).fill_null(False)
    if day_first.any() and month_first.any():
        where = f"line {lines[day_first.arg_max()]} has the day first, line {lines[month_first.arg_max()]} the month"
        raise StructuralFault(f"its dates are of two kinds: {where}", "split the file, and give each --date-format")
    some = first.is_not_null().arg_max()
    if not (day_first.any() or month_first.any()):
        mark = groups["2"][some]
        raise StructuralFault(
            f"its dates can be read day first and month first, such as {text[some]!r} (line {lines[some]})",
            f"say which with --date-format, as '{_with_clock(f'%d{mark}%m{mark}%Y', text[some])}' "
            f"or '{_with_clock(f'%m{mark}%d{mark}%Y', text[some])}'",
        )
    return text.str.replace(_DAY_AND_MONTH, "$4-$3-$1" if day_first.any() else "$4-$1-$3")


def likely_format(text: str) -> str | None:
    """The format of a time that could not be read, where its looks give it away; for advice only."""
    import re

    found = re.match(r"^(\d{1,4})([/.\- ])(\d{1,2}|[A-Za-z]{3,9})[/.\- ](\d{2,4})", text.strip())
    if not found:
        return None
    mark, second = found[2], found[3]
    month = "%m" if second.isdigit() else "%b" if len(second) == 3 else "%B"
    if len(found[1]) == 4:
        date = f"%Y{mark}{month}{mark}%d"
    else:
        day_first = month != "%m" or int(found[1]) > 12 or int(second) <= 12
        year = "%Y" if len(found[4]) == 4 else "%y"
        date = mark.join(("%d", month, year) if day_first else ("%m", "%d", year))
    return _with_clock(date, text)


def _with_clock(date_format: str, text: str) -> str:
    """A date's format with that of the time of day that follows the date in the text."""
    colons = text.count(":")
    if not colons:
        return date_format
    hour, half = ("%I", " %p") if text.strip()[-2:].upper() in ("AM", "PM") else ("%H", "")
    return f"{date_format} {hour}:%M" + (":%S" if colons > 1 else "") + half

"""What a user may say about a file of bars, checked before the file is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches

from quantlytic_assets.schemas.vocabulary import ADJUSTMENTS

LABELS = ("start", "end")
DECIMALS = (".", ",")
NUMBERS = ("open", "high", "low", "close", "volume")
OURS = ("time", *NUMBERS)

# A time in a format's own words that leaves no part of it open, to try a format with.
_SOME_TIME = datetime(2021, 11, 30, 22, 14, 15)


class OptionError(ValueError):
    """An option of an import that makes no sense, whatever the file holds."""


class ColumnsError(OptionError):
    """A `--columns` text that can't be read."""


@dataclass(frozen=True)
class ImportOptions:
    """How a file is to be read; each default is what most files need. Raises `OptionError` for what makes no sense.

    `columns`: ours (OURS) to the file's names. `time_zone` (IANA) is that of times without an offset, None: UTC.
    `label`: whether times mark a bar's start or end. `symbol_column`: the column that says whose each row is.
    `decimal`: the mark before decimals. `date_format`: how times are written (strptime), None: found out. `header`:
    whether the file names its columns; else they are `time,open,high,low,close,volume` by position.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    time_zone: str | None = None
    label: str = "start"
    adjustment: str = "none"
    symbol_column: str | None = None
    decimal: str = "."
    date_format: str | None = None
    header: bool = True

    def __post_init__(self) -> None:
        unknown = [ours for ours in self.columns if ours not in OURS]
        if unknown:
            raise ColumnsError(f"no columns of ours: {', '.join(unknown)}; ours are {', '.join(OURS)}")
        _check_choice("--label", self.label, LABELS)
        _check_choice("--adjustment", self.adjustment, ADJUSTMENTS)
        _check_choice("--decimal", self.decimal, DECIMALS)
        if self.time_zone is not None:
            _check_time_zone(self.time_zone)
        if self.date_format is not None:
            _check_date_format(self.date_format)
        if not self.header and (self.columns or self.symbol_column):
            raise OptionError(
                "--no-header takes columns by position (time,open,high,low,close,volume); "
                "leave --columns and --symbol-column out, or write a header line into the file"
            )


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


def _check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise OptionError(f"{option} {value}: take one of {', '.join(choices)}")


def _check_time_zone(time_zone: str) -> None:
    from zoneinfo import available_timezones

    known = available_timezones()
    if time_zone not in known:
        near = get_close_matches(time_zone, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "take an IANA name such as America/New_York"
        raise OptionError(f"--time-zone {time_zone}: no such time zone, {hint}")


def _check_date_format(date_format: str) -> None:
    """A format has to say the whole date: from what it writes of a time, the same date must be read."""
    try:
        read = datetime.strptime(_SOME_TIME.astimezone().strftime(date_format), date_format)
    except ValueError as error:
        raise OptionError(f"--date-format {date_format}: {error}; write it as %d/%m/%Y %H:%M") from error
    if read.date() != _SOME_TIME.date():
        raise OptionError(f"--date-format {date_format}: it needs day, month and year, such as %d/%m/%Y")

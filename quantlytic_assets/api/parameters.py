"""Parameters of requests as they are written, and what they mean. Raises `Problem` 422 saying what would be right."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from quantlytic_assets.api.problems import Problem
from quantlytic_assets.serving.rows import micros

# Before and after all times that a series can have, microseconds since 1970.
BEGINNING, END = -(2**62), 2**62
MOST_ROWS = 10_000
_DAY = 86_400_000_000
_LATEST = micros(datetime(9998, 1, 1, tzinfo=UTC))


def time_of(name: str, text: str) -> int:
    """A time in microseconds since 1970: ISO 8601, a date for its midnight, UTC without a zone; or epoch seconds."""
    try:
        if text.isdecimal() and len(text) in (10, 13, 16, 19):
            found = int(int(text) * 10.0 ** (16 - len(text)))
        else:
            # An unescaped + in a query is a space.
            found = micros(datetime.fromisoformat(text.strip().replace(" ", "+" if "T" in text else " ")))
    except (ValueError, OverflowError):
        raise Problem(
            422,
            f"{name}={text} is no time: write 2025-05-30, 2025-05-30T14:30:00Z or seconds since 1970.",
            parameter=name,
        ) from None
    if not -_LATEST < found < _LATEST:
        raise Problem(422, f"{name}={text} is further away than times are kept.", parameter=name)
    return found


def span_of(start: str | None, end: str | None) -> tuple[int, int]:
    """A half-open range of time [start, end) in microseconds since 1970; what is not given is open."""
    first = BEGINNING if start is None else time_of("start", start)
    last = END if end is None else time_of("end", end)
    if first >= last:
        raise Problem(422, f"start={start} is not before end={end}: a range is [start, end).", parameter="end")
    return first, last


def inclusive_span_of(start: str | None, end: str | None) -> tuple[int, int]:
    """The half-open range of one whose end is part of it, of a date with all of its time, as other vendors have it."""
    first = BEGINNING if start is None else time_of("start", start)
    last = END if end is None else time_of("end", end) + (_DAY if _is_date(end) else 1)
    if first >= last:
        raise Problem(422, f"start={start} is after end={end}.", parameter="end")
    return first, last


def _is_date(text: str) -> bool:
    try:
        return bool(date.fromisoformat(text))
    except ValueError:
        return False


def day_of(time: int) -> date:
    """The UTC day of a time; the first or last one that dates have for a time beyond them."""
    if time <= BEGINNING:
        return date.min
    if time >= END:
        return date.max
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)).date()


def session_of(text: str) -> date:
    """A session by its ISO date."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Problem(422, f"session={text} is no date: write 2025-05-30.", parameter="session") from None


def chosen(name: str, text: str, known: tuple[str, ...]) -> str:
    """One of the known values."""
    if text not in known:
        raise Problem(422, f"{name}={text} is none of {', '.join(known)}.", parameter=name, known=list(known))
    return text

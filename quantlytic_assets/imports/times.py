"""The times of a user's file: whatever a time column holds made into the open and close of bars.

Knows columns of values, not files; reading files is in `tables`. Nothing is guessed where two readings are possible:
such a row gets a fault, and a column that can't be read one way throughout is a `StructuralFault`.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import polars as pl

from quantlytic_assets.calendars.daily_bars import with_session_times
from quantlytic_assets.calendars.intervals import INTERVALS, TIME
from quantlytic_assets.calendars.sessions import (
    ROUND_THE_CLOCK,
    assign_sessions,
    calendar_timezone,
    expected_bars,
    session_table,
)

# Codes, not sentences: they are counted by value, and the row's own text stands beside them.
BAD_TIME = "bad_time"
SKIPPED = "time_skipped_by_clock_change"
REPEATED = "time_repeated_by_clock_change"
DATE_ALONE = "date_without_time"
UNFINISHED = "unfinished"

_EARLIEST, _LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
# Year first, whatever separates; month-first and day-first dates are for `dates`.
_TEXT_TIME = (
    r"^(?P<year>\d{4})(?:[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})|(?P<month2>\d{2})(?P<day2>\d{2}))"
    r"(?:[T\s]\s*(?P<clock>\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?))?"
    r"\s*(?P<zone>Z|z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?$"
)
_NUMBER = r"^[+-]?\d+(?:\.\d*)?(?:[eE]\+?\d+)?$"
_COMPACT_DATE = r"^(?:19|20)\d{6}$"
# An epoch's unit by its size: each bound is 1973-03-03 in the unit below it and beyond all bars in the unit above.
_SECONDS_FROM, _MILLIS_FROM, _MICROS_FROM, _NANOS_FROM = 1e8, 1e11, 1e14, 1e17
# How most programs write times. Text that is none of it is looked at sign by sign, which takes ten times as long.
_USUAL = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d")
_LEAP_SECOND = ":60"
# Whole numbers between these may be dates written as YYYYMMDD.
_COMPACT_FROM, _COMPACT_TO = 19_000_000, 21_000_000
# From so many bars on, a step that all times share is no chance.
_ENOUGH_BARS = 30


class StructuralFault(Exception):
    """A file that can't be read as bars at all: why (`reason`), and what its owner can do (`remedy`)."""

    def __init__(self, reason: str, remedy: str):
        super().__init__(reason, remedy)
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.reason}; {self.remedy}"


def read_times(column: pl.Series, time_zone: str | None, lines: pl.Series) -> pl.DataFrame:
    """What each value of a time column says, as a frame of the same height.

    moment (UTC): the time, for all but bare dates. bare (Date): the date of a value without a time of day. midnight
    (Date): the date of a bare date, or of a time at midnight of its own zone-less clock or of UTC. fault (String): why
    a value can't be used (BAD_TIME, SKIPPED, REPEATED), else null.

    Text is ISO 8601 in its usual spellings, or an epoch; numbers are epochs in s, ms, us or ns told apart by size (so
    none before 1973-03-03), or dates as YYYYMMDD. Times without an offset are in `time_zone`, UTC if None. Raises
    `StructuralFault` for a column that holds no times, or, without a `time_zone`, both times with an offset and
    times without; `lines` tells the message where.
    """
    parts = _parts(column)
    naive = pl.col("naive")
    zone = time_zone or "UTC"
    located = naive.dt.replace_time_zone(zone, ambiguous="null", non_existent="null").dt.convert_time_zone("UTC")
    earlier = naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    parts = parts.with_columns(located.alias("located"), (naive.is_not_null() & earlier.is_null()).alias("skipped"))
    if time_zone is None:
        _reject_mixture(parts, lines)
    moment = pl.coalesce("absolute", "located")
    usable = moment.is_between(_EARLIEST, _LATEST, closed="left") | (
        pl.col("bare").is_between(_EARLIEST.date(), _LATEST.date(), closed="left")
    )
    own_midnight = pl.when(naive.dt.time() == pl.time(0)).then(naive.dt.date())
    utc_midnight = pl.when(pl.col("absolute").dt.time() == pl.time(0)).then(pl.col("absolute").dt.date())
    return parts.select(
        moment.alias("moment"),
        "bare",
        pl.coalesce("bare", own_midnight, utc_midnight).alias("midnight"),
        pl.when("skipped")
        .then(pl.lit(SKIPPED))
        .when(naive.is_not_null() & pl.col("located").is_null())
        .then(pl.lit(REPEATED))
        .when(usable.fill_null(False).not_())
        .then(pl.lit(BAD_TIME))
        .alias("fault"),
    )


def _reject_mixture(parts: pl.DataFrame, lines: pl.Series) -> None:
    if parts["absolute"].null_count() < len(parts) and parts["naive"].null_count() < len(parts):
        with_offset, without = parts["absolute"].is_not_null().arg_max(), parts["naive"].is_not_null().arg_max()
        raise StructuralFault(
            f"it mixes times with an offset (line {lines[with_offset]}) and times without (line {lines[without]})",
            "give --time-zone to say where the times without one are from",
        )


def _parts(column: pl.Series) -> pl.DataFrame:
    """Columns absolute (UTC), naive (no zone), bare (Date): at most one of them is not null in a row."""
    kind = column.dtype
    nothing = {"absolute": pl.lit(None, TIME), "naive": pl.lit(None, pl.Datetime("us")), "bare": pl.lit(None, pl.Date)}
    value = pl.col("value")
    frame = column.alias("value").to_frame()
    if kind.is_integer() and column.is_between(_COMPACT_FROM, _COMPACT_TO).any() is False:
        frame, kind = frame.with_columns(value.cast(pl.Float64)), pl.Float64()
    if kind.is_integer() or kind.is_decimal():
        # As text, so that 20250510 is read as a date here too.
        frame, kind = frame.with_columns(value.cast(pl.String)), pl.String()
    if kind == pl.String:
        usual = _usual_times(column)
        return _text_parts(frame["value"]) if usual is None else _parts(usual)
    if kind.is_float():
        found = {"absolute": _epoch(value.cast(pl.Float64))}
    elif kind == pl.Date:
        found = {"bare": _sane(value, kind)}
    elif isinstance(kind, pl.Datetime) and kind.time_zone is None:
        found = {"naive": _sane(value, kind).dt.cast_time_unit("us")}
    elif isinstance(kind, pl.Datetime):
        found = {"absolute": _sane(value, kind).dt.cast_time_unit("us").dt.convert_time_zone("UTC")}
    else:
        raise StructuralFault(
            f"column {column.name} holds {kind}, which is no time", "name the time column with --columns time=…"
        )
    return frame.select(**{**nothing, **found})


def _sane(value: pl.Expr, kind: pl.DataType) -> pl.Expr:
    """Null for dates and times so far off that calendar arithmetic on them breaks down."""
    days = (_LATEST - datetime(1970, 1, 1, tzinfo=UTC)).days + 2
    a_day = 1 if kind == pl.Date else 86_400 * {"ms": 10**3, "us": 10**6, "ns": 10**9}[kind.time_unit]
    return pl.when(value.to_physical().cast(pl.Int64).is_between(-days * a_day, days * a_day)).then(value)


def _epoch(number: pl.Expr) -> pl.Expr:
    """An epoch (Float64) as a moment; null where it is too small to tell its unit."""
    size = number.abs()
    micros = (
        pl.when(size < _SECONDS_FROM)
        .then(None)
        .when(size < _MILLIS_FROM)
        .then((number * 1_000_000).round())
        .when(size < _MICROS_FROM)
        .then((number * 1_000).round())
        .when(size < _NANOS_FROM)
        .then(number.round())
        .otherwise((number / 1_000).round())
    )
    return micros.cast(pl.Int64, strict=False).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _usual_times(column: pl.Series) -> pl.Series | None:
    """The times of a column that is written in one of the usual ways throughout; None where it is not."""
    if column.null_count() or column.is_empty():
        return None
    first = column[0]
    if column.str.starts_with("+").any():
        return None
    numbers = column.cast(pl.Int64, strict=False) if first.isdigit() else None
    if numbers is not None and not numbers.null_count() and not numbers.is_between(_COMPACT_FROM, _COMPACT_TO).any():
        return numbers
    for usual in _USUAL:
        # A look at the first value alone costs nothing.
        if column.head(1).str.to_datetime(usual, strict=False).null_count():
            continue
        if usual == "%Y-%m-%d":
            times = column.str.to_date(usual, strict=False)
        else:
            times = column.str.to_datetime(usual, time_unit="us", strict=False)
        # A leap second would be the next minute's first, and text that ends early is not what it seems.
        if times.null_count() or column.str.contains(_LEAP_SECOND, literal=True).any():
            return None
        return times.dt.replace_time_zone("UTC") if usual.endswith("Z") else times
    return None


def _text_parts(values: pl.Series) -> pl.DataFrame:
    text = pl.col("value").str.strip_chars()
    frame = values.alias("value").to_frame().with_columns(text)
    number = pl.col("value").str.contains(_NUMBER) & pl.col("value").str.contains(_COMPACT_DATE).not_()
    as_number = pl.when(number).then("value")
    frame = frame.with_columns(
        # A double holds nanoseconds of today to within 0.13 us, so that microseconds come out exactly.
        _epoch(as_number.cast(pl.Float64, strict=False)).alias("epoch"),
        pl.col("value").str.extract_groups(_TEXT_TIME).alias("found"),
    ).unnest("found")
    day = pl.concat_str("year", pl.coalesce("month", "month2"), pl.coalesce("day", "day2"), separator="-")
    date_ = day.str.to_date("%Y-%m-%d", strict=False)
    # chrono would take 24:00 and a leap second for the next day's midnight.
    clock = pl.col("clock").str.replace(",", ".", literal=True)
    clock = pl.when(clock.str.contains(r"^(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.|$)|$)")).then(clock)
    clock = pl.when(clock.str.count_matches(":", literal=True) == 1).then(clock + ":00").otherwise(clock)
    local = pl.concat_str(day, clock, separator=" ").str.to_datetime(
        "%Y-%m-%d %H:%M:%S%.f", strict=False, time_unit="us"
    )
    digits = pl.col("zone").str.replace(":", "", literal=True)
    minutes = digits.str.slice(1, 2).cast(pl.Int64, strict=False).fill_null(0) * 60 + digits.str.slice(3, 2).cast(
        pl.Int64, strict=False
    ).fill_null(0)
    # The farthest clocks of the world are 14 hours from UTC.
    minutes = pl.when(minutes <= 15 * 60).then(minutes * pl.when(digits.str.starts_with("-")).then(-1).otherwise(1))
    has_zone = pl.col("zone").is_not_null()
    with_offset = (local - pl.duration(minutes=minutes)).dt.replace_time_zone("UTC")
    return frame.select(
        pl.coalesce("epoch", pl.when(has_zone).then(with_offset)).alias("absolute"),
        pl.when(has_zone.not_()).then(local).alias("naive"),
        pl.when(has_zone.not_() & pl.col("clock").is_null()).then(date_).alias("bare"),
    )


def in_words(column: pl.Series) -> pl.Series:
    """Any column as text, also where it holds times that no calendar knows: those as their number."""
    if not column.dtype.is_temporal() or column.dtype in (pl.Time, pl.Duration):
        return column.cast(pl.String)
    value = pl.col(column.name)
    sane = _sane(value, column.dtype)
    number = pl.when(sane.is_null()).then(value.to_physical())
    return column.to_frame().select(pl.coalesce(sane.cast(pl.String), number.cast(pl.String)))[column.name]


def bar_times(times: pl.DataFrame, calendar: str, interval: str, label: str) -> pl.DataFrame:
    """`read_times` made into open_time, close_time (UTC) and fault of each row, in its order.

    `label` says which of the two the file's times mark. A bar that the session's end cuts short closes with it.
    Intraday rows with a date alone get the fault DATE_ALONE. In a daily dataset a row that gives a date (or midnight,
    as many writers put dates) is that session, any other the session that its time falls in.
    """
    if interval == "1d":
        return _daily_times(times, calendar, label)
    step = INTERVALS[interval]
    open_time = pl.col("moment") if label == "start" else pl.col("moment") - step
    frame = times.with_columns(
        open_time.alias("open_time"),
        (open_time + step).alias("close_time"),
        pl.coalesce("fault", pl.when(pl.col("bare").is_not_null()).then(pl.lit(DATE_ALONE))).alias("fault"),
    )
    return _cut_short(frame, calendar, interval, label).select("open_time", "close_time", "fault")


def check_whole(column: pl.Series, times: pl.DataFrame, spans: pl.DataFrame, interval: str) -> None:
    """Raise `StructuralFault` for times that make sense one by one but not as bars of `interval`.

    That is where no row's time can be read, or where the file plainly holds bars of another interval (said only of
    30 bars or more, so that thin trading is not taken for it). `spans` is `bar_times` of `times`.
    """
    if len(spans) and spans["fault"].null_count() == 0 and spans["fault"].n_unique() == 1:
        if spans["fault"][0] == DATE_ALONE:
            raise StructuralFault(
                f"column {column.name} holds dates without a time of day, and the dataset has bars of {interval}",
                "import the file into a dataset of 1d bars",
            )
        if spans["fault"][0] == BAD_TIME:
            raise StructuralFault(
                f"no value of column {column.name} can be read as a time, the first is {in_words(column.head(1))[0]!r}",
                "say how they are written with --date-format, write them as YYYY-MM-DD HH:MM or as epochs, "
                "or name another column with --columns time=…",
            )
    moments = times.filter(spans["fault"].is_null())["moment"].drop_nulls().unique().sort()
    if len(moments) < _ENOUGH_BARS:
        return
    if interval == "1d":
        sessions = spans["open_time"].n_unique()
        if len(moments) > 2 * sessions:
            raise StructuralFault(
                f"it holds {len(moments)} times in {sessions} sessions, and the dataset has one bar a session",
                "import the file into an intraday dataset",
            )
        return
    coarser = [name for name, step in INTERVALS.items() if step > INTERVALS[interval]]
    gaps = moments.diff().drop_nulls().dt.total_microseconds()
    for name in reversed(coarser):
        if (gaps % (INTERVALS[name] // timedelta(microseconds=1)) == 0).all():
            raise StructuralFault(
                f"its bars lie {name} apart or a multiple of that, and the dataset has bars of {interval}",
                f"import the file into a dataset of {name} bars",
            )


def _cut_short(frame: pl.DataFrame, calendar: str, interval: str, label: str) -> pl.DataFrame:
    """Correct the bars that are shorter than the interval because a session or its first half ends in them."""
    usable = frame.filter(pl.col("fault").is_null())["open_time"]
    if calendar == ROUND_THE_CLOCK or usable.is_empty():
        return frame
    grid = expected_bars(calendar, interval, _day(usable.min(), -1), _day(usable.max(), 1))
    short = grid.filter(pl.col("close_time") - pl.col("open_time") < INTERVALS[interval])
    if short.is_empty():
        return frame
    key = "open_time" if label == "start" else "close_time"
    short = short.select(
        pl.col(key).alias("moment"), pl.col("open_time").alias("_open"), pl.col("close_time").alias("_close")
    )
    return frame.join(short, on="moment", how="left", maintain_order="left").with_columns(
        pl.coalesce("_open", "open_time").alias("open_time"), pl.coalesce("_close", "close_time").alias("close_time")
    )


def _daily_times(times: pl.DataFrame, calendar: str, label: str) -> pl.DataFrame:
    if label == "start":
        named, moment = pl.col("midnight"), pl.col("moment")
    else:
        # Midnight at the end of a bar is the end of the day before it; only a bare date names its own session.
        named, moment = pl.col("bare"), pl.col("moment") - timedelta(microseconds=1)
    frame = times.select(
        pl.when(pl.col("fault").is_null()).then(named).alias("named"),
        pl.when(pl.col("fault").is_null() & named.is_null()).then(moment).alias("moment"),
        "fault",
    )
    frame = frame.with_columns(pl.coalesce("named", _session_of(frame["moment"], calendar)).alias("session"))
    return with_session_times(frame, calendar).select("open_time", "close_time", "fault")


def _session_of(moments: pl.Series, calendar: str) -> pl.Series:
    """The session that holds each moment, else its exchange-local date, session or not."""
    known = moments.drop_nulls()
    if known.is_empty():
        return pl.Series("session", [None] * len(moments), dtype=pl.Date)
    table = session_table(calendar, _day(known.min(), -15), _day(known.max(), 2))
    held = assign_sessions(moments.alias("moment").to_frame(), calendar, "moment").join(
        table.select("session", "open_time", "close_time"), on="session", how="left", maintain_order="left"
    )
    inside = (pl.col("moment") >= pl.col("open_time")) & (pl.col("moment") < pl.col("close_time"))
    local = pl.col("moment").dt.convert_time_zone(calendar_timezone(calendar)).dt.date()
    return held.select(pl.when(inside).then("session").otherwise(local).alias("session"))["session"]


def _day(moment: datetime, days: int) -> date:
    return moment.date() + timedelta(days=days)

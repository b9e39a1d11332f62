"""The vendor `alpha_vantage`: bars of US and other listed shares as traded, from `/query`, with a key.

A free key has 25 questions a day and the latest 100 daily bars of a symbol, nothing else. A premium one
(`alpha_vantage_premium`) has the whole daily history in one answer, and 1m, 5m and 15m bars a month at a time. Bars of
an hour are asked for only where the exchange opens at a full hour: they are cut by the clock, so that New York's first
one would be half as long as it says. The answers of a free key tell neither splits nor dividends.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import polars as pl
from pydantic import SecretStr

from quantlytic_assets.calendars.daily_bars import with_session_times
from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.calendars.sessions import ROUND_THE_CLOCK, calendar_timezone, session_table
from quantlytic_assets.vendors.api_key import ApiKey
from quantlytic_assets.vendors.finished import check_interval, finished_bars
from quantlytic_assets.vendors.http import Answer, ask, numbers, open_session, start_of
from quantlytic_assets.vendors.parts import cut
from quantlytic_assets.vendors.protocol import BarRequest, Limit, Served, VendorError, VendorTraits
from quantlytic_assets.vendors.session_parts import opens_within_an_hour

_INTERVALS = {"1m": "1min", "5m": "5min", "15m": "15min", "1h": "60min"}
_COLUMNS = {"open": "1. open", "high": "2. high", "low": "3. low", "close": "4. close", "volume": "5. volume"}
_COMPACT_ROWS = 100
_FIRST_INTRADAY = datetime(2000, 1, 1, tzinfo=UTC)
# When the day of the quota ends is not documented. All its times are New York's, and midnight there comes after
# midnight UTC, the other likely end: whoever waits for it is not rejected again.
_QUOTA_ZONE = ZoneInfo("America/New_York")
# Users who left a second between questions were rejected now and then, those who left two were not.
_A_SECOND = 2.0
_A_MINUTE = 60.0


def _now() -> datetime:
    return datetime.now(UTC)


class AlphaVantageVendor:
    """See `Vendor`. `url` is the host's, scheme included; `clock` gives the time (UTC) and is there for tests."""

    name = "alpha_vantage"
    at_once = 1

    def __init__(
        self, url: str, key: SecretStr | None, premium: bool = False, clock: Callable[[], datetime] = _now
    ) -> None:
        self._url = url.rstrip("/") + "/query"
        self._key = ApiKey(key, "ALPHAVANTAGE_API_KEY")
        # Only parameters carry the key, and addresses are logged.
        self._key.keep_out_of_logs()
        self._premium = premium
        self._clock = clock
        self._session = open_session()
        # By the vendor's own notices to free keys (since December 2025); 75 a minute is the smallest premium plan.
        self.limits = (Limit(60, 75),) if premium else (Limit(1, 1), Limit(86_400, 25))

    def traits(self, dataset: str) -> VendorTraits:
        """Minutes without a trade are left out, as recordings show."""
        return VendorTraits(omits_empty_bars=True, attempts_before_hole=3)

    def weight(self, request: BarRequest) -> int:
        """See `Vendor.weight`."""
        return 1

    def unsupported(self, request: BarRequest) -> str | None:
        """See `Vendor.unsupported`: no key, or something that the key's plan does not have."""
        missing = self._key.unsupported()
        if missing is not None:
            return missing
        if request.calendar == ROUND_THE_CLOCK:
            return "it is asked for symbols of exchanges only"
        if not self._premium:
            upgrade = "; with a premium key set QUANTLYTIC_ALPHA_VANTAGE_PREMIUM=true"
            if request.interval != "1d":
                return f"a free key has daily bars only{upgrade}"
            if request.start < self._reach(request.calendar, _COMPACT_ROWS):
                return f"a free key has the latest {_COMPACT_ROWS} sessions only{upgrade}"
        elif request.interval != "1d" and request.start < _FIRST_INTRADAY:
            return "it has intraday bars since 2000"
        if request.interval == "1h" and opens_within_an_hour(request):
            return (
                f"its hours are cut by the clock, and {request.calendar} does not open at a full hour: ask for 15m bars"
            )
        return None

    def parts(self, request: BarRequest) -> list[BarRequest]:
        """See `Vendor.parts`: intraday by the exchange's month; daily whole, but for what a free key reaches."""
        if request.interval != "1d":
            return cut(request, _months(request))
        if self._premium or request.start >= self._reach(request.calendar, _COMPACT_ROWS):
            return [request]
        # One session less, so that the younger part is still within reach when the next one has begun meanwhile.
        return cut(request, [self._reach(request.calendar, _COMPACT_ROWS - 1)])

    def fetch(self, request: BarRequest) -> Served:
        """See `Vendor.fetch`; of intraday bars one month at most. There is neither vwap nor trade_count."""
        unsupported = self.unsupported(request)
        if unsupported is not None:
            raise VendorError(unsupported, retryable=False)
        params: dict[str, object] = {"symbol": request.name or request.symbol, "apikey": self._key.value}
        if request.interval == "1d":
            size = "full" if self._premium else "compact"
            params |= {"function": "TIME_SERIES_DAILY", "outputsize": size}
        else:
            if _months(request):
                raise VendorError("Alpha Vantage gives one month an answer, ask for less at once", retryable=False)
            local = request.start.astimezone(ZoneInfo(calendar_timezone(request.calendar)))
            params |= {
                "function": "TIME_SERIES_INTRADAY",
                "interval": _INTERVALS[request.interval],
                "month": f"{local:%Y-%m}",
                "outputsize": "full",
                "extended_hours": "false",
                "adjusted": "false",
            }
        try:
            answer = ask(self._session, self._url, params)
            return Served(self._bars(answer, request))
        except VendorError as error:
            raise self._key.without(error) from None

    def _reach(self, calendar: str, sessions: int) -> datetime:
        """From when on (UTC) bars are of the latest so many sessions: the end of the one before the oldest of them."""
        now = self._clock()
        table = session_table(
            calendar, (now - timedelta(days=3 * _COMPACT_ROWS)).date(), (now + timedelta(days=1)).date()
        )
        opened = table.filter(pl.col("open_time") <= now)["close_time"]
        return opened[-sessions - 1]

    def _bars(self, answer: Answer, request: BarRequest) -> pl.DataFrame:
        rows, zone = _series(answer, request.interval)
        labels = list(rows)
        frame = pl.DataFrame(
            [
                _times(labels, "%Y-%m-%d" if request.interval == "1d" else "%Y-%m-%d %H:%M:%S"),
                *(numbers(name, [row.get(theirs) for row in rows.values()]) for name, theirs in _COLUMNS.items()),
            ]
        )
        # No calendar knows the years that a mistake may name; the rest of a month says how its bars are labelled.
        around = timedelta(days=40)
        first, last = (edge.replace(tzinfo=None) for edge in (request.start - around, request.end + around))
        frame = frame.filter(pl.col("label").is_between(first, last))
        timed = _daily(frame, request) if request.interval == "1d" else _intraday(frame, request, zone)
        return finished_bars(timed, request, self.name, "none", answer.at)


def _months(request: BarRequest) -> list[datetime]:
    """Where months of the exchange's time begin inside of the request (UTC)."""
    zone = ZoneInfo(calendar_timezone(request.calendar))
    months = pl.date_range(
        request.start.astimezone(zone).date().replace(day=1), request.end.astimezone(zone).date(), "1mo", eager=True
    )
    starts = [datetime.combine(month, time(), zone).astimezone(UTC) for month in months]
    return [start for start in starts if request.start < start < request.end]


def _series(answer: Answer, interval: str) -> tuple[dict[str, dict], str]:
    """The rows of an answer by their label, and the time zone of those. Raises `VendorError` where there are none."""
    body = answer.body
    series = "Time Series (Daily)" if interval == "1d" else f"Time Series ({_INTERVALS[interval]})"
    if not isinstance(body, dict):
        raise VendorError("the answer is not an object", retryable=False)
    if series not in body:
        raise _notice(body, series, answer.at)
    rows, about = body[series], body.get("Meta Data")
    if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
        raise VendorError(f"{series} does not hold bars by their time", retryable=False)
    about = about if isinstance(about, dict) else {}
    if interval != "1d":
        said = [value for name, value in about.items() if name.endswith("Interval")]
        check_interval(said[0] if said else None, _INTERVALS[interval], interval)
    zones = [value for name, value in about.items() if name.endswith("Time Zone")]
    return rows, zones[0] if zones and isinstance(zones[0], str) else ""


def _notice(body: dict, series: str, at: datetime) -> VendorError:
    """What the vendor says instead of bars, always under status 200: why, and whether it may pass."""
    words = [body[name] for name in ("Information", "Note", "Error Message") if isinstance(body.get(name), str)]
    if not words:
        return VendorError(f"the answer has no {series}", retryable=False)
    text = " ".join(words)
    said, lower = start_of(text), text.lower()
    # A burst is told with the daily limit named beside it, as something that one could pay for: so it comes first.
    if "per second" in lower or "spreading out" in lower:
        return VendorError(f"too fast: {said}", retryable=True, retry_after=_A_SECOND)
    if "per minute" in lower:
        return VendorError(f"too fast: {said}", retryable=True, retry_after=_A_MINUTE)
    if "per day" in lower or "daily" in lower:
        local = at.astimezone(_QUOTA_ZONE)
        midnight = datetime.combine(local.date() + timedelta(days=1), time(), _QUOTA_ZONE)
        left = (midnight.astimezone(UTC) - at).total_seconds()
        return VendorError(f"the day's quota is used up: {said}", retryable=False, retry_after=left, opens_circuit=True)
    if "apikey" in lower or "api key" in lower:
        # No question with this key will do better; a minute is time to set another one.
        return VendorError(
            f"ALPHAVANTAGE_API_KEY is rejected: {said}", False, retry_after=_A_MINUTE, opens_circuit=True
        )
    return VendorError(f"answered: {said}", retryable=False)


def _times(labels: list[str], form: str) -> pl.Series:
    """Labels as times without a zone. Raises `VendorError` where one is none."""
    text = pl.Series("label", [label if label.isascii() else None for label in labels], dtype=pl.String)
    times = text.str.to_datetime(form, time_unit="us", strict=False)
    if times.null_count():
        raise VendorError("a bar's time is none", retryable=False)
    return times


def _daily(frame: pl.DataFrame, request: BarRequest) -> pl.DataFrame:
    return with_session_times(frame.with_columns(pl.col("label").dt.date().alias("session")), request.calendar)


def _intraday(frame: pl.DataFrame, request: BarRequest, zone: str) -> pl.DataFrame:
    """open_time and close_time (UTC) of bars labelled in a time zone."""
    if not zone or not zone.isascii():
        raise VendorError("the answer names no time zone that is known", retryable=False)
    try:
        local = pl.col("label").dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
        frame = frame.with_columns(local.dt.convert_time_zone("UTC"))
    except pl.exceptions.PolarsError:
        raise VendorError(f"the answer names no time zone that is known: {start_of(zone)}", retryable=False) from None
    if frame["label"].null_count():
        raise VendorError("a bar's time does not exist in its zone", retryable=False)
    step = INTERVALS[request.interval]
    shift = step if _labels_are_ends(frame["label"], request.calendar) else timedelta(0)
    opened = pl.col("label") - shift
    return frame.with_columns(opened.alias("open_time"), (opened + step).alias("close_time"))


def _labels_are_ends(labels: pl.Series, calendar: str) -> bool:
    """Whether regular bars are labelled by their end: 16:00 is there and 09:30 is not, in New York.

    Recordings up to 2021 are, those since 2022 have 09:30 to 15:59. Where an answer shows neither, it is taken for
    today's, which is also the safe way: a bar is at worst known a little late, and never before its time.
    """
    if labels.is_empty():
        return False
    day = timedelta(days=1)
    table = session_table(calendar, labels.min().date() - day, labels.max().date() + day)
    opens, closes = (labels.is_in(table[name].implode()).sum() for name in ("open_time", "close_time"))
    return closes > opens

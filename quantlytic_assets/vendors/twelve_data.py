"""The vendor `twelve_data`: bars of shares, currencies and crypto from `/time_series`, with a key.

Prices are asked for as traded (`adjust=none`; without it they are adjusted for splits). A free key has 8 questions a
minute and 800 a day, and regular hours only. Times are asked for in UTC and label a bar's start.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any

import polars as pl
from pydantic import SecretStr

from quantlytic_assets.calendars.daily_bars import with_session_times
from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.calendars.sessions import ROUND_THE_CLOCK
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.vendors.api_key import ApiKey
from quantlytic_assets.vendors.finished import check_interval, finished_bars
from quantlytic_assets.vendors.http import Answer, ask, numbers, open_session, start_of
from quantlytic_assets.vendors.protocol import BarRequest, Limit, Served, VendorError, VendorTraits
from quantlytic_assets.vendors.session_parts import parts_of_sessions

_INTERVALS = {"1m": "1min", "5m": "5min", "15m": "15min", "1h": "1h", "1d": "1day"}
_NUMBERS = ("open", "high", "low", "close", "volume")
_MOST_ROWS = 5000
# A little less is asked for: bars outside of the calendar's hours would push the oldest ones out of the answer.
_BARS = 4800
_NO_DATA = "no data is available on the specified dates"
_KEY_REJECTED_FOR = 60.0


def twelve_data_name(symbol: str, calendar: str) -> str:
    """What Twelve Data calls a symbol: a pair that is traded round the clock has a slash. BTC-USD is BTC/USD."""
    return symbol.upper().replace("-", "/") if calendar == ROUND_THE_CLOCK else symbol.upper()


class TwelveDataVendor:
    """See `Vendor`. `url` is the host's, scheme included."""

    name = "twelve_data"
    # A free key's, in credits; one symbol's bars are one credit.
    limits = (Limit(60, 8), Limit(86_400, 800))
    at_once = 1

    def __init__(self, url: str, key: SecretStr | None):
        self._url = url.rstrip("/") + "/time_series"
        self._key = ApiKey(key, "TWELVEDATA_API_KEY")
        self._session = open_session()
        self._session.headers["Authorization"] = f"apikey {self._key.value}"

    def traits(self, dataset: str) -> VendorTraits:
        """Minutes without a trade are left out."""
        return VendorTraits(omits_empty_bars=True, attempts_before_hole=3)

    def weight(self, request: BarRequest) -> int:
        """See `Vendor.weight`: one credit a symbol, by Twelve Data's documentation."""
        return 1

    def unsupported(self, request: BarRequest) -> str | None:
        """See `Vendor.unsupported`: only a missing key; what a plan lacks is said when it is asked for."""
        return self._key.unsupported()

    def parts(self, request: BarRequest) -> list[BarRequest]:
        """See `Vendor.parts`: as many sessions as an answer of 5,000 rows holds."""
        return parts_of_sessions(request, _BARS)

    def fetch(self, request: BarRequest) -> Served:
        """See `Vendor.fetch`; 5,000 bars at most. There is neither vwap nor trade_count."""
        unsupported = self.unsupported(request)
        if unsupported is not None:
            raise VendorError(unsupported, retryable=False)
        if len(self.parts(request)) > 1:
            raise VendorError(f"Twelve Data gives {_MOST_ROWS} bars an answer, ask for less at once", retryable=False)
        try:
            answer = ask(self._session, self._url, _params(request))
            return Served(_bars(_values(answer.body, answer.at, request.interval), answer, request))
        except VendorError as error:
            if _NO_DATA in str(error).lower():
                return Served(pl.DataFrame(schema=RAW_SCHEMA))
            raise self._key.without(_understood(error, datetime.now(UTC))) from None


def _params(request: BarRequest) -> dict[str, object]:
    params: dict[str, object] = {
        "symbol": request.name or twelve_data_name(request.symbol, request.calendar),
        "interval": _INTERVALS[request.interval],
        "order": "ASC",
        "outputsize": _MOST_ROWS,
        "adjust": "none",
    }
    if request.interval == "1d":
        # Days of the exchange, and whether the last one is included depends: a day more each way, for us to cut.
        day = timedelta(days=1)
        first, last = (request.start - day).date(), (request.end + 2 * day).date()
        return params | {"start_date": first.isoformat(), "end_date": last.isoformat()}
    start, end = (f"{edge.astimezone(UTC):%Y-%m-%dT%H:%M:%S}" for edge in (request.start, request.end))
    return params | {"start_date": start, "end_date": end, "timezone": "UTC"}


def _understood(error: VendorError, at: datetime) -> VendorError:
    """An HTTP error of Twelve Data's with what its words and its number mean; others as they are."""
    text = str(error)
    if text.startswith("HTTP 429") and error.retry_after is None:
        return _credits(text, at)
    if text.startswith("HTTP 401"):
        return _key_rejected(text)
    return error


def _values(body: Any, at: datetime, interval: str) -> list[dict]:
    """The bars of an answer. Errors come under status 200 too, and so might bars of another interval."""
    if not isinstance(body, dict):
        raise VendorError("the answer is not an object", retryable=False)
    if "code" in body or body.get("status") == "error":
        code, said = body.get("code"), start_of(f"{body.get('code')} {body.get('message', '')}")
        if code == 429:
            raise _credits(said, at)
        if code == 401:
            raise _key_rejected(said)
        raise VendorError(f"answered an error: {said}", retryable=type(code) is int and code >= 500)
    if "values" not in body:
        raise VendorError("the answer has no values", retryable=False)
    meta = body.get("meta")
    check_interval(meta.get("interval") if isinstance(meta, dict) else None, _INTERVALS[interval], interval)
    values = body["values"] if body["values"] is not None else []
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise VendorError("the values are not a list of bars", retryable=False)
    if len(values) >= _MOST_ROWS:
        raise VendorError(f"the answer is full with {len(values)} bars and may lack some", retryable=False)
    return values


def _credits(said: str, at: datetime) -> VendorError:
    """The minute's credits are back with the next minute of the clock, the day's with the next day in UTC."""
    if "for the day" in said.lower():
        tomorrow = datetime.combine(at.astimezone(UTC).date() + timedelta(days=1), time(), UTC)
        left = (tomorrow - at).total_seconds()
        return VendorError(
            f"the day's credits are used up: {said}", retryable=False, retry_after=left, opens_circuit=True
        )
    return VendorError(f"the minute's credits are used up: {said}", retryable=True, retry_after=61.0 - at.second)


def _key_rejected(said: str) -> VendorError:
    # No question with this key will do better; a minute is time to set another one.
    return VendorError(
        f"TWELVEDATA_API_KEY is rejected: {said}", False, retry_after=_KEY_REJECTED_FOR, opens_circuit=True
    )


def _bars(values: list[dict], answer: Answer, request: BarRequest) -> pl.DataFrame:
    """RAW_SCHEMA rows of an answer. Numbers that are none become nulls, for cleaning to reject."""
    frame = pl.DataFrame(
        [
            _times([value.get("datetime") for value in values], request.interval),
            *(numbers(name, [value.get(name) for value in values]) for name in _NUMBERS),
        ]
    )
    if request.interval == "1d":
        # Before their sessions are looked up: no calendar knows the years that a mistake may name.
        around = timedelta(days=2)
        near = pl.col("session").is_between((request.start - around).date(), (request.end + around).date())
        frame = with_session_times(frame.filter(near), request.calendar)
    else:
        frame = frame.with_columns((pl.col("open_time") + INTERVALS[request.interval]).alias("close_time"))
    return finished_bars(frame, request, TwelveDataVendor.name, "none", answer.at)


def _times(given: list[object], interval: str) -> pl.Series:
    """`session` (Date) of daily bars, `open_time` (UTC) of others. Raises `VendorError` where one is none."""
    text = pl.Series([one if isinstance(one, str) and one.isascii() else None for one in given], dtype=pl.String)
    form = "%Y-%m-%d" if interval == "1d" else "%Y-%m-%d %H:%M:%S"
    times = text.str.to_datetime(form, time_unit="us", strict=False)
    if times.null_count():
        raise VendorError("datetime is not always a time", retryable=False)
    return (
        times.dt.date().alias("session") if interval == "1d" else times.dt.replace_time_zone("UTC").alias("open_time")
    )

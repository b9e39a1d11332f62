"""The vendor `yahoo`: bars, splits and dividends of Yahoo Finance's chart endpoint, which needs no key.

The endpoint is asked directly and not through yfinance, whose tables are made for people: rows with gaps vanish there,
a live quote is merged into the last bar, errors become log lines, and neither status nor Retry-After comes out. What
is known of the endpoint is not published but observed: it answers without a cookie to whoever names a browser of
today; where it wants cookie and crumb after all, they are got once.

Prices and volume are adjusted for splits (`split`), those that came after the bar too, so that history changes with
every split. Its column adjclose, adjusted for dividends as well, is not kept: `market_data.adjustment` makes such
prices from the dividends, as of any day. Treasury yields (^IRX, ^FVX, ^TNX, ^TYX) are symbols like others, in percent.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

import polars as pl
import requests

from quantlytic_assets.calendars.sessions import calendar_timezone
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.vendors.http import answer_of, error_of, get, open_session, retry_after, start_of
from quantlytic_assets.vendors.parts import by_length, cut
from quantlytic_assets.vendors.protocol import BarRequest, Limit, Served, VendorError, VendorTraits
from quantlytic_assets.vendors.yahoo_chart import VENDOR, Chart

# Who names no browser, or one of years ago, gets 429 at once.
_AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36"
_COOKIES = "https://fc.yahoo.com"
# As its own errors say: "must be within the last 30 days", "Only 8 days worth of 1m granularity". It was seven days
# once, and seven do no harm.
_LOOK_BACK = {"1m": timedelta(days=30), "5m": timedelta(days=60), "15m": timedelta(days=60), "1h": timedelta(days=730)}
_MOST_OF_1M = timedelta(days=7)
# A range is cut this far inside the look-back, so that its younger part can still be asked for a while later.
_MARGIN = timedelta(hours=1)
# A daily bar of a currency is stamped with London's midnight, which in summer is before that of UTC.
_DAY_BEGINS_EARLIER = timedelta(hours=12)
_NO_DATA = "Data doesn't exist for startDate"
_UNAUTHORIZED = (401, 403)
# 999 is what Yahoo calls "request denied".
_TOO_MANY = (429, 999)
_SHARE_CLASS = re.compile(r"[A-Z]+\.[A-Z]")


def yahoo_name(symbol: str, calendar: str) -> str:
    """What Yahoo calls a symbol: BRK-B for a US share class BRK.B; else just that, as BTC-USD, ^TNX or AET.L."""
    name = symbol.upper()
    # Elsewhere a letter after a dot is the exchange.
    if _SHARE_CLASS.fullmatch(name) and calendar_timezone(calendar) == "America/New_York":
        return name.replace(".", "-")
    return name


class YahooVendor:
    """See `Vendor`. `url` is the host's, scheme included; `clock` tells the time and is there for tests."""

    name = VENDOR
    # None are published. 2,000 an hour and address was the limit of Yahoo's public API of old; users who went beyond
    # what is allowed now tell of rejections that lasted for hours (github.com/ranaroussi/yfinance/issues/2422).
    limits = (Limit(60, 60), Limit(3600, 1500))
    at_once = 2

    def __init__(self, url: str, clock: Callable[[], datetime] = lambda: datetime.now(UTC)):
        self._url = url.rstrip("/")
        self._clock = clock
        self._session = open_session()
        self._session.headers["User-Agent"] = _AGENT
        self._crumb: str | None = None
        self._renewing = threading.Lock()

    def traits(self, dataset: str) -> VendorTraits:
        """No bar, or one of nulls, where there was no trade."""
        return VendorTraits(omits_empty_bars=True, attempts_before_hole=3)

    def parts(self, request: BarRequest) -> list[BarRequest]:
        """See `Vendor.parts`: decades of 1d bars at once, a week of 1m ones; older than the look-back by itself."""
        parts, oldest = [request], self._oldest(request.interval)
        if oldest is not None and request.start < oldest:
            hour = oldest.replace(minute=0, second=0, microsecond=0)
            parts = cut(request, [hour + timedelta(hours=1) + _MARGIN])
        if request.interval == "1m":
            parts = [piece for part in parts for piece in by_length(part, _MOST_OF_1M)]
        return parts

    def weight(self, request: BarRequest) -> int:
        """See `Vendor.weight`. The two calls for a crumb, if ever, are not counted."""
        return 1

    def unsupported(self, request: BarRequest) -> str | None:
        """See `Vendor.unsupported`: intraday bars are kept for some weeks or months."""
        oldest = self._oldest(request.interval)
        if oldest is None or request.start >= oldest:
            return None
        days = _LOOK_BACK[request.interval].days
        return f"Yahoo has {request.interval} bars of the last {days} days only, from {oldest:%Y-%m-%d} on"

    def _oldest(self, interval: str) -> datetime | None:
        return self._clock() - _LOOK_BACK[interval] if interval in _LOOK_BACK else None

    def fetch(self, request: BarRequest) -> Served:
        """See `Vendor.fetch`. Splits and dividends of the range come along, dividends adjusted for splits.

        The last bar of a chart may be a live quote, stamped with its own time: it is left out. Where a session is over
        and Yahoo has nothing but that of it, which lacks a good part of the volume for some hours, `VendorError` says
        so, unless there are bars of other sessions; their answer holds then, and the session is asked for again.
        """
        name = request.name or yahoo_name(request.symbol, request.calendar)
        response = self._chart(request, name)
        if response.status_code != 200:
            _, said = _error(_body(response))
            if said.startswith(_NO_DATA):
                return Served(pl.DataFrame(schema=RAW_SCHEMA))
            raise _error_of(response, name, said)
        answer = answer_of(response)
        code, said = _error(answer.body)
        if code:
            raise VendorError(f"answered an error: {start_of(f'{code}: {said}')}", retryable=False)
        chart = Chart(answer.body, request)
        bars = chart.daily_bars(answer.at) if request.interval == "1d" else chart.intraday_bars(answer.at)
        return Served(bars, chart.actions(answer.at))

    def _chart(self, request: BarRequest, name: str) -> requests.Response:
        earlier = _DAY_BEGINS_EARLIER if request.interval == "1d" else timedelta(0)
        params = {
            "period1": int((request.start - earlier).timestamp()),
            # What begins at this second is served as well.
            "period2": -int(-request.end.timestamp() // 1),
            "interval": request.interval,
            "includePrePost": "false",
            "events": "div,splits",
        }
        url = f"{self._url}/v8/finance/chart/{quote(name, safe='')}"
        crumb = self._crumb
        response = get(self._session, url, params | ({} if crumb is None else {"crumb": crumb}))
        if response.status_code in _UNAUTHORIZED:
            with self._renewing:
                # Cookie and crumb belong together: who was rejected with the same ones waits for the new ones.
                if self._crumb == crumb:
                    self._crumb = self._new_crumb()
            response = get(self._session, url, params | {"crumb": self._crumb})
        return response

    def _new_crumb(self) -> str:
        """A token that belongs to a cookie, both for a year or so."""
        self._session.cookies.clear()
        ours = (urlsplit(self._url).hostname or "").endswith("yahoo.com")
        # Answers 404, with the cookie.
        get(self._session, _COOKIES if ours else self._url)
        response = get(self._session, f"{self._url}/v1/test/getcrumb")
        crumb = response.text.strip()
        if response.status_code in _TOO_MANY:
            raise _error_of(response, "crumb", "")
        if response.status_code != 200 or not crumb or len(crumb) > 64 or any(char in crumb for char in "<{ "):
            raise VendorError(f"wants a crumb, and gives none: {start_of(response.text)}", retryable=True)
        return crumb


def _body(response: requests.Response) -> Any:
    try:
        return json.loads(response.text)
    except (ValueError, RecursionError):
        return None


def _error(body: Any) -> tuple[str, str]:
    """Code and description of an error in Yahoo's own shape, which comes under 200 too; empty where there is none."""
    for part in ("chart", "finance"):
        inside = body.get(part) if isinstance(body, dict) else None
        error = inside.get("error") if isinstance(inside, dict) else None
        if error is not None:
            words = error if isinstance(error, dict) else {"description": error}
            code, said = (words.get(word) for word in ("code", "description"))
            return str(code or "error"), str(said or code or "")
    return "", ""


def _error_of(response: requests.Response, name: str, said: str) -> VendorError:
    status = response.status_code
    if status in _UNAUTHORIZED:
        # With a new cookie and crumb too: it is not about this symbol.
        return VendorError(f"HTTP {status}, shut out: {start_of(said or response.text)}", True, opens_circuit=True)
    if status in _TOO_MANY and retry_after(response) is None:
        # It lasts for minutes at least, and asking on makes it longer.
        return VendorError(
            f"HTTP {status}, too many requests: {start_of(said or response.text)}", True, opens_circuit=True
        )
    if status == 404 and said:
        return VendorError(
            f"Yahoo knows no {name} ({start_of(said)}); where it has another name for it, write names: {{yahoo: …}}"
            " beside the symbol in the universe",
            retryable=False,
        )
    return error_of(response, start_of(said) if said else "")

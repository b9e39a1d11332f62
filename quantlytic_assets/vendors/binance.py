"""The vendor `binance`: spot bars of Binance's REST endpoint `/api/v3/klines`, which needs no key.

Prices are as traded; a minute without a trade is served as a flat bar without volume. The live streams are in `feeds`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import polars as pl
import requests

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.market_data.stream.messages import micros
from quantlytic_assets.vendors.binance_klines import COLUMNS, COLUMNS_SENT, kline_bars
from quantlytic_assets.vendors.http import (
    Answer,
    answer_of,
    error_of,
    get,
    numbers,
    open_session,
    start_of,
    whole_numbers,
)
from quantlytic_assets.vendors.parts import by_bars
from quantlytic_assets.vendors.protocol import BarRequest, Limit, Served, VendorError, VendorTraits

_LIMIT = 1000
_WEIGHT = 2
# Binance counts weight a minute and address, 6,000 at most, and bans who goes on beyond; others may share the address.
_ENOUGH_WEIGHT = 5_000
_TOO_MANY_REQUESTS = -1003
# Who goes on within the minute is banned.
_A_MINUTE = 60.0


def binance_name(symbol: str) -> str:
    """What Binance calls a symbol: without the dash, and priced in USDT where it says USD. BTC-USD is BTCUSDT."""
    base, dash, quote = symbol.upper().partition("-")
    return f"{base}{'USDT' if quote == 'USD' else quote}" if dash else base


class BinanceVendor:
    """See `Vendor`. `url` is the host's, scheme included; `sleep` waits when the weight of a minute is used up."""

    name = "binance"
    limits = (Limit(60, _ENOUGH_WEIGHT),)
    at_once = 4

    def __init__(self, url: str, sleep: Callable[[float], None] = time.sleep):
        self._url = url.rstrip("/") + "/api/v3/klines"
        self._session = open_session()
        self._sleep = sleep

    def traits(self, dataset: str) -> VendorTraits:
        """Minutes without a trade are served, so that a missing one is an outage of Binance's, or not there yet."""
        return VendorTraits(omits_empty_bars=False, attempts_before_hole=3)

    def parts(self, request: BarRequest) -> list[BarRequest]:
        """See `Vendor.parts`."""
        return by_bars(request, _LIMIT)

    def weight(self, request: BarRequest) -> int:
        """See `Vendor.weight`: 2 for a page of klines, by Binance's documentation."""
        return _WEIGHT

    def unsupported(self, request: BarRequest) -> str | None:
        """See `Vendor.unsupported`: all intervals and ages are served."""
        return None

    def fetch(self, request: BarRequest) -> Served:
        """See `Vendor.fetch`; 1,000 bars at most."""
        step = INTERVALS[request.interval]
        if request.end - request.start > _LIMIT * step:
            raise VendorError(f"Binance gives {_LIMIT} bars an answer, ask for less at once", retryable=False)
        response = get(
            self._session,
            self._url,
            {
                "symbol": request.name or binance_name(request.symbol),
                "interval": request.interval,
                "startTime": micros(request.start) // 1000,
                # Inclusive, where ours is not.
                "endTime": micros(request.end) // 1000 - 1,
                "limit": _LIMIT,
            },
        )
        if response.status_code != 200:
            raise _error_of(response)
        answer = answer_of(response)
        self._heed_weight(answer)
        return Served(_bars(answer, request))

    def _heed_weight(self, answer: Answer) -> None:
        """Wait for the next minute when this one's weight is nearly used up."""
        used = answer.headers.get("X-MBX-USED-WEIGHT-1M", "")
        if used.isdigit() and int(used) >= _ENOUGH_WEIGHT:
            self._sleep(61 - answer.at.second)


def _error_of(response: requests.Response) -> VendorError:
    if response.status_code == 403:
        # By its documentation a ban of its firewall's, which does not say for how long.
        said = start_of(response.text)
        return VendorError(f"HTTP 403, its firewall shuts this address out: {said}", False, opens_circuit=True)
    error = error_of(response)
    if response.status_code == 429 and error.retry_after is None:
        return VendorError(str(error), error.retryable, _A_MINUTE)
    return error


def _bars(answer: Answer, request: BarRequest) -> pl.DataFrame:
    """RAW_SCHEMA rows of an answer. Numbers that are none become nulls, for cleaning to reject."""
    rows = _rows(answer.body)
    if not rows:
        return pl.DataFrame(schema=RAW_SCHEMA)
    columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=False))
    opened = whole_numbers("open_time", columns["open_time"])
    klines = pl.DataFrame([opened, *(numbers(name, columns[name]) for name in COLUMNS[1:])])
    return kline_bars(klines, request, answer.at, BinanceVendor.name)


def _rows(body: Any) -> list[list]:
    if isinstance(body, dict) and "code" in body:
        said = start_of(f"{body['code']} {body.get('msg', '')}")
        busy = body["code"] == _TOO_MANY_REQUESTS
        raise VendorError(f"answered an error: {said}", retryable=busy, retry_after=_A_MINUTE if busy else None)
    if not isinstance(body, list) or not all(isinstance(row, list) and len(row) == COLUMNS_SENT for row in body):
        raise VendorError("the answer is not a list of klines", retryable=False)
    return body

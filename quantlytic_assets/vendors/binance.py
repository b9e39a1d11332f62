"""The vendor `binance`: spot bars of Binance's REST endpoint `/api/v3/klines`, which needs no key.

Prices are as traded; a minute without a trade is served as a flat bar without volume. The live streams are in `feeds`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from quantlytic_assets.market_data.bars import INTERVALS, RAW_SCHEMA
from quantlytic_assets.market_data.stream import micros
from quantlytic_assets.market_data.trade_bars import vwap
from quantlytic_assets.vendors.http import Answer, ask, numbers, open_session, start_of, whole_numbers
from quantlytic_assets.vendors.protocol import BarRequest, Limit, Served, VendorError, VendorTraits

_LIMIT = 1000
_WEIGHT = 2
# Binance counts weight a minute and address, 6,000 at most, and bans who goes on beyond; others may share the address.
_ENOUGH_WEIGHT = 5_000
_TOO_MANY_REQUESTS = -1003
# A kline's fields, by Binance's documentation of the endpoint.
_COLUMNS = ("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "trade_count")
_COLUMNS_SENT = 12
# Times are milliseconds, or microseconds since 2025 where those are asked for and in files: 1e14 ms is the year 5138.
_LEAST_MICROSECONDS = 100_000_000_000_000


def binance_name(symbol: str) -> str:
    """What Binance calls a symbol: without the dash, and priced in USDT where it says USD. BTC-USD is BTCUSDT."""
    base, dash, quote = symbol.upper().partition("-")
    return f"{base}{'USDT' if quote == 'USD' else quote}" if dash else base


class BinanceVendor:
    """See `Vendor`. `url` is the host's, scheme included; `sleep` waits when the weight of a minute is used up."""

    name = "binance"
    limits = (Limit(60, _ENOUGH_WEIGHT),)

    def __init__(self, url: str, sleep: Callable[[float], None] = time.sleep):
        self._url = url.rstrip("/") + "/api/v3/klines"
        self._session = open_session()
        self._sleep = sleep

    def traits(self, dataset: str) -> VendorTraits:
        """Minutes without a trade are served, so that a missing one is an outage of Binance's, or not there yet."""
        return VendorTraits(omits_empty_bars=False, attempts_before_hole=3, bars_per_request=_LIMIT)

    def weight(self, request: BarRequest) -> int:
        """See `Vendor.weight`: 2 for a page of klines, by Binance's documentation."""
        return _WEIGHT

    def refusal(self, request: BarRequest) -> str | None:
        """See `Vendor.refusal`: all intervals and ages are served."""
        return None

    def fetch(self, request: BarRequest) -> Served:
        """See `Vendor.fetch`; 1,000 bars at most."""
        step = INTERVALS[request.interval]
        if request.end - request.start > _LIMIT * step:
            raise VendorError(f"Binance gives {_LIMIT} bars an answer, ask for less at once", retryable=False)
        answer = ask(
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
        self._heed_weight(answer)
        return Served(_bars(answer, request, step))

    def _heed_weight(self, answer: Answer) -> None:
        """Wait for the next minute when this one's weight is nearly used up."""
        used = answer.headers.get("X-MBX-USED-WEIGHT-1M", "")
        if used.isdigit() and int(used) >= _ENOUGH_WEIGHT:
            self._sleep(61 - answer.at.second)


def _bars(answer: Answer, request: BarRequest, step: timedelta) -> pl.DataFrame:
    """RAW_SCHEMA rows of an answer. Numbers that are none become nulls, for cleaning to refuse."""
    rows = _rows(answer.body)
    if not rows:
        return pl.DataFrame(schema=RAW_SCHEMA)
    columns = dict(zip(_COLUMNS, zip(*rows, strict=True), strict=False))
    opened = whole_numbers("open_time", columns["open_time"])
    micro = pl.when(pl.col("open_time") < _LEAST_MICROSECONDS).then(pl.col("open_time") * 1000).otherwise("open_time")
    return (
        pl.DataFrame([opened, *(numbers(name, columns[name]) for name in (*_COLUMNS[1:6], *_COLUMNS[7:]))])
        .with_columns(
            micro.cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            pl.col("trade_count").cast(pl.Int64, strict=False),
        )
        .with_columns(
            pl.lit(request.symbol).alias("symbol"),
            (pl.col("open_time") + step).alias("close_time"),
            vwap(pl.col("quote_volume"), pl.col("volume")).alias("vwap"),
            pl.lit(BinanceVendor.name).alias("vendor"),
            pl.lit(datetime.now(UTC)).cast(RAW_SCHEMA["fetched_at"]).alias("fetched_at"),
            pl.lit("none").alias("adjustment"),
        )
        .filter(
            pl.col("open_time") >= request.start, pl.col("open_time") < request.end, pl.col("close_time") <= answer.at
        )
        .sort("open_time", maintain_order=True)
        .select(RAW_SCHEMA.names())
    )


def _rows(body: Any) -> list[list]:
    if isinstance(body, dict) and "code" in body:
        said = start_of(f"{body['code']} {body.get('msg', '')}")
        raise VendorError(f"answered an error: {said}", retryable=body["code"] == _TOO_MANY_REQUESTS)
    if not isinstance(body, list) or not all(isinstance(row, list) and len(row) == _COLUMNS_SENT for row in body):
        raise VendorError("the answer is not a list of klines", retryable=False)
    return body

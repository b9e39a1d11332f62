"""The vendor `coinbase`: spot bars of Coinbase Exchange's public endpoint `/products/<id>/candles`.

Prices are as traded; a minute without a trade is left out. The live streams are in `feeds`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import polars as pl

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.vendors.finished import finished_bars
from quantlytic_assets.vendors.http import ask, numbers, open_session, whole_numbers
from quantlytic_assets.vendors.parts import by_bars
from quantlytic_assets.vendors.protocol import BarRequest, Limit, Served, VendorError, VendorTraits

_LIMIT = 300
# In the endpoint's order, which is not the usual one: low and high come before the open.
_COLUMNS = ("open_time", "low", "high", "open", "close", "volume")


def coinbase_name(symbol: str) -> str:
    """What Coinbase calls a symbol: just that. BTC-USD is BTC-USD."""
    return symbol.upper()


class CoinbaseVendor:
    """See `Vendor`. `url` is the host's, scheme included."""

    name = "coinbase"
    # Public endpoints: 10 requests a second and address, by Coinbase's documentation.
    limits = (Limit(1, 10),)
    at_once = 2

    def __init__(self, url: str):
        self._url = url.rstrip("/")
        self._session = open_session()

    def traits(self, dataset: str) -> VendorTraits:
        """No candle where there was no trade; one that is asked for early may be missing and come later."""
        return VendorTraits(omits_empty_bars=True, attempts_before_hole=3)

    def parts(self, request: BarRequest) -> list[BarRequest]:
        """See `Vendor.parts`."""
        return by_bars(request, _LIMIT)

    def weight(self, request: BarRequest) -> int:
        """See `Vendor.weight`."""
        return 1

    def unsupported(self, request: BarRequest) -> str | None:
        """See `Vendor.unsupported`."""
        return None

    def fetch(self, request: BarRequest) -> Served:
        """See `Vendor.fetch`; 300 bars at most. There is neither vwap nor trade_count in a candle."""
        step = INTERVALS[request.interval]
        if request.end - request.start > _LIMIT * step:
            raise VendorError(f"Coinbase gives {_LIMIT} bars an answer, ask for less at once", retryable=False)
        name = request.name or coinbase_name(request.symbol)
        answer = ask(
            self._session,
            f"{self._url}/products/{quote(name, safe='')}/candles",
            {
                "granularity": int(step.total_seconds()),
                "start": _iso(request.start),
                # Inclusive, where ours is not.
                "end": _iso(request.end - step),
            },
        )
        rows = _frame(answer.body).with_columns((pl.col("open_time") + step).alias("close_time"))
        return Served(finished_bars(rows, request, self.name, "none", answer.at))


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _frame(body: Any) -> pl.DataFrame:
    """open_time (UTC) and numbers of a candle list. Numbers that are none become nulls, for cleaning to reject."""
    if not isinstance(body, list) or not all(isinstance(row, list) and len(row) == len(_COLUMNS) for row in body):
        raise VendorError("the answer is not a list of candles", retryable=False)
    columns = list(zip(*body, strict=True)) if body else [()] * len(_COLUMNS)
    opened = whole_numbers("open_time", columns[0])
    return pl.DataFrame(
        [opened, *(numbers(name, values) for name, values in zip(_COLUMNS[1:], columns[1:], strict=True))]
    ).with_columns((pl.col("open_time") * 1_000_000).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))

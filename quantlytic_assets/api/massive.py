"""Massive's (once Polygon's) aggregates over the hot store: an unmodified `massive` client works by `base=`.

As Massive has it, both ends are part of the range, times are milliseconds since 1970, bars are adjusted for splits
unless `adjusted=false`, and crypto tickers are `X:BTCUSD`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlencode

import orjson
import polars as pl
from fastapi import Path, Query, Request
from fastapi.responses import Response

from quantlytic_assets.api import models
from quantlytic_assets.api.access import MARKET
from quantlytic_assets.api.answers import Reply, respond
from quantlytic_assets.api.dialects import dataset_for, parts_of, token
from quantlytic_assets.api.parameters import BEGINNING, chosen, inclusive_span_of, time_of
from quantlytic_assets.api.routes import responses, router
from quantlytic_assets.api.series import bars_kind, page
from quantlytic_assets.serving.encoding import json_rows
from quantlytic_assets.serving.rows import iso

if TYPE_CHECKING:
    from fastapi import APIRouter

    from quantlytic_assets.api.context import Context

_CRYPTO = "X:"
_UNITS = {"minute": "m", "hour": "h", "day": "d"}
_BAR = pl.Schema({"t": pl.String, **dict.fromkeys("ohlcv", pl.Float64), "n": pl.Int64, "vw": pl.Float64})
_EXAMPLE = {
    "ticker": "AAPL", "queryCount": 1, "resultsCount": 1, "adjusted": True, "status": "OK", "count": 1,
    "results": [{"t": 1325601000000, "o": 58.485714, "h": 58.92857, "l": 58.42857, "c": 58.747143, "v": 75555200.0}],
}  # fmt: skip


def results(body: bytes, newest_first: bool) -> bytes:
    """Rows with their times as milliseconds."""
    if not body:
        return body
    told = pl.DataFrame(orjson.loads(b"[" + body + b"]"), schema=_BAR)
    time = pl.col("t").str.to_datetime(time_unit="us", time_zone="UTC").dt.epoch("ms")
    return ",".join(json_rows(told.with_columns(time.alias("t"))[:: -1 if newest_first else 1])).encode()


def massive_routes(context: Context) -> APIRouter:
    """Massive's route of aggregates."""
    routes = router("Massive's dialect", MARKET)

    @routes.get("/v2/aggs/ticker/{ticker}/range/{multiplier}/{timespan}/{start}/{end}", summary="Bars, by page",
                responses=responses(models.Anything, _EXAMPLE))  # fmt: skip
    async def aggregates(
        request: Request,
        ticker: Annotated[str, Path(examples=["AAPL"])],
        multiplier: Annotated[int, Path(ge=1, le=1440, examples=[1])],
        timespan: Annotated[str, Path(description="minute, hour or day", examples=["day"])],
        start: Annotated[str, Path(description="A date, or milliseconds", examples=["2012-01-03"])],
        end: Annotated[str, Path(description="A date, or milliseconds", examples=["2012-02-01"])],
        adjusted: Annotated[str, Query(description="Whether for splits", examples=["true"])] = "true",
        sort: Annotated[str, Query(description="asc or desc, by time", examples=["asc"])] = "asc",
        limit: Annotated[int, Query(ge=1, le=50_000, description="Bars of a page")] = 5000,
        cursor: Annotated[str | None, Query(description="As next_url has it")] = None,
        apiKey: Annotated[str | None, Query(description="Not read: send Authorization: Bearer")] = None,
    ) -> Response:
        interval = f"{multiplier}{_UNITS[chosen('timespan', timespan, tuple(_UNITS))]}"
        interval = {"60m": "1h", "24h": "1d"}.get(interval, interval)
        split = chosen("adjusted", adjusted.lower(), ("true", "false")) == "true"
        newest_first = chosen("sort", sort, ("asc", "desc")) == "desc"
        dataset, symbol = _named(context, ticker, interval)
        first, last = inclusive_span_of(start, end)
        if cursor is not None:
            at = time_of("cursor", parts_of("cursor", cursor, 1)[0])
            first, last = (first, at) if newest_first else (at, last)
        kinds = bars_kind(interval, "split" if split else "raw")
        with context.hot.read() as store:
            # One more tells whether there is another page.
            since = BEGINNING if newest_first else first
            part = page(store, dataset, kinds, symbol, since, last, limit + 1).block.between(first, last)
        more = part.count > limit
        rows = (part.newest(limit) if newest_first else part.oldest(limit)) if more else part
        said = {
            "ticker": ticker, "queryCount": rows.count, "resultsCount": rows.count, "adjusted": split, "status": "OK",
            "request_id": "", "count": rows.count,
        }  # fmt: skip
        if more:
            following = token(iso(rows.first if newest_first else part.newest(1).first))
            kept = {"adjusted": adjusted, "sort": sort, "limit": limit, "cursor": following}
            said["next_url"] = f"{str(request.url).partition('?')[0]}?{urlencode(kept)}"
        body = orjson.dumps(said)[:-1] + b',"results":[' + results(rows.body, newest_first) + b"]}"
        return respond(request, Reply(orjson.Fragment(body)))

    return routes


def _named(context: Context, ticker: str, interval: str) -> tuple:
    """The dataset and symbol of a ticker."""
    if not ticker.startswith(_CRYPTO):
        return dataset_for(context, ticker, interval, crypto=False), ticker
    every = {one.symbol for dataset in context.declared.datasets.values() for one in dataset.symbols}
    plain = ticker.removeprefix(_CRYPTO)
    symbol = next((one for one in every if one.replace("-", "") == plain), plain)
    return dataset_for(context, symbol, interval, crypto=True), symbol

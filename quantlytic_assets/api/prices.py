"""Prices, candles and indicators: `/prices`, `/candles`, `/indicators`, and the same under `/api`.

Each answer is a function of the store's moment and the parameters; `hot_path` calls the first two without FastAPI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import orjson
from fastapi import Path, Query, Request
from fastapi.responses import Response

from quantlytic_assets.api import models
from quantlytic_assets.api.access import MARKET
from quantlytic_assets.api.answers import Reply, Rows, respond
from quantlytic_assets.api.context import chosen_interval, intervals_of
from quantlytic_assets.api.parameters import BEGINNING, MOST_ROWS, chosen, session_of, span_of, time_of
from quantlytic_assets.api.problems import Problem, unknown
from quantlytic_assets.api.routes import responses, router
from quantlytic_assets.api.series import (
    ADJUSTMENTS,
    Page,
    bars_kind,
    coverage,
    coverage_of_session,
    page,
    session_page,
)
from quantlytic_assets.serving.rows import iso

if TYPE_CHECKING:
    from datetime import date

    from fastapi import APIRouter

    from quantlytic_assets.api.context import Context
    from quantlytic_assets.serving.hot_store import Reader
    from quantlytic_assets.universe.models import Dataset

Symbol = Annotated[str, Path(description="A symbol of the universe", examples=["BTC-USD"])]
In = Annotated[str | None, Query(description="The dataset, where several have the symbol", examples=["crypto_1m"])]
Interval = Annotated[str | None, Query(description="Length of a bar; default the dataset's own", examples=["1m"])]
Start = Annotated[
    str | None,
    Query(description="Beginning of the range, part of it; left out: the newest rows", examples=["2025-05-11"]),
]
End = Annotated[str | None, Query(description="End of the range, not part of it", examples=["2025-05-12T00:00:00Z"])]
Session = Annotated[
    str | None, Query(description="One whole session, instead of start and end", examples=["2025-05-11"])
]
Limit = Annotated[
    int | None, Query(ge=1, le=MOST_ROWS, description="Rows at most; default 10,000 of a range, else 1,000")
]
Cursor = Annotated[str | None, Query(description="`next` of the page before")]
Adjustment = Annotated[str, Query(description="raw as served, split, dividend, or all for both", examples=["raw"])]
Name = Annotated[str | None, Query(description="Features, by comma; default all", examples=["rsi_14"])]
Kind = Annotated[str | None, Query(alias="type", description="A feature without its period", examples=["rsi"])]
Period = Annotated[int | None, Query(ge=1, le=10_000, description="Its period", examples=[14])]

_PRICE = {
    "dataset": "crypto_1m", "symbol": "BTC-USD", "price": 105539.9, "time": "2025-05-30T00:00:00Z", "size": 95.993,
    "source": "lake", "asof": "2025-05-30T00:00:00Z", "adjustment": "none",
}  # fmt: skip
_CANDLES = {
    "dataset": "crypto_1m", "symbol": "BTC-USD", "interval": "1m", "adjustment": "none",
    "asof": "2025-06-01T00:00:10Z", "expected": 2, "present": 1,
    "holes": [{"start": "2025-05-11T00:01:00Z", "end": "2025-05-11T00:02:00Z", "cause": "vendor_hole", "bars": 1}],
    "count": 1, "next": None,
    "bars": [{"t": "2025-05-11T00:00:00Z", "o": 104788.8, "h": 104855.9, "l": 104632.7, "c": 104635.2, "v": 526.458}],
}  # fmt: skip
_VALUES = {**{name: value for name, value in _CANDLES.items() if name != "bars"}, "names": ["rsi_14"],
           "values": [{"t": "2025-05-11T00:00:00Z", "rsi_14": 55.1}]}  # fmt: skip
# What bars are called where members have long names.
_LONG = (
    (b'{"t":', b'{"time":'), (b',"o":', b',"open":'), (b',"h":', b',"high":'), (b',"l":', b',"low":'),
    (b',"c":', b',"close":'), (b',"v":', b',"volume":'), (b',"n":', b',"trades":'), (b',"vw":', b',"vwap":'),
)  # fmt: skip


def latest_price(context: Context, store: Reader, symbol: str, dataset: str | None = None) -> dict[str, Any]:
    """The newest price of a symbol. Raises `Problem` 404 where nothing is known of it yet."""
    found = context.dataset_of(symbol, dataset)
    return latest_of(store, found, symbol)


def latest_of(store: Reader, dataset: Dataset, symbol: str) -> dict[str, Any]:
    """The same, of a symbol of a dataset."""
    said = store.latest(dataset.name, symbol)
    if said is None:
        raise Problem(404, f"No price of {symbol} in {dataset.name} yet. Run: quantlytic backfill {dataset.name}")
    newest = orjson.loads(said)
    return {
        "dataset": dataset.name,
        "symbol": symbol,
        "price": newest["p"],
        "time": newest["t"],
        "size": newest.get("s"),
        "source": newest["source"],
        "asof": newest["t"],
        "adjustment": "none",
    }


def candles(
    context: Context,
    store: Reader,
    symbol: str,
    dataset: str | None = None,
    interval: str | None = None,
    start: str | None = None,
    end: str | None = None,
    session: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
    adjustment: str = "raw",
) -> Rows:
    """Bars of a range. Raises `Problem` for parameters that are wrong."""
    found = context.dataset_of(symbol, dataset, interval)
    length = chosen_interval(found, interval)
    kinds = bars_kind(length, chosen("adjustment", adjustment, ADJUSTMENTS))
    head, rows = _series(store, found, kinds, symbol, length, adjustment, start, end, session, limit, cursor)
    return Rows(head, "bars", rows.block.body)


def _series(
    store: Reader,
    dataset: Dataset,
    kinds: tuple[str, ...],
    symbol: str,
    interval: str,
    adjustment: str,
    start: str | None,
    end: str | None,
    session: str | None,
    limit: int | None,
    cursor: str | None,
) -> tuple[dict[str, Any], Page]:
    """The members before the rows of an answer, and the rows."""
    if session is not None:
        if start or end or cursor or limit:
            raise Problem(422, "session takes the place of start, end, limit and cursor.", parameter="session")
        day = session_of(session)
        day = day.replace(day=1) if dataset.partition == "month" else day
        rows = session_page(store, dataset, kinds, symbol, day)
        return _head(store, dataset, symbol, interval, adjustment, rows, day), rows
    first, last = span_of(start, end)
    if cursor is not None:
        if start is None:
            raise Problem(422, "cursor goes on with a range that has a start; send the same start.", parameter="cursor")
        first = max(first, time_of("cursor", cursor))
    most = limit or (1000 if first == BEGINNING else MOST_ROWS)
    rows = page(store, dataset, kinds, symbol, first, last, most)
    return _head(store, dataset, symbol, interval, adjustment, rows, None), rows


def _head(
    store: Reader, dataset: Dataset, symbol: str, interval: str, adjustment: str, rows: Page, day: date | None
) -> dict[str, Any]:
    if day is not None:
        own = store.block(dataset.name, f"bars/{dataset.interval}", symbol, day) or rows.block
        covered = coverage_of_session(store, dataset, symbol, day, own)
    else:
        covered = coverage(store, dataset, symbol, rows.start, rows.end)
    served = covered.adjustment if interval == dataset.interval else "none"
    return {
        "dataset": dataset.name,
        "symbol": symbol,
        "interval": interval,
        "adjustment": served if adjustment == "raw" else adjustment,
        **covered.members,
        "count": rows.block.count,
        "next": None if rows.following is None else iso(rows.following),
    }


def indicators(
    context: Context,
    store: Reader,
    symbol: str,
    names: list[str],
    dataset: str | None,
    interval: str | None,
    start: str | None,
    end: str | None,
    session: str | None,
    limit: int | None,
    cursor: str | None,
) -> Rows:
    """Values of features of a range; all features of the dataset where none is named."""
    found = context.dataset_of(symbol, dataset, interval)
    if interval is not None and interval not in found.feature_intervals:
        known = ", ".join(found.feature_intervals)
        raise Problem(422, f"{found.name} has features at {known}, not at interval={interval}.", parameter="interval")
    length = interval or found.feature_intervals[0]
    known_names = orjson.loads(store.fact("dataset", found.name) or b"{}").get("features", [])
    for name in names:
        if name not in known_names:
            raise unknown(f"feature of {found.name}", name, known_names)
    kinds = (f"features/{length}",)
    head, rows = _series(store, found, kinds, symbol, length, "raw", start, end, session, limit, cursor)
    head |= {"adjustment": "none", "names": names or known_names}
    return Rows(head, "values", _only(rows.block.body, names) if names else rows.block.body)


def _only(body: bytes, names: list[str]) -> bytes:
    """The rows with these members alone."""
    import polars as pl

    from quantlytic_assets.serving.encoding import json_rows

    if not body:
        return body
    schema = pl.Schema({"t": pl.String, **dict.fromkeys(names, pl.Float64)})
    told = pl.DataFrame(orjson.loads(b"[" + body + b"]"), schema=schema)
    return ",".join(json_rows(told)).encode()


def named_features(name: str | None, kind: str | None, period: int | None) -> list[str]:
    """The features that a request asks for: `name=rsi_14,ema_20`, or `type=rsi` with `period=14`."""
    if name and kind:
        raise Problem(422, "name and type say the same: take one of them.", parameter="type")
    if period is not None and not kind:
        raise Problem(422, "period goes with type, as in type=rsi&period=14.", parameter="period")
    if kind:
        return [f"{kind.lower()}_{period}" if period is not None else kind.lower()]
    return [one.strip() for one in name.split(",") if one.strip()] if name else []


def price_routes(context: Context) -> APIRouter:
    """The routes of prices, candles and indicators."""
    routes = router("market data", MARKET)
    of_rows = responses(models.Candles, _CANDLES, rows=True, also=(409,))

    @routes.get("/prices/{symbol}", summary="The newest price", responses=responses(models.Price, _PRICE, also=(409,)))
    async def prices(request: Request, symbol: Symbol, dataset: In = None) -> Response:
        with context.hot.read() as store:
            return respond(request, Reply(latest_price(context, store, symbol, dataset)))

    @routes.get("/candles/{symbol}", summary="Bars of a range or a session", responses=of_rows)
    async def get_candles(
        request: Request, symbol: Symbol, interval: Interval = None, start: Start = None, end: End = None,
        limit: Limit = None, cursor: Cursor = None, session: Session = None, adjustment: Adjustment = "raw",
        dataset: In = None,
    ) -> Response:  # fmt: skip
        with context.hot.read() as store:
            rows = candles(context, store, symbol, dataset, interval, start, end, session, limit, cursor, adjustment)
        return respond(request, Reply(rows, _link(request, rows)))

    @routes.get("/api/ohlc/{symbol}", summary="Bars with the long names of their members",
                responses=responses(models.Anything, rows=True, also=(409,)))  # fmt: skip
    async def ohlc(
        request: Request, symbol: Symbol, interval: Interval = None, start: Start = None, end: End = None,
        limit: Limit = None, cursor: Cursor = None, session: Session = None, adjustment: Adjustment = "raw",
        dataset: In = None,
    ) -> Response:  # fmt: skip
        with context.hot.read() as store:
            rows = candles(context, store, symbol, dataset, interval, start, end, session, limit, cursor, adjustment)
        body = rows.body
        for short, long in _LONG:
            body = body.replace(short, long)
        return respond(request, Reply(Rows(rows.head, "bars", body), _link(request, rows)))

    async def get_indicators(
        request: Request, symbol: Symbol, name: Name = None, kind: Kind = None, period: Period = None,
        interval: Interval = None, start: Start = None, end: End = None, limit: Limit = None, cursor: Cursor = None,
        session: Session = None, dataset: In = None,
    ) -> Response:  # fmt: skip
        names = named_features(name, kind, period)
        with context.hot.read() as store:
            rows = indicators(context, store, symbol, names, dataset, interval, start, end, session, limit, cursor)
        return respond(request, Reply(rows, _link(request, rows)))

    for path in ("/indicators/{symbol}", "/api/indicators/{symbol}"):
        routes.add_api_route(
            path, get_indicators, summary="Values of features",
            responses=responses(models.Indicators, _VALUES, rows=True, also=(409,)),
        )  # fmt: skip

    @routes.get("/api/data/{symbol}", summary="What is known of a symbol now: price, newest bars, newest features",
                responses=responses(models.Anything, also=(409,)))  # fmt: skip
    async def data(
        request: Request, symbol: Symbol, dataset: In = None, interval: Interval = None, limit: Limit = None
    ) -> Response:
        with context.hot.read() as store:
            found = context.dataset_of(symbol, dataset, interval)
            rows = candles(context, store, symbol, found.name, interval, limit=limit or 100)
            values = indicators(context, store, symbol, [], found.name, None, None, None, None, 1, None)
            said = {
                "latest": latest_of(store, found, symbol),
                "intervals": list(intervals_of(found)),
                **orjson.loads(rows.json),
                "indicators": orjson.loads(b"[" + values.body + b"]"),
                "indicators_interval": values.head["interval"],
            }
        return respond(request, Reply(said))

    return routes


def _link(request: Request, rows: Rows) -> dict[str, str]:
    """The Link header to the next page."""
    if rows.head["next"] is None:
        return {}
    return {"link": f'<{request.url.include_query_params(cursor=rows.head["next"])}>; rel="next"'}

"""Figures of sessions: `/api/analytics/intraday`, `/api/analytics/daily`, and a symbol at a glance: `/analytics`."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import polars as pl
from fastapi import Query, Request
from fastapi.responses import Response

from quantlytic_assets.api import models
from quantlytic_assets.api.access import MARKET
from quantlytic_assets.api.answers import Reply, Rows, respond
from quantlytic_assets.api.parameters import BEGINNING, END, day_of, session_of, time_of
from quantlytic_assets.api.prices import In, Session, Symbol, indicators, latest_of
from quantlytic_assets.api.problems import Problem
from quantlytic_assets.api.routes import responses, router
from quantlytic_assets.api.series import NOTHING, coverage, coverage_of_session
from quantlytic_assets.market_data.session_figures import FIGURES, session_figures, with_close_returns
from quantlytic_assets.serving.encoding import json_rows
from quantlytic_assets.serving.rows import Block

if TYPE_CHECKING:
    from datetime import date

    from fastapi import APIRouter

    from quantlytic_assets.api.context import Context
    from quantlytic_assets.serving.hot_store import Reader
    from quantlytic_assets.universe.models import Dataset

_BAR = pl.Schema({"t": pl.String, **dict.fromkeys("ohlcv", pl.Float64)})
_FIGURES = pl.Schema({"session": pl.String, **dict.fromkeys(FIGURES, pl.Float64), "bars": pl.Int64})
_DAILY = {
    "dataset": "crypto_1m", "symbol": "BTC-USD", "adjustment": "none", "asof": "2025-06-01T00:00:10Z",
    "expected": 1440, "present": 1440, "holes": [], "count": 1, "next": None,
    "sessions": [{"session": "2025-05-11", "open": 104788.8, "high": 104949.9, "low": 103325.0, "close": 104103.7,
                  "volume": 94000.1, "bars": 1440, "vwap": 104200.4, "return_open_close": -0.0065, "range": 0.0155,
                  "volatility": 0.0005}],
}  # fmt: skip
Sessions = Annotated[int, Query(ge=1, le=400, description="How many sessions, the newest before `end`")]
Before = Annotated[str | None, Query(description="Sessions before this day or time", examples=["2025-05-30"])]


def figures(blocks: list[tuple[date, Block]], by_month: bool) -> pl.DataFrame:
    """Figures of the sessions in these blocks, oldest first; of a block by month each row is a session."""
    told = [
        pl.DataFrame(orjson.loads(b"[" + block.body + b"]"), schema=_BAR).with_columns(
            pl.lit("").alias("symbol"),
            pl.col("t").str.slice(0, 10).alias("session") if by_month else pl.lit(day.isoformat()).alias("session"),
        )
        for day, block in blocks
    ]
    bars = pl.concat(told) if told else _BAR.to_frame().with_columns(symbol=pl.lit(""), session=pl.lit(""))
    return session_figures(bars).drop("symbol")


def newest_figures(store: Reader, dataset: Dataset, symbol: str, before: date, sessions: int) -> pl.DataFrame:
    """Figures of the newest sessions before a day, oldest first, with the return against the session before.

    As they were published, unless the live path has added bars since.
    """
    by_month = dataset.partition == "month"
    # One more, for the return of the first.
    wanted = (sessions + 1) // 15 + 2 if by_month else sessions + 1
    told: list[pl.DataFrame] = []
    for day, block in islice(store.newest_blocks(dataset.name, f"bars/{dataset.interval}", symbol, before), wanted):
        fact = None if by_month else store.fact("figures", dataset.name, symbol, day.isoformat())
        said = orjson.loads(fact) if fact else {}
        known = said.get("bars") == block.count
        told.append(pl.DataFrame([said], schema=_FIGURES) if known else figures([(day, block)], by_month))
    every = pl.concat([one.cast(_FIGURES) for one in told[::-1]]) if told else _FIGURES.to_frame()
    return with_close_returns(every.filter(pl.col("session") < before.isoformat())).tail(sessions)


def _last(store: Reader, dataset: Dataset, symbol: str, session: str | None) -> tuple[date, Block]:
    """The block of a session, of the newest one where none is named. Raises `Problem` 404 without any."""
    kind = f"bars/{dataset.interval}"
    if session is None:
        found = next(store.newest_blocks(dataset.name, kind, symbol), None)
        if found is None:
            raise Problem(404, f"No bars of {symbol} in {dataset.name} yet. Run: quantlytic backfill {dataset.name}")
        return found
    day = session_of(session)
    return day, store.block(dataset.name, kind, symbol, day) or NOTHING


def analytics_routes(context: Context) -> APIRouter:
    """The routes of figures."""
    routes = router("analytics", MARKET)

    @routes.get("/api/analytics/intraday/{symbol}", summary="Figures of a session, the newest by default",
                responses=responses(models.Anything, also=(409,)))  # fmt: skip
    async def intraday(request: Request, symbol: Symbol, session: Session = None, dataset: In = None) -> Response:
        with context.hot.read() as store:
            found = context.dataset_of(symbol, dataset, _intraday(context, symbol))
            if found.interval == "1d":
                raise Problem(
                    422, f"{found.name} has daily bars; ask /api/analytics/daily/{symbol}.", parameter="dataset"
                )
            day, block = _last(store, found, symbol, session)
            covered = coverage_of_session(store, found, symbol, day, block)
        told = figures([(day, block)], False) if block.count else None
        said = {"dataset": found.name, "symbol": symbol, "session": day.isoformat(), "interval": found.interval,
                "adjustment": covered.adjustment, **covered.members}  # fmt: skip
        if told is not None:
            said |= {
                name: value for name, value in told.drop("session").row(0, named=True).items() if value is not None
            }
        return respond(request, Reply(said))

    @routes.get("/api/analytics/daily/{symbol}", summary="Figures of the newest sessions, oldest first",
                responses=responses(models.Anything, _DAILY, rows=True, also=(409,)))  # fmt: skip
    async def daily(
        request: Request, symbol: Symbol, sessions: Sessions = 30, end: Before = None, dataset: In = None
    ) -> Response:
        before = END if end is None else time_of("end", end)
        with context.hot.read() as store:
            found = context.dataset_of(symbol, dataset, "1d")
            shown = newest_figures(store, found, symbol, day_of(before), sessions)
            covered = coverage(store, found, symbol, _midnight(shown), before)
        head = {"dataset": found.name, "symbol": symbol, "adjustment": covered.adjustment, **covered.members,
                "count": len(shown), "next": None}  # fmt: skip
        return respond(request, Reply(Rows(head, "sessions", ",".join(json_rows(shown)).encode())))

    @routes.get("/analytics/{symbol}", summary="A symbol at a glance: price, last session, features",
                responses=responses(models.Anything, also=(409,)))  # fmt: skip
    async def analytics(request: Request, symbol: Symbol, dataset: In = None) -> Response:
        with context.hot.read() as store:
            found = context.dataset_of(symbol, dataset)
            latest = latest_of(store, found, symbol)
            newest = store.newest_blocks(found.name, f"bars/{found.interval}", symbol)
            blocks = list(islice(newest, 2))[::-1]
            values = indicators(context, store, symbol, [], found.name, None, None, None, None, 1, None)
            covered = coverage_of_session(store, found, symbol, *blocks[-1]) if blocks else None
        told = with_close_returns(figures(blocks, found.partition == "month"))
        last = told.tail(1).to_dicts()
        said: dict[str, Any] = {
            "dataset": found.name,
            "symbol": symbol,
            "adjustment": covered.adjustment if covered else "none",
            **(covered.members if covered else {}),
            "latest": latest,
            "session": {name: value for name, value in last[0].items() if value is not None} if last else None,
            "indicators": orjson.loads(values.body) if values.body else None,
            "indicators_interval": values.head["interval"],
        }
        return respond(request, Reply(said))

    return routes


def _intraday(context: Context, symbol: str) -> str | None:
    """The interval of the first dataset with intraday bars of a symbol."""
    return next((one.interval for one in context.having(symbol) if one.interval != "1d"), None)


def _midnight(shown: pl.DataFrame) -> int:
    return time_of("session", shown["session"][0]) if len(shown) else BEGINNING

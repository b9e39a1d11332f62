"""The dashboard: one page of static files at /, and what it shows beside the stream, read from the hot store.

The files are public: they hold no data. Data is asked for with a credential, as everywhere.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from quantlytic_assets.api.access import MARKET, TRADING
from quantlytic_assets.api.gate import needs
from quantlytic_assets.api.problems import Problem
from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.universe.feature_choice import features_of
from quantlytic_assets.universe.models import Dataset

if TYPE_CHECKING:
    from quantlytic_assets.api.context import Context

_FILES = Path(__file__).parent / "dashboard_files"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# The one style element that the charts make, for their attribution: by what is in it.
_STYLE_OF_CHARTS = "'sha256-3pRED1tOXas1FXFoPb9TGCjmYe9XQsmO9OV23khV2nY='"
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; "
    f"style-src 'self' {_STYLE_OF_CHARTS}; img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_MOST_ORDERS = 500


@lru_cache
def _file(name: str) -> tuple[bytes, str] | None:
    """A file's content and media type; None where there is none of that name."""
    known = {path.relative_to(_FILES).as_posix(): path for path in _FILES.rglob("*") if path.suffix in _TYPES}
    path = known.get(name)
    return None if path is None else (path.read_bytes(), _TYPES[path.suffix])


def _page(name: str) -> Response:
    found = _file(name)
    if found is None:
        raise Problem(404, f"The dashboard has no file {name}.")
    return Response(found[0], headers=HEADERS, media_type=found[1])


@lru_cache(maxsize=64)
def _scales(dataset: Dataset) -> dict[str, str]:
    """What each column of a dataset's features is proportional to: price, volume or nothing (ratio)."""
    # It brings the compilers of features with it.
    from quantlytic_assets.features.spec import column_scales

    return dict(column_scales(features_of(dataset)))


def dashboard_routes(context: Context) -> APIRouter:
    """The routes."""
    router = APIRouter(include_in_schema=False)
    market, trading = Depends(needs(MARKET)), Depends(needs(TRADING))

    @router.get("/")
    async def home() -> Response:
        return _page("index.html")

    @router.get("/dashboard/files/{name:path}")
    async def file(name: str) -> Response:
        return _page(name)

    @router.get("/dashboard/catalog", dependencies=[market])
    async def catalog() -> Response:
        universe = context.declared
        datasets = [
            {
                "name": one.name,
                "symbols": [each.symbol for each in one.symbols],
                "intervals": list(dict.fromkeys((one.interval, *one.feature_intervals))),
                "interval": one.interval,
                "feature_intervals": list(one.feature_intervals),
                "seconds": {name: step.total_seconds() for name, step in INTERVALS.items()},
                "features": await run_in_threadpool(_scales, one),
                "strategies": [name for name, each in universe.strategies.items() if each.dataset == one.name],
            }
            for one in universe.datasets.values()
        ]
        pages = context.settings.pages
        return _json({"datasets": datasets, "pages": pages, "mistakes": context.universe.mistakes})

    @router.get("/dashboard/coverage/{dataset}", dependencies=[market])
    async def coverage(dataset: str, sessions: int = Query(60, ge=1, le=400)) -> Response:
        named = context.dataset(dataset)
        by_symbol: dict[str, dict[str, dict[str, Any]]] = {}
        with context.hot.read() as store:
            for one in named.symbols:
                facts = list(store.facts("coverage", dataset, one.symbol))[-sessions:]
                by_symbol[one.symbol] = {name: orjson.loads(body) for (name,), body in facts}
        days = sorted({day for found in by_symbol.values() for day in found})[-sessions:]
        rows = [
            {"symbol": symbol, "cells": [_cell(found.get(day)) for day in days]} for symbol, found in by_symbol.items()
        ]
        return _json({"dataset": dataset, "days": days, "months": named.partition == "month", "rows": rows})

    @router.get("/dashboard/strategies/{name}", dependencies=[trading])
    async def strategy(name: str) -> Response:
        named = context.strategy(name)
        with context.hot.read() as store:
            curve, positions = store.fact("curve", name), store.fact("positions", name)
            orders = [orjson.loads(body) for _, body in store.facts("orders", name)]
        orders.sort(key=lambda one: str(one.get("decision_time") or ""), reverse=True)
        return _json(
            {
                "strategy": name,
                "rule": named.rule_name,
                "curve": orjson.loads(curve or b"[]"),
                "positions": orjson.loads(positions or b"[]"),
                "orders": orders[:_MOST_ORDERS],
            }
        )

    return router


def _cell(fact: dict[str, Any] | None) -> list[Any] | None:
    """Expected and present bars of a symbol in a session or month, and the causes of its holes."""
    if fact is None:
        return None
    return [fact["expected"], fact["present"], sorted({str(hole["cause"]) for hole in fact["holes"]})]


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json", headers={"cache-control": "no-store"})

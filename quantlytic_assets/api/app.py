"""`make_app(resources)`: the ASGI application of an installation's API.

Routes are in modules of their own and become routers here and nowhere else. What guards all of them is `gate`, around
the application; `hot_path` answers the two routes that are asked most.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from quantlytic_assets.api.alpaca import alpaca_routes
from quantlytic_assets.api.analytics import analytics_routes
from quantlytic_assets.api.context import Context
from quantlytic_assets.api.dashboard import dashboard_routes
from quantlytic_assets.api.gate import Gate
from quantlytic_assets.api.health import docs_routes, health_routes, metrics_routes
from quantlytic_assets.api.hot_path import HotPath
from quantlytic_assets.api.massive import massive_routes
from quantlytic_assets.api.prices import price_routes
from quantlytic_assets.api.problems import Problem, told
from quantlytic_assets.api.routes import describe_access
from quantlytic_assets.api.strategies import admin_routes, strategy_routes, trading_routes
from quantlytic_assets.api.streams import stream_routes

if TYPE_CHECKING:
    from quantlytic_assets.resources import Resources

# Each makes a router (HTTP or websocket routes) of the context.
ROUTES = (
    price_routes,
    analytics_routes,
    strategy_routes,
    trading_routes,
    admin_routes,
    alpaca_routes,
    massive_routes,
    health_routes,
    metrics_routes,
    stream_routes,
    dashboard_routes,
)
_ABOUT = (
    "Market data, features, signals and paper trading of one installation. Times are UTC, ranges are half-open. "
    "Answers are JSON, msgpack or Arrow by Accept, and have an ETag. Errors are problem details (RFC 9457)."
)


def make_app(resources: Resources) -> ASGIApp:
    """The application: FastAPI with all routes, behind the gate."""
    context = Context(resources)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        context.close()

    app = FastAPI(
        title="Quantlytic", version=version("quantlytic"), description=_ABOUT, docs_url=None, redoc_url=None,
        openapi_url="/openapi.json", redirect_slashes=False, lifespan=lifespan,
    )  # fmt: skip
    for make in ROUTES:
        app.include_router(make(context))
    app.include_router(docs_routes(app))
    for kind in (Problem, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, told)
    describe_access(app)
    guarded = Gate(HotPath(app, context), context)
    origins = [one.strip() for one in resources.settings.api_cors.split(",") if one.strip()]
    if not origins:
        return guarded
    # Outside the gate: a browser asks whether it may ask without a credential.
    return CORSMiddleware(
        guarded, origins, allow_methods=["GET", "POST"], allow_headers=["authorization", "x-api-key", "content-type"],
        expose_headers=["etag", "link", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"],
    )  # fmt: skip

"""`make_app(resources)`: the ASGI application of an installation's API.

Routes are in modules of their own and become routers here and nowhere else. What guards all of them is `gate`, around
the application.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from quantlytic_assets.api.context import Context
from quantlytic_assets.api.gate import Gate
from quantlytic_assets.api.health import health_routes
from quantlytic_assets.api.problems import Problem, told

if TYPE_CHECKING:
    from quantlytic_assets.resources import Resources

# Each makes a router (HTTP or websocket routes) of the context.
ROUTES = (health_routes,)


def make_app(resources: Resources) -> ASGIApp:
    """The application: FastAPI with all routes, behind the gate."""
    context = Context(resources)
    app = FastAPI(title="Quantlytic", docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    for make in ROUTES:
        app.include_router(make(context))
    for kind in (Problem, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, told)
    return Gate(app, context)

"""Whether the API can answer and how fast, `/healthz` and `/metrics`; what it can be asked, `/docs`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from quantlytic_assets.api.access import MARKET
from quantlytic_assets.api.metrics import REGISTRY
from quantlytic_assets.api.problems import Problem
from quantlytic_assets.api.routes import responses, router

if TYPE_CHECKING:
    from quantlytic_assets.api.context import Context


def health_routes(context: Context) -> APIRouter:
    """The route of probes."""
    probes = APIRouter(tags=["health"])
    started = time.time()

    @probes.get("/healthz", summary="Whether the API is ready, and how fresh its data are",
                responses={503: {"description": "The hot store is being filled, or can't be"}})  # fmt: skip
    async def healthz() -> Response:
        """Anybody may ask. Says when each dataset was published, and what its live path says of itself."""
        said: dict[str, Any] = {"status": "ok", "uptime_seconds": round(time.time() - started, 1)}
        status, headers = 200, {"cache-control": "no-store"}
        try:
            with context.hot.read() as store:
                said |= {"sequence": store.sequence, "epoch": store.epoch, "datasets": {}}
                for name in context.declared.datasets:
                    fact, live = store.fact("dataset", name), store.fact("live", name)
                    said["datasets"][name] = {
                        "published_at": orjson.loads(fact or b"{}").get("published_at"),
                        "live": orjson.loads(live) if live else None,
                    }
        except Problem as problem:
            status, headers = problem.status, {**headers, **problem.headers}
            said |= {"status": "failed" if context.store.mistake else "filling", "detail": problem.detail}
        return Response(orjson.dumps(said), status, headers, "application/json")

    return probes


def metrics_routes(_context: Context) -> APIRouter:
    """The route of Prometheus."""
    routes = router("health", MARKET)

    said = responses(None)
    said[200] = {"description": "Text format", "content": {"text/plain": {}}}

    @routes.get("/metrics", summary="Histograms of answers, for Prometheus", responses=said)
    async def metrics() -> Response:
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    return routes


def docs_routes(app: FastAPI) -> APIRouter:
    """The page that describes all routes, made of the OpenAPI document; nothing of it is loaded from the web."""
    pages = APIRouter(include_in_schema=False)
    templates = Environment(loader=PackageLoader("quantlytic_assets.api"), autoescape=True)

    @pages.get("/docs")
    async def docs(request: Request) -> Response:
        document = app.openapi()
        every = [tag for methods in document["paths"].values() for one in methods.values() for tag in one["tags"]]
        page = templates.get_template("docs.html").render(
            document=document, tags=list(dict.fromkeys(every)), base=str(request.base_url).rstrip("/")
        )
        policy = "default-src 'none'; style-src 'unsafe-inline'"
        return HTMLResponse(page, headers={"content-security-policy": policy})

    return pages

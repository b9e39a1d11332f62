"""Whether the API can answer, and what from: `/healthz`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from fastapi import APIRouter
from fastapi.responses import Response

if TYPE_CHECKING:
    from quantlytic_assets.api.context import Context


def health_routes(context: Context) -> APIRouter:
    """The route of probes."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Whether the API is ready")
    async def healthz() -> Response:
        with context.hot.read() as store:
            body = {"status": "ok", "sequence": store.sequence, "epoch": store.epoch}
        return Response(orjson.dumps(body), media_type="application/json", headers={"cache-control": "no-store"})

    return router

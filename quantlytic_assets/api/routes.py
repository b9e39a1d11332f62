"""What all routes have in common: how they are described, what they refuse, and which scope they need."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel

from quantlytic_assets.api import models
from quantlytic_assets.api.answers import ARROW, JSON, MSGPACK
from quantlytic_assets.api.gate import PUBLIC, needs
from quantlytic_assets.api.problems import MEDIA_TYPE, Problem

_SAID = {
    400: "The request was sent to another name, or is no HTTP that can be read",
    401: "No credential, or one that is wrong, expired or revoked",
    403: "The credential lacks the scope",
    404: "There is no such thing; the nearest names are said",
    405: "The route has no such method",
    406: "None of the media types of Accept can be had",
    409: "Several datasets have the symbol, or the state of things does not allow it",
    422: "A parameter is wrong; what would be right is said",
    429: "Too many requests, or the day's quota is used up",
    503: "The hot store is being filled",
}
_PROBLEM = {"content": {MEDIA_TYPE: {"schema": models.Problem.model_json_schema()}}}
# The scope of each tag's routes.
_SCOPES: dict[str, str] = {}
_BINARY = {"schema": {"type": "string", "format": "binary"}}


class Route(APIRoute):
    """A route that refuses query parameters which it does not know: a slip of the pen is no default."""

    def get_route_handler(self) -> Callable:
        """See FastAPI."""
        handle = super().get_route_handler()
        known = {one.alias for one in self.dependant.query_params}

        async def strict(request: Request) -> Response:
            for name in request.query_params:
                if name not in known:
                    near = get_close_matches(name, known, n=1)
                    likely = f" Did you mean {near[0]}?" if near else ""
                    there = ", ".join(sorted(known)) or "none"
                    raise Problem(422, f"There is no parameter {name}.{likely} There are: {there}.", parameter=name)
            return await handle(request)

        return strict


def router(tag: str, scope: str | None) -> APIRouter:
    """An empty router of strict routes that need a scope; None: anybody may ask."""
    allowed = [Depends(needs(scope))] if scope else []
    _SCOPES[tag] = scope or ""
    return APIRouter(route_class=Route, tags=[tag], dependencies=allowed)


def describe_access(app: FastAPI) -> None:
    """Have the OpenAPI document say which credential and scope each route needs: all but those that anybody may ask."""
    make = app.openapi

    def described() -> dict[str, Any]:
        document = make()
        if "securitySchemes" in document.setdefault("components", {}):
            return document
        document["components"]["securitySchemes"] = {
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            "bearer": {"type": "http", "scheme": "bearer", "description": "A key, or a token of one"},
        }
        for path, methods in document["paths"].items():
            for operation in methods.values():
                if path not in PUBLIC:
                    operation["security"] = [{"key": []}, {"bearer": []}]
                operation["x-scope"] = _SCOPES.get(next(iter(operation.get("tags", [])), ""), "")
        return document

    app.openapi = described  # type: ignore[method-assign]


def responses(
    shape: type[BaseModel] | None, example: Any = None, *, rows: bool = False, also: tuple[int, ...] = ()
) -> dict[int | str, dict[str, Any]]:
    """The answers of a route, for OpenAPI: those of every route, and `also`."""
    content: dict[str, Any] = {MSGPACK: _BINARY, **({ARROW: _BINARY} if rows else {})}
    content[JSON] = {"example": example} if example is not None else {}
    told: dict[int | str, dict[str, Any]] = {
        status: {"description": _SAID[status], **_PROBLEM}
        for status in (400, 401, 403, 404, 405, 406, 422, 429, 503, *also)
    }
    told[200] = {"description": "The answer", "content": content, **({"model": shape} if shape else {})}
    told[304] = {"description": "Unchanged: the ETag of If-None-Match is the answer's"}
    return told

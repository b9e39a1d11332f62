"""What every request passes first: the name it was sent to, and who sends it. Plain ASGI, for all requests pay it.

`scope["caller"]` is who asks (`access.Caller`); a route says which scope it needs by `Depends(needs(scope))`. A
websocket passes without a credential, for its protocol sends it in a message: its route asks `Access` itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from quantlytic_assets.api.access import Caller
from quantlytic_assets.api.problems import MEDIA_TYPE, Problem

if TYPE_CHECKING:
    from quantlytic_assets.api.context import Context

# What anybody may read: whether the API is there, and what it can be asked.
PUBLIC = frozenset({"/healthz", "/docs", "/openapi.json"})


def caller_of(connection: HTTPConnection) -> Caller:
    """Who asks."""
    return connection.scope["caller"]


def needs(scope: str) -> Callable[[HTTPConnection], Awaitable[Caller]]:
    """A dependency of a route: the caller, who has this scope. Raises `Problem` 403 for others."""

    async def allowed(connection: HTTPConnection) -> Caller:
        caller = caller_of(connection)
        caller.must(scope)
        return caller

    return allowed


class Gate:
    """Around an application: refuses foreign hosts and origins, and finds the caller."""

    def __init__(self, app: ASGIApp, context: Context):
        self._app = app
        self._access = context.access
        self._hosts = frozenset({"127.0.0.1", "localhost", "[::1]"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            self._check_names(scope)
            if scope["type"] == "http" and scope["path"] not in PUBLIC:
                scope["caller"] = self._access.caller(scope["headers"])
        except Problem as problem:
            await refuse(problem, scope, send)
            return
        await self._app(scope, receive, send)

    def _check_names(self, scope: Scope) -> None:
        """A page that makes a name of its own point here, or that opens a websocket to here, is not answered."""
        for name, value in scope["headers"]:
            if name == b"host" and host_name(value.decode("latin-1")) not in self._hosts:
                raise Problem(400, "This API is not asked under that name: see QUANTLYTIC_API_HOSTS.")
            if name == b"origin" and scope["type"] == "websocket":
                origin = urlsplit(value.decode("latin-1")).netloc
                if host_name(origin) not in self._hosts:
                    raise Problem(403, f"Pages of {origin or 'that origin'} may not ask here: see QUANTLYTIC_API_CORS.")


def host_name(host: str) -> str:
    """The name in a Host header, without its port."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


async def refuse(problem: Problem, scope: Scope, send: Send) -> None:
    """Answer with a problem; a websocket is closed before it opens."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": problem.detail[:120]})
        return
    headers = {"content-type": MEDIA_TYPE, "cache-control": "no-store", **problem.headers}
    headers["content-length"] = str(len(problem.body))
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": sent})
    await send({"type": "http.response.body", "body": problem.body})

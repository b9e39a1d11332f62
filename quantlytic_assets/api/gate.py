"""What every request passes first: the name it was sent to, who sends it, how often. Plain ASGI, for all pay for it.

`scope["caller"]` is who asks (`access.Caller`); a route says which scope it needs by `Depends(needs(scope))`. A
websocket passes without a credential, for its protocol sends it in a message: its route asks `Access` itself.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quantlytic_assets.api.access import ADMIN, TRADING, Caller
from quantlytic_assets.api.metrics import observe
from quantlytic_assets.api.problems import MEDIA_TYPE, Problem

if TYPE_CHECKING:
    from quantlytic_assets.api.context import Context

# What anybody may read: whether the API is there, and what it can be asked.
PUBLIC = frozenset({"/", "/healthz", "/docs", "/openapi.json"})
# Scopes whose use is recorded.
_AUDITED = frozenset({TRADING, ADMIN})
# The dashboard's own files hold no data.
_PUBLIC_FILES = "/dashboard/files/"


def caller_of(connection: HTTPConnection) -> Caller:
    """Who asks."""
    return connection.scope["caller"]


def needs(scope: str) -> Callable[[HTTPConnection], Awaitable[Caller]]:
    """A dependency of a route: the caller, who has this scope. Raises `Problem` 403 for others."""

    async def allowed(connection: HTTPConnection) -> Caller:
        connection.scope["needs"] = scope
        caller = caller_of(connection)
        caller.must(scope)
        return caller

    return allowed


class Gate:
    """Around an application: refuses foreign hosts and origins, finds the caller, counts, records and measures."""

    def __init__(self, app: ASGIApp, context: Context):
        self._app = app
        self._access = context.access
        self._limits = context.limits
        settings = context.settings
        own = {"127.0.0.1", "localhost", "[::1]", settings.api_host}
        self._hosts = frozenset(own | {one.strip() for one in settings.api_hosts.split(",") if one.strip()})
        origins = {host_name(urlsplit(one.strip()).netloc) for one in settings.api_cors.split(",") if one.strip()}
        self._origins = self._hosts | origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            try:
                self._check_names(scope)
            except Problem as problem:
                await send({"type": "websocket.close", "code": 1008, "reason": problem.detail[:120]})
                return
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500
        left: list[tuple[bytes, bytes]] = []

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if left:
                    message["headers"] = [*message["headers"], *left]
            await send(message)

        try:
            try:
                self._check_names(scope)
                if scope["path"] not in PUBLIC and not scope["path"].startswith(_PUBLIC_FILES):
                    scope["caller"] = caller = self._caller(scope)
                    left = self._limits.check(caller)
            except Problem as problem:
                await refuse(problem, told)
            else:
                await self._app(scope, receive, told)
        finally:
            self._record(scope, status)
            observe(scope, status, time.perf_counter() - started)

    def _caller(self, scope: Scope) -> Caller:
        try:
            return self._access.caller(scope["headers"])
        except Problem:
            self._limits.wrong(_client(scope) or "")
            raise

    def _record(self, scope: Scope, status: int) -> None:
        """Have the audit log say who read of trading or changed something, and who was refused."""
        if scope.get("needs") in _AUDITED or (status in (401, 403) and "caller" not in scope):
            caller = scope["caller"].name if "caller" in scope else "unknown"
            self._limits.audit(caller, _client(scope), scope["method"], scope["path"][:500], status)

    def _check_names(self, scope: Scope) -> None:
        """A page that makes a name of its own point here, or that opens a websocket to here, is not answered."""
        for name, value in scope["headers"]:
            if name == b"host" and host_name(value.decode("latin-1")) not in self._hosts:
                raise Problem(400, "This API is not asked under that name: see QUANTLYTIC_API_HOSTS.")
            if name == b"origin" and scope["type"] == "websocket":
                origin = urlsplit(value.decode("latin-1")).netloc
                if host_name(origin) not in self._origins:
                    raise Problem(403, f"Pages of {origin or 'that origin'} may not ask here: see QUANTLYTIC_API_CORS.")


def host_name(host: str) -> str:
    """The name in a Host header, without its port, in lower case."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() else host.lower()


def _client(scope: Scope) -> str | None:
    return scope["client"][0] if scope.get("client") else None


async def refuse(problem: Problem, send: Send) -> None:
    """Answer with a problem."""
    headers = {"content-type": MEDIA_TYPE, "cache-control": "no-store", **problem.headers}
    headers["content-length"] = str(len(problem.body))
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": sent})
    await send({"type": "http.response.body", "body": problem.body})

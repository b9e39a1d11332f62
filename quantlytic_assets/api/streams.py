"""The websockets: our own protocol at /stream (and /ws), Alpaca's at the addresses of its market data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send

from quantlytic_assets.api.access import Access, Headers
from quantlytic_assets.api.problems import Problem
from quantlytic_assets.push.alpaca import AlpacaConnection
from quantlytic_assets.push.catalog import Catalog, catalog_of
from quantlytic_assets.push.connection import Connection, Permit, Push, Refused, Unavailable
from quantlytic_assets.push.limits import PushLimits
from quantlytic_assets.push.native import NativeConnection
from quantlytic_assets.universe.models import Universe

if TYPE_CHECKING:
    from quantlytic_assets.api.context import Context
    from quantlytic_assets.serving.hot_store import HotStore


class _Credentials:
    """Who a credential belongs to, as `push` asks; looked up anew each time, for a key may be revoked."""

    def __init__(self, access: Access):
        self._access = access

    def of_headers(self, headers: Headers) -> Permit:
        return self._permit(lambda: self._access.caller(headers).scopes)

    def of_key(self, key: str, secret: str | None = None) -> Permit:
        return self._permit(lambda: self._access.caller_of_key(key, secret).scopes)

    def _permit(self, found: Permit) -> Permit:
        def permit() -> frozenset[str]:
            try:
                return found()
            except Problem as problem:
                raise Refused(problem.detail) from None

        permit()
        return permit


class _Catalog:
    """The catalog of the universe as it is now, made anew only where the universe is another one."""

    def __init__(self, context: Context):
        self._context = context
        self._made: tuple[Universe, Catalog] | None = None

    def __call__(self) -> Catalog:
        universe = self._context.declared
        if self._made is None or self._made[0] is not universe:
            self._made = universe, catalog_of(universe)
        return self._made[1]


def stream_routes(context: Context) -> APIRouter:
    """The routes; they share one reader of the journal."""

    def store() -> HotStore:
        try:
            return context.hot
        except Problem as problem:
            raise Unavailable(problem.detail) from None

    settings = context.settings
    limits = PushLimits(connects=settings.api_connects, connections=settings.api_connections)
    push = Push(store, _Catalog(context), _Credentials(context.access), limits)

    router = APIRouter()
    for path, make in _PROTOCOLS:
        router.routes.append(WebSocketRoute(path, endpoint=_Endpoint(push, make)))
    return router


_PROTOCOLS: tuple[tuple[str, Callable[..., Connection]], ...] = (
    ("/stream", NativeConnection),
    ("/ws", NativeConnection),
    ("/v2/iex", partial(AlpacaConnection, round_the_clock=False)),
    ("/v2/sip", partial(AlpacaConnection, round_the_clock=False)),
    ("/v1beta3/crypto/us", partial(AlpacaConnection, round_the_clock=True)),
)


class _Endpoint:
    """An ASGI application that serves a connection: what is no function Starlette leaves alone."""

    def __init__(self, push: Push, make: Callable[..., Connection]):
        self._push = push
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._push.serve(self._make, scope, receive, send)

"""The two routes that are asked most, answered before FastAPI: the newest price, and candles.

They are the routes of `prices`, and the same functions answer. Here JSON alone is sent, and only what is surely right:
everything else goes on to FastAPI, which says what is wrong with it. An answer is kept until the store changes; one of
a session that did not change keeps its ETag and its compressed body, so that neither is made again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from quantlytic_assets.api.access import MARKET
from quantlytic_assets.api.answers import HEADERS, JSON, compressed, etag_of, matches
from quantlytic_assets.api.parameters import MOST_ROWS
from quantlytic_assets.api.prices import candles, latest_price
from quantlytic_assets.api.problems import Problem

if TYPE_CHECKING:
    from quantlytic_assets.api.context import Context
    from quantlytic_assets.serving.hot_store import Reader

_MOST_BYTES = 64 << 20
_WORTH_COMPRESSING = 1400
_CANDLES = frozenset({"dataset", "interval", "start", "end", "session", "adjustment"})
_SENT = [(name.encode(), value.encode()) for name, value in HEADERS.items()] + [(b"content-type", JSON.encode())]


@dataclass
class _Kept:
    """An answer: what it is of (store, moment, universe), its body, its ETag, and the body compressed once asked."""

    of: tuple[object, int, object]
    body: bytes
    etag: bytes
    gzip: bytes | None = None


class HotPath:
    """Around FastAPI: answers what it can, and leaves the rest to it."""

    def __init__(self, app: ASGIApp, context: Context):
        self._app = app
        self._context = context
        self._kept: OrderedDict[tuple[str, bytes], _Kept] = OrderedDict()
        self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] == "http" and scope["method"] == "GET":
            path: str = scope["path"]
            if path.startswith(("/candles/", "/prices/")):
                asked = _headers(scope)
                if asked is not None and MARKET in scope["caller"].scopes:
                    found = self._answer(path, scope["query_string"])
                    if found is not None:
                        scope["route_path"] = "/candles/{symbol}" if path[1] == "c" else "/prices/{symbol}"
                        await _send(found, asked, send)
                        return
        await self._app(scope, receive, send)

    def _answer(self, path: str, query: bytes) -> _Kept | None:
        """The answer, kept or made; None where it is FastAPI's."""
        context = self._context
        try:
            universe = context.declared
            hot = context.hot
            with hot.read() as store:
                key, of = (path, query), (hot, store.moment, universe)
                kept = self._kept.get(key)
                if kept is not None and kept.of == of:
                    return kept
                body = _made(context, store, path, query)
        except Problem:
            return None
        if body is None:
            return None
        if kept is not None and kept.body == body:
            kept.of = of
            return kept
        return self._keep(key, _Kept(of, body, etag_of(body).encode()))

    def _keep(self, key: tuple[str, bytes], made: _Kept) -> _Kept:
        before = self._kept.pop(key, None)
        self._bytes += len(made.body) - (len(before.body) if before else 0)
        self._kept[key] = made
        while self._bytes > _MOST_BYTES:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= len(gone.body)
        return made


def _made(context: Context, store: Reader, path: str, query: bytes) -> bytes | None:
    """The body of an answer; None where the parameters are not surely right."""
    _, route, symbol = path.split("/", 2)
    given = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    parameters: dict[str, Any] = dict(given)
    if len(parameters) != len(given) or not symbol or "/" in symbol:
        return None
    make: Callable[..., Any] = latest_price if route == "prices" else candles
    limit = parameters.pop("limit", None) if route == "candles" else None
    if limit is not None:
        if not (limit.isascii() and limit.isdecimal() and 1 <= int(limit) <= MOST_ROWS):
            return None
        parameters["limit"] = int(limit)
    if not parameters.keys() <= ({"dataset"} if route == "prices" else _CANDLES | {"limit"}):
        return None
    made = make(context, store, symbol, **parameters)
    if route == "prices":
        return orjson.dumps(made)
    # A page with another one after it has a link to that, which takes the whole address.
    return made.json if made.head["next"] is None else None


def _headers(scope: Scope) -> tuple[bool, str] | None:
    """Whether gzip is wanted, and If-None-Match; None where something else than JSON may be."""
    gzip, etag = False, ""
    for name, value in scope["headers"]:
        if name == b"accept-encoding":
            gzip = b"gzip" in value
        elif name == b"if-none-match":
            etag = value.decode("latin-1")
        elif name == b"accept" and value not in (b"*/*", b"application/json") and not value.startswith(b"text/html"):
            return None
    return gzip, etag


async def _send(kept: _Kept, asked: tuple[bool, str], send: Send) -> None:
    gzip, etag = asked
    if etag and matches(etag, kept.etag.decode()):
        await send({"type": "http.response.start", "status": 304, "headers": [*_SENT[:-1], (b"etag", kept.etag)]})
        await send({"type": "http.response.body", "body": b""})
        return
    headers = [*_SENT, (b"etag", kept.etag)]
    body = kept.body
    if gzip and len(body) >= _WORTH_COMPRESSING:
        if kept.gzip is None:
            kept.gzip = compressed(body)
        body = kept.gzip
        headers.append((b"content-encoding", b"gzip"))
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

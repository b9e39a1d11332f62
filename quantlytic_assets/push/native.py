"""Quantlytic's own protocol: snapshot, then updates with sequence numbers, a heartbeat a second, resumed by a cursor.

What is sent and understood is in docs/streaming.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qs

import msgpack
import orjson

from quantlytic_assets.push.connection import Connection, Push, Receive, Refused, Scope, Send
from quantlytic_assets.push.cursor import Cursor
from quantlytic_assets.push.frames import FrameError, joined, packed
from quantlytic_assets.push.hub import Dialect
from quantlytic_assets.push.snapshot import snapshot
from quantlytic_assets.push.subscriptions import SCOPES, Request, requested
from quantlytic_assets.push.updates import Update

_ACTIONS = ("auth", "subscribe", "unsubscribe", "ping")
# Milliseconds that updates are gathered for where the reader says nothing.
_CONFLATE_MS = 100
_GONE = "the journal does not reach back to where you were"


class Native:
    """Updates as one frame with `items`, and the heartbeat."""

    def said(self, updates: Sequence[Update], cursor: Cursor, dropped: int, as_packed: bool) -> bytes:
        """See `hub.Dialect`."""
        head = b'{"type":"updates","cursor":"%s","sequence":%d,"dropped":%d,"items":' % (
            str(cursor).encode(), cursor.sequence, dropped,
        )  # fmt: skip
        frame = head + joined(update.item for update in updates) + b"}"
        return packed(frame) if as_packed else frame

    def heartbeat(self, cursor: Cursor, dropped: int, ages: bytes, as_packed: bool) -> bytes:
        """See `hub.Dialect`. The ages are the same for many: they are put in as they are."""
        head = {"type": "heartbeat", "cursor": str(cursor), "sequence": cursor.sequence, "dropped": dropped}
        if as_packed:
            members = b"".join(msgpack.packb(one) for pair in head.items() for one in pair)
            return bytes([0x80 | (len(head) + 1)]) + members + msgpack.packb("ages") + ages
        return orjson.dumps(head)[:-1] + b',"ages":' + ages + b"}"


_NATIVE = Native()


class NativeConnection(Connection):
    """A connection that speaks it."""

    def __init__(self, push: Push, scope: Scope, receive: Receive, send: Send):
        super().__init__(push, scope, receive, send)
        self._subscriptions: dict[str, Request] = {}
        self._conflate_ms = _CONFLATE_MS
        self._numbered = 0

    def dialect(self) -> Dialect:
        """See `Connection`."""
        return _NATIVE

    def wants_packed(self, scope: Scope) -> bool:
        """`?encoding=msgpack`, or the content type of the request."""
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("encoding")
        if asked:
            return asked[-1] == "msgpack"
        return any(name == b"content-type" and b"msgpack" in value for name, value in scope["headers"])

    async def greet(self) -> None:
        """See `Connection`."""
        try:
            self.permit = self.push.credentials.of_headers(self._scope["headers"])
            sign_in: dict[str, Any] = {"scopes": sorted(self.permit())}
        except Refused:
            sign_in = {"scopes": [], "auth": 'send {"action": "auth", "key": "ql_…"} first'}
        await self.tell({"type": "welcome", "protocol": 1, **self._place(), "heartbeat_seconds": 1, **sign_in})

    async def tell(self, message: Mapping[str, Any]) -> None:
        """Send a message."""
        await self.send_frame(msgpack.packb(message) if self.packed else orjson.dumps(message))

    async def complain(self, error: FrameError) -> None:
        """See `Connection`."""
        await self.tell({"type": "error", "code": error.code, "message": str(error)})

    def _place(self) -> dict[str, Any]:
        return {"cursor": str(self.reader.cursor), "sequence": self.reader.position}

    def asked(self, frame: Mapping[str, Any]) -> Callable[[], Awaitable[None]]:
        """See `Connection`."""
        action = frame.get("action")
        if action == "ping":
            return partial(self.tell, {"type": "pong"})
        if action == "auth":
            return partial(self._authenticated, self._signed_in(frame))
        if not isinstance(action, str) or action not in _ACTIONS:
            raise FrameError("action", f"action: one of {', '.join(_ACTIONS)}, not {action!r:.60}")
        if self.permit is None:
            raise FrameError("unauthenticated", 'send {"action": "auth", "key": "ql_…"} first, or a key as a header')
        if action == "unsubscribe":
            named = frame.get("id")
            if named is not None and not isinstance(named, str):
                raise FrameError(
                    "id", f"id: the text that names a subscription, not {named!r:.60}; left out: all of them"
                )
            return partial(self._unsubscribe, named)
        request = requested(frame, self.push.catalog())
        self._allowed(request)
        return partial(self._subscribe, request)

    def _signed_in(self, frame: Mapping[str, Any]) -> frozenset[str]:
        key = frame.get("key", frame.get("token"))
        if not isinstance(key, str):
            raise FrameError("auth", "key: your API key, or token: a JSON web token")
        try:
            permit = self.push.credentials.of_key(key)
            scopes = permit()
        except Refused as refused:
            raise FrameError("auth", str(refused)) from None
        self.permit = permit
        return scopes

    def _allowed(self, request: Request) -> None:
        assert self.permit is not None
        try:
            scopes = self.permit()
        except Refused as refused:
            raise FrameError("auth", str(refused)) from None
        for channel in sorted(request.subscription.channels):
            if SCOPES[channel] not in scopes:
                raise FrameError("forbidden", f"{channel} needs the scope {SCOPES[channel]}; yours: {sorted(scopes)}")

    # In turn with what is sent -----------------------------------------------------------------------------------

    async def _authenticated(self, scopes: frozenset[str]) -> None:
        await self.tell({"type": "authenticated", "scopes": sorted(scopes)})

    async def _subscribe(self, request: Request) -> None:
        cursor = Cursor.parsed(request.cursor) if request.cursor is not None else None
        identity = request.identity
        if identity is None:
            self._numbered += 1
            identity = str(self._numbered)
        others = {name: one for name, one in self._subscriptions.items() if name != identity}
        if cursor is not None and others:
            raise FrameError("cursor", "cursor: only with the first subscription of a connection; open another one")
        most = self.push.limits.subscriptions
        if len(others) >= most:
            raise FrameError("subscriptions", f"{most} subscriptions at most; unsubscribe from one first")
        if request.conflate_ms is not None:
            self._conflate_ms = request.conflate_ms
        with self.hub.store.read() as store:
            epoch, now, oldest = store.epoch, store.sequence, store.oldest_sequence
        if cursor is not None:
            if cursor.reached_by(epoch, oldest, now):
                await self.tell({"type": "resumed", "id": identity, "cursor": str(cursor), "sequence": cursor.sequence})
                self._follow({identity: request}, cursor.sequence)
                return
            reason = _GONE if cursor.epoch == epoch else "the store is another one than the cursor is of"
            await self._reset(reason)
        await self._anew({**others, identity: request}, [identity])

    async def _anew(self, subscriptions: dict[str, Request], new: Sequence[str]) -> None:
        """Send a snapshot of each new subscription, of one moment up to which the others are brought."""
        catalog = self.push.catalog()
        with self.hub.store.read() as store:
            place = Cursor(store.epoch, store.sequence)
            parts = [
                (name, part)
                for name in new
                for part in snapshot(store, catalog, subscriptions[name].subscription, subscriptions[name].snapshot)
            ]
        if len(new) < len(subscriptions):
            await self.reader.catch_up(place.sequence)
        for number, (name, part) in enumerate(parts, 1):
            head = {"type": "snapshot", "id": name, "cursor": str(place), "sequence": place.sequence}
            more = {"more": number < len(parts)}
            frame = orjson.dumps(head | more)[:-1] + b',"items":' + joined(part) + b"}"
            await self.send_frame(packed(frame) if self.packed else frame)
        self._follow(subscriptions, place.sequence)

    def _follow(self, subscriptions: dict[str, Request], position: int) -> None:
        self._subscriptions = subscriptions
        selection = frozenset(one.subscription for one in subscriptions.values())
        self.reader.follow(selection, self._conflate_ms / 1000, position)
        self.wake()

    async def _unsubscribe(self, named: str | None) -> None:
        if named is not None and named not in self._subscriptions:
            there = ", ".join(self._subscriptions) or "none"
            raise FrameError("id", f"id: there is no subscription {named!r:.60}; there are: {there}")
        left = {name: one for name, one in self._subscriptions.items() if named is not None and name != named}
        gone = [name for name in self._subscriptions if name not in left]
        self._follow(left, self.reader.position)
        await self.tell({"type": "unsubscribed", "ids": gone, **self._place()})

    async def forgotten(self) -> None:
        """See `Connection`."""
        await self._reset(_GONE)
        await self._anew(self._subscriptions, list(self._subscriptions))

    async def _reset(self, reason: str) -> None:
        await self.tell({"type": "reset", "reason": f"{reason}; what you have may lack bars, a snapshot follows"})

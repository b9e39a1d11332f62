"""Alpaca's stream of market data, for clients that are there: `connected`, `auth`, `subscribe`, then bars and trades.

Bars (`b`) are those of the shortest interval that is there of a symbol, daily ones (`d`) those of 1d; a bar that was
said before and has changed is an updated one (`u`). Trades (`t`) are the newest prices that live feeds give.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgpack
import orjson

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.push.catalog import Catalog
from quantlytic_assets.push.connection import Connection, Push, Receive, Refused, Scope, Send
from quantlytic_assets.push.cursor import Cursor
from quantlytic_assets.push.frames import FrameError
from quantlytic_assets.push.hub import Dialect
from quantlytic_assets.push.subscriptions import Subscription
from quantlytic_assets.push.updates import Update

# What a client may name in a subscription. Only the first four ever have something to say here.
_CHANNELS = (
    "trades", "bars", "updatedBars", "dailyBars", "quotes", "statuses", "lulds", "corrections", "cancelErrors",
    "orderbooks", "news", "imbalances",
)  # fmt: skip
# Alpaca's codes of errors, by ours.
_CODES = {
    "unreadable": (400, "invalid syntax"),
    "no_object": (400, "invalid syntax"),
    "too_long": (400, "invalid syntax"),
    "action": (400, "invalid syntax"),
    "unauthenticated": (401, "not authenticated"),
    "auth": (402, "auth failed"),
    "again": (403, "already authenticated"),
    "forbidden": (409, "insufficient subscription"),
    "forgotten": (407, "slow client"),
}
_FIELDS = ("o", "h", "l", "c", "v", "n", "vw")
_START = datetime(1970, 1, 1, tzinfo=UTC)

Channel = tuple[str, ...]


@dataclass(frozen=True)
class _Wanted:
    """The channels of the journal that are wanted as Alpaca's, which is also how updates are said."""

    slashed: bool
    bars: frozenset[Channel] = frozenset()
    updated: frozenset[Channel] = frozenset()
    daily: frozenset[Channel] = frozenset()
    trades: frozenset[Channel] = frozenset()

    def said(self, updates: Sequence[Update], cursor: Cursor, dropped: int, packed: bool) -> bytes | None:
        """See `hub.Dialect`."""
        messages = [message for update in updates for message in self._messages(update)]
        return _frame(messages, packed) if messages else None

    def heartbeat(self, cursor: Cursor, dropped: int, ages: bytes, packed: bool) -> None:
        """Alpaca's stream has none."""

    def _messages(self, update: Update) -> list[dict[str, Any]]:
        channel, data = update.channel, update.data
        symbol = channel[-1].replace("-", "/") if self.slashed else channel[-1]
        if channel[0] == "latest":
            # The lake knows closes of bars, and no trades.
            if channel not in self.trades or data.get("s") is None or data.get("source") == "lake":
                return []
            trade = {"T": "t", "S": symbol, "i": update.sequence, "p": data["p"], "s": data["s"], "t": data["t"]}
            more: dict[str, Any] = {"tks": "B"} if self.slashed else {"x": "V", "c": ["@"], "z": "C"}
            return [trade | more]
        # Alpaca has no word for a bar that is no more.
        if data.get("deleted"):
            return []
        said = []
        if channel in self.daily:
            said.append("d")
        if data.get("revision", 0) == 0:
            said += ["b"] if channel in self.bars else []
        elif channel in self.updated:
            said.append("u")
        bar = {name: data.get(name) for name in _FIELDS}
        bar = {"S": symbol, **bar, "n": bar["n"] or 0, "vw": bar["vw"] if bar["vw"] is not None else 0}
        return [{"T": word, **bar, "t": data["t"]} for word in said]


def _frame(messages: Sequence[Mapping[str, Any]], packed: bool) -> bytes:
    if not packed:
        return orjson.dumps(messages)
    return msgpack.packb([{**one, "t": _stamp(one["t"])} if "t" in one else one for one in messages])


def _stamp(text: str) -> msgpack.Timestamp:
    since = datetime.fromisoformat(text) - _START
    seconds, rest = divmod(since, timedelta(seconds=1))
    return msgpack.Timestamp(seconds, rest // timedelta(microseconds=1) * 1000)


class AlpacaConnection(Connection):
    """A connection that speaks it. `round_the_clock`: it serves crypto, whose symbols have a slash, else stocks."""

    def __init__(self, push: Push, scope: Scope, receive: Receive, send: Send, round_the_clock: bool):
        super().__init__(push, scope, receive, send)
        self._round_the_clock = round_the_clock
        self._named: dict[str, list[str]] = {}

    def dialect(self) -> Dialect:
        """See `Connection`; it is another one with each subscription."""
        return _Wanted(False)

    def wants_packed(self, scope: Scope) -> bool:
        """By the content type of the request, as Alpaca's own clients say it."""
        return any(name == b"content-type" and b"msgpack" in value for name, value in scope["headers"])

    async def tell(self, message: Mapping[str, Any]) -> None:
        """Send one message."""
        await self.send_frame(_frame([message], self.packed))

    async def greet(self) -> None:
        """See `Connection`."""
        await self.tell({"T": "success", "msg": "connected"})
        sent = {name for name, _ in self._scope["headers"]}
        if sent & {b"apca-api-key-id", b"authorization", b"x-api-key"}:
            try:
                self.permit = self.push.credentials.of_headers(self._scope["headers"])
                await self.tell({"T": "success", "msg": "authenticated"})
            except Refused:
                await self.complain(FrameError("auth", "auth failed"))

    async def complain(self, error: FrameError) -> None:
        """See `Connection`."""
        code, words = _CODES.get(error.code, (400, "invalid syntax"))
        await self.tell({"T": "error", "code": code, "msg": words if str(error) == words else f"{words}: {error}"})

    def asked(self, frame: Mapping[str, Any]) -> Callable[[], Awaitable[None]]:
        """See `Connection`."""
        action = frame.get("action")
        if action == "auth":
            self._sign_in(frame)
            return partial(self.tell, {"T": "success", "msg": "authenticated"})
        if action not in ("subscribe", "unsubscribe"):
            raise FrameError("action", f"action: auth, subscribe or unsubscribe, not {action!r:.60}")
        if self.permit is None:
            raise FrameError("unauthenticated", "not authenticated")
        return partial(self._change, self._changed(frame, action == "subscribe"))

    def _sign_in(self, frame: Mapping[str, Any]) -> None:
        if self.permit is not None:
            raise FrameError("again", "already authenticated")
        key, secret = frame.get("key"), frame.get("secret")
        if not isinstance(key, str) or not (secret is None or isinstance(secret, str)):
            raise FrameError("auth", "key and secret: one of them is your API key")
        try:
            permit = self.push.credentials.of_key(key, secret)
        except Refused as refused:
            raise FrameError("auth", str(refused)) from None
        if "market:read" not in permit():
            raise FrameError("forbidden", "the key has not the scope market:read")
        self.permit = permit

    def _changed(self, frame: Mapping[str, Any], more: bool) -> dict[str, list[str]]:
        """What is subscribed to after this frame; raises `FrameError` for what is not there."""
        catalog = self.push.catalog()
        named = {channel: list(symbols) for channel, symbols in self._named.items()}
        for channel, symbols in frame.items():
            if channel == "action":
                continue
            if channel not in _CHANNELS:
                raise FrameError("channel", f"{channel!r:.40}: there are {', '.join(_CHANNELS)}")
            if not isinstance(symbols, list) or not all(isinstance(one, str) for one in symbols):
                raise FrameError("channel", f'{channel}: a list of symbols, or ["*"]')
            there = named.setdefault(channel, [])
            for symbol in symbols:
                if not more:
                    there[:] = [] if symbol == "*" else [one for one in there if one != symbol]
                elif symbol != "*" and not self._markets(catalog, symbol):
                    raise FrameError("symbol", f"{symbol!r:.40}: no dataset of this stream has it")
                elif symbol not in there:
                    there.append(symbol)
        self._named = named
        return named

    def _markets(self, catalog: Catalog, symbol: str) -> list[tuple[str, tuple[str, ...]]]:
        """Datasets of this stream that have a symbol as Alpaca says it, with their intervals."""
        ours = symbol.replace("/", "-") if self._round_the_clock else symbol
        return [
            (name, market.intervals)
            for name, market in catalog.markets.items()
            if market.round_the_clock == self._round_the_clock and ours in market.symbols
        ]

    def _channels(self, named: Mapping[str, Sequence[str]]) -> _Wanted:
        catalog = self.push.catalog()
        of_stream = [one for one in catalog.markets.values() if one.round_the_clock == self._round_the_clock]
        every = list(dict.fromkeys(symbol for market in of_stream for symbol in market.symbols))

        def found(channel: str, daily: bool = False) -> frozenset[Channel]:
            asked = named.get(channel, ())
            ours = every if "*" in asked else [one.replace("/", "-") if self._round_the_clock else one for one in asked]
            channels: set[Channel] = set()
            for symbol in ours:
                kinds = [
                    (INTERVALS[interval], interval, dataset)
                    for dataset, intervals in self._markets(catalog, symbol)
                    for interval in intervals
                    if (interval == "1d") == daily
                ]
                if channel == "trades":
                    channels |= {("latest", dataset, symbol) for dataset, _ in self._markets(catalog, symbol)}
                elif kinds:
                    _, interval, dataset = min(kinds)
                    channels.add(("bars", dataset, interval, symbol))
            return frozenset(channels)

        return _Wanted(
            self._round_the_clock, found("bars"), found("updatedBars"), found("dailyBars", daily=True), found("trades")
        )

    async def _change(self, named: Mapping[str, Sequence[str]]) -> None:
        """Follow what is asked for now, from now on; what was asked for before is brought up to now first."""
        await self.reader.deliver()
        wanted = self._channels(named)
        symbols: dict[Channel, set[str]] = {}
        for channel in wanted.bars | wanted.updated | wanted.daily | wanted.trades:
            symbols.setdefault(channel[:-1], set()).add(channel[-1])
        selection = frozenset(
            Subscription(frozenset(kind[:1]), kind[1], frozenset(names), frozenset(kind[2:]) or None)
            for kind, names in symbols.items()
        )
        fresh = self.reader.group is None
        position = self.hub.position if fresh else self.reader.position
        self.reader.speak(wanted)
        self.reader.follow(selection, 0.0, position)
        said = {channel: sorted(named.get(channel, [])) for channel in _CHANNELS}
        await self.tell({"T": "subscription", **said})

    async def forgotten(self) -> None:
        """See `Connection`: there is no word for what is lost but this."""
        await self.complain(FrameError("forgotten", "slow client"))
        self.reader.follow(self.reader.selection, 0.0, self.hub.position)

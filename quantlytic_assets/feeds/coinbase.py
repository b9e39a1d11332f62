"""Coinbase Exchange's websocket feed: where it is, and what its messages mean.

A product's trades are numbered one by one, and a heartbeat a second names the last one, though not always: a number of
0 says nothing. The REST side is `vendors.coinbase`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from quantlytic_assets.market_data.stream.messages import Announced, Message, Trade, micros

_AGGRESSOR = {"buy": "sell", "sell": "buy"}


class CoinbaseFeed:
    """See `Venue`. `names` is our symbol by Coinbase's product id."""

    name = "coinbase"
    gives = "trades"
    # There is a heartbeat every second.
    silence = 15.0
    # Its newest candles are summed up a little later, and may be incomplete until then.
    rest_after = 20.0

    def __init__(self, names: Mapping[str, str], url: str):
        self.url = url
        self._symbols = dict(names)
        # Within five seconds of connecting, or Coinbase closes.
        self.greetings = [
            orjson.dumps(
                {"type": "subscribe", "product_ids": list(names), "channels": ["matches", "heartbeat"]}
            ).decode()
        ]

    def read(self, text: str | bytes, received_at: int) -> Message:
        """See `Venue.read`."""
        try:
            return self._read(orjson.loads(text), received_at)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return Message(notice=f"a message of Coinbase's can't be read ({type(error).__name__}: {error})")

    def _read(self, data: dict[str, Any], received_at: int) -> Message:
        kind = data.get("type")
        if kind == "error":
            said = " ".join(str(data[name]) for name in ("message", "reason") if data.get(name))
            return Message(notice=f"Coinbase says: {said[:200]}")
        symbol = self._symbols.get(data.get("product_id", ""))
        if symbol is None:
            return Message()
        if kind in ("match", "last_match"):
            time = _micros(data["time"])
            trade = Trade(
                symbol=symbol,
                trade_id=int(data["trade_id"]),
                time=time,
                price=float(data["price"]),
                size=float(data["size"]),
                # The maker's side is given; the aggressor took the other one.
                side=_AGGRESSOR.get(data["side"], "unknown"),
                received_at=received_at,
            )
            # The last match is from before this connection: it does not say what time it is.
            return Message(symbol, time if kind == "match" else None, trades=(trade,), alive=True)
        if kind == "heartbeat":
            time, last = _micros(data["time"]), int(data.get("last_trade_id") or 0)
            return Message(symbol, time, announced=(Announced(symbol, last, time),) if last > 0 else (), alive=True)
        return Message()


def _micros(text: str) -> int:
    time = datetime.fromisoformat(text)
    return micros(time if time.tzinfo is not None else time.replace(tzinfo=UTC))

"""Binance's spot market streams: where they are, and what their messages mean.

A trade stream numbers a symbol's trades one by one, and a kline names the first and last trade in it: between them
nothing can be missed unnoticed. The REST side is `vendors.binance`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from quantlytic_assets.market_data.stream.messages import Announced, Kline, Message, Trade

# Limits of one connection: streams, those in its address (for its length), and in a message that adds some.
_MOST_STREAMS = 1024
_STREAMS_IN_URL = 100
_STREAMS_IN_MESSAGE = 200
# Times are milliseconds unless microseconds are asked for; 1e14 ms is the year 5138.
_LEAST_MICROSECONDS = 100_000_000_000_000


class BinanceStreams:
    """See `Venue`. `names` is our symbol by Binance's; `gives` is trades or klines."""

    name = "binance"
    # Each symbol has at least its finished kline a minute, however quiet it is.
    silence = 75.0
    rest_after = 3.0

    def __init__(self, names: Mapping[str, str], url: str, gives: str):
        self.gives = gives
        self._symbols = {name.upper(): symbol for name, symbol in names.items()}
        lower = [name.lower() for name in names]
        # Klines come with trades as well: they tell the number of the last trade, and that the stream lives.
        streams = [f"{name}@trade" for name in lower] if gives == "trades" else []
        streams += [f"{name}@kline_1m" for name in lower]
        if len(streams) > _MOST_STREAMS:
            raise ValueError(f"{len(names)} symbols need {len(streams)} streams; a connection has {_MOST_STREAMS}")
        self.url = f"{url.rstrip('/')}/stream?streams={'/'.join(streams[:_STREAMS_IN_URL])}"
        rest = streams[_STREAMS_IN_URL:]
        self.greetings = [
            orjson.dumps(
                {"method": "SUBSCRIBE", "params": rest[at : at + _STREAMS_IN_MESSAGE], "id": at // _STREAMS_IN_MESSAGE}
            ).decode()
            for at in range(0, len(rest), _STREAMS_IN_MESSAGE)
        ]

    def read(self, text: str | bytes, received_at: int) -> Message:
        """See `Venue.read`."""
        try:
            whole = orjson.loads(text)
            return self._read(whole.get("data", whole), received_at)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return Message(notice=f"a message of Binance's can't be read ({type(error).__name__}: {error})")

    def _read(self, data: dict[str, Any], received_at: int) -> Message:
        event = data.get("e")
        if event == "trade":
            return self._trade(data, received_at)
        if event == "kline":
            return self._kline(data)
        if event == "serverShutdown" or (data.get("event") or {}).get("e") == "serverShutdown":
            return Message(notice="Binance is about to shut this connection's server down", shutdown=True)
        if "code" in data or data.get("error"):
            return Message(notice=f"Binance says: {orjson.dumps(data).decode()[:200]}")
        return Message()

    def _trade(self, data: dict[str, Any], received_at: int) -> Message:
        symbol = self._symbols.get(data["s"])
        if symbol is None or self.gives != "trades":
            return Message()
        trade = Trade(
            symbol=symbol,
            trade_id=int(data["t"]),
            time=_micros(data["T"]),
            price=float(data["p"]),
            size=float(data["q"]),
            # m: the buyer was the maker, so that the one who came to trade was the seller.
            side="sell" if data["m"] else "buy",
            received_at=received_at,
        )
        return Message(symbol, _micros(data["E"]), trades=(trade,), alive=True)

    def _kline(self, data: dict[str, Any]) -> Message:
        inner = data["k"]
        symbol = self._symbols.get(data["s"])
        if symbol is None or inner["i"] != "1m":
            return Message()
        written, ends = _micros(data["E"]), _micros(inner["T"])
        kline = Kline(
            symbol=symbol,
            open_time=_micros(inner["t"]),
            first_id=int(inner["f"]),
            last_id=int(inner["L"]),
            open=float(inner["o"]),
            high=float(inner["h"]),
            low=float(inner["l"]),
            close=float(inner["c"]),
            volume=float(inner["v"]),
            quote_volume=float(inner["q"]),
            trade_count=int(inner["n"]),
            closed=inner["x"] is True,
        )
        if self.gives == "klines":
            return Message(symbol, written, klines=(kline,), alive=True)
        announced = (Announced(symbol, kline.last_id, min(written, ends)),) if kline.last_id >= 0 else ()
        return Message(symbol, written, announced=announced, alive=True)


def _micros(time: int) -> int:
    return time if time >= _LEAST_MICROSECONDS else time * 1000

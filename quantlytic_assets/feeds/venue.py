"""What a venue's live feed is to the rest of the program, and which there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from quantlytic_assets.market_data.stream.messages import Message
from quantlytic_assets.settings import Settings
from quantlytic_assets.universe.models import Instrument


class Venue(Protocol):
    """How a venue is subscribed to and what its messages mean.

    name: also the name of the vendor that has the same bars by REST. gives: `trades`, or `klines`, the venue's own
    bars. silence: seconds without any message after which something is wrong. rest_after: seconds after a minute's end
    at which REST has all of it.
    """

    name: str
    gives: str
    silence: float
    rest_after: float

    @property
    def url(self) -> str:
        """Where to connect."""
        ...

    @property
    def greetings(self) -> Sequence[str]:
        """What to send when the connection stands."""
        ...

    def read(self, text: str | bytes, received_at: int) -> Message:
        """What a message says; `received_at` by our clock. Never raises: what can't be read is a notice."""
        ...


def make_venue(feed: str, instruments: Sequence[Instrument], settings: Settings) -> Venue:
    """The venue of a feed as the universe names it, for these symbols. Raises `ValueError` where they don't fit it."""
    if feed in ("binance_trades", "binance_klines"):
        from quantlytic_assets.feeds.binance import BinanceStreams
        from quantlytic_assets.vendors.binance import binance_name

        names = _names(instruments, "binance", binance_name)
        return BinanceStreams(names, settings.binance_ws, feed.removeprefix("binance_"))
    if feed == "coinbase_trades":
        from quantlytic_assets.feeds.coinbase import CoinbaseFeed
        from quantlytic_assets.vendors.coinbase import coinbase_name

        return CoinbaseFeed(_names(instruments, "coinbase", coinbase_name), settings.coinbase_ws)
    raise ValueError(f"unknown feed {feed!r}")


def _names(instruments: Sequence[Instrument], vendor: str, derive: Callable[[str], str]) -> Mapping[str, str]:
    """Our symbol by the venue's name for it."""
    names: dict[str, str] = {}
    for one in instruments:
        name = one.names.get(vendor) or derive(one.symbol)
        if name in names:
            raise ValueError(f"{names[name]} and {one.symbol} are both {name} at {vendor}; give one of them its name")
        names[name] = one.symbol
    return names

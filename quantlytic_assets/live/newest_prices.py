"""The newest prices as people see them: of each symbol one in a while, for they see no more of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from quantlytic_assets.live import publishing
from quantlytic_assets.live.sources import Price

if TYPE_CHECKING:
    from quantlytic_assets.serving.hot_store import Writer

# Seconds between two of a symbol.
PRICES_EVERY = 0.1


class NewestPrices:
    """The prices of one dataset on their way into the hot store. waiting: whether there may be any to tell."""

    def __init__(self, dataset: str, clock: Callable[[], float]):
        self._dataset = dataset
        self._clock = clock
        self._told: dict[str, float] = {}
        # Those that are too soon after the ones told last.
        self._soon: dict[str, Price] = {}
        self.waiting = False

    def put(self, writer: Writer, prices: Mapping[str, Price]) -> None:
        """Tell prices, by symbol, with those that waited, as far as it is time to."""
        now = self._clock()
        self._soon |= prices
        for symbol in [one for one in self._soon if now - self._told.get(one, 0.0) >= PRICES_EVERY]:
            price = self._soon.pop(symbol)
            body = publishing.latest(price.price, price.size, price.time)
            writer.put_latest(self._dataset, symbol, body)
            writer.tell(("latest", self._dataset, symbol), body)
            self._told[symbol] = now
        self.waiting = bool(self._soon)

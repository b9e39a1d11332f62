"""How old the newest word on each symbol is: what tells a quiet market from a feed that is mute."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import orjson

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.push.catalog import Catalog
from quantlytic_assets.push.subscriptions import Selection
from quantlytic_assets.serving.hot_store import HotStore, Reader
from quantlytic_assets.serving.rows import micros


class Ages:
    """Ages in seconds by dataset and symbol, each read from the store once between two calls of `forget`."""

    def __init__(self, store: HotStore, catalog: Callable[[], Catalog]):
        self._store = store
        self._catalog = catalog
        self._known: dict[tuple[str, str], float | None] = {}

    def forget(self) -> None:
        """Read anew from now on."""
        self._known.clear()

    def of(self, selection: Selection) -> dict[str, dict[str, float | None]]:
        """Seconds since the newest price of each symbol that is subscribed to, None where there is none."""
        catalog = self._catalog()
        now = datetime.now(UTC).timestamp() * 1e6
        ages: dict[str, dict[str, float | None]] = {}
        with self._store.read() as reader:
            for one in selection:
                market = catalog.markets.get(one.dataset or "")
                if one.dataset is None or market is None:
                    continue
                told = ages.setdefault(one.dataset, {})
                for symbol in market.symbols if one.symbols is None else sorted(one.symbols):
                    told[symbol] = self._age(reader, one.dataset, symbol, market.intervals, now)
        return ages

    def _age(self, reader: Reader, dataset: str, symbol: str, intervals: tuple[str, ...], now: float) -> float | None:
        key = dataset, symbol
        if key not in self._known:
            newest = _newest(reader, dataset, symbol, intervals)
            self._known[key] = None if newest is None else round((now - newest) / 1e6, 3)
        return self._known[key]


def _newest(reader: Reader, dataset: str, symbol: str, intervals: tuple[str, ...]) -> int | None:
    """When the newest price of a symbol was one (microseconds since 1970): a trade's time, or the end of a bar."""
    price = reader.latest(dataset, symbol)
    if price is not None:
        return micros(orjson.loads(price)["t"])
    interval = intervals[0]
    block = next((block for _, block in reader.newest_blocks(dataset, f"bars/{interval}", symbol)), None)
    if block is None or block.count == 0:
        return None
    return block.last + round(INTERVALS[interval].total_seconds() * 1e6)

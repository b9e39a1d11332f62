"""Snapshots: what a subscription's channels hold at one moment, with the place in the journal that they go on from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import orjson

from quantlytic_assets.push.catalog import Catalog
from quantlytic_assets.push.subscriptions import Subscription
from quantlytic_assets.serving.hot_store import Reader
from quantlytic_assets.serving.rows import Block

# A larger snapshot is sent in several parts.
_PART_BYTES = 256 * 1024
# Each row begins with its time, see `serving.rows`.
_NEXT_ROW = b',{"t":'


def snapshot(reader: Reader, catalog: Catalog, subscription: Subscription, rows: int) -> Iterator[list[bytes]]:
    """Items (JSON objects with `channel`, the channel's parts, and `rows`) in parts of about 256 kB, at least one.

    rows: how many of the newest bars, rows of features and signals; of prices there is one, of orders all that the
    store has.
    """
    part: list[bytes] = []
    size = 0
    for item in _items(reader, catalog, subscription, rows):
        part.append(item)
        size += len(item)
        if size > _PART_BYTES:
            yield part
            part, size = [], 0
    yield part


def _items(reader: Reader, catalog: Catalog, one: Subscription, rows: int) -> Iterator[bytes]:
    if one.dataset is not None:
        market = catalog.markets[one.dataset]
        symbols = [symbol for symbol in market.symbols if one.symbols is None or symbol in one.symbols]
        intervals = [interval for interval in market.intervals if one.intervals is None or interval in one.intervals]
        for symbol in symbols:
            if "latest" in one.channels:
                price = reader.latest(one.dataset, symbol)
                yield _item([price] if price else [], channel="latest", dataset=one.dataset, symbol=symbol)
            for channel in ("bars", "features"):
                for interval in intervals if channel in one.channels else ():
                    found = newest_rows(reader, one.dataset, f"{channel}/{interval}", symbol, rows)
                    yield _item(found, channel=channel, dataset=one.dataset, interval=interval, symbol=symbol)
    for strategy, (dataset, traded) in catalog.strategies.items():
        if one.strategies is not None and strategy not in one.strategies:
            continue
        if "signals" in one.channels:
            for symbol in traded:
                if one.symbols is None or symbol in one.symbols:
                    found = newest_rows(reader, dataset, f"signals/{strategy}", symbol, rows)
                    yield _item(found, channel="signals", strategy=strategy, symbol=symbol)
        if "orders" in one.channels:
            yield _item([body for _, body in reader.facts("orders", strategy)], channel="orders", strategy=strategy)


def _item(rows: Iterable[bytes], **named: str) -> bytes:
    return orjson.dumps(named)[:-1] + b',"rows":[' + b",".join(rows) + b"]}"


def newest_rows(reader: Reader, dataset: str, kind: str, symbol: str, most: int) -> list[bytes]:
    """The newest rows of a series, at most so many, as JSON, oldest first; several in one piece, joined by commas."""
    pieces: list[bytes] = []
    if most:
        for _, block in reader.newest_blocks(dataset, kind, symbol):
            if block.count:
                pieces.append(_tail(block, most))
                most -= block.count
            if most <= 0:
                break
    return pieces[::-1]


def _tail(block: Block, most: int) -> bytes:
    """The last rows of a block: their text is cut, not read."""
    if most >= block.count:
        return block.body
    at = len(block.body)
    for _ in range(most):
        at = block.body.rindex(_NEXT_ROW, 0, at)
    return block.body[at + 1 :]

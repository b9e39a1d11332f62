"""The recorded trades, read and summed up without any code of the package: what feeds are measured against."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

RECORDING = Path(__file__).parent / "recordings" / "binance_btcusdt.gz"
MINUTE = 60_000


@dataclass(frozen=True)
class Recorded:
    """One trade; times in milliseconds, numbers as the exchange wrote them."""

    number: int
    time: int
    written: int
    price: str
    size: str
    buyer_is_maker: bool


@dataclass(frozen=True)
class Bar:
    """What a minute of trades comes to."""

    open: float
    high: float
    low: float
    close: float
    volume: float
    quote_volume: float
    trades: int
    first: int
    last: int


@lru_cache
def lines() -> tuple[str, ...]:
    """The recorded messages, noise included, without the recorder's times."""
    return tuple(line.split(" ", 1)[1] for line in gzip.open(RECORDING, "rt").read().splitlines())


@lru_cache
def trades() -> tuple[Recorded, ...]:
    """All recorded trades, in their order."""
    found = [json.loads(line)["data"] for line in lines() if '@trade"' in line]
    return tuple(Recorded(one["t"], one["T"], one["E"], one["p"], one["q"], one["m"]) for one in found)


@lru_cache
def thinned(every: int) -> tuple[Recorded, ...]:
    """A quiet market made of the recorded one: each `every`th trade, numbered anew without a gap."""
    return tuple(replace(one, number=1000 + i) for i, one in enumerate(trades()[::every]))


def bars_of(them: Iterable[Recorded]) -> dict[int, Bar]:
    """Bars by the minute's start in milliseconds, added up in decimals."""
    minutes: dict[int, list[Recorded]] = {}
    for one in them:
        minutes.setdefault(one.time - one.time % MINUTE, []).append(one)
    bars = {}
    for minute, inside in minutes.items():
        inside.sort(key=lambda one: (one.time, one.number))
        prices = [Decimal(one.price) for one in inside]
        sizes = [Decimal(one.size) for one in inside]
        bars[minute] = Bar(
            open=float(prices[0]),
            high=float(max(prices)),
            low=float(min(prices)),
            close=float(prices[-1]),
            volume=float(sum(sizes)),
            quote_volume=float(sum(price * size for price, size in zip(prices, sizes, strict=True))),
            trades=len(inside),
            first=inside[0].number,
            last=inside[-1].number,
        )
    return bars

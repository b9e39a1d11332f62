"""What a live stream says, whoever sends it: trades, klines, and what tells whether any were missed.

Times are whole microseconds since 1970 UTC: these objects are made for every message. What follows from them is decided
in `trade_bars` and `kline_bars`; how a venue writes them is known in `feeds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

MINUTE = 60_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def micros(time: datetime) -> int:
    """A time with a zone in microseconds since 1970 UTC."""
    return (time - _EPOCH) // _MICROSECOND


def moment(time: int) -> datetime:
    """Microseconds since 1970 as a UTC time."""
    return _EPOCH + time * _MICROSECOND


class Trade(NamedTuple):
    """One trade. `side` is the aggressor's: buy, sell or unknown. A venue numbers a symbol's trades without a gap."""

    symbol: str
    trade_id: int
    time: int
    price: float
    size: float
    side: str
    received_at: int


class Kline(NamedTuple):
    """One minute as the venue sums it up. `first_id` and `last_id` are its trades' numbers, -1 where it has none."""

    symbol: str
    open_time: int
    first_id: int
    last_id: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    quote_volume: float
    trade_count: int
    closed: bool


class Announced(NamedTuple):
    """The venue's word that at `time` the symbol's last trade was number `last_id`, whether or not we got it."""

    symbol: str
    last_id: int
    time: int


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a stream, read.

    symbol, time: whom it is about and when the venue wrote it; None where it does not say. Having it means that
    whatever the venue sent of the symbol before is here as well.
    notice: something a person should know. alive: it shows that the subscription works. shutdown: the server is about
    to close the connection.
    """

    symbol: str | None = None
    time: int | None = None
    trades: Sequence[Trade] = ()
    klines: Sequence[Kline] = ()
    announced: Sequence[Announced] = ()
    notice: str | None = None
    alive: bool = False
    shutdown: bool = False

"""What the simulated broker would have made of orders that another one filled: the same orders, in the same bars.

Each order is given by hand at the bar it was decided on, in an account that can afford all of them, and called back
when it was; so its fill is what the engine's conventions and the declared costs make of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import polars as pl

from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.market import Market, micros
from quantlytic_assets.trading.engine.requests import NAN, Requests
from quantlytic_assets.trading.engine.run import run
from quantlytic_assets.trading.engine.settings import EngineSettings, Exits, OrderStyle, Risk, Sizing

SIMULATED_SCHEMA = pl.Schema(
    {
        "client_order_id": pl.String,
        "simulated_filled": pl.Float64,
        "simulated_price": pl.Float64,
        "simulated_commission": pl.Float64,
    }
)
# More than any order costs; prices and costs of fills do not depend on it.
_ENOUGH = 1e12


@dataclass(frozen=True)
class GivenOrder:
    """An order as it was given to a broker. from_time: when it could be filled first, UTC; until: when it was over.

    side: 1 buys, -1 sells; words are the engine's.
    """

    client_order_id: str
    symbol: str
    side: int
    quantity: float
    type: str
    time_in_force: str
    limit: float | None
    stop: float | None
    trail: float | None
    from_time: datetime
    until: datetime | None = None


def simulated_fills(market: Market, orders: Sequence[GivenOrder], settings: EngineSettings) -> pl.DataFrame:
    """SIMULATED_SCHEMA: what these orders would have been filled with by now, those that would have been at all.

    settings: costs, volume cap and conventions are those of the account. An order that was decided before the market's
    first bar, or for one that is not there yet, has none.
    """
    open_account = EngineSettings(
        _ENOUGH,
        short=True,
        leverage=100.0,
        volume_cap=settings.volume_cap,
        costs=replace(settings.costs, borrow_bps_annual=0.0, financing_bps_annual=0.0),
        limit_fill=settings.limit_fill,
        stop_limit_fill=settings.stop_limit_fill,
        fill_at=settings.fill_at,
        orders=OrderStyle(),
        exits=Exits(),
        sizing=Sizing(),
        risk=Risk(max_gross=100.0),
    )
    available = market.times[:, c.AVAILABLE]
    asked: dict[int, Requests] = {}
    numbers: dict[int, str] = {}
    ends: list[tuple[int, int]] = []
    given = sorted(orders, key=lambda one: one.from_time)
    for order in given:
        # Decided on the last bar that was known by then.
        at = int(np.searchsorted(available, micros(order.from_time), "right")) - 1
        if at < 0 or order.symbol not in market.symbols:
            continue
        number = len(numbers) + 1
        asked.setdefault(at, Requests(market.symbols)).submit(
            order.symbol,
            order.side * order.quantity,
            limit=NAN if order.limit is None else order.limit,
            stop=NAN if order.stop is None or order.type == "trailing_stop" else order.stop,
            trail=NAN if order.trail is None else order.trail,
            type=order.type,
            time_in_force=order.time_in_force,
        )
        numbers[number] = order.client_order_id
        if order.until is not None:
            ends.append((int(np.searchsorted(available, micros(order.until))), number))
    for at, number in ends:
        if at < len(market):
            asked.setdefault(at, Requests(market.symbols)).cancel(number)
    if not numbers:
        return SIMULATED_SCHEMA.to_frame()
    events = run(market, None, open_account, orders=asked).events.frame()
    names = pl.DataFrame({"order": list(numbers), "client_order_id": list(numbers.values())})
    fills = events.filter(kind="fill").drop("client_order_id").join(names, on="order")
    return (
        fills.group_by("client_order_id", maintain_order=True)
        .agg(
            pl.col("quantity").sum().alias("simulated_filled"),
            ((pl.col("price") * pl.col("quantity")).sum() / pl.col("quantity").sum()).alias("simulated_price"),
            pl.col("commission").sum().alias("simulated_commission"),
        )
        .cast(dict(SIMULATED_SCHEMA))
    )

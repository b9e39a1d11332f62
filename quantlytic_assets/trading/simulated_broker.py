"""Fills orders from bars: the simulated counterpart of a broker, and the protocol that every broker follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import polars as pl

from quantlytic_assets.trading.costs import with_costs
from quantlytic_assets.trading.entitlements import Entitlements, shares
from quantlytic_assets.trading.orders import FILLS_SCHEMA

if TYPE_CHECKING:
    from quantlytic_assets.universe.models import Costs, Strategy


class Broker(Protocol):
    """What `paper.trade` asks of a broker.

    `sessions_at_once`: for how many sessions orders may be decided before they are sent. A broker that lives in real
    time takes 1; the simulated one can be given history in large pieces.
    """

    sessions_at_once: int

    def submit(self, orders: pl.DataFrame) -> pl.DataFrame:
        """Sends open orders (orders.ORDERS_SCHEMA) and returns the fills known by now (orders.FILLS_SCHEMA).

        Must be safe to repeat: an order_ref seen before is not sent again, its fill is returned again. An order without
        a row in the answer stays open and is submitted again later.
        """
        ...


class BrokerNotAvailable(NotImplementedError):
    """The strategy names a broker that this version cannot reach."""


class SimulatedBroker:
    """Fills at the open of the first bar after the decision, with slippage and commission.

    bars: symbol, session, open_time (UTC), open, of one interval, those that may be used: an order waits for the next
    good one. They must reach back to the decision times of the orders, for a frame that begins later would fill them
    later. Nothing is kept between calls; the same bars give the same fills. An order that a split overtakes is filled
    in as many shares as it has become, as brokers do with open orders, and one that a rename overtakes under the new
    name.
    """

    sessions_at_once = 250

    def __init__(self, bars: pl.DataFrame, costs: Costs, entitlements: Entitlements | None = None) -> None:
        self._bars, self._costs, self._entitlements = bars, costs, entitlements or Entitlements()

    def submit(self, orders: pl.DataFrame) -> pl.DataFrame:
        """See `Broker.submit`: every order is filled at once, or as soon as there is a bar for it."""
        return fill(orders, self._bars, self._costs, self._entitlements)


def broker_for(strategy: Strategy, bars: pl.DataFrame, entitlements: Entitlements) -> Broker:
    """The broker a strategy names. Raises `BrokerNotAvailable` for `ibkr`."""
    if strategy.broker == "simulated":
        return SimulatedBroker(bars, strategy.costs, entitlements)
    raise BrokerNotAvailable(
        f"strategies.{strategy.name}.broker: {strategy.broker!r} cannot be traded with yet, set `broker: simulated`"
    )


def next_bars(orders: pl.DataFrame, bars: pl.DataFrame) -> pl.DataFrame:
    """`orders` that have a next bar, with `fill_time`, `fill_session` and `open` of it.

    The next bar is the first of the order's symbol with open_time >= decision_time and a usable open: the entry of
    labels (dbt_project/models/features/labels.sql) is the same one. Orders without one are left out.
    """
    usable = bars.filter(pl.col("open").is_finite() & (pl.col("open") > 0)).select(
        "symbol", pl.col("open_time").alias("fill_time"), pl.col("session").alias("fill_session"), "open"
    )
    return (
        orders.sort("decision_time")
        .join_asof(
            usable.sort("fill_time"),
            left_on="decision_time",
            right_on="fill_time",
            by="symbol",
            strategy="forward",
            check_sortedness=False,
        )
        .filter(pl.col("fill_time").is_not_null())
        .sort("session", "symbol")
    )


def fill(orders: pl.DataFrame, bars: pl.DataFrame, costs: Costs, entitlements: Entitlements) -> pl.DataFrame:
    """Fills (orders.FILLS_SCHEMA) of the orders (orders.ORDERS_SCHEMA) that the bars can fill, each in full."""
    # By company: the ticker of the next bar may be another one than that of the order.
    asked = entitlements.with_company(orders, "session").with_columns(pl.col("company").alias("symbol"))
    known = entitlements.with_company(bars, "session").with_columns(pl.col("company").alias("symbol"))
    matched = entitlements.with_split_factor(next_bars(asked, known), "session", "then")
    matched = entitlements.with_split_factor(matched, "fill_session", "now")
    matched = entitlements.with_symbol(matched, "fill_session")
    matched = matched.with_columns(shares(pl.col("quantity") / pl.col("then"), pl.col("now")).alias("quantity"))
    return with_costs(matched, costs).select(FILLS_SCHEMA.names())

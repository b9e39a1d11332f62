"""Orders at a broker beside what the simulation makes of them: rows of trading.broker_orders, and their slippage."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from quantlytic_assets.schemas.trading import BROKER_ORDERS
from quantlytic_assets.storage.broker_ledger import BrokerFill, BrokerOrder
from quantlytic_assets.trading.engine.market import Market
from quantlytic_assets.trading.engine.settings import EngineSettings
from quantlytic_assets.trading.simulated_orders import SIMULATED_SCHEMA, GivenOrder, simulated_fills

_FILLS_SCHEMA = pl.Schema({"order_ref": pl.String, "filled": pl.Float64, "price": pl.Float64, "commission": pl.Float64})


def broker_order_rows(
    orders: Sequence[BrokerOrder], fills: Sequence[BrokerFill], market: Market | None, settings: EngineSettings
) -> pl.DataFrame:
    """Rows of trading.broker_orders. market: the bars of these orders and what came after; None where there are none.

    Slippage is of the shares that were filled, against the average simulated price: positive where the broker's fills
    cost more.
    """
    told = pl.DataFrame(
        [(one.client_order_id, one.quantity, one.price, one.commission) for one in fills],
        _FILLS_SCHEMA,
        orient="row",
    )
    real = told.group_by("order_ref").agg(
        pl.col("filled").sum(),
        # What was taken back has no price.
        pl.when(pl.col("filled").sum() > 0)
        .then((pl.col("price") * pl.col("filled")).sum() / pl.col("filled").sum())
        .alias("price"),
        pl.when(pl.col("commission").is_not_null().any()).then(pl.col("commission").sum()).alias("commission"),
    )
    # What was never sent has no fill to be compared with.
    sent = [_given(one) for one in orders if one.sent_at is not None]
    simulated = simulated_fills(market, sent, settings) if market is not None and sent else SIMULATED_SCHEMA.to_frame()
    rows = pl.DataFrame(
        [
            (
                one.strategy, one.session, one.symbol, one.client_order_id, one.account,
                "buy" if one.side > 0 else "sell", one.quantity, one.type, one.decision_time, one.sent_at, one.status,
                one.reason,
            )
            for one in orders
        ],
        {name: BROKER_ORDERS.polars[name] for name in BROKER_ORDERS.polars.names()[:12]},
        orient="row",
    )  # fmt: skip
    worse = (pl.col("price") - pl.col("simulated_price")) * pl.when(pl.col("side") == "buy").then(1.0).otherwise(-1.0)
    return (
        rows.join(real, on="order_ref", how="left", maintain_order="left")
        .join(simulated.rename({"client_order_id": "order_ref"}), on="order_ref", how="left", maintain_order="left")
        .with_columns(
            pl.col("filled").fill_null(0.0),
            (worse * pl.col("filled")).alias("slippage"),
            (1e4 * worse / pl.col("simulated_price")).alias("slippage_bps"),
        )
        .select(pl.col(name).cast(dtype) for name, dtype in BROKER_ORDERS.polars.items())
    )


def _given(order: BrokerOrder) -> GivenOrder:
    """The order from its decision on; an exit from when it was written, for its decision is its entry's."""
    over = order.status in ("cancelled", "rejected") and order.ended_at is not None
    return GivenOrder(
        order.client_order_id, order.symbol, order.side, order.quantity, order.type, order.time_in_force,
        order.limit_price, order.stop_price, order.trail, order.written_at if order.exits else order.decision_time,
        order.ended_at if over else None,
    )  # fmt: skip

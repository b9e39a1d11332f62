"""What trading costs: slippage moves the price against the order, commission is a share of the notional.

1 basis point (bps) is 1e-4. Pure expressions on columns, so that strategy and benchmark pay the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from quantlytic_assets.universe.models import Costs


def with_costs(matched: pl.DataFrame, costs: Costs) -> pl.DataFrame:
    """`matched` with `price`, `commission` and `slippage`.

    matched: side ('buy' or 'sell'), quantity (> 0), open (price before slippage). price = open * (1 + bps / 1e4) for a
    buy, open * (1 - bps / 1e4) for a sell; commission = bps of price * quantity; slippage = |price - open| * quantity.
    The latter two are money and not negative; slippage is part of the price already.
    """
    rate = costs.slippage_bps / 1e4
    direction = pl.when(pl.col("side") == "buy").then(1.0).otherwise(-1.0)
    priced = matched.with_columns((pl.col("open") * (1 + direction * rate)).alias("price"))
    return priced.with_columns(
        (pl.col("price") * pl.col("quantity") * (costs.commission_bps / 1e4)).alias("commission"),
        ((pl.col("price") - pl.col("open")).abs() * pl.col("quantity")).alias("slippage"),
    )

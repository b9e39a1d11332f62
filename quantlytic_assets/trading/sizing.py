"""How much of each symbol a strategy wants to hold. Prices in the symbols' currency, quantities in whole units."""

from __future__ import annotations

import polars as pl


def with_target(plan: pl.DataFrame, capital: float, symbols: int) -> pl.DataFrame:
    """`plan` with `target` (Float64, whole units): long-only, equal weight, on fixed capital.

    plan: prediction (1 = up), reference_price. target = floor(capital / symbols / reference_price) where prediction is
    1, 0 where it is not; null where it is 1 and the price is not a positive finite number. Gains are not reinvested,
    so a session's target does not depend on the path of the equity before it.
    """
    price = pl.col("reference_price")
    usable = price.is_finite() & (price > 0)
    return plan.with_columns(
        pl.when(pl.col("prediction") != 1)
        .then(0.0)
        .when(usable)
        .then((capital / symbols / price).floor())
        .alias("target")
    )

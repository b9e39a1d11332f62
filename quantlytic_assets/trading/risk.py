"""Checks between wanting and ordering. A rejection has a reason in words and is kept in the ledger.

All checks look at one session's plan alone and never at holdings, so a session's outcome can be computed for a whole
stretch of sessions at once.
"""

from __future__ import annotations

import polars as pl

NO_PRICE = "no usable reference price"
TOO_SMALL = "capital per symbol buys less than one unit"
# Sums of floats may pass a limit they are equal to.
_ROUNDING = 1e-9


def with_reason(plan: pl.DataFrame, capital: float) -> pl.DataFrame:
    """`plan` with `reason` (String): why a symbol's target may not be ordered, null where it may.

    plan: session, symbol, reference_price, target (units, not negative). Rejected are targets without a finite positive
    reference price, and every target of a session whose gross exposure, sum of target * reference_price, is above
    `capital`: such a plan is wrong as a whole.
    """
    price = pl.col("reference_price")
    usable = (price.is_finite() & (price > 0)).fill_null(False)
    gross = pl.when(usable).then(pl.col("target").abs() * price).otherwise(0.0).sum().over("session")
    limit = pl.format("gross exposure {} above capital {}", gross.round(2), pl.lit(float(capital)))
    return plan.with_columns(
        pl.when(~usable | pl.col("target").is_null())
        .then(pl.lit(NO_PRICE))
        .when(gross > capital * (1 + _ROUNDING))
        .then(limit)
        .alias("reason")
    )

"""Fixed shares, whatever prices do."""

from __future__ import annotations

import polars as pl

from quantlytic_assets.strategies.rules.forms import PERIOD_LOOKBACK, every, starts
from quantlytic_assets.strategies.spec import Parameter, RuleSpec, Values


def _shares(values: Values) -> pl.Expr:
    weights = values["weights"]
    if weights == "equal":
        # The symbols of this bar and no others: one that is listed later takes its share when it is there.
        return 1 / pl.len().over("open_time")
    return pl.col("symbol").replace_strict(weights, default=0.0, return_dtype=pl.Float64)


def _rebalance(values: Values) -> pl.Expr:
    return pl.when(starts(values["every"])).then(_shares(values))


def _rebalance_reason(values: Values) -> pl.Expr:
    period = values["every"]
    words = pl.format(f"first bar of a period ({period}): {{}} % of the equity", (_shares(values) * 100).round(2))
    return pl.when(starts(period)).then(words).otherwise(pl.lit(f"rebalanced at the first bar of a period ({period})"))


SPECS = (
    RuleSpec(
        name="rebalance",
        summary="Brings each symbol back to its share of the equity at the first bar of each period",
        source="fixed-mix allocation, Perold and Sharpe 1988",
        parameters=(Parameter("weights", "equal", kind="weights"), every("monthly")),
        target=_rebalance,
        lookback=PERIOD_LOOKBACK,
        weights="portfolio",
        reason=_rebalance_reason,
    ),
    RuleSpec(
        name="buy_and_hold",
        summary="Long every symbol from its first bar on",
        source="the benchmark of any other rule",
        target=lambda _: pl.repeat(1.0, pl.len()),
        reason=lambda _: pl.repeat("held whatever prices do", pl.len()),
        alone=True,
    ),
)

"""Holding what has risen most, chosen across symbols."""

from __future__ import annotations

import polars as pl

from quantlytic_assets.strategies.rules.forms import PERIOD_LOOKBACK, every, number, starts
from quantlytic_assets.strategies.spec import Parameter, RuleSpec, Values


def _rank() -> pl.Expr:
    """1 for the symbol that rose most, among those of the same bar; equal ones in the order of their names."""
    return pl.col("momentum").rank("ordinal", descending=True).over("open_time", order_by="symbol")


def _target(values: Values) -> pl.Expr:
    chosen = _rank() <= values["top"]
    if values["positive"]:
        chosen &= pl.col("momentum") > 0
    weight = pl.when(chosen).then(1 / values["top"]).otherwise(0.0)
    return pl.when(starts(values["every"]) & pl.col("momentum").is_not_null()).then(weight)


def _reason(values: Values) -> pl.Expr:
    words = pl.format(
        "{} % in {} bars is rank {} of {}",
        number("momentum"), pl.lit(str(values["window"])), _rank(), pl.col("momentum").count().over("open_time"),
    )  # fmt: skip
    unknown = pl.col("momentum").is_null()
    waits = pl.lit(f"decided at the first bar of a period ({values['every']})")
    return (
        pl.when(unknown)
        .then(pl.lit("the momentum is not known yet"))
        .when(starts(values["every"]))
        .then(words)
        .otherwise(waits)
    )


SPECS = (
    RuleSpec(
        name="momentum_rotation",
        summary="Equal shares of the `top` symbols that rose most over a window, chosen anew each period",
        source="Jegadeesh and Titman 1993; with `positive` also Antonacci 2014",
        parameters=(
            Parameter("window", 126, 1, 1000),
            Parameter("top", 3, 1, 1000),
            every("monthly"),
            Parameter("positive", True, kind="flag"),
        ),
        target=_target,
        features=lambda values: {"momentum": f"roc({values['window']})"},
        lookback=PERIOD_LOOKBACK,
        weights="portfolio",
        reason=_reason,
    ),
)

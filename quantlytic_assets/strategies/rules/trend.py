"""Following a trend: the crossing of two moving averages."""

from __future__ import annotations

import polars as pl

from quantlytic_assets.strategies.rules.forms import SHORT, number
from quantlytic_assets.strategies.spec import Parameter, RuleSpec, Values


def _averages(values: Values) -> dict[str, str]:
    kind = values["kind"]
    return {"fast": f"{kind}({values['fast']})", "slow": f"{kind}({values['slow']})"}


def _target(values: Values) -> pl.Expr:
    # Two equal averages say nothing new: what is held is kept.
    return (
        pl.when(pl.col("fast") > pl.col("slow"))
        .then(1.0)
        .when(pl.col("fast") < pl.col("slow"))
        .then(-1.0 if values["short"] else 0.0)
    )


def _reason(values: Values) -> pl.Expr:
    fast, slow = _averages(values).values()
    side = (
        pl.when(pl.col("fast") > pl.col("slow"))
        .then(pl.lit("above"))
        .when(pl.col("fast") < pl.col("slow"))
        .then(pl.lit("below"))
        .otherwise(pl.lit("equal to"))
    )
    known = pl.col("fast").is_not_null() & pl.col("slow").is_not_null()
    words = pl.format("{} {} is {} {} {}", pl.lit(fast), number("fast"), side, pl.lit(slow), number("slow"))
    return pl.when(known).then(words).otherwise(pl.lit(f"{fast} or {slow} is not known yet"))


SPECS = (
    RuleSpec(
        name="ma_cross",
        summary="Long while the fast moving average is above the slow one, and out, or short, while it is below",
        source="Brock, Lakonishok and LeBaron 1992",
        parameters=(
            Parameter("fast", 20, 2, 1000),
            Parameter("slow", 50, 2, 1000),
            Parameter("kind", "sma", kind="choice", choices=("sma", "ema")),
            SHORT,
        ),
        target=_target,
        features=_averages,
        conflict=lambda values: (
            None
            if values["fast"] < values["slow"]
            else f"fast is shorter than slow, not {values['fast']} and {values['slow']}"
        ),
        score=lambda values: (pl.col("fast") - pl.col("slow")).sign(),
        reason=_reason,
        alone=True,
    ),
)

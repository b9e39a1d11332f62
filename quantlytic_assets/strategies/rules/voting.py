"""Several indicators that vote."""

from __future__ import annotations

import polars as pl

from quantlytic_assets.strategies.rules.forms import SHORT, number
from quantlytic_assets.strategies.spec import Parameter, RuleSpec, Values


def _columns(values: Values) -> dict[str, str]:
    return {
        "fast": f"ema({values['fast']})",
        "slow": f"ema({values['slow']})",
        "rsi": f"rsi({values['window']})",
        "histogram": "macd_hist",
    }


def _rsi_vote(values: Values) -> pl.Expr:
    rsi = pl.col("rsi")
    vote = pl.when(rsi < values["low"]).then(1).when(rsi > values["high"]).then(-1).otherwise(0)
    return pl.when(rsi.is_not_null()).then(vote)


def _votes(values: Values) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    return (pl.col("fast") - pl.col("slow")).sign(), _rsi_vote(values), pl.col("histogram").sign()


def _score(values: Values) -> pl.Expr:
    """The mean of the votes of EMA, RSI and MACD; null until all three are known."""
    trend, rsi, macd = _votes(values)
    return (trend + rsi + macd) / 3


def _target(values: Values) -> pl.Expr:
    score = _score(values)
    # A third is no exact number: two of three votes are to reach a threshold of 0.667 as well as of two thirds.
    least = values["threshold"] - 1e-3
    return pl.when(score >= least).then(1.0).when(score <= -least).then(-1.0 if values["short"] else 0.0)


def _reason(values: Values) -> pl.Expr:
    shown = [
        pl.when(vote > 0).then(pl.lit("buy")).when(vote < 0).then(pl.lit("sell")).otherwise(pl.lit("hold"))
        for vote in _votes(values)
    ]
    words = pl.format(
        "EMA {}, RSI {} ({}), MACD {}: score {}", shown[0], shown[1], number("rsi"), shown[2], _score(values).round(2)
    )
    return words.fill_null("not all of EMA, RSI and MACD are known yet")


SPECS = (
    RuleSpec(
        name="vote",
        summary="EMA, RSI and MACD vote buy, sell or hold; long from a mean of `threshold` until minus that",
        source="a majority of indicators, as screeners show it",
        parameters=(
            Parameter("fast", 12, 2, 1000),
            Parameter("slow", 26, 2, 1000),
            Parameter("window", 14, 2, 1000),
            Parameter("low", 30.0, 0, 100, "float"),
            Parameter("high", 70.0, 0, 100, "float"),
            Parameter("threshold", 0.5, 0.01, 1, "float"),
            SHORT,
        ),
        target=_target,
        features=_columns,
        conflict=lambda values: (
            f"fast is shorter than slow, not {values['fast']} and {values['slow']}"
            if values["fast"] >= values["slow"]
            else f"low is less than high, not {values['low']:g} and {values['high']:g}"
            if values["low"] >= values["high"]
            else None
        ),
        score=_score,
        reason=_reason,
        alone=True,
    ),
)

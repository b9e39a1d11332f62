"""Against the last move: buying what has fallen far, until it is back."""

from __future__ import annotations

import polars as pl

from quantlytic_assets.strategies.rules.forms import SHORT, number
from quantlytic_assets.strategies.spec import Parameter, RuleSpec, Values


def _rsi_target(values: Values) -> pl.Expr:
    return (
        pl.when(pl.col("rsi") < values["low"])
        .then(1.0)
        .when(pl.col("rsi") > values["high"])
        .then(-1.0 if values["short"] else 0.0)
    )


def _rsi_reason(values: Values) -> pl.Expr:
    name = f"rsi({values['window']})"
    return (
        pl.when(pl.col("rsi").is_null())
        .then(pl.lit(f"{name} is not known yet"))
        .when(pl.col("rsi") < values["low"])
        .then(pl.format("{} {} is below {}", pl.lit(name), number("rsi"), pl.lit(f"{values['low']:g}")))
        .when(pl.col("rsi") > values["high"])
        .then(pl.format("{} {} is above {}", pl.lit(name), number("rsi"), pl.lit(f"{values['high']:g}")))
        .otherwise(
            pl.format(
                "{} {} is between {} and {}",
                pl.lit(name), number("rsi"), pl.lit(f"{values['low']:g}"), pl.lit(f"{values['high']:g}"),
            )
        )
    )  # fmt: skip


def _distance() -> pl.Expr:
    """How many deviations the close is from its mean; null where prices did not move."""
    # The bands are two deviations from the middle.
    deviation = (pl.col("upper") - pl.col("middle")) / 2
    return pl.when(deviation > 0).then((pl.col("close") - pl.col("middle")) / deviation)


def _reversion_target(values: Values) -> pl.Expr:
    distance = _distance()
    return pl.when(distance < -values["entry"]).then(1.0).when(distance >= -values["exit"]).then(0.0)


def _reversion_reason(values: Values) -> pl.Expr:
    words = pl.format(
        "the close is {} deviations from its mean of {} bars (bought under {}, sold from {})",
        _distance().round(2), pl.lit(str(values["window"])), pl.lit(f"{0 - values['entry']:g}"),
        pl.lit(f"{0 - values['exit']:g}"),
    )  # fmt: skip
    return words.fill_null("the mean or the deviation is not known")


SPECS = (
    RuleSpec(
        name="rsi",
        summary="Long from where the RSI is below `low` until it is above `high`, then out or short",
        source="Wilder 1978",
        parameters=(
            Parameter("window", 14, 2, 1000),
            Parameter("low", 30.0, 0, 100, "float"),
            Parameter("high", 70.0, 0, 100, "float"),
            SHORT,
        ),
        target=_rsi_target,
        features=lambda values: {"rsi": f"rsi({values['window']})"},
        conflict=lambda values: (
            None
            if values["low"] < values["high"]
            else f"low is less than high, not {values['low']:g} and {values['high']:g}"
        ),
        score=lambda values: ((50 - pl.col("rsi")) / 50).clip(-1, 1),
        reason=_rsi_reason,
        alone=True,
    ),
    RuleSpec(
        name="mean_reversion",
        summary="Long from where the close is `entry` deviations under its moving average until `exit` deviations",
        source="Bollinger 2001",
        parameters=(
            Parameter("window", 20, 2, 1000),
            Parameter("entry", 2.0, 0, 10, "float"),
            Parameter("exit", 0.0, -10, 10, "float"),
        ),
        target=_reversion_target,
        features=lambda values: {
            "middle": f"bb_middle({values['window']}, 2)",
            "upper": f"bb_upper({values['window']}, 2)",
        },
        conflict=lambda values: (
            None
            if values["exit"] < values["entry"]
            else f"exit is nearer to the mean than entry, not {values['exit']:g} and {values['entry']:g}"
        ),
        score=lambda values: (-_distance() / values["entry"]).clip(-1, 1) if values["entry"] else -_distance().sign(),
        reason=_reversion_reason,
        alone=True,
    ),
)

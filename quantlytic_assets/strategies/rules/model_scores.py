"""From a model's scores to positions: thresholds, and sizes in proportion to the score."""

from __future__ import annotations

import polars as pl

from quantlytic_assets.strategies.rules.forms import SHORT, number
from quantlytic_assets.strategies.spec import Parameter, RuleSpec, Values


def _edge(values: Values) -> pl.Expr:
    return pl.col("score") - values["neutral"]


def _strength(values: Values) -> pl.Expr:
    if not values["full_at"]:
        return pl.lit(1.0)
    return (_edge(values).abs() / values["full_at"]).clip(0, 1)


def _target(values: Values) -> pl.Expr:
    edge, strength = _edge(values), _strength(values)
    return (
        pl.when(edge > values["margin"])
        .then(strength)
        .when(edge < -values["margin"])
        .then(-strength if values["short"] else pl.lit(0.0))
    )


def _reason(values: Values) -> pl.Expr:
    edge, margin, neutral = _edge(values), values["margin"], values["neutral"]
    side = (
        pl.when(edge > margin)
        .then(pl.lit(f"above {neutral + margin:g}"))
        .when(edge < -margin)
        .then(pl.lit(f"below {neutral - margin:g}"))
        .otherwise(pl.lit(f"within {margin:g} of {neutral:g}"))
    )
    return pl.format("score {} is {}", number("score", 4), side).fill_null("there is no prediction")


SPECS = (
    RuleSpec(
        name="model",
        summary=(
            "Long where a model's score is more than `margin` above `neutral`, out or short where it is as far below; "
            "`full_at` is the distance from neutral that gives the whole weight, 0 for the whole weight always"
        ),
        source="with neutral 0.5 and full_at 0.5 the weight is 2p − 1, an even bet's Kelly fraction (Kelly 1956)",
        parameters=(
            Parameter("neutral", 0.5, kind="float"),
            Parameter("margin", 0.0, 0, kind="float"),
            Parameter("full_at", 0.0, 0, kind="float"),
            SHORT,
        ),
        target=_target,
        inputs=("score",),
        conflict=lambda values: (
            f"full_at is 0 or more than margin, not {values['full_at']:g} and {values['margin']:g}"
            if 0 < values["full_at"] <= values["margin"]
            else None
        ),
        score=lambda values: _edge(values).sign() * _strength(values),
        reason=_reason,
        alone=True,
    ),
)

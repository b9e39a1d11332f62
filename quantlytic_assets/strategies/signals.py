"""Targets as signals that people read: buy, sell or hold, how strongly, and why."""

from __future__ import annotations

from functools import lru_cache

import polars as pl

from quantlytic_assets.schemas.trading import SIGNALS
from quantlytic_assets.strategies.spec import Rule, selected

# The rows of trading.signals.
SIGNALS_SCHEMA = SIGNALS.polars
# What a rule says of a row, in the order of these columns.
SAYS = ("signal", "strength", "target", "reason")


def rule_signals(strategy: str, rule: Rule, features: pl.DataFrame) -> pl.DataFrame:
    """A rule's signals (`SIGNALS_SCHEMA`), in the order of the rows; see `Rule.targets` for the frame."""
    told = rule.opinions(features)
    score, reason = (told[name] if name in told.columns else None for name in ("score", "reason"))
    return signals(strategy, features, told["target"], score, reason)


def said(told: pl.DataFrame) -> pl.DataFrame:
    """Of `rule_signals` what a rule with these opinions (`Rule.opinions`) says of each row: the columns `SAYS`."""
    return selected(told, _says("score" in told.columns, "reason" in told.columns))


def signals(
    strategy: str,
    features: pl.DataFrame,
    targets: pl.Series,
    scores: pl.Series | None = None,
    reasons: pl.Series | None = None,
) -> pl.DataFrame:
    """Signals (`SIGNALS_SCHEMA`) of targets, one a row of features: symbol, session, open_time, available_at.

    A target above zero is a buy, one of zero or below is a sell (be out, or short), null is a hold. strength, 0 to 1,
    is the score without its sign where there are scores; else the target's for a buy or a short, 1 for a way out, and
    0 for a hold. Without reasons they say the target.
    """
    given = {"target": targets, "score": scores, "reason": reasons}
    rows = features[["symbol", "session", "open_time", "available_at"]].hstack(
        [one.alias(name) for name, one in given.items() if one is not None]
    )
    keys = [pl.lit(strategy).alias("strategy"), pl.col("symbol", "session", "open_time", "available_at")]
    return selected(rows, [*keys, *_says(scores is not None, reasons is not None)])


@lru_cache
def _says(scored: bool, reasoned: bool) -> list[pl.Expr]:
    """The columns of signals that follow from `target`, and from `score` and `reason` where they are given."""
    target = pl.col("target")
    of_target = pl.when(target == 0).then(1.0).otherwise(target.abs()).fill_null(0.0)
    strength = pl.col("score").cast(pl.Float64).abs().fill_null(0.0)
    said = (
        pl.when(target.is_null())
        .then(pl.lit("no target: what is held is kept"))
        .otherwise(pl.format("target weight {}", target.round(4)))
    )
    signal = (
        pl.when(target > 0).then(pl.lit("buy")).when(target.is_null()).then(pl.lit("hold")).otherwise(pl.lit("sell"))
    )
    return [
        signal.alias("signal"),
        (strength if scored else of_target).alias("strength"),
        target.cast(pl.Float64),
        (pl.coalesce("reason", said) if reasoned else said).alias("reason"),
    ]

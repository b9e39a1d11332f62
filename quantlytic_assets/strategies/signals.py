"""Targets as signals that people read: buy, sell or hold, how strongly, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import copysign
from typing import Any

import polars as pl

from quantlytic_assets.schemas.trading import SIGNALS
from quantlytic_assets.strategies.spec import Rule, selected

# The rows of trading.signals.
SIGNALS_SCHEMA = SIGNALS.polars
# What a rule says of a row, in the order of these columns.
SAYS = ("signal", "strength", "target", "reason")
# So many different targets are remembered with what is said of them.
_MOST_WORDS = 4096


def rule_signals(strategy: str, rule: Rule, features: pl.DataFrame) -> pl.DataFrame:
    """A rule's signals (`SIGNALS_SCHEMA`), in the order of the rows; see `Rule.targets` for the frame."""
    told = rule.opinions(features)
    score, reason = (told[name] if name in told.columns else None for name in ("score", "reason"))
    return signals(strategy, features, told["target"], score, reason)


def said(told: pl.DataFrame) -> pl.DataFrame:
    """Of `rule_signals` what a rule with these opinions (`Rule.opinions`) says of each row: the columns `SAYS`."""
    return selected(told, _says("score" in told.columns, "reason" in told.columns))


class Words:
    """What a strategy has said of its targets so far.

    It has few different ones, and polars takes as long to make the words of one target as of a thousand.
    """

    def __init__(self) -> None:
        self._known: dict[float | None, tuple[object, ...]] = {}
        # Nearly all have these; the first signal shall not wait for polars.
        self.of({"target": [None, 0.0, 1.0]})

    def of(self, told: Mapping[str, Sequence[Any]]) -> list[tuple[object, ...]]:
        """The rows of `said`, of opinions as lists: `target`, and where they are there `score` and `reason`."""
        targets = told["target"]
        # As a key, -0.0 is 0.0, but other words are said of it.
        if any(target == 0 and copysign(1, target) < 0 for target in targets):
            types = {"target": pl.Float64, "score": pl.Float64, "reason": pl.String}
            return said(pl.DataFrame(told, schema={name: types[name] for name in told}, strict=False)).rows()
        if len(self._known) > _MOST_WORDS:
            self._known.clear()
        new = [target for target in dict.fromkeys(targets) if target not in self._known]
        if new:
            known = said(pl.DataFrame({"target": new}, schema={"target": pl.Float64}))
            self._known.update(zip(new, known.rows(), strict=True))
        rows = [self._known[target] for target in targets]
        if "score" in told:
            rows = [
                (signal, 0.0 if score is None else abs(float(score)), *rest)
                for (signal, _, *rest), score in zip(rows, told["score"], strict=True)
            ]
        if "reason" in told:
            rows = [
                (*rest, own if why is None else why) for (*rest, own), why in zip(rows, told["reason"], strict=True)
            ]
        return rows


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

"""Several strategies in one account: the targets of each, in its share of the equity, added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import polars as pl

from quantlytic_assets.strategies.spec import Parameter, RuleSpec, Values


@dataclass(frozen=True)
class Member:
    """A strategy of a portfolio: its name, its share of the equity, and how many symbols its targets divide it among.

    `symbols` is 1 where its targets are shares of its part already.
    """

    name: str
    share: float
    symbols: int


def portfolio_spec(members: Sequence[Member]) -> RuleSpec:
    """The rule of a portfolio: its parameters are the members' shares, its inputs a column of targets a member.

    A column has what the member wants to hold of the row's symbol at the row's time, −1 to 1; null is nothing.
    """

    def weights(values: Values) -> dict[str, pl.Expr]:
        return {one.name: pl.col(one.name).fill_null(0.0) * values[one.name] / one.symbols for one in members}

    def reason(values: Values) -> pl.Expr:
        parts = [
            pl.format("{} {}%", pl.lit(name), (weight * 100).round(1).cast(pl.String))
            for name, weight in weights(values).items()
        ]
        return pl.concat_str(*parts, separator=", ")

    return RuleSpec(
        name="portfolio",
        summary="The sum of what its members want to hold, each in its share of the equity",
        source="the strategies that the universe names",
        parameters=tuple(Parameter(one.name, one.share, 0, 1, kind="float") for one in members),
        target=lambda values: reduce(add, weights(values).values()),
        inputs=tuple(one.name for one in members),
        conflict=_too_much,
        weights="portfolio",
        reason=reason,
    )


def _too_much(values: Values) -> str | None:
    total = sum(values.values())
    return f"the shares of the members are together at most 100%, not {total:.0%}" if total > 1 + 1e-9 else None

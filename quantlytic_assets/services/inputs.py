"""What a strategy's rule reads beside features: the score of its model, or the targets of a portfolio's members."""

from __future__ import annotations

from datetime import UTC, date, datetime
from functools import reduce
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.strategies.portfolio import Member, portfolio_spec
from quantlytic_assets.strategies.registry import Registry
from quantlytic_assets.strategies.spec import Rule
from quantlytic_assets.tables.predictions import first_predicted, predicted_through, scores
from quantlytic_assets.tables.signals import decided_through, first_decided, targets
from quantlytic_assets.universe.models import ModelStrategy, PortfolioStrategy
from quantlytic_assets.universe.plugins import registry_with, rules_with

if TYPE_CHECKING:
    from quantlytic_assets.tables.select import Queries
    from quantlytic_assets.universe.models import Strategy

_KEYS = ["symbol", "open_time"]
_ALWAYS = datetime.max.replace(tzinfo=UTC)


def rules_of(strategy: Strategy) -> Registry:
    """The rules that a strategy's declaration is bound with; of a portfolio the one that adds up its members."""
    rules = rules_with(strategy.plugins)
    if not isinstance(strategy, PortfolioStrategy):
        return rules
    members = [Member(one.name, strategy.shares[one.name], _parts(one)) for one in strategy.members]
    return Registry([*rules.specs(), portfolio_spec(members)], registry_with(strategy.plugins))


def read_inputs(lake: Queries, strategy: Strategy, since: date | None, before: date | None) -> pl.DataFrame | None:
    """symbol, open_time and the columns that the rule reads beside features, of the sessions [since, before).

    None for a strategy with neither a model nor members.
    """
    if isinstance(strategy, ModelStrategy):
        return scores(lake, strategy.name, since=since, before=before)
    if not isinstance(strategy, PortfolioStrategy):
        return None
    columns = [
        targets(lake, one.name, since=since, before=before).rename({"target": one.name}) for one in strategy.members
    ]
    return reduce(lambda left, right: left.join(right, on=_KEYS, how="full", coalesce=True), columns)


def known_through(lake: Queries, strategy: Strategy, before: date) -> datetime | None:
    """The open time, UTC, of the newest bar before a session of which all inputs are known; None where none is.

    Of a strategy without inputs `datetime.max`.
    """
    if isinstance(strategy, ModelStrategy):
        return predicted_through(lake, strategy.name, before)
    if not isinstance(strategy, PortfolioStrategy):
        return _ALWAYS
    known = [decided_through(lake, one.name, before) for one in strategy.members]
    return min((one for one in known if one is not None), default=None) if all(known) else None


def begins(lake: Queries, strategy: Strategy) -> date | None:
    """The first session of which all inputs are known; None for a strategy without inputs, and before any is known."""
    if isinstance(strategy, ModelStrategy):
        return first_predicted(lake, strategy.name)
    if not isinstance(strategy, PortfolioStrategy):
        return None
    return max((one for one in (first_decided(lake, member.name) for member in strategy.members) if one), default=None)


def _parts(member: Strategy) -> int:
    """Into how many parts a member's targets divide its share."""
    rule = rules_with(member.plugins).bind(member.rule)
    return 1 if isinstance(rule, Rule) and rule.spec.weights == "portfolio" else len(member.symbols)

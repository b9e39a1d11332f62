"""A strategy's account beside buy-and-hold, read from the lake: what its performance, its pages and its report show.

Figures are `trading.performance`'s. `lake` is a run's lake or a read-only connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from quantlytic_assets.tables.actions import dividends, split_factors
from quantlytic_assets.tables.features import usable_bars
from quantlytic_assets.tables.predictions import first_decision
from quantlytic_assets.tables.select import Queries
from quantlytic_assets.tables.trading import equity, fills
from quantlytic_assets.trading.entitlements import Entitlements
from quantlytic_assets.trading.orders import FILLS_SCHEMA
from quantlytic_assets.trading.performance import (
    Statistics,
    benchmark_curve,
    comparison,
    periods_per_year,
    statistics,
)
from quantlytic_assets.trading.portfolio import EQUITY_SCHEMA
from quantlytic_assets.universe.models import Dataset, Strategy


@dataclass(frozen=True)
class Account:
    """What a strategy's account came to: curve and held (buy-and-hold), both portfolio.EQUITY_SCHEMA; its figures."""

    strategy: Strategy
    curve: pl.DataFrame
    held: pl.DataFrame
    figures: Statistics
    held_figures: Statistics

    @property
    def comparison(self) -> pl.DataFrame:
        """Figures of both side by side: statistic, strategy, buy_and_hold."""
        return comparison(self.figures, self.held_figures)

    def report(self, back: str | None = None) -> str:
        """One self-contained HTML page. `back`: the address that it links to."""
        from quantlytic_assets.charts.report import report_page

        capital = self.strategy.capital
        return report_page(self.strategy.name, self.curve, self.held, self.comparison, capital, back)


def read_prices(lake: Queries, dataset: Dataset, strategy: Strategy, since: date, before: date | None) -> pl.DataFrame:
    """symbol, session, open_time, open, close of the strategy's usable bars of sessions [since, before)."""
    return usable_bars(
        lake,
        dataset.name,
        strategy.interval,
        ["symbol", "session", "open_time", "open", "close"],
        incomplete=dataset.incomplete_bars == "keep",
        since=since,
        before=before,
        symbols=strategy.symbols,
    )


def read_entitlements(lake: Queries, strategy: Strategy) -> Entitlements:
    """Splits, renames and dividends of the strategy's dataset."""
    steps = split_factors(lake, strategy.dataset, ["symbol", "since", "company", "shares"])
    return Entitlements(steps.rename({"shares": "split_factor"}), dividends(lake, strategy.dataset))


def read_account(lake: Queries, dataset: Dataset, strategy: Strategy) -> Account | None:
    """The account over all sessions that the strategy has traded; None where it has not traded yet."""
    curve = equity(lake, strategy.name, EQUITY_SCHEMA.names())
    if curve.is_empty():
        return None
    sessions = curve["session"]
    filled = fills(lake, strategy.name, FILLS_SCHEMA.names())
    decided = first_decision(lake, strategy.name)
    if decided is None:
        return None
    # The benchmark's last fill may come a bar after the last session.
    bars = read_prices(lake, dataset, strategy, sessions.min(), sessions.max() + timedelta(days=14))
    periods = periods_per_year(sessions)
    held, held_fills = benchmark_curve(strategy, bars, decided, sessions, read_entitlements(lake, strategy))
    return Account(
        strategy=strategy,
        curve=curve,
        held=held,
        figures=statistics(curve, filled, strategy.capital, periods),
        held_figures=statistics(held, held_fills, strategy.capital, periods),
    )

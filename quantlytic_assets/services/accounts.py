"""A strategy's account beside buy-and-hold, read from the lake: what its performance, its pages and its report show.

Figures are `trading.performance`'s. `query` is whatever answers a SELECT with its parameters: a run's lake or a reader.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import polars as pl

from quantlytic_assets.trading.entitlements import Entitlements
from quantlytic_assets.trading.performance import (
    Statistics,
    benchmark_curve,
    comparison,
    periods_per_year,
    statistics,
)
from quantlytic_assets.universe.models import Dataset, Strategy

Query = Callable[[str, Sequence[Any]], pl.DataFrame]


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


def usable_bars(dataset: Dataset) -> str:
    """SQL condition on features.bars: what may be decided on, filled at and valued by.

    That is a bar with a price that is not known to be wrong, and a complete one unless the dataset does not mind;
    features and labels go by the same rule (dbt_project/macros/usable_bars.sql).
    """
    return "close IS NOT NULL" if dataset.incomplete_bars == "keep" else "close IS NOT NULL AND complete"


def read_prices(query: Query, dataset: Dataset, strategy: Strategy, first: date, last: date) -> pl.DataFrame:
    """symbol, session, open_time, open, close of the strategy's usable bars of sessions [first, last)."""
    return query(
        'SELECT symbol, session, open_time, open, close FROM features.bars WHERE dataset = ? AND "interval" = ? '
        "AND session >= ? AND session < ? AND symbol IN (SELECT unnest(?::VARCHAR[])) "
        f"AND {usable_bars(dataset)} ORDER BY symbol, open_time",
        [strategy.dataset, strategy.interval, first, last, list(strategy.symbols)],
    )


def read_entitlements(query: Query, strategy: Strategy) -> Entitlements:
    """Splits, renames and dividends of the strategy's dataset."""
    steps = query(
        "SELECT symbol, since, company, shares AS split_factor FROM clean.share_counts WHERE dataset = ?",
        [strategy.dataset],
    )
    dividends = query(
        "SELECT symbol, session, value FROM clean.corporate_actions WHERE dataset = ? AND kind = 'dividend'",
        [strategy.dataset],
    )
    return Entitlements(steps, dividends)


def read_account(query: Query, dataset: Dataset, strategy: Strategy) -> Account | None:
    """The account over all sessions that the strategy has traded; None where it has not traded yet."""
    curve = query("SELECT * FROM trading.equity WHERE strategy = ? ORDER BY session", [strategy.name])
    if curve.is_empty():
        return None
    sessions = curve["session"]
    fills = query("SELECT * FROM trading.fills WHERE strategy = ? ORDER BY session, symbol", [strategy.name])
    decided = query("SELECT min(available_at) AS first FROM ml.predictions WHERE strategy = ?", [strategy.name])
    # The benchmark's last fill may come a bar after the last session.
    bars = read_prices(query, dataset, strategy, sessions.min(), sessions.max() + timedelta(days=14))
    periods = periods_per_year(sessions)
    held, held_fills = benchmark_curve(
        strategy, bars, decided["first"][0], sessions, read_entitlements(query, strategy)
    )
    return Account(
        strategy=strategy,
        curve=curve,
        held=held,
        figures=statistics(curve, fills, strategy.capital, periods),
        held_figures=statistics(held, held_fills, strategy.capital, periods),
    )

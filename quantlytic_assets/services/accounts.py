"""What an account came to, beside buying and holding the same symbols: of a backtest, and of trading on paper.

Figures are `trading.backtest.figures`' business. `lake` is a run's lake or a read-only connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from quantlytic_assets.learning.evaluation import PREDICTION_COLUMNS, evaluate_predictions
from quantlytic_assets.services.history import read_history
from quantlytic_assets.services.inputs import rules_of
from quantlytic_assets.strategies.bots import Bot
from quantlytic_assets.tables.features import indicators, labels
from quantlytic_assets.tables.predictions import predictions
from quantlytic_assets.tables.trading import backtest_sharpes, broker_orders, equity, events
from quantlytic_assets.trading.account_tables import engine_events
from quantlytic_assets.trading.backtest.figures import (
    Figures,
    confidence,
    figures,
    moved_in_time,
    periods_per_year,
    session_returns,
    session_sharpes,
    side_by_side,
    with_costs_doubled,
)
from quantlytic_assets.trading.backtest.history import History
from quantlytic_assets.trading.backtest.simulation import Simulation, bought_and_held, simulate
from quantlytic_assets.trading.backtest.verdict import verdict
from quantlytic_assets.trading.engine import projections
from quantlytic_assets.trading.review import Finding, review
from quantlytic_assets.universe.models import ModelStrategy
from quantlytic_assets.universe.plugins import registry_with

if TYPE_CHECKING:
    from quantlytic_assets.features.registry import Registry
    from quantlytic_assets.strategies.spec import Rule
    from quantlytic_assets.tables.select import Queries
    from quantlytic_assets.trading.engine.market import Market
    from quantlytic_assets.universe.models import Dataset, Strategy

# What a report says of orders that a broker filled.
AT_BROKER = (
    "symbol", "side", "decision_time", "status", "filled", "price", "simulated_price", "slippage", "slippage_bps",
    "commission", "simulated_commission",
)  # fmt: skip
_RANDOM_RUNS = 100
_SEED = 20_250_101


@dataclass(frozen=True, kw_only=True)
class Account:
    """What trading a strategy came to.

    curve, held: session, equity, cash, gross at the end of each session, of the account and of buying and holding the
    same symbols at the same costs. events: the engine's. orders, fills and round_trips follow from them. statistics:
    the account's figures; held_statistics those of buying and holding. random_returns: total returns of the same
    targets at random other times, empty for a bot. findings: what speaks against believing it. forecasts: how good a
    model's predictions were, where the strategy has one. at_broker: what a broker filled, beside the simulated fill of
    the same order (`AT_BROKER` of trading.broker_orders); empty where the fills are simulated.
    """

    strategy: str
    dataset: str
    settings: dict[str, Any]
    capital: float
    events: pl.DataFrame
    orders: pl.DataFrame
    fills: pl.DataFrame
    round_trips: pl.DataFrame
    curve: pl.DataFrame
    held: pl.DataFrame
    statistics: Figures
    held_statistics: Figures
    random_returns: np.ndarray = field(repr=False)
    findings: list[Finding] = field(default_factory=list)
    forecasts: dict[str, float] = field(default_factory=dict)
    at_broker: pl.DataFrame = field(default_factory=pl.DataFrame)

    @property
    def title(self) -> str:
        """What this is an account of, in a few words."""
        return f"Paper account on {self.dataset}"

    @property
    def returns(self) -> np.ndarray:
        """The account's simple return of each session."""
        return session_returns(self.curve, self.capital)

    @property
    def equity(self) -> pl.DataFrame:
        """session, equity, cash, gross at the end of each session."""
        return self.curve

    @property
    def trades(self) -> pl.DataFrame:
        """The round trips: positions from flat to flat."""
        return self.round_trips

    @property
    def comparison(self) -> pl.DataFrame:
        """Figures of both side by side: statistic, strategy, buy_and_hold."""
        return side_by_side(self.statistics, self.held_statistics)

    @property
    def verdict(self) -> list[str]:
        """What the figures say, in sentences that they carry."""
        return verdict(self.statistics, self.held_statistics, self.random_returns, self.forecasts)

    def report(self, path: str | Path | None = None, back: str | None = None) -> str:
        """One self-contained HTML page, also written to `path` where one is given. `back`: an address it links to."""
        from quantlytic_assets.charts.account_report import account_page, write_report

        page = account_page(self, back)
        if path is not None:
            write_report(Path(path), page)
        return page


def decider(strategy: Strategy) -> tuple[Rule | Bot, Registry]:
    """What the strategy decides by, made anew, and the features that its declarations are read with."""
    registry = registry_with(strategy.plugins)
    return rules_of(strategy).bind(strategy.rule), registry


def read_account(lake: Queries, dataset: Dataset, strategy: Strategy) -> Account | None:
    """The paper account over all sessions that the strategy has traded; None where it has not traded yet.

    Targets at random times and doubled costs are those of a backtest of the same sessions.
    """
    curve = _curve(lake, strategy)
    if curve.is_empty():
        return None
    first, last = curve["session"][0], curve["session"][-1]
    given = read_history(lake, dataset, strategy, last)
    if given is None:
        return None
    decides, registry = decider(strategy)
    again = None
    if not isinstance(decides, Bot):
        again = simulate(
            given, decides, strategy.settings, strategy.symbols,
            registry=registry, first=first, last=last, events=False,
        )  # fmt: skip
    told = engine_events(events(lake, strategy.name))
    return Account(
        **came_to(lake, given, strategy, told, curve, again),
        forecasts=forecast_quality(lake, strategy),
        at_broker=broker_orders(lake, strategy.name, AT_BROKER) if strategy.at_broker else pl.DataFrame(),
    )


def read_curves(lake: Queries, dataset: Dataset, strategy: Strategy) -> tuple[pl.DataFrame, pl.DataFrame] | None:
    """`curve` and `held` of a paper account (`Account`), for a chart; None where it has not traded yet."""
    curve = _curve(lake, strategy)
    if curve.is_empty():
        return None
    first, last = curve["session"][0], curve["session"][-1]
    given = read_history(lake, dataset, strategy, last, first)
    if given is None:
        return None
    return curve, bought_and_held(given, strategy.settings, strategy.symbols).sessions()


def _curve(lake: Queries, strategy: Strategy) -> pl.DataFrame:
    columns = ["session", "equity", "cash", "gross_exposure"]
    return equity(lake, strategy.name, columns).rename({"gross_exposure": "gross"})


def came_to(
    lake: Queries,
    given: History,
    strategy: Strategy,
    told: pl.DataFrame,
    curve: pl.DataFrame,
    simulated: Simulation | None,
) -> dict[str, Any]:
    """The fields of an `Account` that follow from its events and curve.

    simulated: the same sessions in simulation, for targets at random times and doubled costs; None for a bot.
    """
    capital, periods = strategy.settings.capital, periods_per_year(curve["session"])
    held = _held(given, strategy, curve["session"][0], curve["session"][-1], periods)
    fills = _with_bars(projections.fills(told), given.bars)
    trips = projections.round_trips(told, held.market)
    earned = session_returns(curve, capital)
    own_sharpe = float(session_sharpes(earned))
    statistics = figures(curve, fills, trips, capital, periods, held.returns)
    statistics |= confidence(earned, [own_sharpe, *backtest_sharpes(lake, strategy.name)])
    doubled = simulated.again(settings=with_costs_doubled(simulated.settings)) if simulated else None
    return {
        "strategy": strategy.name,
        "dataset": strategy.dataset,
        "settings": settings_of(strategy, curve["session"][0], curve["session"][-1]),
        "capital": capital,
        "events": told,
        "orders": projections.orders(told),
        "fills": fills,
        "round_trips": trips,
        "curve": curve,
        "held": held.curve,
        "statistics": statistics | {"sharpe_session": own_sharpe},
        "held_statistics": held.statistics,
        "random_returns": moved_in_time(simulated, _RANDOM_RUNS, _SEED) if simulated else np.empty(0),
        "findings": review(
            fills,
            trips.select("symbol", pl.col("exit_time").dt.date().alias("session"), pl.col("pnl").alias("profit")),
            volume_cap=strategy.settings.volume_cap or float("inf"),
            total_return=statistics["total_return"],
            doubled_costs_return=doubled,
        ),
    }


def settings_of(strategy: Strategy, first: date, last: date) -> dict[str, Any]:
    """What a result depends on, as it is kept: rule, model, the account's settings, symbols, first and last session."""
    model = {"model": strategy.model, "horizon": strategy.horizon} if isinstance(strategy, ModelStrategy) else {}
    return {
        "dataset": strategy.dataset,
        "interval": strategy.interval,
        "symbols": list(strategy.symbols),
        "rule": strategy.rule,
        **model,
        **asdict(strategy.settings),
        "first": first.isoformat(),
        "last": last.isoformat(),
    }


def read_labels(
    lake: Queries, strategy: ModelStrategy, columns: Sequence[str], known_before: date | None
) -> pl.DataFrame:
    """symbol, open_time and more columns of the strategy's labels that were known in a session before a day."""
    return labels(
        lake, strategy.dataset, strategy.interval, strategy.horizon, ["symbol", "open_time", *columns],
        known_before=known_before, symbols=strategy.symbols,
    )  # fmt: skip


def forecast_quality(lake: Queries, strategy: Strategy) -> dict[str, float]:
    """Accuracy, precision, recall and IC of all predictions whose outcome is known, and of the naive forecasts.

    The model never saw these sessions. `persistence` says that the last bar's direction goes on, `always_up` says up.
    Empty for a strategy without a model.
    """
    if not isinstance(strategy, ModelStrategy):
        return {}
    predicted = predictions(lake, strategy.name, PREDICTION_COLUMNS)
    outcome = read_labels(lake, strategy, ["label", "forward_return"], None)
    last_returns = indicators(
        lake, strategy.dataset, strategy.interval, ["symbol", "open_time", "ret_1"], symbols=strategy.symbols
    )
    mine, naive, outcomes = evaluate_predictions(predicted, outcome, last_returns)
    found: dict[str, float | None] = {**mine, "outcomes": outcomes}
    for baseline, metrics in naive.items():
        found |= {f"{baseline}_{name}": value for name, value in metrics.items()}
    known = predicted.join(outcome, on=["symbol", "open_time"])
    found["always_up_accuracy"] = known.select((pl.col("label") == 1).mean()).item()
    return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class _Held:
    """Buying and holding in the same sessions: its market, curve, return of each session, and figures."""

    market: Market
    curve: pl.DataFrame
    returns: np.ndarray
    statistics: Figures


def _held(given: History, strategy: Strategy, first: date | None, last: date | None, periods: int) -> _Held:
    made = bought_and_held(given, strategy.settings, strategy.symbols, first, last)
    curve, told, capital = made.sessions(), made.events("buy_and_hold"), strategy.settings.capital
    trips = projections.round_trips(told, made.market)
    statistics = figures(curve, projections.fills(told), trips, capital, periods)
    return _Held(made.market, curve, session_returns(curve, capital), statistics)


def _with_bars(fills: pl.DataFrame, bars: pl.DataFrame) -> pl.DataFrame:
    """The fills with open_time, the volume of their bar, and whether that was a stale one: nothing traded in it."""
    bar = bars.select("symbol", "open_time", "close_time", pl.col("volume").alias("bar_volume"))
    # A fill at the open is told at the open, one within a bar at its close.
    for told, other, name in (("open_time", "close_time", "at_open"), ("close_time", "open_time", "at_close")):
        of_bar = bar.drop(other).rename({told: "event_time", "bar_volume": name})
        fills = fills.join(of_bar, on=["symbol", "event_time"], how="left", maintain_order="left")
    volume = pl.coalesce("at_open", "at_close").alias("bar_volume")
    return fills.with_columns(
        pl.col("event_time").alias("open_time"),
        volume,
        (volume == 0).fill_null(False).alias("stale"),
        # Bars that lack a part are in no history, unless the dataset says so.
        pl.lit(False).alias("incomplete"),
    ).drop("at_open", "at_close")

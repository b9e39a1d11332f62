"""Backtests: a rule strategy on the bars of its dataset, through the engine that trades it, with nothing in the ledger.

What is traded and what it comes to is pure (`trading.backtest`); here bars and corporate actions are read, and a result
is kept as a row of trading.backtests.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import polars as pl

from quantlytic_assets.calendars.sessions import ROUND_THE_CLOCK
from quantlytic_assets.schemas.trading import BACKTESTS
from quantlytic_assets.strategies.bots import Bot
from quantlytic_assets.strategies.registry import Registry as Rules
from quantlytic_assets.strategies.spec import Rule
from quantlytic_assets.tables.actions import corporate_actions
from quantlytic_assets.tables.bars import session_hours
from quantlytic_assets.tables.features import usable_bars
from quantlytic_assets.tables.trading import backtest_sharpes, equity, events
from quantlytic_assets.trading.account_tables import engine_events
from quantlytic_assets.trading.backtest.changes import changed
from quantlytic_assets.trading.backtest.figures import (
    Figures,
    confidence,
    figures,
    moved_in_time,
    session_returns,
    session_sharpes,
    with_costs_doubled,
)
from quantlytic_assets.trading.backtest.search import Search, searched, trial
from quantlytic_assets.trading.backtest.simulation import History, bought_and_held, simulate
from quantlytic_assets.trading.engine import projections
from quantlytic_assets.trading.engine.market import ACTIONS_SCHEMA, BARS_SCHEMA, Market
from quantlytic_assets.trading.performance import periods_per_year
from quantlytic_assets.trading.review import Finding, review
from quantlytic_assets.universe.feature_choice import features_of
from quantlytic_assets.universe.plugins import registry_with, rules_with

if TYPE_CHECKING:
    from quantlytic_assets.features.registry import Registry
    from quantlytic_assets.storage.lake import Lake
    from quantlytic_assets.tables.select import Queries
    from quantlytic_assets.universe.models import Dataset, RuleStrategy

# Coins can be bought in parts, to a millionth here.
_COIN_LOT = 1e-6
_RANDOM_RUNS = 100
_SEED = 20_250_101


class BacktestError(ValueError):
    """A backtest can't be made; the message says why and what to do next."""


@dataclass(frozen=True)
class Backtest:
    """What a strategy would have done.

    curve, held: session, equity, cash, gross at the end of each session, of the account and of buying and holding the
    same symbols at the same costs. events: the engine's. orders, fills and round_trips follow from them. statistics:
    the account's figures; held_statistics those of buying and holding. random_returns: total returns of the same
    targets at random other times, empty for a bot. findings: what speaks against believing it.
    """

    backtest_id: str
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
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def returns(self) -> np.ndarray:
        """The account's simple return of each session."""
        return session_returns(self.curve, self.capital)

    def report(self, path: str | Path | None = None) -> str:
        """One self-contained HTML page, also written to `path` where one is given."""
        from quantlytic_assets.charts.backtest_report import backtest_page
        from quantlytic_assets.charts.report import write_report

        page = backtest_page(self)
        if path is not None:
            write_report(Path(path), page)
        return page


def full_history(lake: Queries, dataset: Dataset, strategy: RuleStrategy, last: date | None = None) -> History:
    """All usable bars up to a session. Raises `BacktestError` where there is none."""
    found = read_history(lake, dataset, strategy, last)
    if found is None:
        raise BacktestError(
            f"{strategy.name}: {dataset.name} has no usable bars at {strategy.interval}; "
            f"run: quantlytic backfill {dataset.name}"
        )
    return found


def read_history(
    lake: Queries,
    dataset: Dataset,
    strategy: RuleStrategy,
    last: date | None = None,
    first: date | None = None,
) -> History | None:
    """The usable bars of the strategy's symbols in some sessions, and their splits, dividends, renames and delistings.

    None where there is no bar.
    """
    before = last + timedelta(days=1) if last else None
    bars = usable_bars(
        lake,
        dataset.name,
        strategy.interval,
        [*BARS_SCHEMA.names(), "interval", "listing", "shares"],
        incomplete=dataset.incomplete_bars == "keep",
        since=first,
        before=before,
        symbols=strategy.symbols,
    )
    if bars.is_empty():
        return None
    bars = bars.with_columns(pl.col("listing").fill_null(pl.col("symbol")), pl.col("shares").fill_null(1.0))
    hours = session_hours(lake, dataset.name, before)
    return History(
        bars,
        _actions(lake, dataset, strategy, bars["session"].max()),
        dict(hours.select("session", "close_time").iter_rows()),
        _COIN_LOT if dataset.calendar == ROUND_THE_CLOCK else 1.0,
    )


def _actions(lake: Queries, dataset: Dataset, strategy: RuleStrategy, last: date) -> pl.DataFrame:
    """The engine's ACTIONS_SCHEMA: what happened to the strategy's symbols, and when one left the dataset."""
    told = corporate_actions(lake, dataset.name).select(
        "symbol", "session", "kind", "value", pl.col("new_symbol").alias("into")
    )
    known = pl.col("symbol").is_in(strategy.symbols)
    # What a company is called that is not traded here is of no use: the position keeps its last close.
    known &= (pl.col("kind") != "rename") | (
        pl.col("into").is_in(strategy.symbols) & (pl.col("into") != pl.col("symbol"))
    )
    gone = [
        (one.symbol, one.last + timedelta(days=1), "delisting", None, None)
        for one in dataset.symbols
        if one.symbol in strategy.symbols and one.last is not None and one.last < last
    ]
    return pl.concat([told.filter(known).cast(ACTIONS_SCHEMA), pl.DataFrame(gone, ACTIONS_SCHEMA, orient="row")])


def decider(strategy: RuleStrategy) -> tuple[Rule | Bot, Registry]:
    """What the strategy decides by, made anew, and the features that its declarations are read with."""
    registry = registry_with(strategy.plugins)
    rules: Rules = rules_with(strategy.plugins)
    return rules.bind(strategy.rule), registry


def run_backtest(
    lake: Queries,
    dataset: Dataset,
    strategy: RuleStrategy,
    first: date | None = None,
    last: date | None = None,
    *,
    history: History | None = None,
) -> Backtest:
    """Trade the strategy over the sessions `first` … `last`, both included; by default all there are.

    Raises `BacktestError` for a stretch without bars, and `RuleError` for a rule or bot that fails.
    """
    given = history or full_history(lake, dataset, strategy, last)
    decides, registry = decider(strategy)
    declared = features_of(dataset) if isinstance(decides, Bot) else ()
    try:
        made = simulate(
            given, decides, strategy.settings, strategy.symbols,
            registry=registry, declared=declared, first=first, last=last,
        )  # fmt: skip
    except ValueError as error:
        if "no usable bar" in str(error):
            raise BacktestError(f"{strategy.name}: {dataset.name} has no usable bar in these sessions") from error
        raise
    capital = strategy.settings.capital
    told = made.events(strategy.name)
    fills = _with_bars(projections.fills(told), given.bars)
    trips = projections.round_trips(told, made.market)
    curve = made.sessions()
    periods = periods_per_year(curve["session"])
    held = _held(given, strategy, first, last, periods)
    earned = session_returns(curve, capital)
    statistics = figures(curve, fills, trips, capital, periods, held.returns)
    own_sharpe = float(session_sharpes(earned))
    statistics |= confidence(earned, [own_sharpe, *backtest_sharpes(lake, strategy.name)])
    doubled = made.again(settings=with_costs_doubled(made.settings)) if isinstance(decides, Rule) else None
    return Backtest(
        backtest_id=_new_id(),
        strategy=strategy.name,
        dataset=dataset.name,
        settings=settings_of(strategy, curve["session"][0], curve["session"][-1]),
        capital=capital,
        events=told,
        orders=projections.orders(told),
        fills=fills,
        round_trips=trips,
        curve=curve,
        held=held.curve,
        statistics=statistics | {"sharpe_session": own_sharpe},
        held_statistics=held.statistics,
        random_returns=moved_in_time(made, _RANDOM_RUNS, _SEED),
        findings=review(
            fills,
            trips.select("symbol", pl.col("exit_time").dt.date().alias("session"), pl.col("pnl").alias("profit")),
            volume_cap=strategy.settings.volume_cap or float("inf"),
            total_return=statistics["total_return"],
            doubled_costs_return=doubled,
        ),
    )


def run_search(
    lake: Queries,
    dataset: Dataset,
    strategy: RuleStrategy,
    points: Sequence[Mapping[str, Any]],
    first: date | None = None,
    last: date | None = None,
    *,
    history: History | None = None,
    workers: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Search:
    """Trade each point of a grid on the same history, several at a time; `advance` is called after each.

    Raises `BacktestError` for a bot and for a stretch without bars, and `ValueError` for a setting that there is not.
    """
    given = history or full_history(lake, dataset, strategy, last)
    decides, _ = decider(strategy)
    if isinstance(decides, Bot):
        raise BacktestError(f"{strategy.name} is a bot, which decides bar by bar; only rules are searched")
    rules: Rules = rules_with(strategy.plugins)
    for point in points:
        # All are looked at before the first one is run.
        rules.bind(changed(strategy.rule, strategy.settings, point)[0])
    market = given.market(strategy.symbols)

    def one(point: Mapping[str, Any]) -> tuple[list[date], np.ndarray]:
        found = trial(given, market, rules.bind, strategy.rule, strategy.settings, strategy.symbols, point, first, last)
        advance()
        return found

    # Threads, for what takes time is compiled and lets others run.
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        found = list(pool.map(one, points))
    return searched(points, found[0][0], np.column_stack([returns for _, returns in found]))


def account_figures(lake: Queries, dataset: Dataset, strategy: RuleStrategy) -> tuple[Figures, Figures] | None:
    """The figures of a strategy's paper account, and of buying and holding in the same sessions; None before both."""
    columns = ["session", "equity", "cash", "gross_exposure"]
    curve = equity(lake, strategy.name, columns).rename({"gross_exposure": "gross"})
    if curve.is_empty():
        return None
    first, last = curve["session"][0], curve["session"][-1]
    given = read_history(lake, dataset, strategy, last, first)
    if given is None:
        return None
    capital, periods = strategy.settings.capital, periods_per_year(curve["session"])
    told, held = engine_events(events(lake, strategy.name)), _held(given, strategy, first, last, periods)
    trips = projections.round_trips(told, held.market)
    own = figures(curve, projections.fills(told), trips, capital, periods, held.returns)
    return own, held.statistics


@dataclass(frozen=True)
class _Held:
    """Buying and holding in the same sessions: its market, curve, return of each session, and figures."""

    market: Market
    curve: pl.DataFrame
    returns: np.ndarray
    statistics: Figures


def _held(given: History, strategy: RuleStrategy, first: date | None, last: date | None, periods: int) -> _Held:
    made = bought_and_held(given, strategy.settings, strategy.symbols, first, last)
    curve, told, capital = made.sessions(), made.events("buy_and_hold"), strategy.settings.capital
    trips = projections.round_trips(told, made.market)
    statistics = figures(curve, projections.fills(told), trips, capital, periods)
    return _Held(made.market, curve, session_returns(curve, capital), statistics)


def settings_of(strategy: RuleStrategy, first: date, last: date) -> dict[str, Any]:
    """What a result depends on, as it is kept: the rule, the account's settings, symbols, first and last session."""
    return {
        "dataset": strategy.dataset,
        "interval": strategy.interval,
        "symbols": list(strategy.symbols),
        "rule": strategy.rule,
        **asdict(strategy.settings),
        "first": first.isoformat(),
        "last": last.isoformat(),
    }


def record(lake: Lake, results: list[Backtest]) -> None:
    """Keep results as rows of trading.backtests: each counts as a trial of its strategy."""
    _keep(lake, [_row(one.backtest_id, one.strategy, one.settings, one.statistics, one.created_at) for one in results])


def record_search(lake: Lake, strategy: RuleStrategy, search: Search) -> None:
    """Keep each point of a search as a row of trading.backtests: it was a trial too."""
    now, rows = datetime.now(UTC), []
    for point, told in zip(search.points, search.table.iter_rows(named=True), strict=True):
        rule, settings = changed(strategy.rule, strategy.settings, point)
        tried = settings_of(replace(strategy, rule=rule, settings=settings), search.sessions[0], search.sessions[-1])
        found = {"total_return": told["total_return"], "sharpe_session": told["sharpe"]}
        rows.append(_row(_new_id(), strategy.name, tried, found, now))
    _keep(lake, rows)


def _new_id() -> str:
    return uuid4().hex[:12]


def _row(
    backtest_id: str, strategy: str, settings: Mapping[str, Any], statistics: Figures, created_at: datetime
) -> tuple:
    return backtest_id, strategy, json.dumps(settings, default=str), json.dumps(statistics), created_at


def _keep(lake: Lake, rows: list[tuple]) -> None:
    lake.replace([(BACKTESTS.name, "false", [], pl.DataFrame(rows, BACKTESTS.polars, orient="row"))])


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

"""Backtests: a strategy on the bars of its dataset, through the engine that trades it, with nothing in the ledger.

What is traded and what it comes to is pure (`trading.backtest`); a result is kept as a row of trading.backtests.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import polars as pl

from quantlytic_assets.schemas.trading import BACKTESTS
from quantlytic_assets.services.accounts import Account, came_to, decider, forecast_quality, settings_of
from quantlytic_assets.services.history import read_history
from quantlytic_assets.services.inputs import begins, rules_of
from quantlytic_assets.strategies.bots import Bot
from quantlytic_assets.strategies.spec import Conflict
from quantlytic_assets.trading.backtest.changes import changed, grid
from quantlytic_assets.trading.backtest.figures import Figures, session_sharpes
from quantlytic_assets.trading.backtest.history import History, PreparedHistory
from quantlytic_assets.trading.backtest.sampling import sampled
from quantlytic_assets.trading.backtest.search import Search, cut_of, searched, trial
from quantlytic_assets.trading.backtest.simulation import simulate
from quantlytic_assets.universe.feature_choice import features_of
from quantlytic_assets.universe.models import ModelStrategy

if TYPE_CHECKING:
    from quantlytic_assets.storage.lake import Lake
    from quantlytic_assets.tables.select import Queries
    from quantlytic_assets.universe.models import Dataset, Strategy


class BacktestError(ValueError):
    """A backtest can't be made; the message says why and what to do next."""


@dataclass(frozen=True, kw_only=True)
class Backtest(Account):
    """What a strategy would have done."""

    backtest_id: str = field(default_factory=lambda: uuid4().hex[:12])
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def title(self) -> str:
        """What this is an account of, in a few words."""
        return f"Backtest {self.backtest_id} on {self.dataset}"


def full_history(lake: Queries, dataset: Dataset, strategy: Strategy, last: date | None = None) -> History:
    """All usable bars up to a session. Raises `BacktestError` where there is none, and without any prediction."""
    found = read_history(lake, dataset, strategy, last)
    if found is None:
        raise BacktestError(
            f"{strategy.name}: {dataset.name} has no usable bars at {strategy.interval}; "
            f"run: quantlytic backfill {dataset.name}"
        )
    if found.inputs is not None and found.inputs.is_empty():
        what = "its model has predicted" if isinstance(strategy, ModelStrategy) else "its members have decided"
        raise BacktestError(f"{strategy.name}: {what} nothing; run: quantlytic backfill {strategy.name}")
    return found


def run_backtest(
    lake: Queries,
    dataset: Dataset,
    strategy: Strategy,
    first: date | None = None,
    last: date | None = None,
    *,
    history: History | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Backtest:
    """Trade the strategy over the sessions `first` … `last`, both included; by default all there are.

    Of a strategy with a model these are the sessions that it has predicted, each by a model that has not seen it; of a
    portfolio those in which all members have decided.
    `advance` is called when bars are read, when they are traded, and when the account is judged. Raises `BacktestError`
    for a stretch without bars, and `RuleError` for a rule or bot that fails.
    """
    given = history or full_history(lake, dataset, strategy, last)
    advance()
    decides, registry = decider(strategy)
    declared = features_of(dataset) if isinstance(decides, Bot) else ()
    try:
        made = simulate(
            given, decides, strategy.settings, strategy.symbols,
            registry=registry, declared=declared, first=_begin(lake, strategy, first), last=last,
        )  # fmt: skip
    except ValueError as error:
        if "no usable bar" in str(error):
            raise BacktestError(f"{strategy.name}: {dataset.name} has no usable bar in these sessions") from error
        raise
    advance()
    told, simulated = made.events(strategy.name), None if isinstance(decides, Bot) else made
    result = Backtest(
        **came_to(lake, given, strategy, told, made.sessions(), simulated), forecasts=forecast_quality(lake, strategy)
    )
    advance()
    return result


def _begin(lake: Queries, strategy: Strategy, first: date | None) -> date | None:
    """`first`, or the first session of which all inputs are known where that is later."""
    return max((one for one in (first, begins(lake, strategy)) if one), default=None)


def run_search(
    lake: Queries,
    dataset: Dataset,
    strategy: Strategy,
    axes: Mapping[str, Sequence[Any]],
    first: date | None = None,
    last: date | None = None,
    *,
    trials: int | None = None,
    history: History | None = None,
    workers: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Search:
    """Trade points of the axes on the same history, several at a time; `advance` is called after each.

    All points of the grid are tried, or so many `trials` that Optuna chooses. A point whose parameters do not go
    together is left out. Raises `BacktestError` for a bot, for a stretch without bars and where no point is left, and
    `ValueError` for a setting that there is not.
    """
    given = history or full_history(lake, dataset, strategy, last)
    decides, _ = decider(strategy)
    if isinstance(decides, Bot):
        raise BacktestError(f"{strategy.name} is a bot, which decides bar by bar; only rules are searched")
    rules = rules_of(strategy)
    market, begin = given.market(strategy.symbols), _begin(lake, strategy, first)
    prepared = PreparedHistory(given, market)
    sessions: list[date] = []
    returns: dict[tuple, np.ndarray] = {}

    def possible(point: Mapping[str, Any]) -> bool:
        try:
            rules.bind(changed(strategy.rule, strategy.settings, point)[0])
        except Conflict:
            return False
        return True

    def one(point: Mapping[str, Any]) -> tuple[list[date], np.ndarray]:
        found = trial(
            prepared, market, rules.bind, strategy.rule, strategy.settings, strategy.symbols, point, begin, last
        )
        advance()
        return found

    # Threads, for what takes time is compiled and lets others run.
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:

        def worth(points: Sequence[Mapping[str, Any]]) -> list[float | None]:
            tried = [point for point in points if possible(point)]
            for point, (days, earned) in zip(tried, pool.map(one, tried), strict=True):
                sessions[:], returns[tuple(point.values())] = days, earned
            found = [returns.get(tuple(point.values())) for point in points]
            return [None if one is None else float(session_sharpes(one[: cut_of(len(one))])) for one in found]

        if trials is None:
            # All are looked at before the first one is run.
            points = [point for point in grid(axes) if possible(point)]
            worth(points)
        else:
            points = sampled(axes, trials, worth)
    if not points:
        raise BacktestError(
            f"{strategy.name}: at no point of the grid do the parameters go together; take other values"
        )
    return searched(points, sessions, np.column_stack([returns[tuple(point.values())] for point in points]))


def record(lake: Lake, results: list[Backtest]) -> None:
    """Keep results as rows of trading.backtests: each counts as a trial of its strategy."""
    _keep(lake, [_row(one.backtest_id, one.strategy, one.settings, one.statistics, one.created_at) for one in results])


def record_search(lake: Lake, strategy: Strategy, search: Search) -> None:
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

"""What trades the bars of a strategy: its rule's targets, or its bot, on what the lake has.

Both give the same kind of result for a stretch of times, from where the account stands; a bot also says what it
remembers for the next run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from quantlytic_assets.features.spec import column_names
from quantlytic_assets.services.inputs import rules_of
from quantlytic_assets.services.signals import check_columns, rule_targets
from quantlytic_assets.strategies.bot_memory import Memory
from quantlytic_assets.strategies.bots import Bot
from quantlytic_assets.tables.features import indicators
from quantlytic_assets.trading.backtest.simulation import ATR_COLUMN, sized
from quantlytic_assets.trading.bot_run import run_bot
from quantlytic_assets.trading.engine.run import Result, run
from quantlytic_assets.universe.feature_choice import declared

if TYPE_CHECKING:
    from quantlytic_assets.strategies.spec import Rule
    from quantlytic_assets.tables.select import Queries
    from quantlytic_assets.trading.engine.market import Market
    from quantlytic_assets.trading.engine.requests import Requests
    from quantlytic_assets.trading.engine.state import State
    from quantlytic_assets.universe.models import Strategy


_NEVER = slice(0, 0)


@dataclass(frozen=True)
class Trader:
    """What trades stretches of a market, in their order.

    trade: the result of a stretch of times from where the account stands (None: a new one), with what is asked for by
    hand at its first time. remembered: what the bot keeps of all bars so far, None of a rule; raises `RuleError` where
    it keeps what can't be stored.
    """

    trade: Callable[[slice, State | None, Requests | None], Result]
    remembered: Callable[[], str | None]


def trader(
    lake: Queries,
    strategy: Strategy,
    market: Market,
    since: date,
    before: date,
    kept: str | None,
    stale: slice = _NEVER,
) -> Trader:
    """What trades the sessions [since, before) of a market.

    kept: what the bot remembered of the bars before. stale: times at which no order can be sent any more; what a rule
    wanted there it wants at the time after them. Raises `NoSignals` for features that were never computed.
    """
    decides = rules_of(strategy).bind(strategy.rule)
    atr = average_true_range(lake, strategy, market, since, before)
    if not isinstance(decides, Bot):
        return _by_rule(strategy, decides, market, rule_targets(lake, strategy, decides, since, before), atr, stale)
    columns = bot_columns(strategy)
    check_columns(lake, strategy, columns)
    read = indicators(
        lake, strategy.dataset, strategy.interval, ["symbol", "open_time", *columns],
        since=since, before=before, symbols=strategy.symbols,
    )  # fmt: skip
    return _by_bot(strategy, decides, market, read, atr, kept)


def bot_columns(strategy: Strategy) -> list[str]:
    """The columns of features that a bot is shown: all that its dataset declares."""
    return column_names(declared(strategy.declared, strategy.plugins))


def trader_of(
    strategy: Strategy,
    market: Market,
    targets: pl.DataFrame,
    features: pl.DataFrame,
    kept: str | None,
    stale: slice = _NEVER,
) -> Trader:
    """What trades a market by what is in memory.

    targets: symbol, open_time and `weight` of a rule; a bot has none. features: symbol, open_time and the columns of
    features.indicators. kept and stale as for `trader`.
    """
    decides = rules_of(strategy).bind(strategy.rule)
    atr = None if strategy.settings.exits.atr_stop is None else market.matrix(features, ATR_COLUMN)
    if isinstance(decides, Bot):
        return _by_bot(strategy, decides, market, features, atr, kept)
    return _by_rule(strategy, decides, market, targets, atr, stale)


def _by_rule(
    strategy: Strategy, rule: Rule, market: Market, decided: pl.DataFrame, atr: np.ndarray | None, stale: slice
) -> Trader:
    settings = sized(rule, strategy.settings)
    targets = carried(market.matrix(decided, "weight"), stale)
    elsewhere = strategy.at_broker

    def trade(stretch: slice, state: State | None, asked: Requests | None) -> Result:
        part = None if atr is None else atr[stretch]
        orders = None if asked is None else {0: asked}
        return run(
            market[stretch], targets[stretch], settings, state, atr=part, orders=orders, filled_elsewhere=elsewhere
        )

    return Trader(trade, lambda: None)


def _by_bot(
    strategy: Strategy, bot: Bot, market: Market, read: pl.DataFrame, atr: np.ndarray | None, kept: str | None
) -> Trader:
    places = market.places(read)
    features = {name: market.laid(read[name], places) for name in bot_columns(strategy)}
    memory, elsewhere = Memory(bot, kept), strategy.at_broker

    def trade(stretch: slice, state: State | None, asked: Requests | None) -> Result:
        part = None if atr is None else atr[stretch]
        seen = {name: values[stretch] for name, values in features.items()}
        return run_bot(
            bot, market[stretch], strategy.settings, state, features=seen, atr=part, asked=asked,
            filled_elsewhere=elsewhere,
        )  # fmt: skip

    return Trader(trade, memory.text)


def carried(targets: np.ndarray, stale: slice) -> np.ndarray:
    """Targets [time, symbol] with those of a stretch moved to the time after it, where that has none of its own."""
    if stale.start >= stale.stop or stale.stop >= len(targets):
        return targets
    moved, part = targets.copy(), targets[stale.start : stale.stop + 1]
    # Of each symbol the last time of the stretch that has a target.
    places = np.where(np.isfinite(part), np.arange(len(part))[:, None], 0)
    newest = part[places.max(axis=0), np.arange(part.shape[1])]
    moved[stale] = np.nan
    moved[stale.stop] = newest
    return moved


def average_true_range(
    lake: Queries, strategy: Strategy, market: Market, first: date, before: date
) -> np.ndarray | None:
    """The ATR of each time and symbol, where exits need it."""
    if strategy.settings.exits.atr_stop is None:
        return None
    columns = ["symbol", "open_time", ATR_COLUMN]
    read = indicators(
        lake, strategy.dataset, strategy.interval, columns, since=first, before=before, symbols=strategy.symbols
    )
    return market.matrix(read, ATR_COLUMN)

"""A strategy on history: its rule's targets, or its bot's wishes, through the trading engine.

The engine is the one that trades; here the bars of a dataset become what it reads, and features are computed for any
parameters, declared or not. Where bars and corporate actions come from is the caller's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import polars as pl

from quantlytic_assets.features.registry import Registry
from quantlytic_assets.features.spec import Feature, column_names
from quantlytic_assets.strategies.bots import Bot
from quantlytic_assets.strategies.spec import Rule
from quantlytic_assets.trading.backtest.history import History, PreparedHistory
from quantlytic_assets.trading.bot_run import run_bot
from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine import projections
from quantlytic_assets.trading.engine.market import Market
from quantlytic_assets.trading.engine.run import Result, run
from quantlytic_assets.trading.engine.settings import EngineSettings, OrderStyle, Sizing

# The window of the ATR that `exits.atr_stop` is a multiple of.
ATR, ATR_COLUMN = "atr(14)", "atr_14"


@dataclass(frozen=True)
class Simulation:
    """What came of it: the market of the traded times, what was asked of the engine there, and its result.

    targets and atr are [time, symbol]; a bot asks step by step and has no targets.
    """

    market: Market
    settings: EngineSettings
    result: Result
    targets: np.ndarray | None = None
    atr: np.ndarray | None = None

    def again(self, targets: np.ndarray | None = None, settings: EngineSettings | None = None) -> float:
        """The total return of other targets, or of other settings, in the same market; no events are kept."""
        asked, own = self.targets if targets is None else targets, settings or self.settings
        return float(run(self.market, asked, own, atr=self.atr, events=False).equity[-1] / own.capital - 1)

    def events(self, strategy: str) -> pl.DataFrame:
        """The engine's events, oldest first."""
        return self.result.events.frame(strategy)

    def sessions(self) -> pl.DataFrame:
        """session, equity, cash, gross (money in positions without sign) at the end of each session."""
        told = projections.equity(self.market, self.result.equity, self.result.cash, self.result.gross)
        return told.drop("available_at").group_by("session", maintain_order=True).last()


def simulate(
    history: History | PreparedHistory,
    strategy: Rule | Bot,
    settings: EngineSettings,
    symbols: Sequence[str],
    *,
    market: Market | None = None,
    registry: Registry | None = None,
    declared: Sequence[Feature] = (),
    first: date | None = None,
    last: date | None = None,
    events: bool = True,
) -> Simulation:
    """Trade a rule or a bot over the sessions `first` … `last`, both included; earlier bars only warm up.

    market: that of the history, where it is made already. registry: the features that declarations are read with.
    declared: what a bot sees of each bar. Raises `ValueError` where no bar lies in the sessions, and `RuleError` for a
    rule or bot that fails.
    """
    market = history.market(symbols) if market is None else market
    stretch = market.within(first, last)
    traded = market[stretch]
    if not len(traded):
        raise ValueError("there is no usable bar in these sessions")
    atr = _atr(history, market, settings, registry)
    atr = None if atr is None else atr[stretch]
    if isinstance(strategy, Bot):
        frame = history.with_features(declared, registry)
        seen = {name: history.laid(market, frame, frame[name])[stretch] for name in column_names(declared)}
        result = run_bot(strategy, traded, settings, features=seen, atr=atr, events=events)
        return Simulation(traded, settings, result, atr=atr)
    targets = targets_of(history, strategy, market, registry)[stretch]
    own = sized(strategy, settings)
    return Simulation(traded, own, run(traded, targets, own, atr=atr, events=events), targets, atr)


def targets_of(
    history: History | PreparedHistory, rule: Rule, market: Market, registry: Registry | None = None
) -> np.ndarray:
    """The rule's weights [time, symbol], NaN to keep what is held."""
    library = registry or rule.library or Registry()
    frame = history.with_features(library.features(rule.declarations), library)
    return history.laid(market, frame, rule.targets(frame))


def bought_and_held(
    history: History,
    settings: EngineSettings,
    symbols: Sequence[str],
    first: date | None = None,
    last: date | None = None,
) -> Simulation:
    """Each symbol bought once, at its first bar of the sessions, for an equal part of the money; at the same costs."""
    market = history.market(symbols)
    traded = market[market.within(first, last)]
    there = np.isfinite(traded.bars[:, c.CLOSE])
    targets = np.full(there.shape, np.nan)
    known = there.any(axis=0)
    targets[there.argmax(axis=0)[known], np.flatnonzero(known)] = 1.0
    # Good till it is filled: it is not asked for again.
    plain = EngineSettings(
        settings.capital,
        volume_cap=settings.volume_cap,
        costs=settings.costs,
        orders=OrderStyle(time_in_force="gtc"),
    )
    return Simulation(traded, plain, run(traded, targets, plain), targets)


def sized(rule: Rule, settings: EngineSettings) -> EngineSettings:
    """The settings with the sizing that the rule's weights mean: shares of the equity are sized already."""
    return replace(settings, sizing=Sizing(method="weights")) if rule.spec.weights == "portfolio" else settings


def _atr(
    history: History | PreparedHistory, market: Market, settings: EngineSettings, registry: Registry | None
) -> np.ndarray | None:
    if settings.exits.atr_stop is None:
        return None
    (feature,) = (registry or Registry()).features([ATR])
    frame = history.with_features([feature], registry)
    return history.laid(market, frame, frame[feature.columns[0]])

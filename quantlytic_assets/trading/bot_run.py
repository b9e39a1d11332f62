"""Driving a bot through the engine: bar by bar, from a new account or from where one stands.

The bot is handed the bars of one time after the other, those of one time in the order of the symbols' names, with what
it holds then; its wishes go to the engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta

import numpy as np

from quantlytic_assets.strategies.bots import Bar, Bot, Features, TargetIntent
from quantlytic_assets.strategies.spec import RuleError
from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.market import Market
from quantlytic_assets.trading.engine.requests import Requests
from quantlytic_assets.trading.engine.run import Result, Stepper
from quantlytic_assets.trading.engine.settings import EngineSettings
from quantlytic_assets.trading.engine.state import State

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NO_FEATURES: Mapping[str, float | None] = {}
_VALUES_AT_ONCE = 50_000


def run_bot(
    bot: Bot,
    market: Market,
    settings: EngineSettings,
    state: State | None = None,
    *,
    features: Mapping[str, np.ndarray] | None = None,
    atr: np.ndarray | None = None,
    asked: Requests | None = None,
    events: bool = True,
    filled_elsewhere: bool = False,
) -> Result:
    """Trade a market by a bot, from a new account or from where `state` ended, which stays as it was.

    features: what the bot sees beside prices, by column, each [time, symbol], NaN where it has no value. asked: what is
    asked for by hand at the market's first time. atr: [time, symbol], for exits.atr_stop. filled_elsewhere: a broker
    fills the orders. Raises `RuleError` where the bot fails or has a target of a symbol that is not in the market.
    """
    stepper = Stepper(market, settings, state, atr=atr, events=events, filled_elsewhere=filled_elsewhere)
    if asked is not None:
        stepper.requests.extend(asked)
    seen = _bars(market, features or {})
    while stepper.step():
        held = stepper.positions()
        for bar in next(seen):
            for intent in bot.decide(bar, held):
                if isinstance(intent, TargetIntent):
                    if intent.symbol not in held:
                        raise RuleError(
                            f"bot {type(bot).__name__} at {bar.symbol}, {bar.open_time}: target({intent.symbol!r}, …) "
                            f"is of no symbol of the strategy, which has {', '.join(market.symbols)}"
                        )
                    stepper.target(intent.symbol, intent.weight)
                else:
                    prices = {"limit": intent.limit, "stop": intent.stop}
                    given = {name: price for name, price in prices.items() if price is not None}
                    stepper.submit(intent.symbol, intent.size, **given)
    return stepper.finish()


def _bars(market: Market, features: Mapping[str, np.ndarray]) -> Iterator[list[Bar]]:
    """What a bot sees of each time: the bars of the symbols that have one."""
    order = sorted(range(len(market.symbols)), key=market.symbols.__getitem__)
    names, in_order = [market.symbols[place] for place in order], order == sorted(order)
    columns = {name: number for number, name in enumerate(features)}
    # One array, so that the features of a bar are a row of it.
    laid = np.stack(list(features.values()), axis=-1) if features else None
    make = Bar._make
    for time, (session, opened, available, prices) in enumerate(_times(market, None if in_order else order)):
        there = zip(names, order, *prices, strict=True)
        # A bar is all there or not at all, but for its volume. NaN differs from itself.
        if laid is None:
            yield [
                make((symbol, session, opened, available, first, high, low, last, volume, _NO_FEATURES))
                for symbol, _, first, high, low, last, volume in there
                if last == last
            ]
        else:
            known = laid[time]
            yield [
                make((symbol, session, opened, available, first, high, low, last, volume,
                      Features(columns, known[place])))
                for symbol, place, first, high, low, last, volume in there
                if last == last
            ]  # fmt: skip


def _times(market: Market, order: list[int] | None) -> Iterator[tuple[date, datetime, datetime, list[list[float]]]]:
    """Of each time its session, when it opens and can be used (UTC), and its prices as numbers of Python by field."""
    # Many times at once where there are few symbols; few times at once where there are many, for the memory's sake.
    together = max(1, _VALUES_AT_ONCE // max(1, market.bars.shape[1] * market.bars.shape[2]))
    for start in range(0, len(market), together):
        part = market[start : start + together]
        opens, available = (part.times[:, place].tolist() for place in (c.OPENS, c.AVAILABLE))
        bars = part.bars if order is None else part.bars[:, :, order]
        for session, opened, usable, prices in zip(
            part.sessions.to_list(), opens, available, bars.tolist(), strict=True
        ):
            yield session, _EPOCH + timedelta(0, 0, opened), _EPOCH + timedelta(0, 0, usable), prices

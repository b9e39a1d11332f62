"""Driving a bot through the engine: bar by bar, from a new account or from where one stands.

The bot is handed the bars of one time after the other, those of one time in the order of the symbols, with what it
holds then; its wishes go to the engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
import polars as pl

from quantlytic_assets.strategies.bots import Bar, Bot, TargetIntent
from quantlytic_assets.strategies.spec import RuleError
from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.market import BARS_SCHEMA, Market
from quantlytic_assets.trading.engine.requests import Requests
from quantlytic_assets.trading.engine.run import Result, Stepper
from quantlytic_assets.trading.engine.settings import EngineSettings
from quantlytic_assets.trading.engine.state import State

_FIELDS = ("symbol", "session", "open_time", "available_at", "open", "high", "low", "close", "volume")


def bars_by_time(bars: pl.DataFrame, symbols: Sequence[str], columns: Sequence[str]) -> Mapping[datetime, list[Bar]]:
    """What a bot sees at each open time, UTC: the bars of these symbols with a price, and columns as features.

    bars: the engine's BARS_SCHEMA and the columns; a feature without a value is None.
    """
    wanted = bars.filter(pl.col("close").is_not_null(), pl.col("symbol").is_in(list(symbols)))
    found: dict[datetime, list[Bar]] = {}
    known = [pl.col(name).cast(pl.Float64).fill_nan(None) for name in columns]
    for row in wanted.sort("open_time", "symbol").select(*_FIELDS, *known).iter_rows():
        seen = dict(zip(columns, row[len(_FIELDS) :], strict=True))
        found.setdefault(row[2], []).append(Bar._make((*row[: len(_FIELDS)], seen)))
    return found


def run_bot(
    bot: Bot,
    bars: Mapping[datetime, list[Bar]],
    market: Market,
    settings: EngineSettings,
    state: State | None = None,
    *,
    atr: np.ndarray | None = None,
    asked: Requests | None = None,
    events: bool = True,
) -> Result:
    """Trade a market by a bot, from a new account or from where `state` ended, which stays as it was.

    bars: `bars_by_time`. asked: what is asked for by hand at the market's first time. atr: [time, symbol], for
    exits.atr_stop. Raises `RuleError` where the bot fails or has a target of a symbol that is not in the market.
    """
    stepper = Stepper(market, settings, state, atr=atr, events=events)
    if asked is not None:
        stepper.requests.extend(asked)
    opens = pl.Series(market.times[:, c.OPENS]).cast(BARS_SCHEMA["open_time"]).to_list()
    while stepper.step():
        held = {symbol: stepper.position(place) for place, symbol in enumerate(market.symbols)}
        for bar in bars.get(opens[stepper.time], ()):
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

"""What a backtest trades: bars with their corporate actions, and features for any parameters, declared or not."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from threading import Lock

import numpy as np
import polars as pl

from quantlytic_assets.features.batch import compute
from quantlytic_assets.features.registry import Registry
from quantlytic_assets.features.spec import Feature, column_names
from quantlytic_assets.trading.engine.market import BARS_SCHEMA, Market

# What features are kept in, of a history that is traded many times: the oldest ones go first.
_KEPT_BYTES = 1 << 30


@dataclass(frozen=True)
class History:
    """What is traded: the usable bars of a dataset at one interval, oldest first, and what happened to the shares.

    bars: the engine's BARS_SCHEMA, and interval, listing and shares as features.bars has them. actions: the engine's
    ACTIONS_SCHEMA. session_closes: when each session ends, UTC. lot: the smallest change of a quantity. inputs:
    symbol, open_time and what a rule reads beside features, where it reads anything: the score of a model.
    """

    bars: pl.DataFrame
    actions: pl.DataFrame
    session_closes: Mapping[date, datetime]
    lot: float = 1.0
    inputs: pl.DataFrame | None = None

    def market(self, symbols: Sequence[str]) -> Market:
        """The bars as the engine reads them."""
        return Market.from_frame(
            self.bars.select(BARS_SCHEMA.names()),
            symbols,
            actions=self.actions,
            lots=self.lot,
            session_closes=self.session_closes,
        )

    def with_features(self, features: Sequence[Feature], registry: Registry | None = None) -> pl.DataFrame:
        """The bars with the columns of these features, and what the rule reads beside them."""
        found = compute(self.bars, features, registry) if features else self.bars
        if self.inputs is None:
            return found
        return found.join(self.inputs, on=["symbol", "open_time"], how="left", maintain_order="left")

    def laid(self, market: Market, frame: pl.DataFrame, values: pl.Series) -> np.ndarray:
        """Values of the rows of a frame that `with_features` gave, laid out as [time, symbol]."""
        return market.laid(values, market.places(frame))


class PreparedHistory:
    """A history that is traded many times, by several threads: each feature is computed once, each row placed once.

    market: the one that is traded, made of that history.
    """

    def __init__(self, history: History, market: Market):
        # In the order in which features come.
        self._bars = history.bars.sort("symbol", "interval", "open_time")
        self._rows = replace(history, bars=self._bars).with_features(())
        self._market, self._places = market, market.places(self._bars)
        self._columns: OrderedDict[str, pl.Series] = OrderedDict()
        self._lock = Lock()

    def market(self, symbols: Sequence[str]) -> Market:
        """The bars as the engine reads them. Raises `ValueError` for other symbols than the market's."""
        if tuple(symbols) != self._market.symbols:
            raise ValueError(f"the history is prepared for {', '.join(self._market.symbols)}, not {', '.join(symbols)}")
        return self._market

    def with_features(self, features: Sequence[Feature], registry: Registry | None = None) -> pl.DataFrame:
        """The bars with the columns of these features, and what the rule reads beside them."""
        kept, names = self._columns, column_names(features)
        with self._lock:
            missing = [one for one in features if any(name not in kept for name in one.columns)]
            if missing:
                made = compute(self._bars, missing, registry)
                kept.update({name: made[name] for name in column_names(missing)})
            found = [kept[name] for name in names]
            for name in names:
                kept.move_to_end(name)
            while len(kept) > len(names) and len(kept) * 8 * len(self._bars) > _KEPT_BYTES:
                kept.popitem(last=False)
        return self._rows.with_columns(found)

    def laid(self, market: Market, frame: pl.DataFrame, values: pl.Series) -> np.ndarray:
        """Values of the rows of a frame that `with_features` gave, laid out as [time, symbol] of the market."""
        return market.laid(values, self._places)

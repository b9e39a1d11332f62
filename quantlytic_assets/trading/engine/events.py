"""Events as a frame: what the kernel wrote in numbers, in words, with each order under the name that it is known by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from quantlytic_assets.trading.engine import codes as c

EVENTS_SCHEMA = pl.Schema(
    {
        "strategy": pl.String,
        "seq": pl.Int64,
        "event_time": pl.Datetime("us", "UTC"),
        "session": pl.Date,
        "kind": pl.String,
        "symbol": pl.String,
        "client_order_id": pl.String,
        "order": pl.Int64,
        "leg": pl.String,
        "side": pl.String,
        "type": pl.String,
        "quantity": pl.Float64,
        "price": pl.Float64,
        "stop": pl.Float64,
        "commission": pl.Float64,
        "slippage": pl.Float64,
        "cash": pl.Float64,
        "position": pl.Float64,
        "value": pl.Float64,
        "reason": pl.String,
        "ambiguous": pl.Boolean,
        "decision_time": pl.Datetime("us", "UTC"),
    }
)


def leg_name(leg: int) -> str | None:
    """What a leg is called: `entry`, `entry.stop`, `own_1.target.2`."""
    if leg < 0:
        return None
    generation, rest = divmod(leg, c.GENERATION_STEP)
    kind, parent = divmod(rest, c.KIND_STEP)
    name = c.LEGS[parent] if parent < c.FIRST_OWN_LEG else f"own_{parent - c.FIRST_OWN_LEG + 1}"
    name = f"{name}.{c.EXIT_KINDS[kind]}" if kind else name
    return f"{name}.{generation + 1}" if generation else name


@dataclass(frozen=True)
class Events:
    """Events in the order in which they happened: integers [event, field] and floats [event, field]."""

    integers: np.ndarray
    floats: np.ndarray
    symbols: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.integers)

    def count(self, kind: str) -> int:
        """How many of a kind there are."""
        return int((self.integers[:, c.E_KIND] == c.KINDS.index(kind)).sum())

    def frame(self, strategy: str = "strategy") -> pl.DataFrame:
        """EVENTS_SCHEMA: oldest first.

        quantity, price: of the order or fill; price of an order is its limit, of a dividend cash for a share. value:
        weight of a decision, what is left of an order after a fill, ratio of a split, money of a dividend, fee or
        borrow, equity at a halt, number of the new symbol of a rename. cash and position are those afterwards.
        """
        return to_frame(self.integers, self.floats, self.symbols, strategy)


def to_frame(
    integers: np.ndarray, floats: np.ndarray, symbols: Sequence[str], strategy: str = "strategy"
) -> pl.DataFrame:
    """Rows of the tape as a frame (EVENTS_SCHEMA)."""

    def words(place: int, told: Sequence[str | None]) -> pl.Series:
        return pl.Series([*told, None], dtype=pl.String).gather(_within(integers[:, place], len(told)))

    legs = pl.Series(integers[:, c.E_LEG], dtype=pl.Int64)
    named = {leg: leg_name(leg) for leg in legs.unique().to_list()}
    raw = pl.DataFrame(
        {
            "strategy": pl.repeat(strategy, len(integers), dtype=pl.String, eager=True),
            "seq": integers[:, c.E_SEQ],
            "event_time": pl.Series(integers[:, c.E_TIME], dtype=pl.Int64).cast(EVENTS_SCHEMA["event_time"]),
            "session": pl.Series(integers[:, c.E_SESSION], dtype=pl.Int64).cast(pl.Int32, strict=False).cast(pl.Date),
            "kind": words(c.E_KIND, c.KINDS),
            "symbol": words(c.E_SYMBOL, symbols),
            "order": integers[:, c.E_ORDER],
            "leg": legs.replace_strict(named, return_dtype=pl.String) if len(legs) else legs.cast(pl.String),
            "side": pl.Series(["sell", None, "buy"], dtype=pl.String).gather(integers[:, c.E_SIDE] + 1),
            "type": words(c.E_TYPE, c.ORDER_TYPES),
            "quantity": floats[:, c.E_QUANTITY],
            "price": floats[:, c.E_PRICE],
            "stop": floats[:, c.E_STOP],
            "commission": floats[:, c.E_COMMISSION],
            "slippage": floats[:, c.E_SLIPPAGE],
            "cash": floats[:, c.E_CASH],
            "position": floats[:, c.E_POSITION],
            "value": floats[:, c.E_VALUE],
            "reason": words(c.E_REASON, c.REASONS),
            "ambiguous": integers[:, c.E_AMBIGUOUS] == 1,
            "decided": integers[:, c.E_DECIDED],
        }
    )
    # Times are microseconds since 1970, so that 0 is none of a market.
    decided = pl.when(pl.col("decided") != 0).then(pl.col("decided").cast(EVENTS_SCHEMA["decision_time"]))
    named_by = pl.concat_str("strategy", "symbol", decided.dt.to_string("%Y-%m-%dT%H:%M:%S%.fZ"), "leg", separator=":")
    return raw.with_columns(
        decided.alias("decision_time"),
        pl.when(pl.col("order") != 0).then(pl.col("order")).alias("order"),
        pl.when(pl.col("order") != 0).then(named_by).alias("client_order_id"),
        pl.col(pl.Float64).fill_nan(None),
    ).select(EVENTS_SCHEMA.names())


def _within(places: np.ndarray, count: int) -> np.ndarray:
    return np.where((places >= 0) & (places < count), places, count)

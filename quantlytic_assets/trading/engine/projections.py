"""What events amount to: orders, fills, positions and round trips, each a frame made of events; and the equity."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.corrections import corrected
from quantlytic_assets.trading.engine.market import Market, micros

ROUND_TRIPS_SCHEMA = pl.Schema(
    {
        "symbol": pl.String,
        "side": pl.String,
        "entry_time": pl.Datetime("us", "UTC"),
        "exit_time": pl.Datetime("us", "UTC"),
        "quantity": pl.Float64,
        "entry_price": pl.Float64,
        "exit_price": pl.Float64,
        "pnl": pl.Float64,
        "return": pl.Float64,
        "costs": pl.Float64,
        "bars": pl.Int64,
        "mae": pl.Float64,
        "mfe": pl.Float64,
        "exit_leg": pl.String,
        "ambiguous": pl.Boolean,
    }
)
# A broker can reject what was accepted before.
_REJECTED_THERE = c.REASONS[c.R_REJECTED_THERE]
_LATE_COMMISSION = c.REASONS[c.R_COMMISSION]
_MOVES = ("fill", "correction", "split", "dividend", "delisting", "rename")
_DECIMALS = 9
_ENDS = {"order_rejected": "rejected", "order_cancelled": "cancelled", "order_expired": "expired"}


def orders(events: pl.DataFrame) -> pl.DataFrame:
    """One row an order: as it was sent, what became of it (`status`) and how much of it was filled at what average."""
    sent = events.filter(
        (pl.col("kind") == "order_accepted")
        | ((pl.col("kind") == "order_rejected") & pl.col("client_order_id").is_not_null())
    ).unique("order", keep="first", maintain_order=True)
    filled = (
        # A correction tells the shares that came or went by it, and what it did to the cash.
        events.filter(pl.col("kind").is_in(["fill", "correction"]))
        .with_columns(
            pl.when(pl.col("kind") == "fill")
            .then(pl.col("price") * pl.col("quantity"))
            .when(pl.col("side") == "sell")
            .then("value")
            .otherwise(-pl.col("value"))
            .alias("paid"),
            pl.when(pl.col("kind") == "fill").then("value").alias("left"),
        )
        .group_by("order")
        .agg(
            pl.col("quantity").sum().alias("filled"),
            (pl.col("paid").sum() / pl.col("quantity").sum()).alias("average_price"),
            pl.col("commission").sum(),
            pl.col("slippage").sum(),
            pl.col("left").drop_nulls().last(),
        )
    )
    # A change that was refused ends nothing.
    ended = events.filter(pl.col("kind").is_in(list(_ENDS)) & pl.col("order").is_not_null()).join(
        sent.select("order", pl.col("kind").alias("sent")), on="order"
    )
    ended = (
        ended.filter(
            (pl.col("kind") != "order_rejected")
            | (pl.col("sent") == "order_rejected")
            | (pl.col("reason") == _REJECTED_THERE)
        )
        .group_by("order")
        .agg(pl.col("kind").last().replace_strict(_ENDS).alias("end"), pl.col("reason").last())
    )
    return (
        sent.drop("kind", "commission", "slippage", "reason", "cash", "position", "value", "ambiguous")
        .rename({"event_time": "sent_at"})
        .join(filled, on="order", how="left", maintain_order="left")
        .join(ended, on="order", how="left", maintain_order="left")
        .with_columns(
            pl.col("filled", "commission", "slippage").fill_null(0.0),
            pl.when(pl.col("left") == 0)
            .then(pl.lit("filled"))
            .otherwise(pl.coalesce("end", pl.lit("working")))
            .alias("status"),
        )
        .drop("end", "left")
    )


def fills(events: pl.DataFrame) -> pl.DataFrame:
    """One row a fill."""
    return events.filter(pl.col("kind") == "fill").drop("kind", "value", "reason")


def positions(events: pl.DataFrame) -> pl.DataFrame:
    """What was held of a symbol after each session in which it changed: session, symbol, quantity (0 where it ended).

    A rename ends what was held under the old symbol; under the new one it is told with the next change.
    """
    changes = events.filter(pl.col("kind").is_in(["fill", "correction", "split", "delisting", "rename"]))
    return (
        changes.group_by("session", "symbol", maintain_order=True)
        .agg(pl.col("position").last().alias("quantity"))
        .sort("session", "symbol")
    )


def equity(market: Market, curve: np.ndarray, cash: np.ndarray, gross: np.ndarray) -> pl.DataFrame:
    """The account after each time: session, available_at, equity, cash, gross."""
    return pl.DataFrame(
        {
            "session": market.sessions,
            "available_at": pl.Series(market.times[:, c.AVAILABLE]).cast(pl.Datetime("us", "UTC")),
            "equity": curve,
            "cash": cash,
            "gross": gross,
        }
    )


class _Trip:
    """A position of one symbol from its first fill until it is flat."""

    def __init__(self, time, side: int):
        self.time, self.side = time, side
        self.bought = self.paid = self.sold = self.received = 0.0
        self.costs = self.income = 0.0
        self.ambiguous = False
        # Per share as it stands: splits on the way change both.
        self.ratio = 1.0

    def take(self, side: int, quantity: float, price: float) -> None:
        # In shares of the entry's day.
        quantity, price = quantity / self.ratio, price * self.ratio
        if side == self.side:
            self.bought, self.paid = self.bought + quantity, self.paid + quantity * price
        else:
            self.sold, self.received = self.sold + quantity, self.received + quantity * price


def round_trips(events: pl.DataFrame, market: Market) -> pl.DataFrame:
    """Positions from flat to flat (ROUND_TRIPS_SCHEMA) that ended; a fill through zero ends one and begins another.

    quantity and prices in shares of the entry's day; pnl with dividends, after commission; slippage is in the prices.
    Executions count as a broker left them: one that was corrected later is what it became, one that was taken back
    never was, and its commission, as one that came late, belongs to the position that it came in or after.
    market: the one that was traded, for the bars held, and how far the close was against (mae) and for it (mfe), as
    fractions of the entry price; a bar counts from the entry's on and before the exit's. A rename names the new symbol
    by its number there.
    """
    open_trips: dict[str, _Trip] = {}
    last_trips: dict[str, _Trip] = {}
    ended: list[tuple[str, _Trip, Any, str | None]] = []
    late = (pl.col("kind") == "fee") & (pl.col("reason") == _LATE_COMMISSION)
    told = corrected(events.filter(pl.col("kind").is_in(_MOVES) | late), market.symbols)
    columns = (
        "kind", "symbol", "event_time", "side", "quantity", "price", "commission", "position", "value", "leg",
        "ambiguous",
    )  # fmt: skip
    for kind, symbol, time, side, quantity, price, commission, position, value, leg, ambiguous in told.select(
        columns
    ).iter_rows():
        trip = open_trips.get(symbol)
        if kind == "fee" or quantity == 0.0:
            charged = trip or last_trips.get(symbol)
            if charged is not None:
                charged.costs += value if kind == "fee" else commission or 0.0
            continue
        if kind == "split":
            if trip is not None:
                trip.ratio *= value
            continue
        if kind == "rename":
            if trip is not None and int(value) < len(market.symbols):
                open_trips[market.symbols[int(value)]] = open_trips.pop(symbol)
            continue
        if kind == "dividend":
            if trip is not None:
                trip.income += value
            continue
        sign = {"buy": 1, "sell": -1}.get(side, -1 if quantity > 0 else 1)
        quantity = abs(quantity)
        if trip is None:
            trip = open_trips[symbol] = last_trips[symbol] = _Trip(time, sign)
        before = round(position - sign * quantity, _DECIMALS) if kind == "fill" else sign * -quantity
        closes = quantity if position == 0 or before * position >= 0 else abs(before)
        share = closes / quantity
        trip.take(sign, closes, price)
        trip.costs += (commission or 0.0) * share
        trip.ambiguous |= ambiguous
        if position == 0 or before * position < 0:
            ended.append((symbol, trip, time, leg if kind == "fill" else "delisting"))
            del open_trips[symbol]
        if before * position < 0:
            trip = open_trips[symbol] = last_trips[symbol] = _Trip(time, sign)
            trip.take(sign, quantity - closes, price)
            trip.costs += (commission or 0.0) * (1 - share)
    rows = [_closed(symbol, trip, time, leg, market) for symbol, trip, time, leg in ended]
    return pl.DataFrame(rows, schema=ROUND_TRIPS_SCHEMA, orient="row").sort("exit_time", "entry_time", "symbol")


def _closed(symbol: str, trip: _Trip, time, leg: str | None, market: Market) -> tuple:
    entry, left = trip.paid / trip.bought, trip.received / trip.sold if trip.sold else 0.0
    pnl = trip.side * (trip.received - trip.paid) + trip.income - trip.costs
    bars, worst, best = None, None, None
    if symbol in market.symbols:
        first = max(market.at(trip.time), 0)
        # A fill within a bar is told at its close.
        inside = int(np.searchsorted(market.times[:, c.CLOSES], micros(trip.time)))
        first = min(first, inside)
        last = int(np.searchsorted(market.times[:, c.CLOSES], micros(time)))
        closes = market.bars[first:last, c.CLOSE, market.symbols.index(symbol)]
        bars = max(last - first, 0)
        moves = trip.side * (closes[np.isfinite(closes)] / entry - 1.0)
        # Prices after a split on the way are of other shares.
        if len(moves) and trip.ratio == 1.0:
            worst, best = float(min(moves.min(), 0.0)), float(max(moves.max(), 0.0))
    side = "long" if trip.side > 0 else "short"
    return (
        symbol, side, trip.time, time, trip.bought, entry, left, pnl, pnl / trip.paid, trip.costs, bars, worst, best,
        leg, trip.ambiguous,
    )  # fmt: skip

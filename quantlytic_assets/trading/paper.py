"""From predictions to orders in the ledger and fills from the broker, session by session, however often it is run.

The order of things is the promise: a session's decisions are written, all at once, before anything is sent; what has
been decided is never decided again. Sizes, checks and prices come from `sizing`, `risk` and the broker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.trading.entitlements import Entitlements, shares
from quantlytic_assets.trading.orders import ORDERS_SCHEMA, OrderLedger, order_ref
from quantlytic_assets.trading.risk import TOO_SMALL, with_reason
from quantlytic_assets.trading.simulated_broker import Broker, broker_for
from quantlytic_assets.trading.sizing import with_target

if TYPE_CHECKING:
    from quantlytic_assets.universe.models import Strategy


# What a decision needs of a prediction: columns of ml.predictions.
PREDICTION_COLUMNS = ("symbol", "session", "open_time", "available_at", "prediction", "model_version")


class OutOfOrder(RuntimeError):
    """Sessions of a strategy were to be traded in another order than that of time."""


@dataclass(frozen=True)
class TradeSummary:
    """What the ledger says about the sessions asked for, after the call.

    sessions: asked for. decided: of them, decided by this call (0 in a rerun). orders, rejected: of these sessions.
    filled: fills that this call got from the broker, orders of earlier sessions included. open: orders of the strategy
    that still wait.
    """

    strategy: str
    sessions: int
    decided: int
    orders: int
    rejected: int
    filled: int
    open: int


def trade(
    strategy: Strategy,
    predictions: pl.DataFrame,
    bars: pl.DataFrame,
    ledger: OrderLedger,
    sessions: Sequence[date] | pl.Series,
    *,
    predicted_sessions: Sequence[date] | pl.Series | None = None,
    broker: Broker | None = None,
    entitlements: Entitlements | None = None,
) -> TradeSummary:
    """Trades `sessions` of a strategy on paper; a rerun over the same sessions changes nothing.

    predictions: PREDICTION_COLUMNS of this strategy; the last one of each symbol and session counts, its
    available_at is the decision time. bars: symbol, session, open_time, open, close of the strategy's interval, with
    the bars of the predictions (their close is the reference price) and those after the decisions; they must reach
    back to `ledger.oldest_open_decision(strategy.name)` and may end anywhere: what they cannot fill stays open for a
    later call. sessions: to be traded, in any order. predicted_sessions: every session for which the strategy has
    predictions, if `predictions` holds only some of them. broker: instead of the one the strategy names.
    entitlements: splits and renames of the symbols, so that what is held before is counted in shares of after them.

    Raises `OutOfOrder` if an earlier session with predictions was never traded or a later one was already, and
    `BrokerNotAvailable`.
    """
    entitlements = entitlements or Entitlements()
    broker = broker or broker_for(strategy, bars, entitlements)
    asked = sorted(set(sessions))
    predicted = predictions["session"] if predicted_sessions is None else predicted_sessions
    decisions = last_decisions(predictions.filter(pl.col("session").is_in(asked)), bars)

    filled = _settle(strategy.name, ledger, broker)
    splits = entitlements.steps.filter(pl.col("symbol").is_in(list(strategy.symbols)))["since"].unique().sort()
    decided_here = 0
    while todo := _undecided(strategy.name, asked, predicted, ledger):
        chunk = todo[: broker.sessions_at_once]
        committed = ledger.committed_before(strategy.name, chunk[0], splits)
        orders = decide(strategy, decisions.filter(pl.col("session").is_in(chunk)), committed, entitlements)
        if ledger.record_decisions(strategy.name, chunk, orders):
            decided_here += len(chunk)
        filled += _settle(strategy.name, ledger, broker)

    recorded = ledger.orders(strategy.name, asked[0], asked[-1]) if asked else pl.DataFrame(schema=ORDERS_SCHEMA)
    recorded = recorded.filter(pl.col("session").is_in(asked))
    return TradeSummary(
        strategy=strategy.name,
        sessions=len(asked),
        decided=decided_here,
        orders=len(recorded),
        rejected=int((recorded["status"] == "rejected").sum()),
        filled=filled,
        open=len(ledger.open_orders(strategy.name)),
    )


def _settle(strategy: str, ledger: OrderLedger, broker: Broker) -> int:
    """Sends what the ledger has open, records the fills and returns how many there were."""
    waiting = ledger.open_orders(strategy)
    if waiting.is_empty():
        return 0
    fills = broker.submit(waiting)
    ledger.record_fills(fills)
    return len(fills)


def _undecided(
    strategy: str, asked: Sequence[date], predicted: Sequence[date] | pl.Series, ledger: OrderLedger
) -> list[date]:
    """The sessions of `asked` still to be decided, oldest first. Raises `OutOfOrder`."""
    decided = set(ledger.decided_sessions(strategy))
    todo = [session for session in asked if session not in decided]
    if not todo:
        return []
    skipped = sorted({s for s in predicted if s < todo[-1]} - decided - set(todo))
    if skipped:
        raise OutOfOrder(
            f"strategy {strategy}: {len(skipped)} sessions before {todo[-1]} have predictions but were never traded, "
            f"{skipped[0]} to {skipped[-1]}: run those first"
        )
    last = max(decided, default=None)
    if last is not None and last > todo[0]:
        raise OutOfOrder(
            f"strategy {strategy}: {todo[0]} cannot be traded any more, the ledger has decisions up to {last}; "
            f"to trade the past anew: quantlytic backfill {strategy} --restart"
        )
    return todo


def last_decisions(predictions: pl.DataFrame, bars: pl.DataFrame) -> pl.DataFrame:
    """One row per symbol and session: its last prediction, as a decision.

    Columns: session, symbol, prediction, model_version, decision_time (available_at of the prediction, UTC),
    reference_price (close of the predicted bar; null if there is no such bar), sorted by session and symbol.
    """
    bar = ["symbol", "open_time"]
    closes = bars.select(*bar, pl.col("close").alias("reference_price")).unique(bar)
    last = predictions.sort("available_at", "open_time").unique(["session", "symbol"], keep="last", maintain_order=True)
    return (
        last.join(closes, on=bar, how="left")
        .select(
            "session",
            "symbol",
            "prediction",
            "model_version",
            pl.col("available_at").alias("decision_time"),
            "reference_price",
        )
        .sort("session", "symbol")
    )


def decide(
    strategy: Strategy, decisions: pl.DataFrame, committed: pl.DataFrame, entitlements: Entitlements
) -> pl.DataFrame:
    """The orders (orders.ORDERS_SCHEMA without created_at) that follow from decisions and what is held before them.

    decisions: as `last_decisions` gives them, of consecutive sessions. committed: symbol, session, quantity that each
    session before added (`OrderLedger.committed_before`). An order's quantity is the session's target minus what the
    sessions before leave the company with, in shares of the session, every accepted order taken as filled; a rejected
    one leaves it as it was, and is listed with its reason. What has no decision keeps what it has.
    """
    plan = with_reason(with_target(decisions, strategy.capital, len(strategy.symbols)), strategy.capital)
    # From here to `before` in units that no split changes.
    initial = (
        entitlements.by_company(committed, "session")
        .group_by("company")
        .agg((pl.col("quantity") / pl.col("split_factor")).sum().alias("initial"))
    )
    plan = entitlements.by_company(plan, "session")
    plan = plan.join(initial, on="company", how="left").sort("session", "symbol")
    accepted = pl.when(pl.col("reason").is_null()).then(pl.col("target") / pl.col("split_factor"))
    units = pl.coalesce(accepted.forward_fill().shift(1).over("company"), pl.col("initial").fill_null(0.0))
    plan = plan.with_columns(shares(units, pl.col("split_factor")).alias("before"))
    # A target that is unknown for want of a price asks for nothing definite; it is listed with quantity 0.
    change = (pl.col("target") - pl.col("before")).fill_null(0.0)
    wanted = pl.col("prediction") == 1
    plan = plan.with_columns(
        change.alias("change"),
        pl.when(wanted & (pl.col("target") == 0) & (pl.col("before") == 0))
        .then(pl.coalesce("reason", pl.lit(TOO_SMALL)))
        .otherwise(pl.col("reason"))
        .alias("reason"),
    )
    listed = plan.filter((pl.col("change") != 0) | (pl.col("reason").is_not_null() & wanted))
    orders = listed.with_columns(
        pl.lit(strategy.name).alias("strategy"),
        pl.when(pl.col("change") < 0).then(pl.lit("sell")).otherwise(pl.lit("buy")).alias("side"),
        pl.col("change").abs().alias("quantity"),
        pl.when(pl.col("reason").is_null()).then(pl.lit("open")).otherwise(pl.lit("rejected")).alias("status"),
        pl.when(pl.col("reference_price").is_finite()).then("reference_price").alias("reference_price"),
    ).with_columns(order_ref().alias("order_ref"))
    return orders.select(pl.col(name).cast(dtype) for name, dtype in ORDERS_SCHEMA.items() if name != "created_at")

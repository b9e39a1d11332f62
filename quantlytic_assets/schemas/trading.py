"""The tables of `trading`: signals, events of accounts, and the orders, fills and accounts that follow from them."""

from __future__ import annotations

import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.schemas.columns import MONEY, OPEN_TIME, PRICE, SESSION, SHARES, STRATEGY, SYMBOL
from quantlytic_assets.schemas.table import Column, Rule, Table, described
from quantlytic_assets.schemas.vocabulary import BROKER_STATUSES, EVENT_KINDS, ORDER_STATUSES, SIDES
from quantlytic_assets.schemas.vocabulary import SIGNALS as SIGNAL_WORDS

_ORDER_REF = Column("order_ref", pl.String, "Client order id: strategy, symbol, time of the decision (UTC) and leg.")
_DECIDED = Column("session", pl.Date, "Session whose bar led to the order.")
_SIDE = Column("side", pl.String, "buy or sell.", allowed=SIDES)

SIGNALS = Table(
    "trading.signals",
    writer="signals",
    description="What a strategy's rule says of each of its symbols at each usable bar, whether or not it is traded.",
    columns=(
        STRATEGY,
        SYMBOL,
        described(SESSION, "Trading day of the bar decided on."),
        described(OPEN_TIME, "Start of the bar decided on, UTC."),
        Column("available_at", TIME, "Earliest time, UTC, at which an order could follow from the signal."),
        Column(
            "signal",
            pl.String,
            "buy (hold the symbol), sell (be out of it, or short) or hold (keep what is held).",
            allowed=tuple(SIGNAL_WORDS),
        ),
        Column(
            "strength",
            pl.Float64,
            "How strongly: the rule's score where it has one, else the share of a whole position.",
            at_least=0,
            at_most=1,
        ),
        Column(
            "target",
            pl.Float64,
            "Target weight from -1 (short) to 1 (the whole position); null keeps what is held.",
            nullable=True,
            at_least=-1,
            at_most=1,
        ),
        Column("reason", pl.String, "Why, in words with the figures that decided."),
    ),
    key=("strategy", "symbol", "open_time"),
    partitioned_by=("strategy", "year(session)"),
    rules=(Rule("available_after_open", "available_at is after open_time", "available_at > open_time"),),
)

ORDERS = Table(
    "trading.orders",
    writer="paper_trades",
    description="Every order, rejected ones included.",
    columns=(
        STRATEGY,
        _DECIDED,
        SYMBOL,
        _ORDER_REF,
        _SIDE,
        Column(
            "quantity",
            pl.Float64,
            "Shares to trade; 0 where a rejected order has no price to size it by.",
            unit=SHARES,
            at_least=0,
        ),
        Column("decision_time", TIME, "When the decision could be made, UTC."),
        Column("status", pl.String, "open, filled, rejected, cancelled or expired.", allowed=tuple(ORDER_STATUSES)),
        Column("reason", pl.String, "Why the order came to nothing; null for the others.", nullable=True),
        Column("model_version", pl.String, "Version of the model that predicted; null where none did.", nullable=True),
        Column("created_at", TIME, "When the order was written to the ledger, UTC."),
    ),
    key=("strategy", "order_ref"),
    rules=(
        Rule(
            "reason_given",
            "a reason for orders that came to nothing, and for no others",
            "(reason is not null) = (status in ('rejected', 'cancelled', 'expired'))",
        ),
        Rule("quantity_given", "an order that was not rejected has a quantity", "status = 'rejected' or quantity > 0"),
    ),
)

FILLS = Table(
    "trading.fills",
    writer="paper_trades",
    description="What the broker did with the orders. One that is beyond the volume cap has several fills.",
    columns=(
        STRATEGY,
        _DECIDED,
        SYMBOL,
        _ORDER_REF,
        _SIDE,
        Column("fill_session", pl.Date, "Session in which the order was filled."),
        Column("fill_time", TIME, "When it was filled, UTC."),
        Column("price", pl.Float64, "Price per share, slippage included.", unit=PRICE, above=0),
        Column("quantity", pl.Float64, "Shares filled.", unit=SHARES, above=0),
        Column("commission", pl.Float64, "Commission of the fill.", unit=MONEY, at_least=0),
        Column(
            "slippage",
            pl.Float64,
            "What the fill cost beyond the bar's open, all shares together; 0 where a broker filled it, whose orders "
            "are compared in trading.broker_orders.",
            unit=MONEY,
        ),
    ),
    key=("strategy", "order_ref", "fill_time"),
    rules=(Rule("filled_after", "no fill before its order's session", "fill_session >= session"),),
)

POSITIONS = Table(
    "trading.positions",
    writer="paper_trades",
    description="What is held at the end of each session, one row per symbol held, in shares of the session.",
    columns=(
        STRATEGY,
        Column("session", pl.Date, "Session at whose end this is held."),
        described(SYMBOL, "What the share is traded under on the session."),
        Column("quantity", pl.Float64, "Shares held; negative where sold short.", unit=SHARES),
        Column("average_price", pl.Float64, "Average cost of the shares held, commission left out.", unit=PRICE),
        Column("close", pl.Float64, "Last close known at the end of the session.", unit=PRICE, above=0),
        Column("market_value", pl.Float64, "quantity times close.", unit=MONEY),
    ),
    key=("strategy", "session", "symbol"),
    rules=(
        Rule("held", "what is listed is held", "quantity <> 0"),
        Rule(
            "value_of_holdings",
            "market_value is quantity times close",
            "abs(market_value - quantity * close) <= 1e-9 * abs(market_value)",
        ),
    ),
)

EQUITY = Table(
    "trading.equity",
    writer="paper_trades",
    description="The paper account at the end of each session.",
    columns=(
        STRATEGY,
        Column("session", pl.Date, "Session at whose end this is the account."),
        Column("equity", pl.Float64, "Cash and market value of all holdings.", unit=MONEY),
        Column("cash", pl.Float64, "Cash, dividends included; negative where more was spent.", unit=MONEY),
        Column("gross_exposure", pl.Float64, "Sum of the absolute market values.", unit=MONEY, at_least=0),
        Column("costs_to_date", pl.Float64, "Commissions and slippage paid so far.", unit=MONEY),
    ),
    key=("strategy", "session"),
    rules=(
        Rule(
            "exposure_covers_value",
            "equity and cash are no further apart than the gross exposure",
            "abs(equity - cash) <= gross_exposure * 1.000000001 + 0.000001",
        ),
    ),
)

EVENTS = Table(
    "trading.events",
    writer="paper_trades",
    description="What happened to the accounts of strategies, in its order: decisions, orders accepted, rejected, "
    "cancelled, expired and replaced, fills and their corrections, fees, splits, dividends, renames, delistings, "
    "halts, and bars that came too late to be traded. Append-only; orders, fills, positions and equity follow from it.",
    columns=(
        STRATEGY,
        Column("seq", pl.Int64, "Number of the event in its account, from 1 on.", at_least=1),
        Column("session", pl.Date, "Session in which it happened."),
        Column("event_time", TIME, "When it happened, UTC: open or close of a bar, or when it could be decided on."),
        Column("kind", pl.String, "What happened.", allowed=EVENT_KINDS),
        described(SYMBOL, "Symbol that it concerns; null for the account as a whole.", nullable=True),
        Column("client_order_id", pl.String, "Client order id of the order that it concerns.", nullable=True),
        Column("payload", pl.String, "JSON: side, quantity, price, reason, cash afterwards … of the event."),
        Column("recorded_at", TIME, "When it was written to the ledger, UTC."),
    ),
    key=("strategy", "seq"),
)

# The account at the end of a session as it is on record. JSON by symbol: `positions` has quantity, average price and
# close, `bars` how many bars were traded on or seen late. model_version: of the model that predicted the session.
ACCOUNT_SESSIONS_SCHEMA = pl.Schema(
    {
        "session": pl.Date,
        "equity": pl.Float64,
        "cash": pl.Float64,
        "gross_exposure": pl.Float64,
        "costs_to_date": pl.Float64,
        "positions": pl.String,
        "bars": pl.String,
        "model_version": pl.String,
    }
)

BACKTESTS = Table(
    "trading.backtests",
    writer="backtest",
    description="Every backtest that `quantlytic backtest` and `quantlytic optimize` made: each is a trial, for which "
    "the Sharpe ratio of the next one is deflated.",
    columns=(
        Column("backtest_id", pl.String, "Number of the backtest: twelve hexadecimal digits."),
        STRATEGY,
        Column("settings", pl.String, "JSON: rule with its parameters, account, symbols, first and last session."),
        Column("statistics", pl.String, "JSON: the figures of the account; null where one is not defined."),
        Column("created_at", TIME, "When it was made, UTC."),
    ),
    key=("backtest_id",),
    session="created_at",
)

BROKER_ORDERS = Table(
    "trading.broker_orders",
    writer="paper_trades",
    description="Orders that a broker executes, and what the simulated broker would have made of the same order: its "
    "fill price includes the declared slippage, so that `slippage` is what the declaration leaves out.",
    columns=(
        STRATEGY,
        _DECIDED,
        SYMBOL,
        _ORDER_REF,
        Column("account", pl.String, "The broker's account; null before it was sent.", nullable=True),
        _SIDE,
        Column("quantity", pl.Float64, "Shares ordered.", unit=SHARES, above=0),
        Column("type", pl.String, "Type of the order."),
        Column("decision_time", TIME, "When the decision could be made, UTC."),
        Column("sent_at", TIME, "When it was sent, UTC; null where it was not.", nullable=True),
        Column("status", pl.String, "How it stands at the broker.", allowed=tuple(BROKER_STATUSES)),
        Column("reason", pl.String, "Why it ended, or what the broker said, in its words.", nullable=True),
        Column("filled", pl.Float64, "Shares filled.", unit=SHARES, at_least=0),
        Column("price", pl.Float64, "Average price of what was filled.", nullable=True, unit=PRICE, above=0),
        Column("commission", pl.Float64, "Commission, as far as it is known.", nullable=True, unit=MONEY),
        Column("simulated_filled", pl.Float64, "Shares that the simulation filled.", nullable=True, unit=SHARES),
        Column("simulated_price", pl.Float64, "Average price of those.", nullable=True, unit=PRICE, above=0),
        Column("simulated_commission", pl.Float64, "Commission of those.", nullable=True, unit=MONEY),
        Column(
            "slippage",
            pl.Float64,
            "What the fills cost beyond the simulated price, all shares together; below 0 where they were better.",
            nullable=True,
            unit=MONEY,
        ),
        Column("slippage_bps", pl.Float64, "The same in 1/10,000 of the simulated price.", nullable=True),
    ),
    key=("strategy", "order_ref"),
)

BROKER_ACCOUNT = Table(
    "trading.broker_account",
    writer="broker_account",
    description="What the account at a broker was worth, in its base currency, whenever somebody looked.",
    columns=(
        Column("broker", pl.String, "Name of the broker."),
        Column("account", pl.String, "The broker's account."),
        Column("asked_at", TIME, "When it was asked, UTC."),
        Column("currency", pl.String, "The base currency."),
        Column("equity", pl.Float64, "Net liquidation value.", nullable=True, unit="the base currency"),
        Column("cash", pl.Float64, "Cash.", nullable=True, unit="the base currency"),
        Column("buying_power", pl.Float64, "Buying power.", nullable=True, unit="the base currency"),
        Column("gross_exposure", pl.Float64, "Gross position value.", nullable=True, unit="the base currency"),
        Column("differences", pl.Int64, "Differences from the ledger.", at_least=0),
    ),
    key=("broker", "account", "asked_at"),
    session="asked_at",
)

# Metadata of the performance asset, not in the lake.
STATISTICS = Table(
    "performance.statistics",
    writer="performance",
    description="Figures of the strategy's account beside buying and holding the same symbols.",
    columns=(
        Column("statistic", pl.String, "Which figure."),
        Column("strategy", pl.String, "The strategy's, `undefined` where it cannot be computed."),
        Column("buy_and_hold", pl.String, "That of buying and holding, likewise."),
    ),
    key=("statistic",),
)

TABLES = (SIGNALS, ORDERS, FILLS, POSITIONS, EQUITY, EVENTS, BACKTESTS, BROKER_ORDERS, BROKER_ACCOUNT)

"""Trading sessions of a strategy on paper, and publishing the account: it goes on from where it was published last.

The ledger decides what happened; the lake's tables are a copy of it, and the state from which the next session is
computed. What a run reads does not grow with the history behind it. Rules of trading do not belong here.
"""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl

from quantlytic_assets.services.accounts import read_entitlements, read_prices
from quantlytic_assets.storage.lake import Lake
from quantlytic_assets.storage.ledger import Ledger
from quantlytic_assets.tables.predictions import predicted_sessions, predictions
from quantlytic_assets.tables.trading import equity, holdings, last_account
from quantlytic_assets.trading.entitlements import Entitlements
from quantlytic_assets.trading.paper import PREDICTION_COLUMNS, TradeSummary, trade
from quantlytic_assets.trading.portfolio import Opening, equity_curve, positions
from quantlytic_assets.universe.models import Dataset, Strategy

# An order decided at the end of a window is filled by the next bar, which lies after it.
_NEXT_BAR = timedelta(days=14)
_DAY = timedelta(days=1)


class WrongShares(RuntimeError):
    """Fills on record are in other shares than their bars: the account would be false."""


def trade_sessions(
    lake: Lake, ledger: Ledger, dataset: Dataset, strategy: Strategy, first: date, before: date
) -> TradeSummary:
    """Trade the predicted sessions of [first, before) on paper and publish the account from there on.

    Raises `WrongShares`, `OutOfOrder` and `BrokerNotAvailable`.
    """
    every = predicted_sessions(lake, strategy.name)
    # Orders from before that this run fills change earlier rows too.
    affected = min([first, *ledger.open_orders(strategy.name)["session"].to_list()])
    entitlements = read_entitlements(lake, strategy)
    opening = opening_before(lake, ledger, strategy, affected, entitlements)
    _check_shares(lake, ledger, dataset, strategy, entitlements, opening)
    summary = trade(
        strategy,
        predictions(lake, strategy.name, PREDICTION_COLUMNS, since=first, before=before),
        read_prices(lake, dataset, strategy, affected, before + _NEXT_BAR),
        ledger,
        every.filter((every >= first) & (every < before)),
        predicted_sessions=every,
        entitlements=entitlements,
    )
    _publish(lake, ledger, dataset, strategy, affected, entitlements, opening)
    return summary


def opening_before(
    lake: Lake, ledger: Ledger, strategy: Strategy, session: date, entitlements: Entitlements
) -> Opening | None:
    """The account as last published before `session`; None where it has to be computed from the first fill.

    So it is where fills or corporate actions became known after it was published, or a holding has lost its ticker.
    """
    account = last_account(lake, strategy.name, session)
    if account is None:
        return None
    last = account["session"]
    known = (ledger.fills_through(strategy.name, last), *entitlements.digests([last]))
    curve = equity(lake, strategy.name, ["cash", "costs_to_date"], since=last, before=last + _DAY)
    held = holdings(lake, strategy.name, last)
    if (
        known != (account["fills"], account["entitlements"])
        or len(curve) != 1
        or held["symbol"].str.contains("@").any()
    ):
        return None
    return Opening(last, held, *curve.row(0))


def _check_shares(
    lake: Lake,
    ledger: Ledger,
    dataset: Dataset,
    strategy: Strategy,
    entitlements: Entitlements,
    opening: Opening | None,
) -> None:
    """Raise `WrongShares` for fills in shares of after a later split. Those before `opening` were checked for it."""
    if entitlements.steps.is_empty():
        return
    fills = ledger.fills(strategy.name, opening.session + _DAY if opening else None)
    if fills.is_empty():
        return
    first, last = fills["fill_session"].min(), fills["fill_session"].max()
    wrong = entitlements.in_later_shares(fills, read_prices(lake, dataset, strategy, first, last + _DAY))
    if len(wrong):
        raise WrongShares(
            f"{len(wrong)} fills of {', '.join(wrong['symbol'].unique().sort())}, {wrong['fill_session'].min()} to "
            f"{wrong['fill_session'].max()}, are in shares of after a split that became known later, and their bars "
            f"are not; to trade the past anew: quantlytic backfill {strategy.name} --restart"
        )


def _publish(
    lake: Lake,
    ledger: Ledger,
    dataset: Dataset,
    strategy: Strategy,
    since: date,
    entitlements: Entitlements,
    opening: Opening | None,
) -> None:
    """Copy what the ledger says of sessions from `since` on into the lake, with the account that follows from it."""
    begin = opening.session + _DAY if opening else None
    decided = ledger.decided_sessions(strategy.name)
    sessions = decided if begin is None else decided.filter(decided >= begin)
    fills = ledger.fills(strategy.name, begin)
    first_price = begin or (fills["fill_session"].min() if len(fills) else since)
    prices = read_prices(lake, dataset, strategy, first_price, sessions.max() + _DAY if len(sessions) else first_price)
    held = positions(strategy.name, fills, prices, sessions, entitlements, opening)
    curve = equity_curve(held, fills, strategy.capital, sessions, entitlements, opening)
    shown = sessions.filter(sessions >= since)
    before = ledger.fills_through(strategy.name, begin - _DAY) if begin else 0
    filled = fills["fill_session"].sort()
    accounts = pl.DataFrame(
        {
            "session": shown,
            "fills": before + filled.search_sorted(shown, side="right").cast(pl.Int64),
            "entitlements": pl.Series(entitlements.digests(shown), dtype=pl.String),
        }
    )
    orders = ledger.orders(strategy.name, since)
    # Orders of `since` or later are all that can be filled from then on, and no earlier one is still open.
    traded = fills.filter(pl.col("session") >= since)
    mine = pl.lit(strategy.name).alias("strategy")
    late = pl.col("session") >= since
    tables = {
        "trading.orders": orders,
        "trading.fills": traded,
        "trading.positions": held.filter(late),
        "trading.equity": curve.filter(late).select(mine, pl.all()),
        "trading.accounts": accounts.select(mine, pl.all()),
    }
    parameters = [strategy.name, since]
    lake.replace([(table, "strategy = ? AND session >= ?", parameters, rows) for table, rows in tables.items()])

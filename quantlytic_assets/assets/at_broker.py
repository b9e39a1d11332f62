"""Trading at a broker from a run: the account of a strategy goes on, and orders and reports are exchanged.

One process at a time is connected. Where another one is, as `quantlytic broker trade` may be all the time, it sends
what a run has written and takes in what was reported.
"""

import dagster as dg

from quantlytic_assets.brokers.protocol import BrokerError
from quantlytic_assets.calendars.partitions import Window
from quantlytic_assets.resources import BROKER_LOCK, Resources, trading_lock
from quantlytic_assets.services.broker_account import OtherBroker
from quantlytic_assets.services.broker_trading import at_broker, soon, sync
from quantlytic_assets.services.old_accounts import LostAccount
from quantlytic_assets.services.paper_account import publish, publish_broker_orders, trade
from quantlytic_assets.services.signals import NoSignals
from quantlytic_assets.storage.postgres import Held
from quantlytic_assets.strategies.spec import RuleError
from quantlytic_assets.universe.models import Dataset, Strategy, Universe

# What stops trading, with a message that says what to do.
TRADING_ERRORS = (BrokerError, LostAccount, NoSignals, OtherBroker, RuleError)


def trade_at_broker(
    context: dg.AssetExecutionContext,
    resources: Resources,
    dataset: Dataset,
    strategy: Strategy,
    universe: Universe,
    window: Window,
) -> None:
    """Trade a daily strategy and send its orders; of others, which a process of their own trades, publish the tables.

    Raises `dg.Failure` where another process trades the strategy, and `TRADING_ERRORS`.
    """
    lake, accounts, ledger = resources.lake, resources.accounts, resources.broker_ledger
    if strategy.interval != "1d":
        publish(lake, accounts, strategy.name, window.first)
        publish_broker_orders(lake, ledger, dataset, strategy)
        context.log.info(f"{strategy.name} is traded by a process of its own: quantlytic broker trade {strategy.name}")
        return
    try:
        with resources.lock(trading_lock(strategy.name), wait=False):
            done = trade(lake, accounts, dataset, strategy, window.first, window.last, ledger=ledger)
    except Held:
        raise dg.Failure(f"{strategy.name} is being traded by another process; it does what this run would") from None
    context.log.info(str(done))
    synced(context, resources, universe)


def synced(context: dg.AssetExecutionContext, resources: Resources, universe: Universe) -> None:
    """Exchange orders and reports with the broker, for all strategies there. Raises `BrokerError`."""
    lake, accounts, ledger = resources.lake, resources.accounts, resources.broker_ledger
    try:
        with soon(lambda: resources.lock(BROKER_LOCK, wait=False)):
            desk = resources.broker_desk(universe)
            try:
                standing = sync(desk, lake, accounts, ledger, at_broker(universe))
            finally:
                desk.close()
    except Held:
        context.log.info("another process is connected with the broker: it sends the orders and takes in the fills")
        return
    for line in standing.differences:
        context.log.warning(f"difference: {line}")
    for line in standing.unknown:
        context.log.info(f"not ours: {line}")
    for order in standing.orders:
        context.log.info(f"{order.client_order_id}: {order.status} {order.reason or ''}")

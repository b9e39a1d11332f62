"""`quantlytic broker status` and `quantlytic broker trade`: the paper account at a broker, and trading there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.table import Table

from quantlytic_assets.commands.inspection import print_json
from quantlytic_assets.commands.installation import CommandError, UsageError
from quantlytic_assets.commands.migrating import bring_up_to_date
from quantlytic_assets.resources import BROKER_LOCK, trading_lock
from quantlytic_assets.storage.postgres import Held

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation
    from quantlytic_assets.services.broker_desk import BrokerDesk
    from quantlytic_assets.services.broker_trading import BrokerStanding
    from quantlytic_assets.universe.models import Strategy

_BROKER = "ibkr"
_BUSY = (
    "another process is connected with the broker's account ({what}); only one can be at a time. It sends what waits "
    "and takes in the fills"
)


def show_broker(installation: Installation, out: Console, as_json: bool) -> None:
    """Connect, send nothing, and print the account, its positions beside the ledger's, working orders, differences.

    Where another process is connected, what that one saw last is printed. Raises `CommandError` where the broker can't
    be asked or positions differ.
    """
    from quantlytic_assets.brokers.protocol import BrokerError
    from quantlytic_assets.services.broker_trading import at_broker, compared, newest_differences, settled

    bring_up_to_date(installation, out)
    resources, universe = installation.resources, installation.universe
    ledger, pairs = resources.broker_ledger, at_broker(universe)
    try:
        with resources.lock(BROKER_LOCK, wait=False):
            desk = resources.broker_desk(universe)
            try:
                desk.connect()
                settled(resources.lake, resources.accounts, ledger, pairs, _now())
                standing = compared(desk, resources.accounts, ledger, pairs, _now())
            finally:
                desk.close()
    except Held:
        newest = newest_differences(ledger, _BROKER)
        if newest is None:
            raise CommandError(_BUSY.format(what="nothing is known of it yet")) from None
        values, differences = newest
        _print_last(out, values, differences, as_json)
    except BrokerError as error:
        raise CommandError(str(error)) from None
    else:
        differences = list(standing.differences)
        _print_standing(out, standing, as_json)
    if differences:
        raise CommandError(f"{len(differences)} differences from the ledger; docs/brokers.md says what to do")


def _now() -> datetime:
    return datetime.now(UTC)


def _print_last(out: Console, values: Any, differences: list[str], as_json: bool) -> None:
    told = {
        "broker": values.broker, "account": values.account, "at": values.at, "connected": False,
        "currency": values.currency, "equity": values.equity, "cash": values.cash,
        "buying_power": values.buying_power, "gross_exposure": values.gross_exposure, "differences": differences,
    }  # fmt: skip
    if as_json:
        print_json(told)
        return
    out.print(f"{_BUSY.format(what='seen last at ' + _minute(values.at))}", highlight=False, soft_wrap=True)
    _print_values(out, values)
    for line in differences:
        out.print(f"difference: {line}", highlight=False, markup=False, soft_wrap=True)


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _print_values(out: Console, values: Any) -> None:
    figures = {"equity": values.equity, "cash": values.cash, "buying power": values.buying_power}
    said = ", ".join(f"{name} {figure:,.2f}" for name, figure in figures.items() if figure is not None)
    out.print(f"{values.broker} {values.account} at {_minute(values.at)}: {said} {values.currency}", highlight=False)


def _print_standing(out: Console, standing: BrokerStanding, as_json: bool) -> None:
    if as_json:
        print_json({"connected": True, **standing.to_json()})
        return
    _print_values(out, standing.values)
    positions = Table("symbol", "ledger", "broker", "", title="positions")
    for one in standing.positions:
        positions.add_row(one.symbol, f"{one.ledger:g}", f"{one.broker:g}", "" if one.agrees else "differs")
    orders = Table("order", "side", "quantity", "type", "status", "filled", "", title="orders that are not over")
    for order in standing.orders:
        side = "buy" if order.side > 0 else "sell"
        said = order.reason or (f"held: {order.held_for}" if order.held_for else "")
        orders.add_row(
            order.client_order_id, side, f"{order.quantity:g}", order.type, order.status, f"{order.filled:g}", said
        )
    for table in (positions, orders):
        if table.row_count:
            out.print(table)
    for line in standing.unknown:
        out.print(f"not in the ledger, and left alone: {line}", highlight=False, markup=False, soft_wrap=True)
    for line in standing.differences:
        out.print(f"difference: {line}", highlight=False, markup=False, soft_wrap=True)


def run_broker_trading(
    installation: Installation, out: Console, name: str, stop: threading.Event | None = None
) -> None:
    """Trade a strategy with broker: ibkr, or all of a dataset, until interrupted, each bar as it comes.

    Raises `UsageError` for a name without such a strategy, and `CommandError` where another process trades one of
    them or is connected, or the account may not be traded.
    """
    from quantlytic_assets.brokers.protocol import BrokerError
    from quantlytic_assets.services.broker_account import OtherBroker
    from quantlytic_assets.services.broker_trading import at_broker, trade_on

    named = installation.dataset_or_strategy(name)
    wanted = [one for one in named.strategies if one.broker == _BROKER]
    if not wanted:
        raise UsageError(f"{name} has no strategy with broker: {_BROKER}; set it in {installation.universe.path}")
    bring_up_to_date(installation, out)
    resources, universe = installation.resources, installation.universe
    stop = stop or threading.Event()

    def say(text: str) -> None:
        out.print(text, highlight=False, markup=False, soft_wrap=True)

    with ExitStack() as held:
        try:
            desk = held.enter_context(connected(installation, wanted))
            say(f"trading {', '.join(one.name for one in wanted)} at {_BROKER} {desk.broker.account}; Ctrl+C ends it")
            own = [(named.dataset, one) for one in wanted]
            trade_on(
                desk, resources.lake, resources.accounts, resources.broker_ledger, own, at_broker(universe), stop, say
            )
        except (BrokerError, OtherBroker) as error:
            raise CommandError(str(error)) from None
        except KeyboardInterrupt:
            say("ended; orders go on working at the broker, and the next run takes in what became of them")


@contextmanager
def connected(installation: Installation, strategies: Sequence[Strategy]) -> Iterator[BrokerDesk]:
    """The desk of the broker, connected, with the locks of these strategies and of the connection held.

    Raises `CommandError` where another process trades one of them or is connected, and `BrokerError`.
    """
    resources = installation.resources
    with ExitStack() as held:
        for strategy in strategies:
            try:
                held.enter_context(resources.lock(trading_lock(strategy.name), wait=False))
            except Held:
                raise CommandError(f"{strategy.name} is being traded by another process") from None
        try:
            held.enter_context(resources.lock(BROKER_LOCK, wait=False))
        except Held:
            raise CommandError(_BUSY.format(what="quantlytic broker status shows what it saw")) from None
        desk = resources.broker_desk(installation.universe)
        held.callback(desk.close)
        desk.connect()
        yield desk


@dataclass
class Sender:
    """A thread that sends what accounts have written for the broker, and settles what that reports."""

    failed: Exception | None = None


@contextmanager
def sending(
    installation: Installation, strategies: Sequence[Strategy], say: Callable[[str], None], stopping: threading.Event
) -> Iterator[Sender]:
    """Send what these strategies write for the broker while the block runs, in a thread of its own.

    Where that can't go on `stopping` is set, and the sender says why. Raises `CommandError` where another process
    trades one of the strategies or is connected, or the account may not be traded.
    """
    from quantlytic_assets.brokers.protocol import BrokerError
    from quantlytic_assets.services.broker_account import OtherBroker, check_broker
    from quantlytic_assets.services.broker_trading import at_broker, trade_on

    resources = installation.resources
    ended, sender = threading.Event(), Sender()
    with ExitStack() as held:
        try:
            for strategy in strategies:
                check_broker(strategy, resources.accounts.last(strategy.name))
            desk = held.enter_context(connected(installation, strategies))
        except (BrokerError, OtherBroker) as error:
            raise CommandError(str(error)) from None
        say(f"orders of {', '.join(one.name for one in strategies)} go to {_BROKER} {desk.broker.account}")
        every = at_broker(installation.universe)

        def send() -> None:
            try:
                trade_on(desk, resources.lake, resources.accounts, resources.broker_ledger, [], every, ended, say)
            except Exception as error:  # whatever it is, decisions must not go on without anybody who sends them
                sender.failed = error
                stopping.set()

        thread = threading.Thread(target=send, name="broker", daemon=True)
        thread.start()
        try:
            yield sender
        finally:
            ended.set()
            thread.join(60)

"""`quantlytic live`: bars, features and signals of a dataset as trades or bars come over the bus, until stopped."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from quantlytic_assets.commands.broker import sending
from quantlytic_assets.commands.installation import CommandError, UsageError, with_members
from quantlytic_assets.commands.migrating import bring_up_to_date
from quantlytic_assets.storage.postgres import Held
from quantlytic_assets.universe.models import ModelStrategy

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation
    from quantlytic_assets.live.sources import BarSource, TickSource
    from quantlytic_assets.storage.bus import Bus
    from quantlytic_assets.universe.models import Dataset


def run_live(installation: Installation, out: Console, name: str, source: str = "auto", trade: bool = False) -> None:
    """Run the live path of the dataset `name` until SIGINT or SIGTERM; prints what a person should know.

    source: `ticks`, `bars`, or `auto` for ticks where the bus has any. trade: let the strategies' accounts go on;
    without it they go on in memory, and nothing is written. Orders of `broker: ibkr` are sent by this process too.

    Raises `UsageError` for an unknown dataset, and `CommandError` where another process runs its live path, trades one
    of its strategies at the broker or is connected there, or where the account there may not be traded.
    """
    from quantlytic_assets.live.process import LiveProcess
    from quantlytic_assets.services.scoring import scorer

    dataset = installation.dataset(name)
    strategies = with_members(one for one in installation.universe.strategies.values() if one.dataset == name)
    bring_up_to_date(installation, out)
    resources = installation.resources

    def report(line: str) -> None:
        out.print(f"{datetime.now(UTC):%H:%M:%S} {line}", highlight=False, markup=False, soft_wrap=True)

    scorers = {
        one.name: scorer(resources.models, dataset, one, report) for one in strategies if isinstance(one, ModelStrategy)
    }
    stopping = threading.Event()
    try:
        with ExitStack() as held:
            held.enter_context(resources.lock(f"live-{name}", wait=False))
            at_broker = [one for one in strategies if one.at_broker] if trade else []
            sender = held.enter_context(sending(installation, at_broker, report, stopping)) if at_broker else None
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: stopping.set())
            live = LiveProcess(
                dataset, strategies, resources.bus, resources.hot, resources.lake, scorers, report,
                _source(resources.bus, dataset, source), resources.accounts, trade,
                ledger=resources.broker_ledger if at_broker else None,
            )  # fmt: skip
            live.begin()
            report(f"live path of {name} runs; end with Ctrl-C")
            live.run(stopping.is_set)
            report(f"stopped after {live.counts.records} records: {live.counts.signals} signals")
            if sender is not None and sender.failed is not None:
                raise CommandError(str(sender.failed))
    except Held:
        raise CommandError(
            f"another process runs the live path of {name}; there is one at a time: end that one first"
        ) from None


def _source(bus: Bus, dataset: Dataset, wanted: str) -> type[BarSource] | type[TickSource]:
    """What is read of the bus."""
    from quantlytic_assets.live.sources import BarSource, TickSource
    from quantlytic_assets.storage.bus import ticks_topic

    if wanted == "bars" or (wanted == "auto" and dataset.interval != "1m"):
        return BarSource
    if wanted == "ticks":
        if dataset.interval != "1m":
            raise UsageError(f"trades are summed up to 1m, {dataset.name} is of {dataset.interval}: take --source bars")
        return TickSource
    marks = bus.watermarks(ticks_topic(dataset.name))
    return TickSource if any(end > first for first, end in marks.values()) else BarSource

"""`quantlytic live`: bars, features and signals of a dataset as trades or bars come over the bus, until stopped."""

from __future__ import annotations

import signal
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

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
    without it they go on in memory, and nothing is written.

    Raises `UsageError` for an unknown dataset, and `CommandError` where another process runs its live path.
    """
    from quantlytic_assets.live.process import LiveProcess
    from quantlytic_assets.live.trading import NoBroker, check_brokers
    from quantlytic_assets.services.scoring import scorer

    dataset = installation.dataset(name)
    strategies = with_members(one for one in installation.universe.strategies.values() if one.dataset == name)
    bring_up_to_date(installation, out)
    resources = installation.resources
    if trade:
        # Where orders of other brokers will be sent, this is asked of them.
        try:
            check_brokers(strategies)
        except NoBroker as error:
            raise CommandError(str(error)) from None

    def report(line: str) -> None:
        out.print(f"{datetime.now(UTC):%H:%M:%S} {line}", highlight=False, markup=False, soft_wrap=True)

    scorers = {
        one.name: scorer(resources.models, dataset, one, report) for one in strategies if isinstance(one, ModelStrategy)
    }
    stopping = threading.Event()
    try:
        with resources.lock(f"live-{name}", wait=False):
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: stopping.set())
            live = LiveProcess(
                dataset, strategies, resources.bus, resources.hot, resources.lake, scorers, report,
                _source(resources.bus, dataset, source), resources.accounts, trade,
            )  # fmt: skip
            live.begin()
            report(f"live path of {name} runs; end with Ctrl-C")
            live.run(stopping.is_set)
            report(f"stopped after {live.counts.records} records: {live.counts.signals} signals")
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

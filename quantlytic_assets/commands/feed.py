"""`quantlytic feed`: a venue's live trades or klines onto the bus, until somebody stops it."""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from quantlytic_assets.commands.installation import UsageError
from quantlytic_assets.commands.migrating import bring_up_to_date
from quantlytic_assets.feeds.feed import Feed
from quantlytic_assets.feeds.venue import make_venue
from quantlytic_assets.universe.membership import members
from quantlytic_assets.vendors.registry import make_vendor

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation


def run_feed(installation: Installation, out: Console, name: str) -> None:
    """Feed the dataset `name` until SIGINT or SIGTERM; prints one line a minute at most.

    Nothing is landed here: that is the bus sensor's part. Raises `UsageError` where the dataset has no feed, or none of
    its symbols belongs to it today.
    """
    dataset = installation.dataset(name)
    if dataset.feed is None:
        fed = [one.name for one in installation.universe.datasets.values() if one.feed is not None]
        others = f"; these have one: {', '.join(fed)}" if fed else ", and no other dataset has"
        raise UsageError(f"{name} has no feed in {installation.universe.path} (datasets.{name}.feed){others}")
    instruments = members(dataset, datetime.now(UTC).date())
    if not instruments:
        raise UsageError(f"{name} has no symbol today: see first_session, last_session and its symbols' from and to")
    settings = installation.settings

    def write(line: str) -> None:
        out.print(f"{datetime.now(UTC):%H:%M:%S} {line}", highlight=False, markup=False, soft_wrap=True)

    try:
        venue = make_venue(dataset.feed, instruments, settings)
        vendor = make_vendor(venue.name, settings)
        bring_up_to_date(installation, out)
        resources = installation.resources
        feed = Feed(dataset, instruments, venue, vendor, resources.bus, write, budget=resources.budgets)
    except ValueError as error:
        raise UsageError(f"{name} can't be fed: {error}") from None
    try:
        asyncio.run(_until_stopped(feed))
    except ExceptionGroup as faults:
        # One part failed and the others were stopped for it: that one is what there is to tell.
        raise faults.exceptions[0] from None


async def _until_stopped(feed: Feed) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    await feed.run(stopping)

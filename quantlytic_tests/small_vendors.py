"""A small vendor that does what real ones do (answers, answers short, fails, comes back), and what asks it."""

from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import polars as pl

from quantlytic_assets.calendars.partitions import archive_keys
from quantlytic_assets.calendars.sessions import expected_bars
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.services.ingest import Ingest
from quantlytic_assets.storage.archive import local_archive
from quantlytic_assets.storage.attempts import AttemptLog
from quantlytic_assets.storage.budgets import BudgetLog
from quantlytic_assets.storage.bus import LocalBus
from quantlytic_assets.storage.landing import Lander
from quantlytic_assets.vendors.parts import by_bars
from quantlytic_assets.vendors.protocol import Served, VendorError, VendorTraits
from quantlytic_tests.frames import make_bars

FIRST, LAST = date(2025, 3, 3), date(2025, 3, 14)
DAY = date(2025, 3, 6)


class SmallVendor:
    """Has every bar of a dataset's grid, less `holes`; fails for `broken` symbols; remembers what it was asked."""

    at_once = 1

    def __init__(
        self,
        dataset,
        name="small",
        broken=(),
        holes=(),
        tries=1,
        hiccups=0,
        shift=timedelta(0),
        page=None,
        limits=(),
        since=None,
    ):
        self.name = name
        self.page = page
        self.limits = limits
        self.since = since
        self.dataset = dataset
        self.broken = set(broken)
        self.holes = set(holes)
        self.tries = tries
        self.hiccups = hiccups
        self.shift = shift
        self.asked = []

    def traits(self, dataset):
        return VendorTraits(omits_empty_bars=False, attempts_before_hole=self.tries)

    def parts(self, request):
        return by_bars(request, self.page) if self.page else [request]

    def weight(self, request):
        return 1

    def unsupported(self, request):
        return f"nothing before {self.since}" if self.since and request.start.date() < self.since else None

    def fetch(self, request):
        self.asked.append((request.symbol, request.start, request.end))
        if self.hiccups:
            self.hiccups -= 1
            raise VendorError("one moment", retryable=True)
        if request.symbol in self.broken:
            raise VendorError(f"no {request.symbol} today", retryable=False)
        grid = expected_bars(request.calendar, request.interval, request.start.date(), request.end.date())
        grid = grid.filter(pl.col("open_time") >= request.start, pl.col("open_time") < request.end)
        opens = [time for time in grid["open_time"] if (request.symbol, time) not in self.holes]
        bars = make_bars(request.symbol, opens, request.interval, datetime.now(UTC) - self.shift, vendor=self.name)
        if request.interval != "1d":
            return Served(bars)
        return Served(bars.drop("close_time").join(grid, on="open_time").select(RAW_SCHEMA.names()))


def make_ingest(home, dataset, *vendors):
    """Everything real, in directories below `home`."""
    home = Path(home)
    archive = local_archive(str(home / "archive"))
    lander = Lander(LocalBus(home / "bus"), archive, dataset.name, partial(archive_keys, dataset=dataset), 10_000)
    state = f"sqlite:///{home / 'state.sqlite'}"
    return Ingest(dataset, vendors, archive, AttemptLog(state), lander, BudgetLog(state))


def materialize(ingest, first=FIRST, last=LAST, **options):
    return ingest.fill(ingest.need(first, last, **options))


def archived(ingest):
    return ingest.archive.read(ingest.archive.objects(ingest.dataset.name))


def files(*directories):
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for directory in directories
        for path in Path(directory).rglob("*")
        if path.is_file()
    }


def attempts(ingest):
    return sorted(ingest.attempts.read(ingest.dataset.name, date(2000, 1, 1), date(2100, 1, 1)).rows())

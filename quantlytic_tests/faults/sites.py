"""Where records are published and landed while faults happen, and what must be there in the end: one dataset each."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from quantlytic_assets.resources import make_resources
from quantlytic_assets.storage.bus import bars_topic
from quantlytic_assets.universe.loading import load_universe
from quantlytic_tests.end_to_end.installations import COMMAND, Installed
from quantlytic_tests.faults import publisher
from quantlytic_tests.faults.comparison import WANTED, Comparison, compare, in_archive, on_bus
from quantlytic_tests.faults.small_disk import SmallDisk
from quantlytic_tests.faults.stack import FED, FED_SYMBOLS, NUMBERED, Stack, python, universe, wait_for
from quantlytic_tests.faults.supervisor import Program, Supervisor
from quantlytic_tests.feeds.exchange import Exchange
from quantlytic_tests.feeds.recorded import MINUTE, Recorded, bars_of, thinned

# The exchange's minutes to one of ours, and how many of those a kill and a new start of the feed take.
_SPEED = 40
_MINUTES_A_REPEAT = 8
_DISK_MEGABYTES, _DISK_FILES = 16, 4_000


class Site:
    """A dataset of an installation, whose records come in from `start` to `finish`. Used as a context."""

    dataset = ""
    # Whether nothing may be on the bus twice.
    once = False

    def __init__(self, root: Path, stack: Stack | None, repeats: int):
        self.root = root
        self.stack = stack
        self.repeats = repeats
        self.opened = ExitStack()
        self.installed: Installed

    def __enter__(self) -> Any:
        try:
            self.start()
        except BaseException:
            self.opened.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.opened.close()

    def start(self) -> None:
        """Let records come in."""
        raise NotImplementedError

    def finish(self) -> None:
        """Let no more come in; what is under way is published to its end. Raises `Stalled` where it takes too long."""
        raise NotImplementedError

    def wanted(self) -> pl.DataFrame:
        """WANTED rows of everything whose publishing was acknowledged."""
        raise NotImplementedError

    def ends(self) -> dict[int, int]:
        """Where the partitions of the bus end now."""
        resources = make_resources(self.installed.settings())
        try:
            return {part: end for part, (_, end) in resources.bus.watermarks(bars_topic(self.dataset)).items()}
        finally:
            _close(resources.bus)

    def waiting(self, ends: Mapping[int, int] | None = None) -> int:
        """Records on the bus that are not landed yet; with `ends` only those before them."""
        resources = make_resources(self.installed.settings())
        try:
            lander = resources.lander(load_universe(self.installed.universe_path).datasets[self.dataset])
            source = lander.source()
            if source is None:
                return 0
            if ends is None:
                ends = {part: end for part, (_, end) in source.marks.items()}
            return sum(max(0, end - lander.landed_through(source.life, part)) for part, end in ends.items())
        finally:
            _close(resources.bus)

    def compare(self, clean_bars: bool) -> Comparison:
        """Everything against everything; with `clean_bars` also those, which are made first."""
        wanted = self.wanted()
        clean = self._clean_bars(wanted) if clean_bars else None
        resources = make_resources(self.installed.settings())
        try:
            published = on_bus(resources.bus, self.dataset)
            archived = in_archive(resources.archive, self.dataset)
        finally:
            _close(resources.bus)
        return compare(published, archived, clean, wanted, self.once)

    def _clean_bars(self, wanted: pl.DataFrame) -> pl.DataFrame:
        days = wanted["open_time"].dt.date()
        first, last = str(days.min()), str(days.max())
        making = [sys.executable, "-m", "quantlytic_tests.faults.cleaning", self.dataset, first, last]
        made = subprocess.run(making, env=self.installed.environment(), capture_output=True, text=True, check=False)
        if made.returncode:
            raise RuntimeError(f"clean bars were not made: {made.stdout}{made.stderr}")
        rows = f"SELECT symbol, open_time, volume FROM clean.bars WHERE dataset = '{self.dataset}'"
        return self.installed.rows(rows).cast(dict(WANTED))


def _close(bus: Any) -> None:
    if hasattr(bus, "close"):
        bus.close()


class _Numbered(Site):
    """Numbered bars from a publisher that is left alone."""

    dataset = NUMBERED
    supervisor: Supervisor
    logs: Path

    def publish(self) -> None:
        """Start the publisher, and return when the first bars are on the bus."""
        self.ledger = self.installed.root / "ledger"
        arguments = (self.dataset, str(self.ledger))
        self.supervisor.start(
            "publisher", python(self.installed, self.logs / "publisher.log", publisher.__name__, *arguments)
        )
        wait_for(lambda: publisher.acknowledged(self.ledger)[0], "the first bars are published")

    def finish(self) -> None:
        """See `Site.finish`."""
        # A call that has just begun to fail gives up after two minutes.
        code = self.supervisor.stop("publisher", patience=150)
        if code or self.supervisor.restarts["publisher"]:
            raise RuntimeError(f"the publisher ended with {code}; its log is {self.logs / 'publisher.log'}")

    def wanted(self) -> pl.DataFrame:
        """See `Site.wanted`."""
        count, _ = publisher.acknowledged(self.ledger)
        first = load_universe(self.installed.universe_path).datasets[self.dataset].first_session
        return publisher.numbered_bars(first, 0, count).select(WANTED.names())


class NumberedSite(_Numbered):
    """Numbered bars through Kafka, `quantlytic serve` and MinIO."""

    def start(self) -> None:
        """See `Site.start`."""
        self.installed, self.supervisor, self.logs = self.stack.installed, self.stack.supervisor, self.stack.logs
        self.publish()


class EmbeddedSite(_Numbered):
    """Numbered bars through the embedded profile's bus, the archive on a small file system; processes land them."""

    def start(self) -> None:
        """See `Site.start`."""
        root = self.root / "embedded"
        self.installed = Installed(root, universe())
        self.logs = root
        self.disk = SmallDisk(self.installed.home / "archive", _DISK_MEGABYTES, _DISK_FILES)
        self.opened.callback(self.disk.close)
        self.supervisor = self.opened.enter_context(Supervisor())
        self.publish()
        loop = "quantlytic_tests.faults.landing_loop"
        for name in ("landing", "landing_beside"):
            self.supervisor.start(name, python(self.installed, root / f"{name}.log", loop, self.dataset))

    def half_objects(self) -> list[str]:
        """Objects of the archive that are not whole. What has `#` in its name is being written: no object yet."""
        return [
            str(path)
            for path in self.disk.path.rglob("*.*")
            if path.is_file() and "#" not in path.name and "ballast" not in path.parts and not _whole(path)
        ]


class FedSite(Site):
    """What `quantlytic feed` makes of an exchange's trades; the exchange lives through recordings, fast."""

    dataset = FED
    once = True

    def start(self) -> None:
        """See `Site.start`."""
        self.installed = self.stack.installed
        # The recording, again and again.
        copies = 1 + self.repeats * _MINUTES_A_REPEAT // 11
        self._markets = {
            symbol.replace("-", ""): _again(thinned(every), copies)
            for symbol, every in zip(FED_SYMBOLS, (5, 10, 20), strict=True)
        }
        self._exchange = self.opened.enter_context(Exchange(self._markets, _SPEED).serving())
        environment = self.installed.environment(
            QUANTLYTIC_BINANCE_WS=self._exchange.ws, QUANTLYTIC_BINANCE_REST=self._exchange.rest
        )
        program = Program([str(COMMAND), "feed", FED], environment, self.stack.logs / "feed.log")
        self.stack.supervisor.start("feed", program)
        self._connections = 0

    def connected_anew(self) -> bool:
        """Whether the feed has connected since this was last the case."""
        before, self._connections = self._connections, self._exchange.connections
        return self._connections > before

    def finish(self) -> None:
        """See `Site.finish`."""
        wait_for(lambda: self._exchange.now() > self._exchange.end, "the recording is over", 0.5)
        wait_for(self._all_published, "the feed has published every recorded minute", 1)
        code = self.stack.supervisor.stop("feed")
        if code:
            raise RuntimeError(f"the feed ended with {code}; its log is {self.stack.logs / 'feed.log'}")

    def _all_published(self) -> bool:
        resources = make_resources(self.installed.settings())
        try:
            return self.wanted().join(on_bus(resources.bus, FED), on=WANTED.names(), how="anti").is_empty()
        finally:
            _close(resources.bus)

    def wanted(self) -> pl.DataFrame:
        """See `Site.wanted`: every recorded minute."""
        rows = [
            (symbol, datetime.fromtimestamp(minute / 1000, UTC), bar.volume)
            for symbol in FED_SYMBOLS
            for minute, bar in bars_of(self._markets[symbol.replace("-", "")]).items()
        ]
        return pl.DataFrame(rows, schema=WANTED, orient="row")


def _whole(path: Path) -> bool:
    try:
        if path.suffix == ".parquet":
            pq.read_table(path)
        else:
            json.loads(path.read_bytes())
    except (ValueError, OSError):
        return False
    return True


def _again(trades: tuple[Recorded, ...], copies: int) -> list[Recorded]:
    """Trades, and the same again after whole minutes, numbered on."""
    span = (trades[-1].time - trades[0].time) // MINUTE * MINUTE + MINUTE
    return [
        replace(
            one, number=one.number + copy * len(trades), time=one.time + copy * span, written=one.written + copy * span
        )
        for copy in range(copies)
        for one in trades
    ]

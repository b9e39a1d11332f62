"""How long a bar takes from the bus to a row of clean.bars, with the sensors and the daemon at work.

50 symbols of 1-minute bars are published each minute, as a feed would when the minute is over; another process looks
at the lake. Wants the real servers: `make soak`, or
`scripts/services run -- python -m quantlytic_tests.soak [MINUTES]`.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.resources import make_resources
from quantlytic_tests.end_to_end.browser import Browser
from quantlytic_tests.end_to_end.installations import Installed

SYMBOLS = [f"S{i:02d}-USD" for i in range(50)]
MINUTES = 30
DATASET = "live_1m"
WANTED_SECONDS = 60
# What the first minutes cost is the machine's warming up; told, not counted.
WARM_UP = 2


def universe() -> dict:
    """One dataset that began yesterday and goes on."""
    live = {
        "calendar": "24/7",
        "interval": "1m",
        "first_session": (datetime.now(UTC).date() - timedelta(days=1)).isoformat(),
        "vendors": [],
        "feature_intervals": ["5m"],
        "symbols": SYMBOLS,
    }
    return {"datasets": {DATASET: live}}


def minute_of_bars(opened: datetime) -> pl.DataFrame:
    """A bar of every symbol for the minute that began at `opened`."""
    prices = 100 + np.arange(len(SYMBOLS)) + np.sin(opened.timestamp() / 600 + np.arange(len(SYMBOLS)))
    return (
        pl.DataFrame({"symbol": SYMBOLS, "close": prices})
        .with_columns(
            open_time=pl.lit(opened),
            close_time=pl.lit(opened + timedelta(minutes=1)),
            open=pl.col("close") * 0.9999,
            high=pl.col("close") * 1.0002,
            low=pl.col("close") * 0.9998,
            volume=pl.lit(10.0),
            vwap=pl.col("close"),
            trade_count=pl.lit(7),
            vendor=pl.lit("soak"),
            fetched_at=pl.lit(datetime.now(UTC)),
            adjustment=pl.lit("none"),
        )
        .select(RAW_SCHEMA.names())
        .cast(dict(RAW_SCHEMA))
    )


class Watch:
    """Notes when each minute's bars are all in clean.bars."""

    def __init__(self, installed: Installed):
        self.installed = installed
        self.published: dict[datetime, float] = {}
        self.seen: dict[datetime, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        reader = make_resources(self.installed.settings()).lake.reader()
        query = "SELECT open_time, count(*) FROM clean.bars WHERE dataset = ? AND open_time >= ? GROUP BY 1"
        while not self._stop.wait(0.5):
            waiting = [opened for opened in self.published.copy() if opened not in self.seen]
            if not waiting:
                continue
            rows = dict(reader.execute(query, [DATASET, min(waiting)]).fetchall())
            now = time.monotonic()
            for opened in waiting:
                if rows.get(opened, 0) == len(SYMBOLS):
                    self.seen[opened] = now

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def lags(self) -> dict[datetime, float]:
        """Seconds from published to seen; infinite for what was never seen."""
        return {opened: self.seen.get(opened, float("inf")) - at for opened, at in sorted(self.published.items())}


def publish_each_minute(installed: Installed, watch: Watch, minutes: int) -> None:
    """Publish every minute's bars just after it is over."""
    lander = make_resources(installed.settings()).lander(make_dataset(installed))
    for _ in range(minutes):
        now = datetime.now(UTC)
        over = now.replace(second=0, microsecond=0) + timedelta(minutes=1)
        time.sleep((over - now).total_seconds() + 0.2)
        opened = over - timedelta(minutes=1)
        lander.publish(minute_of_bars(opened))
        watch.published[opened] = time.monotonic()
        told = [f"{lag:.0f}" for lag in watch.lags().values() if lag != float("inf")]
        print(f"  {over:%H:%M} published; lags so far: {' '.join(told[-8:])}", flush=True)


def make_dataset(installed: Installed):
    """The dataset as the universe declares it."""
    from quantlytic_assets.universe.loading import load_universe

    return load_universe(installed.universe_path).datasets[DATASET]


def main() -> None:
    """Print p50, p95 and p99 of the lag; exit 1 where one bar took longer than a minute or was not seen."""
    minutes = int(sys.argv[1]) if len(sys.argv) > 1 else MINUTES
    # What was started is ended also when this is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as root:
        installed = Installed(Path(root), universe(), "services")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        serving = installed.start("serve", QUANTLYTIC_PORT=str(port))
        try:
            page = Browser(port)
            page.wait_until_loaded(serving)
            for sensor in (f"{DATASET}_bus_sensor", f"{DATASET}_automation"):
                page.start_sensor(sensor)
            with Watch(installed) as watch:
                publish_each_minute(installed, watch, WARM_UP + minutes)
                deadline = time.monotonic() + 3 * WANTED_SECONDS
                while len(watch.seen) < len(watch.published) and time.monotonic() < deadline:
                    time.sleep(1)
                lags = list(watch.lags().values())
        finally:
            os.killpg(serving.pid, signal.SIGINT)
            serving.communicate(timeout=60)
    counted = np.array(lags[WARM_UP:])
    p50, p95, p99 = np.percentile(counted, [50, 95, 99])
    print(
        f"soak: {minutes} minutes of {len(SYMBOLS)} symbols; lag p50 {p50:.1f} s, p95 {p95:.1f} s, p99 {p99:.1f} s, "
        f"longest {counted.max():.1f} s; warm-up {' '.join(f'{lag:.1f}' for lag in lags[:WARM_UP])} s"
    )
    sys.exit(0 if counted.max() <= WANTED_SECONDS else 1)


if __name__ == "__main__":
    main()

"""A process that publishes numbered bars at a steady pace and writes down which of them the bus has acknowledged.

Each bar, that is (symbol, open_time), is made once. A batch whose publishing raised is published again, so that its
bars may stand on the bus twice: that is this program's own repetition, and the ledger says that it happened.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.market_data.bars import RAW_SCHEMA

if TYPE_CHECKING:
    from types import FrameType

SYMBOLS = [f"S{i:02d}-USD" for i in range(20)]
BATCH = 30
BARS_PER_SECOND = 150


def numbered_bars(first_session: date, first: int, count: int) -> pl.DataFrame:
    """The bars numbered [first, first + count), as RAW_SCHEMA; `trade_count` is the number.

    Number n is of symbol n % 20, in minute n // 20 since the first session's start.
    """
    number = pl.int_range(first, first + count, dtype=pl.Int64, eager=True)
    price = 100 + number // len(SYMBOLS) % 97 * 0.01
    return (
        pl.select(
            symbol=pl.Series([SYMBOLS[n % len(SYMBOLS)] for n in number]),
            open_time=pl.lit(datetime.combine(first_session, datetime.min.time(), UTC))
            + pl.duration(minutes=number // len(SYMBOLS)),
            open=price,
            high=price,
            low=price,
            close=price,
            volume=number.cast(pl.Float64) + 1,
            vwap=price,
            trade_count=number,
            vendor=pl.lit("numbered"),
            fetched_at=pl.lit(datetime.now(UTC)),
            adjustment=pl.lit("none"),
        )
        .with_columns(close_time=pl.col("open_time") + timedelta(minutes=1))
        .match_to_schema(RAW_SCHEMA)
    )


def acknowledged(ledger: Path) -> tuple[int, int]:
    """From a ledger: how many bars were acknowledged, numbers 0 and on without a break, and how many batches raised."""
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    done = [int(line) for line in lines if not line.startswith("raised")]
    return (done[-1] if done else 0), len(lines) - len(done)


def publish_until_stopped(dataset_name: str, ledger: Path) -> None:
    """Publish until SIGTERM, then finish the batch at work. A ledger that is there already is gone on with."""
    from quantlytic_assets.resources import make_resources
    from quantlytic_assets.settings import load_settings
    from quantlytic_assets.universe.loading import load_universe

    stopping = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    settings = load_settings()
    dataset = load_universe(settings.universe).datasets[dataset_name]
    lander = make_resources(settings).lander(dataset)
    first, _ = acknowledged(ledger)
    due = time.monotonic()
    with ledger.open("a") as lines:

        def write_down(line: str) -> None:
            lines.write(f"{line}\n")
            lines.flush()
            os.fsync(lines.fileno())

        while not stopping:
            bars = numbered_bars(dataset.first_session, first, BATCH)
            while True:
                try:
                    lander.publish(bars)
                except Exception as error:  # whatever it is: a publisher that matters does not give up
                    write_down(f"raised {type(error).__name__}: {str(error)[:300]!r}")
                    time.sleep(0.5)
                else:
                    break
            first += BATCH
            write_down(str(first))
            due = max(due + BATCH / BARS_PER_SECOND, time.monotonic() - 1)
            time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    publish_until_stopped(sys.argv[1], Path(sys.argv[2]))

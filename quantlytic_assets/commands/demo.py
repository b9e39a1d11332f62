"""`quantlytic demo`: everything in the universe that is missing or out of date, then a table of what there is."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from quantlytic_assets.commands.backfill import Backfill
from quantlytic_assets.commands.inspection import show_status
from quantlytic_assets.commands.installation import CommandError, with_members
from quantlytic_assets.commands.migrating import bring_up_to_date
from quantlytic_assets.commands.results import show_results

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation


# What the process that compiles runs, in the order in which it is needed.
_PREPARE = (
    "from quantlytic_assets.features import batch; batch.prepare(); "
    "from quantlytic_assets.trading.engine import run; run.prepare()"
)


@contextmanager
def _being_compiled(wanted: bool) -> Iterator[subprocess.Popen | None]:
    """A process that compiles the core features and the trading engine, where wanted; ended with what it runs beside.

    The machine code of a new installation takes as long as landing bars does, and a processor would have nothing to do
    meanwhile. Who computes or trades before it is done, or after it has failed, compiles as ever.
    """
    if not wanted:
        yield None
        return
    with subprocess.Popen([sys.executable, "-c", _PREPARE], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as it:
        try:
            yield it
        finally:
            it.kill()


def run_demo(installation: Installation, out: Console) -> None:
    """Build what is pending, print datasets and strategies; raises `CommandError` when a run failed."""
    started = time.monotonic()
    bring_up_to_date(installation, out)
    backfill = Backfill(installation, out)
    strategies = with_members(installation.universe.strategies.values())
    with _being_compiled(bool(strategies)) as compiling:
        for dataset in installation.universe.datasets.values():
            backfill.dataset(dataset, only_pending=True)
        if compiling is not None and not backfill.outcome.failures:
            compiling.wait()
        for strategy in strategies:
            if not backfill.outcome.failures:
                backfill.strategy(strategy, only_pending=True)
    outcome = backfill.outcome
    show_status(installation, out, as_json=False)
    show_results(installation, out, strategies)
    out.print(
        f"{outcome.partitions} partitions materialized, {outcome.requests} vendor requests, "
        f"{time.monotonic() - started:.0f} s",
        highlight=False,
    )
    for dataset in installation.universe.datasets.values():
        if dataset.replay_from:
            out.print(
                f"{dataset.name}: sessions from {dataset.replay_from} on are left for `quantlytic replay "
                f"{dataset.name}`, which plays them as a live feed would",
                highlight=False,
                soft_wrap=True,
            )
    if outcome.failures:
        raise CommandError("\n".join(outcome.failures))

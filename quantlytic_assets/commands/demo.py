"""`quantlytic demo`: everything in the universe that is missing or out of date, then a table of what there is."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING

from quantlytic_assets.commands.backfill import Backfill, shown
from quantlytic_assets.commands.beside import Beside
from quantlytic_assets.commands.inspection import show_status
from quantlytic_assets.commands.installation import CommandError, with_members
from quantlytic_assets.commands.migrating import bring_up_to_date
from quantlytic_assets.commands.results import show_results
from quantlytic_assets.universe.feature_choice import datasets_read

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation
    from quantlytic_assets.universe.models import Dataset, Strategy, Universe


def run_demo(installation: Installation, out: Console) -> None:
    """Build what is pending, print datasets and strategies; raises `CommandError` when a run failed."""
    started = time.monotonic()
    bring_up_to_date(installation, out)
    strategies = with_members(installation.universe.strategies.values())
    backfill = Backfill(installation, out)
    _make_all(backfill, strategies)
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


def _make_all(backfill: Backfill, strategies: Iterable[Strategy]) -> None:
    """Make what is pending. Strategies of a dataset in which something was made are made beside the datasets after it.

    Others have nothing to do as a rule: to see that another process would have to be waited for.
    """
    universe, out, outcome = backfill.installation.universe, backfill.console, backfill.outcome
    waiting = {name: [one for one in strategies if one.dataset == name] for name in universe.datasets}
    with shown(out) as progress, Beside(progress) if any(waiting.values()) else nullcontext() as beside:
        backfill.progress = progress
        for dataset in in_order(universe):
            before = outcome.partitions
            backfill.dataset(dataset, only_pending=True)
            if beside is not None and outcome.partitions > before and not outcome.failures:
                beside.make([one.name for one in waiting.pop(dataset.name)])
        for strategy in (one for rest in waiting.values() for one in rest):
            if not outcome.failures:
                backfill.strategy(strategy, only_pending=True)
        for done, said in beside.outcomes() if beside is not None else ():
            outcome.add(done)
            out.print(said, end="", highlight=False, markup=False, soft_wrap=True)


def in_order(universe: Universe) -> list[Dataset]:
    """The datasets, those with strategies first; each after those that it reads, else as in the file."""
    found: dict[str, Dataset] = {}
    traded = {strategy.dataset for strategy in universe.strategies.values()}

    def add(dataset: Dataset, above: frozenset[str] = frozenset()) -> None:
        for name in datasets_read(dataset):
            if name not in above and name in universe.datasets:
                add(universe.datasets[name], above | {dataset.name})
        found.setdefault(dataset.name, dataset)

    for dataset in sorted(universe.datasets.values(), key=lambda one: one.name not in traded):
        add(dataset)
    return list(found.values())

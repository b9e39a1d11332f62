"""`quantlytic demo`: everything in the universe that is missing or out of date, then a table of what there is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich.table import Table

from quantlytic_assets.commands.backfill import Backfill
from quantlytic_assets.commands.inspection import show_status
from quantlytic_assets.commands.installation import CommandError
from quantlytic_assets.commands.migrating import bring_up_to_date
from quantlytic_assets.definitions import strategy_keys

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation
    from quantlytic_assets.universe.models import Strategy


def run_demo(installation: Installation, out: Console) -> None:
    """Build what is pending, print datasets and strategies; raises `CommandError` when a run failed."""
    started = time.monotonic()
    bring_up_to_date(installation, out)
    backfill = Backfill(installation, out)
    for dataset in installation.universe.datasets.values():
        backfill.dataset(dataset, only_pending=True)
    if not backfill.outcome.failures:
        for strategy in installation.universe.strategies.values():
            backfill.strategy(strategy, only_pending=True)
    outcome = backfill.outcome
    show_status(installation, out, as_json=False)
    for strategy in installation.universe.strategies.values():
        _show_strategy(installation, out, strategy)
    out.print(
        f"{outcome.partitions} partitions materialized, {outcome.requests} vendor requests, "
        f"{time.monotonic() - started:.0f} s",
        highlight=False,
    )
    if outcome.failures:
        raise CommandError("\n".join(outcome.failures))


def _show_strategy(installation: Installation, out: Console, strategy: Strategy) -> None:
    event = installation.instance.get_latest_materialization_event(strategy_keys(strategy)["performance"])
    if event is None:
        out.print(f"{strategy.name}: no report yet")
        return
    metadata = event.asset_materialization.metadata
    table = Table("", strategy.name, "buy and hold", title=f"{strategy.name} on {strategy.dataset}, simulated")
    for record in metadata["statistics"].records:
        row = record.data
        table.add_row(str(row["statistic"]), _shown(row["strategy"]), _shown(row["buy_and_hold"]))
    out.print(table)
    forecast = {name: value.value for name, value in metadata.items() if name.startswith("forecast/")}
    line = ", ".join(f"{name.removeprefix('forecast/')} {_shown(value)}" for name, value in forecast.items())
    out.print(f"forecasts out of sample: {line}", highlight=False)
    out.print(f"report: {metadata['report'].value}", highlight=False, soft_wrap=True)


def _shown(value: Any) -> str:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.4f}"

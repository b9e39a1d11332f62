"""`quantlytic import`: a user's file onto the bus and into the archive, nothing of it lost."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.calendars.partitions import deciding_key, known_keys
from quantlytic_assets.commands.installation import CommandError, UsageError
from quantlytic_assets.commands.migrating import bring_up_to_date
from quantlytic_assets.imports.tables import OptionError, StructuralFault, parse_columns, read_bars

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation


def run_import(
    installation: Installation,
    out: Console,
    path: Path,
    dataset_name: str,
    symbol: str,
    columns: str,
    time_zone: str | None,
    label: str,
    adjustment: str,
) -> None:
    """Read, publish, land, record, and say what to run next.

    Raises `CommandError` for a file that is rejected whole, `UsageError` for options that make no sense.
    """
    from quantlytic_assets.assets.clean_bars import quarantine_rejected
    from quantlytic_assets.assets.raw_bars import landing_materializations

    dataset = installation.dataset(dataset_name)
    if not path.is_file():
        raise UsageError(f"{path} is not a file")
    try:
        wanted = parse_columns(columns) if columns else None
        imported = read_bars(
            path,
            dataset=dataset,
            symbol=symbol,
            columns=wanted,
            time_zone=time_zone,
            label=label,
            adjustment=adjustment,
            fetched_at=datetime.now(UTC),
        )
    except OptionError as error:
        raise UsageError(str(error)) from error
    except StructuralFault as error:
        raise CommandError(f"{path} was rejected: {error}") from error
    bring_up_to_date(installation, out)
    lander = installation.resources.lander(dataset)
    if len(imported.bars):
        lander.publish(imported.bars)
    if len(imported.rejected):
        rejected = imported.rejected.select(
            pl.lit(symbol).alias("symbol"),
            "open_time",
            "reason",
            pl.col("raw"),
            "line",
        )
        lander.publish_rejected(rejected)
    landed = lander.land()
    for event in landing_materializations(dataset, landed.partitions):
        installation.instance.report_runless_asset_event(event)
    quarantine_rejected(installation.resources, dataset)
    out.print(f"{imported.read} read, {len(imported.bars)} accepted, {len(imported.rejected)} refused", highlight=False)
    if len(imported.rejected):
        out.print(
            f"why: quantlytic sql \"SELECT reason, raw FROM clean.quarantine WHERE dataset = '{dataset.name}'\"",
            highlight=False,
            soft_wrap=True,
        )
    if symbol not in [one.symbol for one in dataset.symbols]:
        out.print(
            f"{symbol} is not among the symbols of {dataset.name} in {installation.universe.path}: its bars are "
            "archived, and will be quarantined until it is added there",
            highlight=False,
            soft_wrap=True,
        )
    known = known_keys(dataset)
    keys = [key for archived in landed.partitions if (key := deciding_key(dataset, archived, known))]
    if keys:
        begin = min(keys)
        end = max(_last_session(imported.bars), begin)
        out.print(f"next: quantlytic backfill {dataset.name} --from {begin} --to {end}", highlight=False)


def _last_session(bars: pl.DataFrame) -> str:
    return bars["open_time"].max().date().isoformat() if len(bars) else ""

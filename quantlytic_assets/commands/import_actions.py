"""`quantlytic import-actions`: a user's file of splits, dividends and renames into the archive and the lake."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.calendars.partitions import deciding_key, known_keys, partition_key
from quantlytic_assets.commands.installation import CommandError, UsageError
from quantlytic_assets.commands.migrating import bring_up_to_date
from quantlytic_assets.commands.recording import record, record_landing
from quantlytic_assets.imports.action_files import ImportedActions, read_actions
from quantlytic_assets.imports.times import StructuralFault

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation
    from quantlytic_assets.universe.models import Dataset, Strategy

_SHOWN = 20


def run_import_actions(installation: Installation, out: Console, path: Path, dataset_name: str | None) -> None:
    """Read, keep, clean again what depends on it, and say what was rejected and what to run next.

    Raises `CommandError` for a file that is rejected whole, `UsageError` where the symbols do not say which dataset is
    meant.
    """
    from quantlytic_assets.assets.keys import clean_bars_key, corporate_actions_key
    from quantlytic_assets.services.clean import Cleaner, action_figures, quarantine_rejected

    if not path.is_file():
        raise UsageError(f"{path} is not a file")
    try:
        imported = read_actions(path, datetime.now(UTC))
    except StructuralFault as error:
        raise CommandError(f"{path} was rejected: {error}") from error
    dataset = installation.dataset(dataset_name) if dataset_name else _meant(installation, imported)
    bring_up_to_date(installation, out)
    resources = installation.resources
    new = resources.actions.record(dataset.name, imported.actions)
    if len(imported.rejected):
        _keep_rejected(installation, dataset, imported.rejected)
        quarantine_rejected(resources, dataset)
    followed = Cleaner(resources, dataset).follow_actions(
        lambda key, figures: record(installation, clean_bars_key(dataset), figures, key)
    )
    record(installation, corporate_actions_key(dataset), action_figures(followed.reconciled))
    out.print(
        f"{imported.read} read, {len(imported.actions)} accepted, {len(imported.rejected)} refused"
        + (f" ({len(imported.actions) - new} were known already)" if new < len(imported.actions) else ""),
        highlight=False,
    )
    _show_rejected(out, dataset, imported.rejected)
    _show_strangers(installation, out, dataset, imported.actions)
    trading = [one for one in installation.universe.strategies.values() if one.dataset == dataset.name]
    _show_next(installation, out, dataset, trading, imported.actions, followed.since)


def _meant(installation: Installation, imported: ImportedActions) -> Dataset:
    """The one dataset that has symbols of the file."""
    datasets = installation.universe.datasets
    if len(datasets) == 1:
        return next(iter(datasets.values()))
    reported = {*imported.actions["symbol"], *imported.actions["new_symbol"].drop_nulls(), *imported.rejected["symbol"]}
    having = [one for one in datasets.values() if reported & {instrument.symbol for instrument in one.symbols}]
    if len(having) == 1:
        return having[0]
    which = "several datasets have" if having else "no dataset has"
    names = ", ".join(one.name for one in having or datasets.values())
    raise UsageError(f"{which} symbols of {_few(reported)}; say which is meant with --dataset, one of: {names}")


def _few(symbols: set[str | None]) -> str:
    """Some of the symbols, for a message."""
    shown = sorted(symbol for symbol in symbols if symbol)
    return ", ".join(shown[:5]) + (" …" if len(shown) > 5 else "") if shown else "the file"


def _keep_rejected(installation: Installation, dataset: Dataset, rejected: pl.DataFrame) -> None:
    """Put rejected rows where those of bar files are: on the bus, in the archive, in clean.quarantine."""
    lander = installation.resources.lander(dataset)
    lander.publish_rejected(
        rejected.select(
            pl.col("symbol").fill_null(""),
            pl.lit(None, TIME).alias("open_time"),
            pl.concat_str(pl.lit("action: "), "reason").alias("reason"),
            "raw",
            "line",
        )
    )
    record_landing(installation, dataset, lander.land())


def _show_rejected(out: Console, dataset: Dataset, rejected: pl.DataFrame) -> None:
    for row in rejected.head(_SHOWN).iter_rows(named=True):
        out.print(f"  line {row['line']}: {row['reason']}: {row['raw']}", highlight=False, markup=False, soft_wrap=True)
    if len(rejected) > _SHOWN:
        out.print(f"  and {len(rejected) - _SHOWN} more")
    if len(rejected):
        out.print(
            f"kept: quantlytic sql \"SELECT reason, raw FROM clean.quarantine WHERE dataset = '{dataset.name}'\"",
            highlight=False,
            soft_wrap=True,
        )


def _show_strangers(installation: Installation, out: Console, dataset: Dataset, actions: pl.DataFrame) -> None:
    known = {one.symbol for one in dataset.symbols}
    concerned = actions.filter(~pl.col("symbol").is_in(known) & ~pl.col("new_symbol").fill_null("").is_in(known))
    strangers = concerned["symbol"].unique().sort().to_list()
    if strangers:
        out.print(
            f"not among the symbols of {dataset.name} in {installation.universe.path}: {_few(set(strangers))}; "
            "their actions are kept, and count when they are added there",
            highlight=False,
            soft_wrap=True,
        )


def _show_next(
    installation: Installation,
    out: Console,
    dataset: Dataset,
    strategies: list[Strategy],
    actions: pl.DataFrame,
    changed: date | None,
) -> None:
    """features.adjusted_bars follows at once; what was made of bars and trades since the first action does not.

    `changed`: the first session with bars whose flags or features are others now; it may lie long before the action.
    """
    if actions.is_empty():
        return
    out.print(
        "features.adjusted_bars and the flags of bars take them in from now on; features and paper accounts when they "
        "are made again",
        highlight=False,
        soft_wrap=True,
    )
    known = known_keys(dataset)

    def since(some: pl.DataFrame) -> str:
        first = min(filter(None, [some["session"].min(), changed]))
        return deciding_key(dataset, partition_key(dataset, first), known) or known[-1]

    # A dividend is no concern of bars and features, which count in prices as they were traded.
    moving = actions.filter(pl.col("kind") != "dividend")
    if len(moving):
        out.print(f"next: quantlytic backfill {dataset.name} --from {since(moving)}", highlight=False)
    for strategy in strategies:
        out.print(f"next: quantlytic backfill {strategy.name} --from {since(actions)}", highlight=False)
        account = installation.resources.accounts.last(strategy.name)
        traded = account is not None and account.session >= date.fromisoformat(since(moving)) if len(moving) else False
        if traded and not strategy.at_broker:
            out.print(
                f"orders of {strategy.name} stay as they were decided without this; to trade the past anew: "
                f"quantlytic backfill {strategy.name} --restart",
                highlight=False,
                soft_wrap=True,
            )

"""`quantlytic unimport`: a wrong import taken back. Its objects stay in the archive, under a tombstone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.calendars.partitions import deciding_key, known_keys
from quantlytic_assets.commands.importing import imports_of, land, say
from quantlytic_assets.commands.installation import CommandError, UsageError
from quantlytic_assets.commands.migrating import bring_up_to_date
from quantlytic_assets.commands.recording import record
from quantlytic_assets.services.imports import Chosen, FoundRows

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation
    from quantlytic_assets.storage.import_records import ImportRecord
    from quantlytic_assets.universe.models import Dataset

_SHOWN = 20


def run_unimport(
    installation: Installation,
    out: Console,
    what: Sequence[str],
    dataset_name: str | None,
    symbol: str | None,
    first: date | None,
    last: date | None,
    confirm: Callable[[str], bool],
) -> None:
    """Find the imported rows that are meant, show them, ask, take them back, and clean their partitions again.

    `what`: paths of files, ids of imports, or paths of objects in the archive. Raises `UsageError` where it does not
    say which rows are meant, `CommandError` where there are none, where `confirm` says no, and where cleaning fails.
    """
    if not what and not (dataset_name and (symbol or first or last)):
        raise UsageError(
            "say what to take back: a file that was imported, an object of the archive, or --dataset D with --symbol, "
            f"--from or --to\n{_recent(installation, _datasets(installation, dataset_name))}"
        )
    if first and last and first > last:
        raise UsageError(f"--from {first} is after --to {last}")
    bring_up_to_date(installation, out)
    found: dict[str, FoundRows] = {}
    already: dict[str, FoundRows] = {}
    for dataset in _datasets(installation, dataset_name):
        chosen = _chosen(installation, dataset, what, symbol, first, last)
        if chosen is None:
            continue
        # What is on the bus already is landed first: it would come back by the next landing.
        land(installation, dataset)
        imports = imports_of(installation, dataset)
        rows = imports.find(chosen)
        if len(rows):
            found[dataset.name] = rows
            _show(out, dataset, chosen, rows)
        elif len(taken := imports.find(chosen, taken_back=True)):
            already[dataset.name] = taken
    if not found and not already:
        raise CommandError(
            f"no imported rows of {', '.join(what) or 'that choice'} are in the archive\n"
            f"{_recent(installation, _datasets(installation, dataset_name))}"
        )
    if found and not confirm("take this back?"):
        raise CommandError("nothing was taken back")
    for name, rows in found.items():
        about = {"what": list(what), "symbol": symbol, "from": first, "to": last}
        path = imports_of(installation, installation.dataset(name)).take_back(rows, about)
        say(out, f"{len(rows.bars):,} bars and {len(rows.rejected):,} refused rows were taken back by {path}")
    for name in already:
        # A command that was killed after its tombstone is finished by the next one.
        say(out, f"{name}: these rows were taken back before; what was made of them is brought up to date")
    for name, rows in (found | already).items():
        _follow(installation, out, installation.dataset(name), rows)


def _datasets(installation: Installation, name: str | None) -> list[Dataset]:
    return [installation.dataset(name)] if name else list(installation.universe.datasets.values())


def _chosen(
    installation: Installation,
    dataset: Dataset,
    what: Sequence[str],
    symbol: str | None,
    first: date | None,
    last: date | None,
) -> Chosen | None:
    """What is meant in this dataset; None: nothing."""
    imports = imports_of(installation, dataset)
    records: list[ImportRecord] = []
    objects: list[str] = []
    for text in what:
        if text.endswith(".parquet") and text.startswith(f"{dataset.name}/"):
            objects.append(text)
        else:
            records += imports.of_file(text)
    if what and not records and not objects:
        return None
    return Chosen(tuple(records), tuple(objects), symbol, first, last)


def _show(out: Console, dataset: Dataset, chosen: Chosen, rows: FoundRows) -> None:
    counted = rows.bars.group_by("fetched_at", "symbol").agg(
        pl.len().alias("bars"), pl.col("session").min().alias("first"), pl.col("session").max().alias("last")
    )
    files = {one.imported_at: one for one in chosen.imports}
    shown = counted.sort("fetched_at", "symbol").select("fetched_at", "symbol", "bars", "first", "last")
    for moment, symbol, bars, begin, end in shown.head(_SHOWN).iter_rows():
        record = files.get(moment)
        of = f" from {record.path} (import {record.id})" if record else ""
        say(
            out,
            f"{dataset.name} {symbol}: {bars:,} bars of {begin} to {end}, imported {moment:%Y-%m-%d %H:%M:%S} UTC{of}",
        )
    if len(counted) > _SHOWN:
        say(out, f"and {shown['bars'][_SHOWN:].sum():,} bars more")
    if len(rows.rejected):
        say(out, f"{dataset.name}: {len(rows.rejected):,} rows that were refused leave clean.quarantine")


def _follow(installation: Installation, out: Console, dataset: Dataset, rows: FoundRows) -> None:
    """Let the lake follow: what is made of raw bars is behind from now on, and clean bars are made at once."""
    from quantlytic_assets.assets.keys import raw_bars_key
    from quantlytic_assets.commands.backfill import Backfill
    from quantlytic_assets.services.clean import quarantine_rejected

    quarantine_rejected(installation.resources, dataset)
    known = known_keys(dataset)
    counts: dict[str, int] = {}
    for archived, count in rows.bars.group_by("partition").len().iter_rows():
        if key := deciding_key(dataset, archived, known):
            counts[key] = counts.get(key, 0) + count
    if not counts:
        return
    for key, count in sorted(counts.items()):
        record(installation, raw_bars_key(dataset), {"rows_taken_back": count}, key)
    backfill = Backfill(installation, out)
    backfill.clean(dataset, sorted(counts))
    last = max([max(counts), *rows.bars["session"].drop_nulls().cast(pl.String).sort().tail(1)])
    again = f"quantlytic backfill {dataset.name} --from {min(counts)} --to {last}"
    if backfill.outcome.failures:
        raise CommandError("\n".join([*backfill.outcome.failures, f"clean.bars follows with: {again}"]))
    say(out, f"clean.bars follows already; next: {again}")


def _recent(installation: Installation, datasets: Sequence[Dataset]) -> str:
    """The latest imports, for who does not know what to say."""
    records = [one for dataset in datasets for one in imports_of(installation, dataset).records.read(dataset.name)]
    newest = sorted(records, key=lambda one: one.imported_at)[-_SHOWN:]
    if not newest:
        return "no import is on record; name an object of the archive, as clean.quarantine has them in source_object"
    lines = [
        f"  {one.id}  {one.dataset}  {', '.join(one.symbols[:5])}  {one.accepted:,} bars  {one.path}" for one in newest
    ]
    return "\n".join(["imports on record:", *lines])

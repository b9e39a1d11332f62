"""`quantlytic import`: files of bars onto the bus and into the archive, nothing of them lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.calendars.partitions import deciding_key, known_keys
from quantlytic_assets.commands.installation import CommandError, UsageError
from quantlytic_assets.commands.migrating import bring_up_to_date
from quantlytic_assets.commands.recording import record_landing
from quantlytic_assets.imports.advice import advice
from quantlytic_assets.imports.options import ImportOptions, OptionError
from quantlytic_assets.imports.paths import FoundFile, find_files
from quantlytic_assets.imports.symbols import SymbolNames
from quantlytic_assets.imports.tables import ImportedFile
from quantlytic_assets.imports.times import StructuralFault
from quantlytic_assets.services.imports import Imports

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation
    from quantlytic_assets.storage.landing import PartitionOf
    from quantlytic_assets.universe.models import Dataset

_REASONS_SHOWN = 3


@dataclass
class _Totals:
    """What all files of a command came to."""

    read: int = 0
    accepted: int = 0
    rejected: int = 0
    symbols: frozenset[str] = frozenset()
    partitions: frozenset[str] = frozenset()
    last_session: str = ""

    def add(self, imported: ImportedFile, partition_of: PartitionOf) -> None:
        bars = imported.bars
        self.read += imported.read
        self.accepted += len(bars)
        self.rejected += len(imported.rejected)
        self.symbols |= set(bars["symbol"].unique())
        if len(bars):
            self.partitions |= set(partition_of(bars)["partition"].unique())
            last = bars["open_time"].dt.date().cast(pl.String).sort()[-1]
            self.last_session = max(self.last_session, last)


def run_import(
    installation: Installation,
    out: Console,
    paths: Sequence[str],
    dataset_name: str,
    symbol: str | None,
    options: ImportOptions,
) -> None:
    """Read, publish, land, record, and say what to run next.

    One file is rejected without a trace; of several the others are imported. Raises `CommandError` for files that are
    rejected whole, or of which every row is, `UsageError` for options that make no sense.
    """
    dataset = installation.dataset(dataset_name)
    files = _files(dataset, paths, symbol, installation.universe.path)
    bring_up_to_date(installation, out)
    imports = imports_of(installation, dataset)
    totals, faults, notes = _Totals(), [], set()
    for file in files:
        try:
            imported = imports.read(file.path, file.symbol, options)
        except OptionError as error:
            raise UsageError(str(error)) from error
        except StructuralFault as error:
            faults.append(f"{file.path} was rejected: {error}")
            continue
        imports.publish(file.path, imported, options)
        totals.add(imported, imports.lander.partition_of)
        notes |= {imported.note} - {""}
        if len(files) > 1:
            _show_file(out, file, imported)
        if imported.bars.is_empty():
            faults.append(_all_rejected(file.path, imported, options))
    if totals.read:
        land(installation, dataset)
        _show(installation, out, dataset, totals, sorted(notes), len(files))
    if faults:
        raise CommandError("\n".join(faults))


def imports_of(installation: Installation, dataset: Dataset) -> Imports:
    """The imports of a dataset of this installation."""
    resources = installation.resources
    return Imports(dataset, resources.archive, resources.lander(dataset), resources.lake)


def land(installation: Installation, dataset: Dataset) -> None:
    """Land what is on the bus, record the partitions it touched, and bring rejected rows into quarantine."""
    from quantlytic_assets.services.clean import quarantine_rejected

    landed = installation.resources.lander(dataset).land()
    record_landing(installation, dataset, landed)
    quarantine_rejected(installation.resources, dataset)


def _files(dataset: Dataset, paths: Sequence[str], symbol: str | None, universe: Path) -> list[FoundFile]:
    """The files that are meant, each with the symbol of its bars: the given one, or that of its path.

    Raises `UsageError` for what is no file, and for symbols in paths that the dataset does not have.
    """
    try:
        files = find_files(paths)
        names = SymbolNames(dataset, symbol)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from error
    except OptionError as error:
        raise UsageError(str(error)) from error
    if names.only and any(file.symbol for file in files):
        raise UsageError("the symbol is said by --symbol and by {symbol} in the path; leave one of the two out")
    found = [replace(file, symbol=names.find(file.symbol) if file.symbol else symbol) for file in files]
    unknown = sorted({file.symbol for file, ours in zip(files, found, strict=True) if file.symbol and not ours.symbol})
    if unknown:
        raise UsageError(
            f"paths name symbols that {dataset.name} does not have: {', '.join(unknown)}; add them under "
            f"datasets.{dataset.name}.symbols in {universe}, or say which they are with --symbol OURS=THEIRS,…"
        )
    return found


def _show_file(out: Console, file: FoundFile, imported: ImportedFile) -> None:
    symbols = imported.bars["symbol"].unique().sort().to_list()
    of = f" ({', '.join(symbols[:5])}{' …' if len(symbols) > 5 else ''})" if symbols else ""
    say(out, f"{file.path}{of}: {imported.read} read, {len(imported.bars)} accepted, {len(imported.rejected)} refused")


def _all_rejected(path: Path, imported: ImportedFile, options: ImportOptions) -> str:
    """Why nothing of a file was taken: the first reasons with their lines, and what would take them."""
    shown = imported.rejected.head(_REASONS_SHOWN).rows(named=True)
    lines = [f"  line {row['line']}: {row['reason']}: {row['raw']}" for row in shown]
    more = len(imported.rejected) - len(lines)
    first = shown[0]
    return "\n".join(
        [
            f"{path}: every row was rejected",
            *lines,
            *([f"  and {more} more"] if more else []),
            advice(first["reason"], first["raw"], options),
        ]
    )


def _show(
    installation: Installation,
    out: Console,
    dataset: Dataset,
    totals: _Totals,
    notes: Sequence[str],
    files: int,
) -> None:
    if files > 1:
        say(out, f"{files} files of {len(totals.symbols)} symbols:")
    say(out, f"{totals.read} read, {totals.accepted} accepted, {totals.rejected} refused")
    if totals.rejected:
        say(out, f"why: quantlytic sql \"SELECT reason, raw FROM clean.quarantine WHERE dataset = '{dataset.name}'\"")
    for note in notes:
        say(out, note)
    strangers = sorted(totals.symbols - {one.symbol for one in dataset.symbols})
    if strangers:
        say(
            out,
            f"{', '.join(strangers)} is not among the symbols of {dataset.name} in {installation.universe.path}: "
            "its bars are archived, and will be quarantined until it is added there",
        )
    known = known_keys(dataset)
    # These are the files' figures, not the landing's: another process may have landed the rows.
    keys = [key for archived in totals.partitions if (key := deciding_key(dataset, archived, known))]
    if keys:
        begin = min(keys)
        say(out, f"next: quantlytic backfill {dataset.name} --from {begin} --to {max(totals.last_session, begin)}")


def say(out: Console, text: str) -> None:
    """Print a line as it is, however wide."""
    out.print(text, highlight=False, markup=False, soft_wrap=True)

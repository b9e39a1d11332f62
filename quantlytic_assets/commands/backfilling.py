"""`quantlytic backfill`: what is asked for is checked, then shown as a plan (`--dry-run`) or handed to `backfill`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.calendars import partitions
from quantlytic_assets.commands.installation import CommandError, UsageError, with_members
from quantlytic_assets.commands.migrating import bring_up_to_date
from quantlytic_assets.market_data.quality.fetch_plan import PLAN_SCHEMA
from quantlytic_assets.market_data.quality.retention import first_kept
from quantlytic_assets.tables import coverage as coverage_table

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation
    from quantlytic_assets.universe.models import Dataset
    from quantlytic_assets.vendors.cost import Cost

_RANGES_SHOWN = 50


@dataclass(frozen=True)
class Plan:
    """What a backfill would ask for: `ranges` (symbol, start, end, bars), what that costs, and what nobody serves."""

    ranges: pl.DataFrame
    costs: list[Cost]
    rejected: list[str]


def dry_run(
    installation: Installation, dataset: Dataset, keys: Sequence[str], symbols: Sequence[str], force: bool = False
) -> Plan:
    """The plan of a backfill of these partitions, in runs as the backfill makes them. Asks nobody."""
    ingest = installation.resources.ingest(dataset)
    needs = [
        ingest.need(span.first, date.fromordinal(span.last.toordinal() - 1), symbols, force)
        for span in partitions.windows(dataset, keys, installation.settings.backfill_chunk)
    ]
    ranges = pl.concat([need.ranges for need in needs]) if needs else pl.DataFrame(schema=PLAN_SCHEMA)
    costs, rejected = ingest.costs(ranges)
    return Plan(ranges, costs, rejected)


def check_symbols(dataset: Dataset, symbols: Sequence[str]) -> None:
    """Raise `UsageError` for a symbol that the dataset does not have."""
    known = [one.symbol for one in dataset.symbols]
    unknown = [symbol for symbol in symbols if symbol not in known]
    if unknown:
        raise UsageError(f"{dataset.name} has no symbol {', '.join(unknown)}; it has {', '.join(known)}")


def run_backfill(
    installation: Installation,
    out: Console,
    name: str,
    first: date | None,
    last: date | None,
    symbols: Sequence[str],
    only_plan: bool,
    restart: bool,
    force: bool = False,
) -> None:
    """The command: backfill a dataset with its strategies, or one strategy; list the holes that remain, then results.

    A dataset that is named without sessions, symbols and `force` has made what is missing or out of date, and nothing
    else, as have its strategies. What is asked for by sessions or symbols is made anew.

    `restart` forgets the named strategy's simulated trades first; `force` asks again for what is archived or a known
    hole of the vendor's. Raises `CommandError` when a run failed, `UsageError` for a name, range or symbol that does
    not exist.
    """
    named = installation.dataset_or_strategy(name)
    dataset, strategies = named.dataset, named.strategies
    check_symbols(dataset, symbols)
    if restart and not (named.is_strategy and not strategies[0].at_broker):
        raise UsageError("--restart is for one strategy with broker: simulated; name that strategy")
    if force and named.is_strategy:
        raise UsageError(f"--force asks vendors for bars; name the dataset: quantlytic backfill {dataset.name} --force")
    if first and last and first > last:
        raise UsageError(f"--from {first} is after --to {last}")
    keys = partitions.keys_between(dataset, first or first_kept(dataset, datetime.now(UTC).date()), last)
    if not keys:
        known = partitions.known_keys(dataset)
        there = (
            f"its partitions go from {known[0]} to {known[-1]}" if known else f"it begins on {dataset.first_session}"
        )
        raise UsageError(f"{dataset.name} has no session there; {there}")
    if only_plan:
        _show_plan(out, dataset, dry_run(installation, dataset, keys, symbols, force), len(keys))
        return
    bring_up_to_date(installation, out)
    # The asset graph, and dbt with it, takes seconds to import.
    from quantlytic_assets.commands.backfill import Backfill
    from quantlytic_assets.commands.results import show_results

    backfill = Backfill(installation, out)
    exact = not (named.is_strategy or first or last or symbols or force)
    if exact:
        backfill.missing(dataset)
    else:
        backfill.dataset(dataset, first, last, symbols, only_pending=named.is_strategy, force=force)
    if restart:
        _forget_trades(installation, name)
    traded = with_members(strategies)
    for strategy in traded:
        if not backfill.outcome.failures:
            backfill.strategy(strategy, first, last, only_pending=exact)
    outcome = backfill.outcome
    out.print(
        f"{outcome.partitions} partitions materialized, {outcome.requests} vendor requests, "
        f"{len(outcome.failures)} failures",
        highlight=False,
    )
    if exact and not outcome.partitions:
        out.print(f"nothing was missing or out of date; --from {keys[0]} makes all of it anew", highlight=False)
    _show_holes(installation, out, dataset, first, last)
    show_results(installation, out, traded, first, last)
    if outcome.failures:
        raise CommandError("\n".join(outcome.failures))


def _forget_trades(installation: Installation, strategy: str) -> None:
    installation.resources.accounts.reset(strategy)
    tables = ("trading.events", "trading.orders", "trading.fills", "trading.positions", "trading.equity")
    installation.resources.lake.replace([(table, "strategy = ?", [strategy], pl.DataFrame()) for table in tables])


def _show_plan(out: Console, dataset: Dataset, plan: Plan, keys: int) -> None:
    bars = int(plan.ranges["bars"].sum())
    said = [f"{cost.requests:,} requests to {cost.vendor}, about {_length(cost.seconds)}" for cost in plan.costs]
    vendors = "; ".join(said) or ("0 requests" if dataset.vendors else "no vendor (imports and feeds only)")
    symbols = plan.ranges["symbol"].n_unique()
    out.print(
        f"{dataset.name}: {keys} partitions, {bars:,} bars missing of {symbols} symbols; {vendors}",
        highlight=False,
        soft_wrap=True,
    )
    for row in plan.ranges.head(_RANGES_SHOWN).iter_rows(named=True):
        out.print(
            f"  {row['symbol']}  {row['start']:%Y-%m-%d %H:%M} to {row['end']:%Y-%m-%d %H:%M} UTC  "
            f"{row['bars']:,} bars",
            highlight=False,
        )
    if len(plan.ranges) > _RANGES_SHOWN:
        out.print(f"  and {len(plan.ranges) - _RANGES_SHOWN} more")
    for rejected in plan.rejected[:_RANGES_SHOWN]:
        out.print(f"  not served: {rejected}", highlight=False, soft_wrap=True)


def _length(seconds: float) -> str:
    """A length of time for people."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _show_holes(
    installation: Installation, out: Console, dataset: Dataset, first: date | None, last: date | None
) -> None:
    # `last` is among the sessions asked about.
    before = last + timedelta(days=1) if last else None
    rows = coverage_table.holes(installation.resources.lake, dataset.name, first, before)
    if rows.is_empty():
        out.print("no holes")
        return
    out.print("holes that remain (`quantlytic gaps` has the ranges):")
    for row in rows.iter_rows(named=True):
        out.print(
            f"  {row['symbol']}: {row['bars']:,} bars in {row['sessions']:,} sessions, {row['cause']}", highlight=False
        )

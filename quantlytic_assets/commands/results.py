"""What strategies have come to, as `demo` and `backfill` end: signals, figures, and what these mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING

import dagster as dg
from rich.table import Table

from quantlytic_assets.commands.reports import report_file
from quantlytic_assets.definitions import strategy_keys
from quantlytic_assets.tables.signals import newest_signals, signal_counts
from quantlytic_assets.trading.figures import legend, shown

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation
    from quantlytic_assets.universe.models import Strategy


def show_results(
    installation: Installation,
    out: Console,
    strategies: Iterable[Strategy],
    first: date | None = None,
    last: date | None = None,
) -> None:
    """Print each strategy's signals and newest performance beside buy and hold, then once what each figure means."""
    names: dict[str, None] = {}
    for strategy in strategies:
        # A bot has none.
        if not strategy.bar_by_bar:
            _show_signals(installation, out, strategy, first, last)
        names |= dict.fromkeys(_show_strategy(installation, out, strategy))
    if names:
        out.print(legend(names), highlight=False, style="dim")


def _show_signals(
    installation: Installation, out: Console, strategy: Strategy, first: date | None, last: date | None
) -> None:
    """Print how many signals of each kind the sessions `first` … `last` have, and the newest one of each symbol."""
    lake = installation.resources.lake
    before = last + timedelta(days=1) if last else None
    counts = signal_counts(lake, strategy.name, since=first, before=before)
    kinds = ", ".join(f"{int(counts[name].sum()):,} {name}" for name in ("buys", "sells", "holds"))
    table = Table(
        "symbol", "session", "signal", "strength", "reason", title=f"{strategy.name} on {strategy.dataset}: {kinds}"
    )
    for row in newest_signals(lake, strategy.name).iter_rows(named=True):
        table.add_row(row["symbol"], str(row["session"]), row["signal"], f"{row['strength']:.2f}", row["reason"])
    out.print(table)


def _show_strategy(installation: Installation, out: Console, strategy: Strategy) -> list[str]:
    """Print one strategy; returns the names of the figures shown."""
    event = installation.instance.get_latest_materialization_event(strategy_keys(strategy)["performance"])
    materialization = event.asset_materialization if event else None
    if event is None or materialization is None:
        out.print(f"{strategy.name}: no report yet", highlight=False)
        return []
    metadata = materialization.metadata
    title = f"{strategy.name} on {strategy.dataset}, {strategy.broker}"
    names = _print_statistics(out, metadata, strategy.name, title)
    forecast = {
        name.removeprefix("forecast/"): _number(value.value)
        for name, value in metadata.items()
        if name.startswith("forecast/")
    }
    if forecast:
        line = ", ".join(f"{name} {shown(name, value)}" for name, value in forecast.items())
        out.print(f"forecasts out of sample: {line}", highlight=False)
    path = report_file(installation, strategy, event.timestamp)
    served = installation.resources.links.report(strategy.name)
    out.print(f"report: {path}   while `quantlytic serve` runs: {served}", highlight=False, soft_wrap=True)
    return [*names, *forecast]


def _print_statistics(out: Console, metadata: Mapping[str, dg.MetadataValue], name: str, title: str) -> list[str]:
    """Print an account's figures beside those of buying and holding; returns their names."""
    table, names = Table("", name, "buy and hold", title=title), []
    statistics = metadata["statistics"]
    for record in statistics.records if isinstance(statistics, dg.TableMetadataValue) else ():
        row = record.data
        figure = str(row["statistic"])
        table.add_row(figure, *(shown(figure, _number(row[account])) for account in ("strategy", "buy_and_hold")))
        names.append(figure)
    out.print(table)
    return names


def _number(text: object) -> float | None:
    """A figure as the asset's metadata has it: text, which is no number where the figure is not defined."""
    try:
        return float(str(text))
    except ValueError:
        return None

"""`quantlytic backtest` and `quantlytic optimize`: a rule strategy on history, nothing in the ledger."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from quantlytic_assets.charts.account_report import search_page, write_report
from quantlytic_assets.commands.inspection import print_json
from quantlytic_assets.commands.installation import CommandError, Installation, UsageError
from quantlytic_assets.services.backtest import (
    Backtest,
    BacktestError,
    decider,
    record,
    record_search,
    run_backtest,
    run_search,
)
from quantlytic_assets.strategies.spec import RuleError
from quantlytic_assets.trading.backtest.changes import axes_of, changed, grid, parsed
from quantlytic_assets.trading.backtest.search import Search, walked_forward
from quantlytic_assets.trading.figures import legend, shown

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.universe.models import Strategy

_SHOWN_POINTS = 20
_HIDDEN = ("sharpe_session",)
# How often a backtest says that it has got on.
_STEPS = 3


def show_backtest(
    installation: Installation,
    out: Console,
    name: str,
    first: date | None,
    last: date | None,
    settings: Sequence[str],
    report: Path | None,
    as_json: bool,
) -> None:
    """Run a backtest, keep it as a row of trading.backtests, and print its figures, its review and its report's place.

    Raises `UsageError` for a strategy, session or setting that there is not, and `CommandError` where it can't be made.
    """
    with _progress(out, as_json) as progress:
        task = progress.add_task(f"{name}: bars are read, traded and judged", total=_STEPS)
        try:
            result = _made(installation, name, first, last, _changes(settings), advance=lambda: progress.advance(task))
        except (BacktestError, RuleError) as error:
            raise CommandError(str(error)) from error
    path = report or _reports(installation) / f"{name}-{result.backtest_id}.html"
    result.report(path)
    if as_json:
        print_json(
            {
                "backtest_id": result.backtest_id,
                "strategy": name,
                "statistics": result.statistics,
                "buy_and_hold": result.held_statistics,
                "findings": [{"code": one.code, "severity": one.severity, "text": one.text} for one in result.findings],
                "settings": json.loads(json.dumps(result.settings, default=str)),
                "report": str(path),
            }
        )
        return
    _print_backtest(out, result, path)


def show_search(
    installation: Installation,
    out: Console,
    name: str,
    texts: Sequence[str],
    first: date | None,
    last: date | None,
    settings: Sequence[str],
    walk_forward: bool,
    workers: int | None,
    report: Path | None,
    as_json: bool,
    trials: int | None = None,
) -> None:
    """Try a grid of settings, or `trials` of its points, and print what the best one is worth.

    Each point is kept as a row of trading.backtests.

    Raises `UsageError` for a grid, strategy or setting that there is not, and `CommandError` where it can't be made.
    """
    strategy = _strategy(installation, name, _changes(settings))
    _check_days(first, last)
    with _progress(out, as_json) as progress:
        try:
            axes = axes_of(texts)
            count = len(grid(axes)) if trials is None else trials
            task = progress.add_task(f"{name}: {count:,} points", total=count)
            search = _searched(
                installation, strategy, axes, first, last,
                trials=trials, workers=workers, advance=lambda: progress.advance(task),
            )  # fmt: skip
        except (BacktestError, RuleError) as error:
            raise CommandError(str(error)) from error
        except ValueError as error:
            raise UsageError(str(error)) from error
    walked = walked_forward(search) if walk_forward else None
    path = report or _reports(installation) / f"{name}-search-{datetime.now(UTC):%Y%m%dT%H%M%S}.html"
    write_report(path, search_page(name, search, walked))
    if as_json:
        print_json(_as_json(name, search, walked) | {"report": str(path)})
        return
    _print_search(out, name, search, walked)
    if trials is None and len(search.points) < count:
        out.print(f"{count - len(search.points):,} points were left out: their parameters do not go together")
    out.print(f"report: {path}", highlight=False, soft_wrap=True)


def _progress(out: Console, as_json: bool) -> Progress:
    """A bar that goes when its work is done; none where the output is for a program."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=out, transient=True, disable=as_json or not out.is_terminal,
    )  # fmt: skip


def _reports(installation: Installation) -> Path:
    return installation.settings.directory("reports") / "backtests"


def made_backtest(name: str, start: str | date | None, end: str | date | None, changes: Mapping[str, Any]) -> Backtest:
    """A backtest in the installation of the environment, kept as a row of trading.backtests.

    Raises `UsageError`, `BacktestError` and `RuleError`.
    """
    return _made(Installation(), name, _day("start", start), _day("end", end), changes)


def _made(
    installation: Installation,
    name: str,
    first: date | None,
    last: date | None,
    changes: Mapping[str, Any],
    advance: Callable[[], None] = lambda: None,
) -> Backtest:
    strategy = _strategy(installation, name, changes)
    _check_days(first, last)
    lake = installation.resources.lake
    dataset = installation.universe.datasets[strategy.dataset]
    result = run_backtest(lake, dataset, strategy, first, last, advance=advance)
    record(lake, [result])
    return result


def made_search(
    name: str,
    grid: Mapping[str, Sequence[Any]],
    trials: int | None,
    start: str | date | None,
    end: str | date | None,
    changes: Mapping[str, Any],
) -> Search:
    """A search in the installation of the environment, each point kept as a row of trading.backtests.

    Raises `UsageError`, `BacktestError`, `RuleError`, and `ValueError` for a setting that there is not.
    """
    installation = Installation()
    strategy, first, last = _strategy(installation, name, changes), _day("start", start), _day("end", end)
    _check_days(first, last)
    return _searched(installation, strategy, grid, first, last, trials=trials)


def _searched(
    installation: Installation,
    strategy: Strategy,
    axes: Mapping[str, Sequence[Any]],
    first: date | None,
    last: date | None,
    **how: Any,
) -> Search:
    """A search (`run_search`, which `how` is for), each point kept as a row of trading.backtests."""
    lake, dataset = installation.resources.lake, installation.universe.datasets[strategy.dataset]
    found = run_search(lake, dataset, strategy, axes, first, last, **how)
    record_search(lake, strategy, found)
    return found


def _changes(settings: Sequence[str]) -> dict[str, Any]:
    try:
        return dict(map(parsed, settings))
    except ValueError as error:
        raise UsageError(str(error)) from error


def _day(name: str, day: str | date | None) -> date | None:
    try:
        return date.fromisoformat(day) if isinstance(day, str) else day
    except ValueError as error:
        raise UsageError(f"{name}={day!r} is no day; write it as 2012-01-31") from error


def _strategy(installation: Installation, name: str, changes: Mapping[str, Any]) -> Strategy:
    strategies = installation.universe.strategies
    if name not in strategies:
        there = ", ".join(strategies) or "none"
        raise UsageError(f"no strategy {name!r} in {installation.universe.path}; there are: {there}")
    strategy = strategies[name]
    try:
        rule, changed_settings = changed(strategy.rule, strategy.settings, changes)
        made = replace(strategy, rule=rule, settings=changed_settings)
        decider(made)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return made


def _check_days(first: date | None, last: date | None) -> None:
    if first and last and last < first:
        raise UsageError(f"--to {last} is before --from {first}")


def _print_backtest(out: Console, result: Backtest, path: Path) -> None:
    curve = result.curve
    sessions = f"{len(curve):,} sessions, {curve['session'][0]} to {curve['session'][-1]}"
    table = Table("", result.strategy, "buy and hold", title=f"{result.strategy} on {result.dataset}: {sessions}")
    names = [name for name in result.statistics if name not in _HIDDEN]
    for name in names:
        held = result.held_statistics.get(name)
        table.add_row(name, shown(name, result.statistics[name]), "" if held is None else shown(name, held))
    out.print(table)
    out.print(legend(names), highlight=False, style="dim")
    if len(result.random_returns):
        own = result.statistics["total_return"] or 0.0
        better = float((result.random_returns >= own).mean())
        out.print(
            f"The same targets at {len(result.random_returns)} random other times made "
            f"{np.median(result.random_returns):.2%} in the middle; {better:.0%} made as much as the strategy or more.",
            highlight=False,
            soft_wrap=True,
        )
    for said in result.verdict:
        out.print(said, highlight=False, soft_wrap=True)
    for finding in result.findings:
        out.print(f"{finding.severity}: {finding.text}", highlight=False, soft_wrap=True)
    out.print(f"report: {path}", highlight=False, soft_wrap=True)


def _print_search(out: Console, name: str, search: Search, walked: np.ndarray | None) -> None:
    ranked = search.table.sort("in_sample", descending=True).head(_SHOWN_POINTS)
    table = Table(title=f"{name}: {len(search.points):,} points, chosen on the sessions before {search.split}")
    for column in ranked.columns:
        table.add_column(column, justify="right")
    for row in ranked.iter_rows(named=True):
        table.add_row(*(_cell(column, value) for column, value in row.items()))
    out.print(table)
    best = search.table.row(search.best, named=True)
    said = ", ".join(f"{path}={value}" for path, value in search.points[search.best].items())
    out.print(
        f"best in sample: {said}; Sharpe ratio a session {best['in_sample']:.4f} before {search.split}, "
        f"{best['out_of_sample']:.4f} from then on",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if search.overfitting is None:
        out.print("probability of backtest overfitting: undefined, with too few sessions or points", highlight=False)
    else:
        told = search.overfitting.probability
        out.print(f"probability of backtest overfitting: {told:.0%} (above 50 % the choice is noise)", highlight=False)
    if walked is not None:
        total = float(np.prod(1 + walked) - 1) if len(walked) else float("nan")
        out.print(
            f"walk-forward: choosing anew from all sessions before made {total:.2%} in {len(walked):,} sessions",
            highlight=False,
        )


def _as_json(name: str, search: Search, walked: np.ndarray | None) -> dict[str, Any]:
    told: dict[str, Any] = {
        "strategy": name,
        "points": search.table.to_dicts(),
        "split": search.split.isoformat(),
        "best": search.table.row(search.best, named=True),
        "overfitting": None if search.overfitting is None else search.overfitting.probability,
    }
    if walked is not None:
        told["walk_forward"] = {"sessions": len(walked), "total_return": float(np.prod(1 + walked) - 1)}
    return told


def _cell(column: str, value: Any) -> str:
    if column == "total_return":
        return f"{value:.2%}"
    if column in ("sharpe", "in_sample", "out_of_sample"):
        return f"{value:.4f}"
    return str(value)

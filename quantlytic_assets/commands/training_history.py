"""Whether a walk-forward step has enough sessions before it to learn from, and what is missing where it has not."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.calendars import partitions
from quantlytic_assets.calendars.sessions import session_table
from quantlytic_assets.learning.features import resolve_features
from quantlytic_assets.learning.splits import training_rows
from quantlytic_assets.tables.coverage import holes_by_cause
from quantlytic_assets.tables.features import trainable_sessions

if TYPE_CHECKING:
    from quantlytic_assets.storage.lake import Lake
    from quantlytic_assets.universe.models import Dataset, ModelStrategy

# What can be done about bars that are missing for a cause; about the others nothing can.
_HELP = {
    "not_fetched": "quantlytic backfill {dataset} --from {first} --to {last}",
    "vendor_hole": "quantlytic backfill {dataset} --force --from {first} --to {last}",
    "unknown": "quantlytic import PATH --dataset {dataset} --symbol {symbol}",
}


def training_sessions(lake: Lake, dataset: Dataset, strategy: ModelStrategy, steps: Sequence[str]) -> dict[str, int]:
    """Step to the number of sessions before it that its model could learn from, counted as training itself does."""
    if not steps:
        return {}
    rows = _trainable(lake, strategy)
    sessions = session_table(dataset.calendar, dataset.first_session, date.fromisoformat(max(steps)))["session"]
    counts = {}
    for step in steps:
        cut = datetime.combine(date.fromisoformat(step), datetime.min.time(), UTC)
        kept = training_rows(rows, cut, strategy.embargo_sessions, sessions, min_train_sessions=0)
        counts[step] = kept["session"].n_unique()
    return counts


def explain_shortage(
    lake: Lake, dataset: Dataset, strategy: ModelStrategy, short: dict[str, int], materialized: Collection[str]
) -> list[str]:
    """Lines that say which steps have no model, why, and the command or change that would help.

    short: steps with too few training sessions, and how many they have. materialized: keys of the partitions whose
    features are there.
    """
    needed = strategy.min_train_sessions
    steps = ", ".join(f"{step} ({count} of {needed})" for step, count in short.items())
    lines = [f"{strategy.name}: too few training sessions for a model of {steps}"]
    last = date.fromisoformat(max(short)) - timedelta(days=1)
    keys = partitions.keys_between(dataset, None, last)
    lacking = [key for key in keys if key not in materialized]
    if lacking:
        lines.append(
            f"features of {len(lacking)} partitions, {lacking[0]} to {lacking[-1]}, are not materialized; run: "
            f"quantlytic backfill {dataset.name} --from {lacking[0]} --to {min(last, _last_day(dataset, lacking[-1]))}"
        )
    lines += _holes(lake, dataset, strategy, last)
    first = _trainable(lake, strategy)["session"].min()
    if first is not None:
        lines.append(f"the first session to learn from is {first}: not all features of the strategy are defined before")
    most = max(short.values())
    if most:
        lines.append(f"or set strategies.{strategy.name}.min_train_sessions to {most} or less")
    return [lines[0], *(f"  {line}" for line in lines[1:])]


def _trainable(lake: Lake, strategy: ModelStrategy) -> pl.DataFrame:
    """session, available_at, label_available_at: of each session with a row to learn from, the earliest times."""
    return trainable_sessions(
        lake,
        strategy.dataset,
        strategy.interval,
        strategy.horizon,
        resolve_features(strategy.features),
        symbols=strategy.symbols,
    )


def _holes(lake: Lake, dataset: Dataset, strategy: ModelStrategy, last: date) -> list[str]:
    """Bars that the strategy's symbols lack up to a session, by cause, with the command that would get them."""
    rows = holes_by_cause(lake, dataset.name, strategy.symbols, before=last + timedelta(days=1))
    lines = []
    for row in rows.iter_rows(named=True):
        said = (
            f"{row['bars']:,} bars of {dataset.name} are missing in {row['sessions']:,} sessions, {row['first']} to "
            f"{row['last']} ({row['cause']})"
        )
        help_ = _HELP.get(row["cause"], "").format(dataset=dataset.name, **row)
        lines.append(f"{said}; run: {help_}" if help_ else said)
    return lines


def _last_day(dataset: Dataset, key: str) -> date:
    """The last day that a partition can hold a session of."""
    (window,) = partitions.windows(dataset, [key])
    return window.last - timedelta(days=1)

"""A dataset's partitions: which sessions each holds, and the same as Dagster's time-window definitions.

A partition's key is the ISO date of its first day: the session itself, or the first of a month. Dagster is imported
where definitions are made only: reading the lake goes without.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.calendars.sessions import ROUND_THE_CLOCK, assign_sessions, expected_bars, session_table
from quantlytic_assets.universe.models import Dataset, Strategy

if TYPE_CHECKING:
    import dagster as dg

# Dagster shows a day's partition when the day has ended, and its `end_offset` invents Mondays on Saturdays where
# days are excluded. Counted in the zone where days end first, a day is over at 10:00 UTC: before New York opens.
_FIRST_ZONE = "Pacific/Kiritimati"

# sma_200 is the longest window of the indicators.
_WARM_UP_BARS = 200


@dataclass(frozen=True)
class Window:
    """A stretch of partitions: keys, and the sessions [first, last) they hold.

    `reaches_back` / `reaches_on` say that everything filed before / after it in the archive is decided here too,
    because no partition comes before / after.
    """

    keys: tuple[str, ...]
    first: date
    last: date
    reaches_back: bool = False
    reaches_on: bool = False

    def condition(self, column: str = "session") -> tuple[str, list]:
        """SQL for the rows whose session is decided in this window, with its parameters."""
        parts, parameters = [], []
        if not self.reaches_back:
            parts.append(f"{column} >= ?")
            parameters.append(self.first)
        if not self.reaches_on:
            parts.append(f"{column} < ?")
            parameters.append(self.last)
        return " AND ".join(parts) or "true", parameters


def timezone_of(dataset: Dataset) -> str:
    """The zone in which the dataset's partitions are counted."""
    return "UTC" if dataset.calendar == ROUND_THE_CLOCK or dataset.partition == "month" else _FIRST_ZONE


def partition_key(dataset: Dataset, session: date) -> str:
    """The key of the partition that holds a session."""
    return (session.replace(day=1) if dataset.partition == "month" else session).isoformat()


def definition(dataset: Dataset) -> dg.TimeWindowPartitionsDefinition:
    """The dataset's partitions for Dagster; the running session or month is among them."""
    import dagster as dg

    if dataset.partition == "month":
        end = _next_month(dataset.last_session) if dataset.last_session else None
        return dg.MonthlyPartitionsDefinition(
            start_date=dataset.first_session.replace(day=1).isoformat(),
            end_date=end.isoformat() if end else None,
            end_offset=1,
        )
    end = dataset.last_session + timedelta(days=1) if dataset.last_session else None
    if dataset.calendar == ROUND_THE_CLOCK:
        return dg.DailyPartitionsDefinition(
            start_date=dataset.first_session.isoformat(),
            end_date=end.isoformat() if end else None,
            end_offset=1,
        )
    return dg.DailyPartitionsDefinition(
        start_date=dataset.first_session.isoformat(),
        end_date=end.isoformat() if end else None,
        timezone=_FIRST_ZONE,
        exclusions=[*_closed_days(dataset.calendar, dataset.first_session, dataset.last_session or _last_known())],
    )


def _last_known() -> date:
    return date(date.today().year + 1, 12, 31)


@lru_cache(maxsize=64)
def _closed_days(calendar: str, first: date, last: date) -> tuple[str | datetime, ...]:
    """Days without a session from a dataset's first one on, as far as the calendar knows."""
    known = session_table(calendar, first, last)["session"]
    days = pl.date_range(first, last, "1d", eager=True)
    closed = days.filter(~days.is_in(known.implode()))
    weekend = closed.dt.weekday() >= 6
    always_closed = not any(day.weekday() >= 5 for day in known)
    if not always_closed:
        return tuple(datetime(day.year, day.month, day.day) for day in closed)
    holidays = closed.filter(~weekend)
    return ("0 0 * * 6", "0 0 * * 0", *(datetime(day.year, day.month, day.day) for day in holidays))


def _next_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def known_keys(dataset: Dataset, now: datetime | None = None) -> list[str]:
    """All partition keys up to `now`, oldest first."""
    return list(definition(dataset).get_partition_keys(current_time=now or datetime.now(UTC)))


def keys_between(dataset: Dataset, first: date | None, last: date | None) -> list[str]:
    """Known keys of the partitions that hold a session of `first` … `last` (inclusive, either may be open)."""
    low = partition_key(dataset, first) if first else ""
    high = last.isoformat() if last else "9999"
    return [key for key in known_keys(dataset) if low <= key <= high]


def windows(dataset: Dataset, keys: Iterable[str], most: int | None = None) -> list[Window]:
    """Neighbouring keys gathered into windows of at most `most` keys, oldest first."""
    known = known_keys(dataset)
    at = {key: i for i, key in enumerate(known)}
    found: list[Window] = []
    run: list[str] = []
    for key in sorted(set(keys)):
        if key not in at:
            raise ValueError(f"{dataset.name} has no partition {key}; it has {known[0]} to {known[-1]}")
        if run and (at[key] != at[run[-1]] + 1 or (most and len(run) >= most)):
            found.append(_window(dataset, run, known))
            run = []
        run.append(key)
    return [*found, _window(dataset, run, known)] if run else found


def _window(dataset: Dataset, keys: list[str], known: list[str]) -> Window:
    end = date.fromisoformat(keys[-1])
    last = _next_month(end) if dataset.partition == "month" else end + timedelta(days=1)
    is_last = keys[-1] == known[-1] and dataset.last_session is not None
    return Window(tuple(keys), date.fromisoformat(keys[0]), last, keys[0] == known[0], is_last)


def with_partition(frame: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    """`frame` with the key of each row's `session` in `partition`."""
    start = pl.col("session").dt.truncate("1mo") if dataset.partition == "month" else pl.col("session")
    return frame.with_columns(start.dt.to_string("%Y-%m-%d").alias("partition"))


def archive_keys(frame: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    """`frame` with the archive key of each bar in `partition`: where its own session belongs, known or not."""
    placed = assign_sessions(frame, dataset.calendar)
    # In years that the calendar does not know a bar is filed under its own day.
    own = pl.coalesce("session", pl.col("open_time").dt.date())
    return with_partition(placed.with_columns(own.alias("session")), dataset).drop("session")


def deciding_key(dataset: Dataset, archived: str, known: list[str]) -> str | None:
    """The Dagster partition in which an archive key is cleaned: itself, or the nearest where none is its own."""
    if not known or (archived > known[-1] and dataset.last_session is None):
        return None
    return known[max(0, bisect_right(known, archived) - 1)]


def model_definition(dataset: Dataset, strategy: Strategy) -> dg.TimeWindowPartitionsDefinition:
    """The walk-forward steps of a strategy: a model trained before each, used within it."""
    import dagster as dg

    first = first_trading_day(dataset, strategy)
    yearly = strategy.retrain == "yearly"
    end = None
    if dataset.last_session is not None:
        end = date(dataset.last_session.year + 1, 1, 1) if yearly else _next_month(dataset.last_session)
    return dg.TimeWindowPartitionsDefinition(
        start=first.isoformat(),
        end=end.isoformat() if end else None,
        fmt="%Y-%m-%d",
        cron_schedule="0 0 1 1 *" if yearly else "0 0 1 * *",
        timezone=timezone_of(dataset),
        end_offset=1,
    )


def partitions_before(dataset: Dataset, strategy: Strategy) -> dg.TimeWindowPartitionMapping:
    """From a walk-forward step to all of the dataset's partitions before it."""
    import dagster as dg

    # Dagster takes time for each step back, so no more than the dataset spans.
    years = (dataset.last_session or _last_known()).year - dataset.first_session.year + 1
    steps = years if strategy.retrain == "yearly" else 12 * years
    return dg.TimeWindowPartitionMapping(start_offset=-steps, end_offset=-1, allow_nonexistent_upstream_partitions=True)


def first_trading_day(dataset: Dataset, strategy: Strategy) -> date:
    """First day of the first walk-forward step that can have `min_train_sessions` of complete rows before it.

    Before those lie the sessions in which the longest indicator window fills, after them the horizon and the embargo.
    """
    needed = _sessions_needed(dataset, strategy)
    last = dataset.last_session or _last_known()
    sessions = session_table(dataset.calendar, dataset.first_session, last)["session"]
    if len(sessions) <= needed:
        raise ValueError(
            f"strategies.{strategy.name}.min_train_sessions: {strategy.min_train_sessions} sessions to train on need "
            f"{needed} with warm-up and embargo, but {dataset.name} has {len(sessions)} in all; lower it"
        )
    # The step of the first session after enough of them counts if all those lie before it, else the next one does.
    enough = sessions[needed]
    step = enough.replace(month=1, day=1) if strategy.retrain == "yearly" else enough.replace(day=1)
    if sessions[needed - 1] >= step:
        step = date(step.year + 1, 1, 1) if strategy.retrain == "yearly" else _next_month(step)
    if dataset.last_session is not None and step > dataset.last_session:
        raise ValueError(
            f"strategies.{strategy.name}.min_train_sessions: with {strategy.min_train_sessions} sessions to train on "
            f"the first {strategy.retrain} step would begin on {step}, after {dataset.name}'s last session; lower it"
        )
    return step


def _sessions_needed(dataset: Dataset, strategy: Strategy) -> int:
    """Sessions before a walk-forward step: to learn from, with warm-up, horizon and embargo."""
    per_session = _bars_per_session(dataset, strategy.interval)
    bars = _WARM_UP_BARS + strategy.horizon + 1
    return strategy.min_train_sessions + strategy.embargo_sessions + -(-bars // per_session)


def check_keep(dataset: Dataset, strategy: Strategy) -> None:
    """Raise `ValueError` where the dataset keeps less than the strategy's running step is to be trained on."""
    if dataset.keep is None:
        return
    needed, step = _sessions_needed(dataset, strategy), 366 if strategy.retrain == "yearly" else 31
    today = date.today()
    # The step may have begun as long ago as it is.
    begun = today - timedelta(days=step)
    kept = session_table(dataset.calendar, today - dataset.keep, begun)
    if len(kept) >= needed:
        return
    before = session_table(dataset.calendar, begun - timedelta(days=2 * needed + 60), begun)["session"]
    least = (today - before[-needed]).days + 1
    raise ValueError(
        f"datasets.{dataset.name}.keep: {dataset.keep.days}d is too short for strategies.{strategy.name}, which trains "
        f"on {needed} sessions (warm-up and embargo included) before a {strategy.retrain} step; take {least}d or more"
    )


def _bars_per_session(dataset: Dataset, interval: str) -> int:
    if interval == "1d":
        return 1
    first = dataset.first_session
    sample = expected_bars(dataset.calendar, interval, first, first + timedelta(days=13))
    return max(1, len(sample) // max(1, sample["session"].n_unique()))


def trading_definition(dataset: Dataset, strategy: Strategy) -> dg.TimeWindowPartitionsDefinition:
    """The dataset's partitions from the strategy's first step on: those it predicts and trades in."""
    start = first_trading_day(dataset, strategy)
    return definition(replace(dataset, first_session=start))

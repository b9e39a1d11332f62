"""A dataset's partitions, from its session table: their keys, and which sessions each holds.

A partition's key is the ISO date of its first day: the session itself, or the first of a month. Dagster's definitions
of the same partitions are in `assets.partitions`; nothing here needs Dagster.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import polars as pl

from quantlytic_assets.calendars.sessions import ROUND_THE_CLOCK, assign_sessions, expected_bars, session_table
from quantlytic_assets.universe.models import Dataset, ModelStrategy, PortfolioStrategy, Strategy

# Dagster shows a day's partition when the day has ended, and its `end_offset` invents Mondays on Saturdays where
# days are excluded. Counted in the zone where days end first, a day is over at 10:00 UTC: before New York opens.
_FIRST_ZONE = "Pacific/Kiritimati"


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

    @property
    def since(self) -> date | None:
        """The first session decided here; None where all before is too."""
        return None if self.reaches_back else self.first

    @property
    def before(self) -> date | None:
        """The first session no longer decided here; None where all after is too."""
        return None if self.reaches_on else self.last

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


def span_of(dataset: Dataset, key: str) -> tuple[date, date]:
    """First day and the day after the last one of a partition, without Dagster; `LookupError` where there is none."""
    try:
        first = date.fromisoformat(key)
    except ValueError:
        raise LookupError(f"{key!r} is no partition key: take the ISO date of a partition's first day") from None
    begin = date.fromisoformat(partition_key(dataset, dataset.first_session))
    end = dataset.last_session or datetime.now(UTC).date()
    kind = "month" if dataset.partition == "month" else "session"
    if not begin <= first <= end:
        raise LookupError(f"{dataset.name} has no {kind} {key}: it goes from {begin} to {end}")
    if partition_key(dataset, first) != key or (
        kind == "session" and session_table(dataset.calendar, first, first).is_empty()
    ):
        raise LookupError(f"{dataset.name} has no {kind} {key}: {dataset.calendar} has no such {kind}")
    return first, next_month(first) if kind == "month" else first + timedelta(days=1)


def last_known() -> date:
    """The last day that an open-ended dataset is planned for: the end of next year."""
    return date(date.today().year + 1, 12, 31)


def next_month(day: date) -> date:
    """The first of the month after that of a day."""
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def known_keys(dataset: Dataset, now: datetime | None = None) -> list[str]:
    """All partition keys up to `now` (default: this moment), oldest first; the running session or month is among them.

    They are those of Dagster's definition, without Dagster.
    """
    local = _local(dataset, now)
    if dataset.partition == "month":
        return _begun(dataset.first_session.replace(day=1), "1mo", dataset.last_session, local)
    if dataset.calendar == ROUND_THE_CLOCK:
        return _begun(dataset.first_session, "1d", dataset.last_session, local)
    ended = local.date() - timedelta(days=1)
    last = min(dataset.last_session or ended, ended)
    return session_table(dataset.calendar, dataset.first_session, last)["session"].dt.to_string().to_list()


def _local(dataset: Dataset, now: datetime | None) -> datetime:
    """A moment on the clock that the dataset's partitions are counted by, without its zone."""
    return (now or datetime.now(UTC)).astimezone(ZoneInfo(timezone_of(dataset))).replace(tzinfo=None)


def _begun(first: date, step: str, last: date | None, local: datetime) -> list[str]:
    """Starts of the stretches of length `step` that have begun by `local`, as keys; none begins after `last`.

    Dagster shows the first one already while the one before it would run.
    """
    until = min(last or local.date(), local.date())
    if until < first:
        before = pl.Series([first]).dt.offset_by(f"-{step}").item()
        return [first.isoformat()] if local > datetime.combine(before, time()) else []
    return pl.date_range(first, until, step, eager=True).dt.to_string().to_list()


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
    last = next_month(end) if dataset.partition == "month" else end + timedelta(days=1)
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


def model_steps(dataset: Dataset, strategy: ModelStrategy, now: datetime | None = None) -> list[str]:
    """Keys of a strategy's walk-forward steps up to `now`, oldest first: a model is trained before each."""
    first, step = first_trading_day(dataset, strategy), "1y" if strategy.retrain == "yearly" else "1mo"
    return _begun(first, step, dataset.last_session, _local(dataset, now))


def trading_keys(dataset: Dataset, strategy: Strategy, now: datetime | None = None) -> list[str]:
    """The dataset's partitions in which the strategy decides and trades."""
    return known_keys(traded(dataset, strategy), now)


def traded(dataset: Dataset, strategy: Strategy) -> Dataset:
    """The dataset as it would be, had it begun with what the strategy trades first.

    That is a model's first walk-forward step, or the latest one of the models in a portfolio.
    """
    members = strategy.members if isinstance(strategy, PortfolioStrategy) else (strategy,)
    begun = [first_trading_day(dataset, one) for one in members if isinstance(one, ModelStrategy)]
    return replace(dataset, first_session=max(begun)) if begun else dataset


def first_trading_day(dataset: Dataset, strategy: ModelStrategy) -> date:
    """First day of the first walk-forward step that can have `min_train_sessions` of complete rows before it.

    Before those lie the sessions in which the longest indicator window fills, after them the horizon and the embargo.
    """
    needed = _sessions_needed(dataset, strategy)
    last = dataset.last_session or last_known()
    sessions = session_table(dataset.calendar, dataset.first_session, last)["session"]
    if len(sessions) <= needed:
        raise ValueError(
            f"{strategy.min_train_sessions} sessions to train on need "
            f"{needed} with warm-up and embargo, but {dataset.name} has {len(sessions)} in all; lower it"
        )
    # The step of the first session after enough of them counts if all those lie before it, else the next one does.
    enough = sessions[needed]
    step = enough.replace(month=1, day=1) if strategy.retrain == "yearly" else enough.replace(day=1)
    if sessions[needed - 1] >= step:
        step = date(step.year + 1, 1, 1) if strategy.retrain == "yearly" else next_month(step)
    if dataset.last_session is not None and step > dataset.last_session:
        raise ValueError(
            f"with {strategy.min_train_sessions} sessions to train on "
            f"the first {strategy.retrain} step would begin on {step}, after {dataset.name}'s last session; lower it"
        )
    return step


def _sessions_needed(dataset: Dataset, strategy: ModelStrategy) -> int:
    """Sessions before a walk-forward step: to learn from, with warm-up, horizon and embargo."""
    per_session = bars_per_session(dataset, strategy.interval)
    bars = strategy.warm_up_bars + strategy.horizon + 1
    return strategy.min_train_sessions + strategy.embargo_sessions + -(-bars // per_session)


def check_keep(dataset: Dataset, strategy: ModelStrategy) -> None:
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
        f"{dataset.keep.days}d is too short for strategies.{strategy.name}, which trains "
        f"on {needed} sessions (warm-up and embargo included) before a {strategy.retrain} step; take {least}d or more"
    )


def bars_per_session(dataset: Dataset, interval: str) -> int:
    """How many bars of an interval a session of the dataset has, on average over its first two weeks."""
    if interval == "1d":
        return 1
    first = dataset.first_session
    sample = expected_bars(dataset.calendar, interval, first, first + timedelta(days=13))
    return max(1, len(sample) // max(1, sample["session"].n_unique()))

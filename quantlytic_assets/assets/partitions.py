"""A dataset's and a strategy's partitions as Dagster's time-window definitions, and the mapping between the two.

Which keys there are follows from session tables and is said in `calendars.partitions`; a test holds the two together.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from functools import lru_cache

import dagster as dg
import polars as pl

from quantlytic_assets.calendars.partitions import (
    first_trading_day,
    last_known,
    next_month,
    timezone_of,
    traded,
)
from quantlytic_assets.calendars.sessions import ROUND_THE_CLOCK, session_table
from quantlytic_assets.universe.models import Dataset, ModelStrategy, Strategy


def definition(dataset: Dataset) -> dg.TimeWindowPartitionsDefinition:
    """The dataset's partitions for Dagster; the running session or month is among them."""
    if dataset.partition == "month":
        end = next_month(dataset.last_session) if dataset.last_session else None
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
        timezone=timezone_of(dataset),
        exclusions=[*_closed_days(dataset.calendar, dataset.first_session, dataset.last_session or last_known())],
    )


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


def model_definition(dataset: Dataset, strategy: ModelStrategy) -> dg.TimeWindowPartitionsDefinition:
    """The walk-forward steps of a strategy: a model trained before each, used within it."""
    first = first_trading_day(dataset, strategy)
    yearly = strategy.retrain == "yearly"
    end = None
    if dataset.last_session is not None:
        end = date(dataset.last_session.year + 1, 1, 1) if yearly else next_month(dataset.last_session)
    return dg.TimeWindowPartitionsDefinition(
        start=first.isoformat(),
        end=end.isoformat() if end else None,
        fmt="%Y-%m-%d",
        cron_schedule="0 0 1 1 *" if yearly else "0 0 1 * *",
        timezone=timezone_of(dataset),
        end_offset=1,
    )


def strategy_definition(dataset: Dataset, strategy: Strategy) -> dg.TimeWindowPartitionsDefinition:
    """The partitions that a strategy decides and trades in: all of its dataset's, or those that models predict."""
    return definition(traded(dataset, strategy))


def partitions_before(dataset: Dataset, strategy: ModelStrategy) -> dg.TimeWindowPartitionMapping:
    """From a walk-forward step to all of the dataset's partitions before it."""
    # Dagster takes time for each step back, so no more than the dataset spans.
    years = (dataset.last_session or last_known()).year - dataset.first_session.year + 1
    steps = years if strategy.retrain == "yearly" else 12 * years
    return dg.TimeWindowPartitionMapping(start_offset=-steps, end_offset=-1, allow_nonexistent_upstream_partitions=True)


def closes_known_by(dataset: Dataset, other: Dataset) -> dg.PartitionMapping:
    """From a partition of a dataset to those of another one whose closes it may read, where both count in one zone.

    That is the one of the same days and the one before it. Partitions of different zones can't be set against each
    other: there it is to all of them.
    """
    if timezone_of(dataset) != timezone_of(other):
        return dg.AllPartitionMapping()
    return dg.TimeWindowPartitionMapping(start_offset=-1, allow_nonexistent_upstream_partitions=True)

"""What becomes of an alert with new rows: whether it stands, and what is told of that. Pure.

An alert is told when its condition begins to hold and, unless it held for a moment only, when it is over. One that
begins again within the cooldown is not told, nor is that it is over.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import polars as pl

from quantlytic_assets.thresholds.condition import Condition


@dataclass(frozen=True)
class Standing:
    """An alert of a symbol (or strategy).

    through: time of the last row that was looked at; holds: whether the condition held in it; told: whether somebody
    was told that it holds; told_at: when that was done last. Times are UTC.
    """

    through: datetime | None = None
    holds: bool = False
    told: bool = False
    told_at: datetime | None = None


@dataclass(frozen=True)
class Change:
    """What is to be told: that the condition began to hold (`over` False) or is over, at the row of a time."""

    over: bool
    at: datetime


def followed(
    condition: Condition, rows: pl.DataFrame, standing: Standing, cooldown: timedelta, now: datetime
) -> tuple[Standing, list[Change]]:
    """The standing after rows, and what is to be told.

    rows: `time` and the condition's columns, oldest first; one that was looked at before is wanted before the new
    ones, for crossings. At first only the newest row counts, and a crossing has to happen after it.
    """
    if rows.is_empty():
        return standing, []
    judged = rows.select("time", condition.expression.alias("holds"))
    if standing.through is None:
        judged = judged.tail(1)
        if condition.crossing is not None:
            holds = bool(judged["holds"][0])
            return replace(standing, through=judged["time"][0], holds=holds), []
    else:
        judged = judged.filter(pl.col("time") > standing.through)
    if judged.is_empty():
        return standing, []
    last = judged["time"][-1]
    known = judged.drop_nulls()
    if known.is_empty():
        return replace(standing, through=last), []
    before = pl.col("holds").shift(1, fill_value=standing.holds)
    flips = known.filter(pl.col("holds") != before)
    begun = flips if condition.crossing == "crosses" else flips.filter("holds")
    now_holds = bool(known["holds"][-1])
    after = replace(standing, through=last, holds=now_holds)
    changes: list[Change] = []
    if len(begun):
        cold = standing.told_at is None or now - standing.told_at >= cooldown
        if cold:
            changes.append(Change(False, begun["time"][-1]))
        after = replace(
            after, told=cold or (standing.told and standing.holds), told_at=now if cold else standing.told_at
        )
    if condition.momentary:
        return replace(after, told=False), changes
    if not now_holds and after.told:
        changes.append(Change(True, flips["time"][-1] if len(flips) else last))
        after = replace(after, told=False)
    return after, changes

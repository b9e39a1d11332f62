"""When an asset materializes by itself, once its automation sensor is switched on.

Dagster's `eager()` forgets an update that comes while it is about to handle the one before: a tick that sees both that
a partition was requested or made and that its upstream is new takes it for handled. Here what is new wins, and only a
run that has read it settles it.
"""

from __future__ import annotations

from datetime import timedelta

import dagster as dg

from quantlytic_assets.automation.upstream import BehindUpstream

_HOURLY = "0 * * * *"


def follow_upstream(keep: timedelta | None = None) -> dg.AutomationCondition:
    """Materialize each partition whose upstream partition has new data, however old the partition is.

    Plain `eager()` looks at the newest partition only, and late data for an old session would stay unseen
    downstream. With `keep` partitions that are older than that before the newest one are left alone, for their rows
    have left the lake.
    """
    condition = _due() & ~dg.AutomationCondition.any_deps_missing() & _idle()
    if keep is not None:
        condition &= dg.AutomationCondition.in_latest_time_window(keep)
    return condition.with_label("follow_upstream")


def follow_any_upstream() -> dg.AutomationCondition:
    """Materialize when any upstream partition has new data, whether or not all of them have been materialized.

    For assets that sum up many partitions: waiting for the running one, or for one that failed, would hold them up.
    """
    return (_due() & _idle()).with_label("follow_any_upstream")


def follow_hourly() -> dg.AutomationCondition:
    """Materialize once an hour if anything upstream has new data since the last time.

    For small tables that change a few times a quarter, whose upstream may change every few seconds.
    """
    hour = dg.AutomationCondition.cron_tick_passed(_HOURLY)
    return (hour & _due() & ~dg.AutomationCondition.in_progress()).with_label("follow_hourly")


def hourly() -> dg.AutomationCondition:
    """Materialize once an hour, whatever there is: for what is asked of somebody outside."""
    hour = dg.AutomationCondition.cron_tick_passed(_HOURLY)
    return (hour & ~dg.AutomationCondition.in_progress()).with_label("hourly")


def _due() -> dg.AutomationCondition:
    """True from when something upstream is new until a run that reads it is asked for, or has been made otherwise.

    On its first tick, and once an hour, it looks at all partitions instead of what is new: at what came before the
    sensor was switched on, and what was to be made by a run that failed. Those that no run ever tried, or that a run
    had nothing for, are not tried each hour.
    """
    when = dg.AutomationCondition
    behind = BehindUpstream()
    new = (
        when.any_deps_match(when.will_be_requested())
        | ((when.any_deps_match(when.newly_updated()) | when.newly_missing() | when.initial_evaluation()) & behind)
        | (when.cron_tick_passed(_HOURLY) & (~when.missing() | when.execution_failed()) & behind)
    ).with_label("new_upstream")
    settled = (when.newly_requested() | (when.newly_updated() & ~behind)) & ~new
    return new.since(settled.with_label("settled")).with_label("due")


def _idle() -> dg.AutomationCondition:
    """Neither the partition nor anything that it is made of is being made."""
    return ~dg.AutomationCondition.any_deps_in_progress() & ~dg.AutomationCondition.in_progress()

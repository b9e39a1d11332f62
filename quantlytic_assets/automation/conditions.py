"""When an asset materializes by itself, once its automation sensor is switched on."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg


def follow_upstream(keep: timedelta | None = None) -> dg.AutomationCondition:
    """Materialize each partition whose upstream partition has new data, however old the partition is.

    Plain `eager()` looks at the newest partition only, and late data for an old session would stay unseen
    downstream; without that clause each partition follows its own upstream. With `keep` partitions that are older than
    that before the newest one are left alone, for their rows have left the lake.
    """
    condition = dg.AutomationCondition.eager().without(dg.AutomationCondition.in_latest_time_window())
    if keep is not None:
        condition &= dg.AutomationCondition.in_latest_time_window(keep)
    return condition.with_label("follow_upstream")


def follow_any_upstream() -> dg.AutomationCondition:
    """Materialize when any upstream partition has new data, whether or not all of them have been materialized.

    For assets that sum up many partitions: waiting for the running one, or for one that failed, would hold them up.
    """
    missing = dg.AutomationCondition.any_deps_missing()
    condition = dg.AutomationCondition.eager().without(dg.AutomationCondition.in_latest_time_window())
    return condition.without(~missing).with_label("follow_any_upstream")


def follow_hourly() -> dg.AutomationCondition:
    """Materialize once an hour if anything upstream has new data since the last time.

    For small tables that change a few times a quarter, whose upstream may change every few seconds.
    """
    waiting = dg.AutomationCondition.any_deps_updated().since_last_handled()
    due = dg.AutomationCondition.cron_tick_passed("0 * * * *")
    return (due & waiting & ~dg.AutomationCondition.in_progress()).with_label("follow_hourly")

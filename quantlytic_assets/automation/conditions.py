"""When an asset materializes by itself, once its automation sensor is switched on."""

from __future__ import annotations

import dagster as dg


def follow_upstream() -> dg.AutomationCondition:
    """Materialize each partition whose upstream partition has new data, however old the partition is.

    Plain `eager()` looks at the newest partition only, and late data for an old session would stay unseen
    downstream; without that clause each partition follows its own upstream.
    """
    condition = dg.AutomationCondition.eager().without(dg.AutomationCondition.in_latest_time_window())
    return condition.with_label("follow_upstream")


def follow_any_upstream() -> dg.AutomationCondition:
    """Materialize when any upstream partition has new data, whether or not all of them have been materialized.

    For assets that sum up many partitions: waiting for the running one, or for one that failed, would hold them up.
    """
    missing = dg.AutomationCondition.any_deps_missing()
    condition = dg.AutomationCondition.eager().without(dg.AutomationCondition.in_latest_time_window())
    return condition.without(~missing).with_label("follow_any_upstream")

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

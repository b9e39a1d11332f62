"""Figures of the vendors' rate limits."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.core import GaugeMetricFamily, Metric


def budget_metrics(left: Mapping[tuple[str, int], int]) -> list[Metric]:
    """Requests that each vendor still allows now; `left` by (vendor, length of the window in seconds)."""
    calls = GaugeMetricFamily(
        "quantlytic_vendor_calls_left",
        "requests that a vendor's rate limit still allows in its current window",
        labels=["vendor", "window_seconds"],
    )
    for (vendor, window), count in sorted(left.items()):
        calls.add_metric([vendor, str(window)], count)
    return [calls]

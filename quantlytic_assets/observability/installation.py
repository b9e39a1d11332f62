"""Figures of the installation itself: room for its data directory, and which datasets should be fed right now."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric


def installation_metrics(home: Path, fed: Iterable[str]) -> list[Metric]:
    """`fed`: the datasets whose live feed should be running now."""
    free = GaugeMetricFamily("quantlytic_home_free_bytes", "bytes free where the data directory is")
    free.add_metric([], shutil.disk_usage(home).free)
    feeds = GaugeMetricFamily(
        "quantlytic_dataset_fed", "1 for a dataset whose live feed should be running now", labels=["dataset"]
    )
    for name in fed:
        feeds.add_metric([name], 1)
    return [free, feeds]

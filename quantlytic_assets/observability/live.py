"""Figures of live paths: what they told of themselves in the hot store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from quantlytic_assets.live.stages import BOUNDS

_KINDS = (
    "records", "bars", "signals", "revised", "late", "differing", "missing", "features_differing", "signals_differing",
    "rejected", "malformed", "lost",
)  # fmt: skip


def live_metrics(told: Mapping[str, Mapping[str, Any]]) -> list[Metric]:
    """`told`: what the live path of each dataset said of itself last."""
    reported = GaugeMetricFamily(
        "quantlytic_live_reported_timestamp_seconds", "when a live path last gave a sign of life", labels=["dataset"]
    )
    behind = GaugeMetricFamily(
        "quantlytic_live_behind_records", "records on the bus that a live path has not taken", labels=["dataset"]
    )
    events = CounterMetricFamily(
        "quantlytic_live_events",
        "what a live path counted: records, bars and signals; bars that came late, were revised, or differ from the "
        "graph's; features and signals that differ from the graph's",
        labels=["dataset", "kind"],
    )
    stages = HistogramMetricFamily(
        "quantlytic_live_stage_seconds",
        "seconds from a batch's records to each stage of the live path",
        labels=["dataset", "stage"],
    )
    for dataset, health in sorted(told.items()):
        reported.add_metric([dataset], datetime.fromisoformat(health["at"]).timestamp())
        behind.add_metric([dataset], health["behind"])
        for kind in _KINDS:
            events.add_metric([dataset, kind], health.get(kind, 0))
        for stage, one in health.get("stages", {}).items():
            counts = accumulate(one["counts"])
            buckets = list(zip([*map(str, BOUNDS), "+Inf"], counts, strict=True))
            stages.add_metric([dataset, stage], buckets, one["sum"])
    return [reported, behind, events, stages]

"""Metric families as plain dictionaries."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import Metric


def figures(families: Iterable[Metric]) -> dict[str, dict[tuple[str, ...], float]]:
    """Sample name to label values (in the order of the family's labels) to value."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in families:
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found

"""Features as columns of a table: what dbt, Dagster and the documentation say of them follows from the declaration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import polars as pl

from quantlytic_assets.features.registry import Registry
from quantlytic_assets.features.spec import Feature
from quantlytic_assets.schemas.features import INDICATORS
from quantlytic_assets.schemas.table import Column, Table


def feature_columns(features: Iterable[Feature]) -> tuple[Column, ...]:
    """One column for each output of the features, in their order."""
    return tuple(
        Column(name, pl.Float64, feature.description, nullable=True) for feature in features for name in feature.columns
    )


def with_core(table: Table) -> Table:
    """The table; features.indicators with the columns of the set `core`, which each lake has."""
    if table is not INDICATORS:
        return table
    *keys, last = table.columns
    return replace(table, columns=(*keys, *feature_columns(Registry().features(["core"])), last))

"""`<dataset>/published` and `<strategy>/published`: what the API serves, brought up to date in the hot store.

The hot store holds nothing that is not in the lake, so that it can be made anew at any time (`quantlytic publish`).
What is written is `services.publishing`'s and `services.published_strategies`' business.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any

import dagster as dg

from quantlytic_assets.assets.columns import table_metadata
from quantlytic_assets.assets.keys import coverage_key, feature_key, published_key, strategy_key
from quantlytic_assets.assets.per_partition import PartitionMetadata, materialize_windows
from quantlytic_assets.calendars.partitions import Window
from quantlytic_assets.resources import Resources
from quantlytic_assets.schemas.hot import BARS, SIGNALS
from quantlytic_assets.services.clean import partitions_at_once
from quantlytic_assets.services.published_strategies import publish_strategy
from quantlytic_assets.services.publishing import Published, publish_dataset
from quantlytic_assets.universe.models import Dataset, Strategy

_KINDS = {"lmdb", "polars"}


def published_asset(dataset: Dataset, common: Mapping[str, Any]) -> dg.AssetsDefinition:
    """The asset that puts a dataset's bars, features and coverage into the hot store."""

    @dg.asset(
        key=published_key(dataset),
        deps=[coverage_key(dataset), feature_key(dataset, "indicators")],
        description=f"Bars, adjusted bars, features and coverage of {dataset.name} in the hot store, ready to be "
        "served by the API. Rows that were served before and are others now are told to subscribers as revisions.",
        kinds=_KINDS,
        metadata={"keep_hot": str(dataset.keep_hot or "all sessions"), **table_metadata(BARS)},
        required_resource_keys={"quantlytic"},
        **common,
    )
    def published(context: dg.AssetExecutionContext) -> None:
        resources: Resources = context.resources.quantlytic

        def work(window: Window) -> PartitionMetadata:
            done = publish_dataset(resources.lake, resources.hot, dataset, window.first, window.last)
            context.log.info(f"{window.keys[0]} to {window.keys[-1]}: {done}")
            rows = {key: done.bars.get(date.fromisoformat(key), 0) for key in window.keys}
            return {key: {"dagster/partition_row_count": rows[key], **_figures(done)} for key in window.keys}

        materialize_windows(context, dataset, work, partitions_at_once(dataset))

    return published


def published_strategy_asset(dataset: Dataset, strategy: Strategy, common: Mapping[str, Any]) -> dg.AssetsDefinition:
    """The unpartitioned asset that puts a strategy's signals, predictions and account into the hot store."""

    @dg.asset(
        key=strategy_key(strategy, "published"),
        deps=[dg.AssetDep(strategy_key(strategy, "paper_trades"), partition_mapping=dg.AllPartitionMapping())],
        description=f"Signals, predictions, orders, positions and equity of {strategy.name} in the hot store, ready to "
        "be served by the API. Only what the lake got since the last publication is read again.",
        kinds=_KINDS,
        metadata=table_metadata(SIGNALS),
        required_resource_keys={"quantlytic"},
        **common,
    )
    def published_strategy(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        resources: Resources = context.resources.quantlytic
        done = publish_strategy(resources.lake, resources.hot, dataset, strategy)
        return dg.MaterializeResult(metadata=_figures(done))

    return published_strategy


def _figures(done: Published) -> dict[str, Any]:
    """Figures of a run's publication: of a range, all of its partitions together."""
    return {
        "rows_read": done.read,
        "rows_written": done.updated.rows,
        "blocks_written": done.updated.blocks,
        "revisions_told": done.updated.told,
    }

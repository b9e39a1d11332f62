"""`<dataset>/clean_bars`: archive objects made into lake rows, each kept or quarantined.

How is in `services.clean`, the rules are in `market_data.quality`.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from quantlytic_assets.assets.columns import table_metadata
from quantlytic_assets.assets.keys import clean_bars_key, corporate_actions_key, raw_bars_key
from quantlytic_assets.assets.per_partition import (
    PartitionMetadata,
    materialize_windows,
    partition_charts,
)
from quantlytic_assets.calendars.partitions import Window
from quantlytic_assets.resources import Resources
from quantlytic_assets.schemas.clean import BARS
from quantlytic_assets.services.clean import Cleaner, action_figures, partitions_at_once, quarantine_rejected
from quantlytic_assets.universe.models import Dataset


def clean_bars_asset(dataset: Dataset, common: Mapping[str, Any]) -> dg.AssetsDefinition:
    """The asset that writes clean.bars, clean.quarantine, clean.repairs, clean.vendor_differences and clean.sessions.

    It follows new corporate actions as well. Where a split or rename changes what earlier runs made, as when a vendor
    reports a split only with the bars of its day, or where a neighbouring partition shows that prices are off, those
    partitions are cleaned again too, so that what follows from them is seen to be out of date.
    """

    @dg.asset(
        key=clean_bars_key(dataset),
        deps=[raw_bars_key(dataset)],
        description=f"Bars of {dataset.name} that passed every rule (clean.bars); the others are in clean.quarantine, "
        "each with its reason and where in the archive it stands.",
        kinds={"ducklake", "polars"},
        metadata=table_metadata(BARS),
        required_resource_keys={"quantlytic"},
        **common,
    )
    def clean_bars(context: dg.AssetExecutionContext) -> None:
        resources: Resources = context.resources.quantlytic
        cleaner = Cleaner(resources, dataset)
        own = set(context.partition_keys)

        def charted(key: str, figures: Mapping[str, Any]) -> dict[str, Any]:
            return {**figures, **partition_charts(resources.links, dataset, key, "bars")}

        def report(key: str, figures: Mapping[str, Any]) -> None:
            if key not in own:
                metadata = charted(key, figures)
                context.log_event(dg.AssetMaterialization(context.asset_key, partition=key, metadata=metadata))

        def work(window: Window) -> PartitionMetadata:
            cleaned = cleaner.clean(window)
            for key, figures in cleaned.items():
                report(key, figures)
            return {key: charted(key, figures) for key, figures in cleaned.items() if key in own}

        followed = cleaner.follow_actions(report)
        if followed.changed:
            context.log_event(
                dg.AssetMaterialization(corporate_actions_key(dataset), metadata=action_figures(followed.reconciled))
            )
        if followed.since:
            context.log.info(f"corporate actions that are new here change bars since {followed.since}")
        materialize_windows(context, dataset, work, partitions_at_once(dataset))
        quarantine_rejected(resources, dataset)

    return clean_bars

"""What a command made without a run, recorded with Dagster as if one of its assets had made it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster import AssetKey

    from quantlytic_assets.commands.installation import Installation
    from quantlytic_assets.storage.landing import Landed
    from quantlytic_assets.universe.models import Dataset


def record_landing(installation: Installation, dataset: Dataset, landed: Landed) -> None:
    """One materialization of raw_bars for each partition that a landing touched."""
    from quantlytic_assets.assets.keys import raw_bars_key
    from quantlytic_assets.services.landing import landed_by_partition

    for key, figures in landed_by_partition(dataset, landed.partitions).items():
        record(installation, raw_bars_key(dataset), figures, key)


def record(
    installation: Installation, asset: AssetKey, figures: Mapping[str, Any], partition: str | None = None
) -> None:
    """One materialization of an asset, of a partition or of the whole, with what people are shown of it."""
    import dagster as dg

    event = dg.AssetMaterialization(asset, metadata=dict(figures), partition=partition)
    installation.instance.report_runless_asset_event(event)

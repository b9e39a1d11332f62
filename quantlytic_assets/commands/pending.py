"""Which partitions have something to do: never materialized, or older than what they are made from.

Read from the event log of the Dagster instance alone, as the UI does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import dagster as dg


def newest_by_partition(instance: dg.DagsterInstance, key: dg.AssetKey) -> Mapping[str, int]:
    """Partition key to the storage id of its newest materialization."""
    return instance.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION)


def pending_in_chain(instance: dg.DagsterInstance, chain: Sequence[dg.AssetKey], keys: Sequence[str]) -> list[str]:
    """Those of `keys` for which some asset of the chain is missing or older than the asset before it."""
    newest = [newest_by_partition(instance, key) for key in chain]
    return [
        key
        for key in keys
        if any(key not in ids for ids in newest) or any(after[key] < before[key] for before, after in pairwise(newest))
    ]


def newest_of_all(instance: dg.DagsterInstance, key: dg.AssetKey) -> int:
    """Storage id of an asset's newest materialization over all partitions; 0 when there is none."""
    record = instance.get_latest_materialization_event(key)
    if record is None:
        return 0
    records = instance.fetch_materializations(key, limit=1).records
    return records[0].storage_id

"""Which partitions have something to do: never materialized, older than what they are made from, or made by other code.

Read from the event log of the Dagster instance alone, as the UI does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import dagster as dg

from quantlytic_assets.dagster_internals import CODE_VERSION_TAG

_AT_ONCE = 500


def newest_by_partition(instance: dg.DagsterInstance, key: dg.AssetKey) -> Mapping[str, int]:
    """Partition key to the storage id of its newest materialization."""
    return instance.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION)


def pending_in_stages(
    instance: dg.DagsterInstance, stages: Sequence[Sequence[dg.AssetKey]], keys: Sequence[str]
) -> list[str]:
    """Those of `keys` for which some asset is missing, or older than one of the stage before it."""
    newest = [[newest_by_partition(instance, key) for key in stage] for stage in stages]
    return [
        key
        for key in keys
        if any(key not in ids for stage in newest for ids in stage)
        or any(min(ids[key] for ids in after) < max(ids[key] for ids in before) for before, after in pairwise(newest))
    ]


def made_by_other_code(
    instance: dg.DagsterInstance, asset: dg.AssetKey, version: str | None, keys: Sequence[str]
) -> list[str]:
    """Those of `keys` whose newest materialization says another code version than `version`; it may say none."""
    newest = newest_by_partition(instance, asset)
    places = {newest[key]: key for key in keys if key in newest}
    found = []
    for at in range(0, len(places), _AT_ONCE):
        chosen = dg.AssetRecordsFilter(asset, storage_ids=list(places)[at : at + _AT_ONCE])
        for record in instance.fetch_materializations(chosen, limit=_AT_ONCE).records:
            made = record.asset_materialization
            said = (made.tags or {}).get(CODE_VERSION_TAG) if made else None
            if said is not None and said != version:
                found.append(places[record.storage_id])
    return sorted(found)


def newest_of_all(instance: dg.DagsterInstance, key: dg.AssetKey) -> int:
    """Storage id of an asset's newest materialization over all partitions; 0 when there is none."""
    record = instance.get_latest_materialization_event(key)
    if record is None:
        return 0
    records = instance.fetch_materializations(key, limit=1).records
    return records[0].storage_id

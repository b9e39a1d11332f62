"""Which partitions have something to do: never materialized, older than what they are made from, or made by other code.

Read from the event log of the Dagster instance alone, as the UI does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import dagster as dg

from quantlytic_assets.dagster_internals import CODE_VERSION_TAG

if TYPE_CHECKING:
    from quantlytic_assets.dagster_internals import AssetGraph

_AT_ONCE = 500


def newest_by_partition(instance: dg.DagsterInstance, key: dg.AssetKey) -> Mapping[str, int]:
    """Partition key to the storage id of its newest materialization."""
    return instance.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION)


def pending_assets(
    instance: dg.DagsterInstance, graph: AssetGraph, assets: Collection[dg.AssetKey], keys: Sequence[str]
) -> dict[str, tuple[dg.AssetKey, ...]]:
    """Those of `keys` in which some of `assets` have to be made, and which, in the order data flows.

    An asset has to be made in a partition where it is missing, where its last run ended before it was made, where it
    was made by other code or is older than what it is made of, and where something that it is made of has to be made.
    `assets` have the same partitions. One without partitions says of none that it is new, nor does an asset beside
    `assets` of which each partition reads all.
    """
    newest = {asset: newest_by_partition(instance, asset) for asset in assets}
    pending: dict[str, list[dg.AssetKey]] = {key: [] for key in keys}
    for asset in graph.toposorted_asset_keys:
        if asset not in newest:
            continue
        parents = graph.get(asset).parent_keys
        changed = set(made_by_other_code(instance, asset, graph.get(asset).code_version, keys))
        for parent in parents - newest.keys():
            changed.update(_read_later(instance, graph, asset, parent, keys))
        begun = instance.get_latest_storage_id_by_partition(asset, dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED)
        inside = parents & newest.keys()
        for key in keys:
            own = newest[asset].get(key, -1)
            above = max((newest[parent].get(key, -1) for parent in inside), default=-1)
            behind = own == -1 or own < above or own < begun.get(key, -1) or key in changed
            if behind or not inside.isdisjoint(pending[key]):
                pending[key].append(asset)
    return {key: tuple(found) for key, found in pending.items() if found}


def _read_later(
    instance: dg.DagsterInstance, graph: AssetGraph, asset: dg.AssetKey, parent: dg.AssetKey, keys: Sequence[str]
) -> list[str]:
    """Those of `keys` in which an asset is older than what it reads of another dataset's asset."""
    upstream, downstream = graph.get(parent).partitions_def, graph.get(asset).partitions_def
    mapping = graph.get_partition_mapping(asset, parent)
    if upstream is None or downstream is None or isinstance(mapping, dg.AllPartitionMapping):
        return []
    own, above = newest_by_partition(instance, asset), newest_by_partition(instance, parent)
    last = max(above.values(), default=-1)
    found = []
    for key in keys:
        # Dagster takes milliseconds to look for the partitions above one.
        if own.get(key, last) < last:
            read = mapping.get_upstream_mapped_partitions_result_for_partitions(
                downstream.subset_with_partition_keys([key]), downstream, upstream
            )
            if any(above.get(one, -1) > own[key] for one in read.partitions_subset.get_partition_keys()):
                found.append(key)
    return found


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
    """Those of `keys` whose newest materialization says another code version than `version`; either may say none."""
    if version is None:
        return []
    newest = newest_by_partition(instance, asset)
    places = {newest[key]: key for key in keys if key in newest}
    found = []
    for at in range(0, len(places), _AT_ONCE):
        chosen = dg.AssetRecordsFilter(asset, storage_ids=list(places)[at : at + _AT_ONCE])
        for record in instance.fetch_materializations(chosen, limit=_AT_ONCE).records:
            made = record.asset_materialization
            said = (made.tags or {}).get(CODE_VERSION_TAG) if made else None
            # Dagster notes the run where an asset has no version of its code.
            if said not in (None, version, record.run_id):
                found.append(places[record.storage_id])
    return sorted(found)


def newest_of_all(instance: dg.DagsterInstance, key: dg.AssetKey) -> int:
    """Storage id of an asset's newest materialization over all partitions; 0 when there is none."""
    record = instance.get_latest_materialization_event(key)
    if record is None:
        return 0
    records = instance.fetch_materializations(key, limit=1).records
    return records[0].storage_id

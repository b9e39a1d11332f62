"""Which partitions are behind what they are made of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import dagster as dg

if TYPE_CHECKING:
    from quantlytic_assets.dagster_internals import AssetGraphView, EntitySubset

_AT_ONCE = 500


@dataclass(frozen=True)
class _Run:
    """A run and a time, seconds since 1970."""

    run_id: str | None
    at: float


_NEVER = _Run(None, 0.0)


class BehindUpstream(dg.AutomationCondition):
    """True for partitions whose last run may not have read what an upstream partition has now.

    That is: another run materialized the upstream partition after theirs had started. Partitions without any
    materialization are behind as soon as something upstream has one. It compares what there is instead of what is new
    since the last tick, as Dagster's own conditions do, so that it needs no cursor and misses nothing. An upstream
    asset without partitions does not say which of them is new, nor does one all of whose partitions are read by each:
    assets with partitions are not behind these.
    """

    @property
    def name(self) -> str:
        """As it is shown in the UI."""
        return "behind_upstream"

    def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:
        """The candidates that are behind."""
        candidates, view = context.candidate_subset, context.asset_graph_view
        if candidates.is_empty:
            return dg.AutomationResult(context, context.get_empty_subset())
        asset = view.asset_graph.get(context.key)
        read = _last_read(view, candidates)
        behind: set[str | None] = set()
        for parent in asset.parent_keys:
            if asset.is_partitioned and not _says_which(view, context.key, parent):
                continue
            above = _last_made(view, candidates.compute_parent_subset(parent))
            newest = max((one.at for one in above.values()), default=0.0)
            older = {partition for partition, own in read.items() if own.at < newest}
            for partition, parents in _upstream(view, context.key, older, parent, above).items():
                own = read[partition]
                if any(one.at > own.at and (one.run_id != own.run_id or one.run_id is None) for one in parents):
                    behind.add(partition)
        return dg.AutomationResult(context, _subset(view, context.key, behind))


def _says_which(view: AssetGraphView, key: dg.AssetKey, parent: dg.AssetKey) -> bool:
    """Whether what is new of a parent concerns some of the partitions and not others."""
    mapping = view.asset_graph.get_partition_mapping(key, parent)
    return view.asset_graph.get(parent).is_partitioned and not isinstance(mapping, dg.AllPartitionMapping)


def _last_read(view: AssetGraphView, candidates: EntitySubset) -> dict[str | None, _Run]:
    """The last run of each candidate, `at` its start, since when it may have read; long ago where there was none."""
    made = _last_made(view, candidates)
    starts = _started_at(view.instance, {one.run_id for one in made.values() if one.run_id})
    return {
        partition: _Run(own.run_id, starts.get(own.run_id or "", own.at)) if (own := made.get(partition)) else _NEVER
        for partition in _partitions(candidates)
    }


def _last_made(view: AssetGraphView, subset: EntitySubset) -> dict[str | None, _Run]:
    """The run and time of the last materialization of each partition that has one."""
    kind: Literal[dg.DagsterEventType.ASSET_MATERIALIZATION] = dg.DagsterEventType.ASSET_MATERIALIZATION
    instance = view.instance
    if not subset.is_partitioned:
        rows = instance.get_asset_event_summary_records(kind, asset_key=subset.key, limit=1)
        return {None: _Run(row.run_id or None, row.timestamp) for row in rows}  # noqa: B035 - one row at most
    keys = {key for key in _partitions(subset) if key is not None}
    last = list(instance.get_latest_storage_id_by_partition(subset.key, kind, keys).values())
    return {
        row.partition: _Run(row.run_id or None, row.timestamp)
        for at in range(0, len(last), _AT_ONCE)
        for row in instance.get_asset_event_summary_records(
            kind, asset_key=subset.key, storage_ids=last[at : at + _AT_ONCE]
        )
    }


def _started_at(instance: dg.DagsterInstance, run_ids: set[str]) -> dict[str, float]:
    """When runs started, seconds since 1970. Deleted runs are not in it."""
    ids = sorted(run_ids)
    return {
        record.dagster_run.run_id: record.start_time
        for at in range(0, len(ids), _AT_ONCE)
        for record in instance.get_run_records(dg.RunsFilter(run_ids=ids[at : at + _AT_ONCE]))
        if record.start_time is not None
    }


def _upstream(
    view: AssetGraphView,
    key: dg.AssetKey,
    partitions: set[str | None],
    parent: dg.AssetKey,
    above: Mapping[str | None, _Run],
) -> Mapping[str | None, Iterable[_Run]]:
    """What there is `above` each of the partitions. Dagster is asked about the side that has fewer of them."""
    if _same_partitions(view, key, parent):
        return {partition: [above[partition]] for partition in partitions & above.keys()}
    found: dict[str | None, list[_Run]] = defaultdict(list)
    if len(above) < len(partitions):
        for partition, made in above.items():
            for below in _partitions(_subset(view, parent, {partition}).compute_child_subset(key)):
                found[below].append(made)
        return {partition: found[partition] for partition in partitions & found.keys()}
    for partition in partitions:
        needed = _partitions(_subset(view, key, {partition}).compute_parent_subset(parent))
        found[partition] = [above[one] for one in needed & above.keys()]
    return found


def _same_partitions(view: AssetGraphView, key: dg.AssetKey, parent: dg.AssetKey) -> bool:
    """Whether each partition is made of the one with the same key, and of no other."""
    mapping = view.asset_graph.get_partition_mapping(key, parent)
    unmoved = isinstance(mapping, dg.TimeWindowPartitionMapping) and not (mapping.start_offset or mapping.end_offset)
    return unmoved and view.asset_graph.get(key).partitions_def == view.asset_graph.get(parent).partitions_def


def _partitions(subset: EntitySubset) -> set[str | None]:
    """The keys of a subset's partitions; None is that of an asset without partitions."""
    if subset.is_partitioned:
        return set(subset.expensively_compute_partition_keys())
    return set() if subset.is_empty else {None}


def _subset(view: AssetGraphView, key: dg.AssetKey, partitions: set[str | None]) -> EntitySubset:
    """The reverse of `_partitions`."""
    definition = view.asset_graph.get(key).partitions_def
    if definition is None:
        return view.get_full_subset(key=key) if partitions else view.get_empty_subset(key=key)
    keys = {partition for partition in partitions if partition is not None}
    return view.get_subset_from_partition_keys(key, definition, keys)

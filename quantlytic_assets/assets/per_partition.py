"""How an asset works through the partitions of a run: in windows, each reported by itself, good ones kept.

The work itself is done by the caller's function, a window at a time.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import dagster as dg

from quantlytic_assets.calendars.partitions import Window, windows
from quantlytic_assets.pages.links import Links
from quantlytic_assets.universe.models import Dataset

# partition key -> what to show of it in the UI
PartitionMetadata = dict[str, dict[str, Any]]


def materialize_windows(
    context: dg.AssetExecutionContext,
    dataset: Dataset,
    work: Callable[[Window], PartitionMetadata],
    most: int | None = None,
) -> None:
    """Do `work` for the run's partitions, in windows of at most `most`, and report each partition's metadata.

    When a window fails its partitions are tried one by one, so that one bad partition costs only itself: the good ones
    are recorded as materialized, then the step fails naming the bad ones.
    """
    done: PartitionMetadata = {}
    failed: dict[str, Exception] = {}
    for window in windows(dataset, context.partition_keys, most):
        started = time.monotonic()
        try:
            results = work(window)
        except Exception as error:
            if len(window.keys) == 1:
                failed[window.keys[0]] = error
                context.log.exception(f"partition {window.keys[0]} failed")
                continue
            context.log.warning(f"{window.keys[0]} to {window.keys[-1]} failed ({error}); trying them one by one")
            results = _one_by_one(context, dataset, window, work, failed)
        share = (time.monotonic() - started) / len(window.keys)
        for key, metadata in results.items():
            done[key] = {**metadata, "seconds": round(share, 4)}
    if not failed:
        report(context, done)
        return
    # On success Dagster records each partition itself; on failure it would record none.
    for key, metadata in done.items():
        context.log_event(dg.AssetMaterialization(context.asset_key, partition=key, metadata=metadata))
    raise dg.Failure(
        description=f"{len(failed)} of {len(failed) + len(done)} partitions failed: "
        + "; ".join(f"{key}: {error}" for key, error in list(failed.items())[:10]),
        metadata={"failed_partitions": list(failed)},
    )


def _one_by_one(
    context: dg.AssetExecutionContext,
    dataset: Dataset,
    window: Window,
    work: Callable[[Window], PartitionMetadata],
    failed: dict[str, Exception],
) -> PartitionMetadata:
    results: PartitionMetadata = {}
    for single in windows(dataset, window.keys, most=1):
        try:
            results |= work(single)
        except Exception as error:
            failed[single.keys[0]] = error
            context.log.exception(f"partition {single.keys[0]} failed")
    return results


def report(context: dg.AssetExecutionContext, metadata: Mapping[str, Mapping[str, Any]]) -> None:
    """Attach each partition's own metadata to the materializations of this run."""
    for key, entry in metadata.items():
        context.add_asset_metadata(dict(entry), partition_key=key)


def chart_and_page(chart: str, page: str) -> dict[str, Any]:
    """A chart as the UI shows it, and the page that it is on; both are addresses of `pages`, drawn when opened."""
    return {"chart": dg.MetadataValue.md(f"[![chart]({chart}?size=small)]({page})"), "page": dg.MetadataValue.url(page)}


def partition_charts(links: Links, dataset: Dataset, key: str, name: str) -> dict[str, Any]:
    """The chart `name` of a dataset's partition, and its page."""
    return chart_and_page(links.chart(dataset.name, key, name), links.partition(dataset.name, key))


def group_by_key(keys: Iterable[str], counts: Mapping[str, Mapping[str, Any]], empty: dict) -> PartitionMetadata:
    """Metadata for each key, `empty` where a partition has nothing of its own."""
    return {key: {**empty, **counts.get(key, {})} for key in keys}

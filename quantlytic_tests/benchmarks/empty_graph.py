"""The baseline of benchmarks: assets and checks with the keys and partitions of real ones, which do nothing."""

from __future__ import annotations

from collections.abc import Collection

import dagster as dg


def empty_job(
    job: dg.JobDefinition, wanted: Collection[dg.AssetKey], definition: dg.PartitionsDefinition
) -> dg.JobDefinition:
    """A job like `job` over the `wanted` ones of its assets, with their checks, all of them without a body."""
    graph = job.asset_layer.asset_graph

    def body(key: dg.AssetKey) -> dg.AssetsDefinition:
        of_partitions = graph.get(key).partitions_def is not None

        @dg.asset(
            key=key,
            deps=[parent for parent in graph.get(key).parent_keys if parent in wanted],
            partitions_def=definition if of_partitions else None,
            backfill_policy=dg.BackfillPolicy.multi_run(100_000) if of_partitions else None,
        )
        def empty() -> dg.MaterializeResult:
            return dg.MaterializeResult()

        return empty

    def check(key: dg.AssetCheckKey) -> dg.AssetChecksDefinition:
        of_partitions = graph.get(key.asset_key).partitions_def is not None

        @dg.asset_check(asset=key.asset_key, name=key.name, partitions_def=definition if of_partitions else None)
        def empty() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=True)

        return empty

    checks = [key for key in graph.asset_check_keys if key.asset_key in wanted]
    definitions = dg.Definitions(
        assets=[body(key) for key in wanted],
        asset_checks=[check(key) for key in checks],
        jobs=[dg.define_asset_job("empty", executor_def=dg.in_process_executor, partitions_def=definition)],
    )
    return definitions.resolve_job_def("empty")

"""The asset check on `<dataset>/clean_bars`: the rows that stand in the lake, against the pandera schema.

The schema is in `schemas`. Each partition gets an evaluation of its own, which a run over a range would not give.
"""

import dagster as dg
import polars as pl
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

from quantlytic_assets.assets.clean_bars import clean_bars_key, partitions_at_once
from quantlytic_assets.checks.schemas import CLEAN_BARS, failures
from quantlytic_assets.partitions import Window, windows, with_partition
from quantlytic_assets.resources import Resources
from quantlytic_assets.universe import Dataset

_NAME = "clean_bars_schema"


def clean_bars_check(dataset: Dataset, partitions_def: dg.PartitionsDefinition) -> dg.AssetChecksDefinition:
    """The check factory; severity is an error, for cleaning promises that no such row gets through."""

    @dg.asset_check(
        asset=clean_bars_key(dataset),
        name=_NAME,
        partitions_def=partitions_def,
        description="Types, positive and consistent prices, one bar a symbol and open time, as clean.bars promises.",
        required_resource_keys={"quantlytic"},
    )
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        resources: Resources = context.resources.quantlytic
        run = context.op_execution_context
        failed: dict[str, int] = {}
        cases: list[pl.DataFrame] = []
        for window in windows(dataset, run.partition_keys, partitions_at_once(dataset)):
            found = _failures(resources, dataset, window)
            if len(found):
                cases.append(found)
                for key, count in found.group_by("partition").agg(pl.col("failures").sum()).iter_rows():
                    failed[key] = failed.get(key, 0) + count
        if len(run.partition_keys) > 1:
            _report_each(context, dataset, failed)
        shown = pl.concat(cases).head(50).write_json() if cases else "[]"
        return dg.AssetCheckResult(
            passed=not failed,
            metadata={"partitions_checked": len(run.partition_keys), "failures": sum(failed.values()), "cases": shown},
        )

    return check


def _failures(resources: Resources, dataset: Dataset, window: Window) -> pl.DataFrame:
    condition, parameters = window.condition()
    rows = resources.lake.query(
        f"SELECT * FROM clean.bars WHERE dataset = ? AND {condition}", [dataset.name, *parameters]
    )
    return failures(with_partition(rows, dataset), CLEAN_BARS)


def _report_each(context: dg.AssetCheckExecutionContext, dataset: Dataset, failed: dict[str, int]) -> None:
    """One evaluation a partition, tied to the materialization it judged.

    As events of this run: of evaluations reported without one Dagster keeps a partition's first and refuses the next.
    """
    run = context.op_execution_context
    key = clean_bars_key(dataset)
    newest = run.instance.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION)
    for partition in run.partition_keys:
        if partition not in newest:
            continue
        run.log_event(
            dg.AssetCheckEvaluation(
                asset_key=key,
                check_name=_NAME,
                passed=partition not in failed,
                metadata={"failures": failed.get(partition, 0)},
                target_materialization_data=AssetCheckEvaluationTargetMaterializationData(
                    storage_id=newest[partition], run_id=run.run_id, timestamp=0.0
                ),
                blocking=False,
                partition=partition,
            )
        )

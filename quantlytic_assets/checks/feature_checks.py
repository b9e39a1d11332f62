"""The asset check `no_look_ahead` of each family: features computed again from bars that end where a row is decided on.

What is compared is in `services.feature_replay`. Each partition gets an evaluation of its own.
"""

from __future__ import annotations

import dagster as dg

from quantlytic_assets.assets.keys import feature_key
from quantlytic_assets.calendars.partitions import windows, with_partition
from quantlytic_assets.checks.schema_checks import report_each
from quantlytic_assets.resources import Resources
from quantlytic_assets.services.feature_replay import replayed
from quantlytic_assets.services.features import families
from quantlytic_assets.universe.models import Dataset

NAME = "no_look_ahead"
# Times that are drawn in a run of a family; all symbols are looked at there.
_PLACES = 1


def feature_checks(dataset: Dataset, partitions_def: dg.PartitionsDefinition) -> list[dg.AssetChecksDefinition]:
    """The checks of a dataset's features, one for each family that it has."""
    return [_check(dataset, family, partitions_def) for family in families(dataset.features, dataset.plugins)]


def _check(dataset: Dataset, family: str, partitions_def: dg.PartitionsDefinition) -> dg.AssetChecksDefinition:
    key = feature_key(dataset, family)

    @dg.asset_check(
        asset=key,
        name=NAME,
        partitions_def=partitions_def,
        description="At bars drawn anew in each run, features computed from the bars up to there, at once and bar by "
        "bar, are those of the table: none reads a later bar, or more bars than it declares.",
        required_resource_keys={"quantlytic"},
    )
    def no_look_ahead(context) -> dg.AssetCheckResult:
        resources: Resources = context.resources.quantlytic
        run = context.op_execution_context
        (window,) = windows(dataset, run.partition_keys)
        compared, wrong = replayed(resources.lake, dataset, family, window.first, window.last, _PLACES)
        if len(run.partition_keys) > 1:
            counts = with_partition(wrong, dataset).group_by("partition").len()
            report_each(context, key, NAME, dict(counts.iter_rows()))
        features = wrong["column"].unique().sort().to_list()
        return dg.AssetCheckResult(
            passed=wrong.is_empty(),
            metadata={
                "values_compared": compared,
                "failures": len(wrong),
                "features": ", ".join(features) or "none differs",
                "cases": wrong.head(50).write_json(),
            },
        )

    return no_look_ahead

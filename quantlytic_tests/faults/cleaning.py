"""A program that makes clean bars of a dataset's archive, and no other table: nothing else is compared."""

from __future__ import annotations

import sys

import dagster as dg

from quantlytic_assets.assets.keys import clean_bars_key
from quantlytic_assets.dagster_internals import range_tags
from quantlytic_assets.definitions import build_definitions, dataset_job_name
from quantlytic_assets.settings import load_settings
from quantlytic_assets.universe.loading import load_universe


def make_clean_bars(dataset_name: str, first: str, last: str) -> None:
    """Materialize clean bars of the sessions from `first` to `last`, in a Dagster instance that is gone afterwards."""
    settings = load_settings()
    dataset = load_universe(settings.universe).datasets[dataset_name]
    job = build_definitions(settings).resolve_job_def(dataset_job_name(dataset))
    with dg.DagsterInstance.ephemeral() as instance:
        job.execute_in_process(
            run_config={"loggers": {"console": {"config": {"log_level": "WARNING"}}}},
            instance=instance,
            tags=range_tags(first, last),
            asset_selection=[clean_bars_key(dataset)],
        )


if __name__ == "__main__":
    make_clean_bars(*sys.argv[1:])

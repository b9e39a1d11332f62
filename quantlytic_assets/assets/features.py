"""The dbt models as Dagster assets: one set a dataset over the same SQL.

The environment tells which dataset and sessions. Models, tests and documentation are in `dbt_project/`.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import polars as pl
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtCliResource, DbtProject, dbt_assets
from filelock import FileLock
from packaging.version import Version

from quantlytic_assets import settings
from quantlytic_assets.assets.keys import clean_bars_key, corporate_actions_key, coverage_key, feature_key
from quantlytic_assets.assets.partitions import closes_known_by
from quantlytic_assets.assets.per_partition import chart_and_page, group_by_key, partition_charts
from quantlytic_assets.calendars.partitions import Window, windows, with_partition
from quantlytic_assets.features.columns import of_family
from quantlytic_assets.features.spec import Feature
from quantlytic_assets.resources import Resources
from quantlytic_assets.schemas.features import CLOSES, FAMILIES
from quantlytic_assets.schemas.lake import MADE_BY_DBT, TABLES
from quantlytic_assets.services.features import COSTS, declared_version, families, run_costs, run_environment
from quantlytic_assets.settings import DBT_PROJECT
from quantlytic_assets.tables.features import counts as table_counts
from quantlytic_assets.universe.feature_choice import features_of, others
from quantlytic_assets.universe.models import Dataset

# Who writes dbt's sources, by the name that their declarations give.
_WRITERS = {"clean_bars": clean_bars_key, "corporate_actions": corporate_actions_key, "coverage": coverage_key}
# Models whose rows depend on what the dataset declares.
_DECLARED = (CLOSES.table_name, *FAMILIES)
# What is drawn of a model's partition that is no family; `features` where nothing is named.
_CHARTS = {"labels": "labels", "adjusted_bars": "bars"}


@lru_cache
def dbt_project() -> DbtProject:
    """The dbt project with an up-to-date manifest: parsed once, and again only after one of its files changed.

    Processes that start together take turns, and what dbt makes of the project is put in place whole: at no moment does
    another one, or the next after a kill, find half a manifest.
    """
    project = DbtProject(project_dir=DBT_PROJECT)
    target = DBT_PROJECT / project.target_path
    if not _is_up_to_date(project.manifest_path):
        target.mkdir(exist_ok=True)
        with FileLock(target / "parse.lock"):
            if not _is_up_to_date(project.manifest_path):
                made = target / "parse"
                dbt_resource(project).cli(["parse", "--quiet"], target_path=made).wait()
                # The manifest last: with it the rest counts as done.
                for name in ("partial_parse.msgpack", "semantic_manifest.json", project.manifest_path.name):
                    (made / name).replace(target / name)
    return project


def _is_up_to_date(manifest: Path) -> bool:
    """Whether the manifest is there and none of the project's files is newer."""
    # Not the target directory: what others parse in comes and goes there.
    parts = [part for part in DBT_PROJECT.iterdir() if part.name not in ("target", "logs")]
    files = [
        path for part in parts for path in (part, *part.rglob("*")) if path.suffix in (".sql", ".py", ".yml", ".md")
    ]
    return manifest.exists() and manifest.stat().st_mtime >= max(path.stat().st_mtime for path in files)


class _InstalledDbt(DbtCliResource):
    """dbt of this environment, whose version is known: running the program to ask for it costs each run two seconds."""

    @cached_property
    def _cli_version(self) -> Version:
        return Version(version("dbt-core"))

    def _initialize_dbt_core_adapter(self, args: Sequence[str]) -> Any:
        """None: it is for figures that `_report` asks the lake for, and costs each run three seconds."""


def dbt_resource(project: DbtProject) -> DbtCliResource:
    """Dbt as installed beside this Python, whatever the PATH says."""
    return _InstalledDbt(
        project_dir=str(project.project_dir),
        dbt_executable=str(settings.PROGRAMS / "dbt"),
        global_config_flags=["--no-use-colors"],
    )


class _Translator(DagsterDbtTranslator):
    """Names dbt's nodes as assets of one dataset."""

    def __init__(self, dataset: Dataset, datasets: Mapping[str, Dataset], common: Mapping[str, Any]):
        super().__init__(settings=DagsterDbtTranslatorSettings(enable_duplicate_source_asset_keys=True))
        self.dataset = dataset
        self.common = common
        # Dagster asks for each node several times.
        self.absent = absent_families(dataset)
        self._absent_keys = {feature_key(dataset, family) for family in self.absent}
        features = features_of(dataset)
        self._read_by = {family: _others_read(dataset, datasets, of_family(features, family)) for family in FAMILIES}

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None) -> dg.AssetSpec:
        """As dbt has it, upstream the families that the dataset has and the other datasets that their features read."""
        spec = super().get_asset_spec(manifest, unique_id, project)
        deps = [dep for dep in spec.deps if dep.asset_key not in self._absent_keys]
        deps += [
            dg.AssetDep(feature_key(other, "bars"), partition_mapping=closes_known_by(self.dataset, other))
            for other in self._read_by.get(self.get_resource_props(manifest, unique_id)["name"], ())
        ]
        return spec.replace_attributes(deps=deps)

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        """`<dataset>/<model>`; dbt's sources are the assets that write them."""
        name = dbt_resource_props["name"]
        if dbt_resource_props["resource_type"] == "source":
            table = f"{dbt_resource_props['schema']}.{name}"
            writer = _WRITERS.get(TABLES[table].writer)
            # What strategies write is documented beside, and no model reads it.
            return writer(self.dataset) if writer else dg.AssetKey(table.split("."))
        return feature_key(self.dataset, name)

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str:
        """All assets of a dataset are one group."""
        return self.dataset.name

    def get_owners(self, dbt_resource_props: Mapping[str, Any]) -> Sequence[str]:
        """As for the dataset's other assets."""
        return self.common["owners"]

    def get_code_version(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
        """As dbt has it; a family's changes with the features that the dataset declares in it."""
        version, name = super().get_code_version(dbt_resource_props), dbt_resource_props["name"]
        return f"{version}-{declared_version(self.dataset, name)}" if name in _DECLARED else version

    def get_automation_condition(self, dbt_resource_props: Mapping[str, Any]) -> dg.AutomationCondition | None:
        """As for the dataset's other assets; but a view is right without being made again for each new action.

        Nor are features for another dataset whose partitions can't be set against these ones.
        """
        unmapped = [
            feature_key(other, "bars")
            for other in self._read_by.get(dbt_resource_props["name"], ())
            if isinstance(closes_known_by(self.dataset, other), dg.AllPartitionMapping)
        ]
        ignored = dg.AssetSelection.assets(corporate_actions_key(self.dataset), *unmapped)
        return self.common["automation_condition"].ignore(ignored)


def _others_read(dataset: Dataset, datasets: Mapping[str, Dataset], features: Sequence[Feature]) -> list[Dataset]:
    """The other datasets whose closes these features of a dataset read."""
    names = dict.fromkeys(name for name, _ in others(features) if name and name != dataset.name)
    return [datasets[name] for name in names]


def feature_models(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Dbt model name to lake table or view (`schema.name`)."""
    return {
        node["name"]: f"{node['schema']}.{node['alias']}"
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model" and node["config"]["materialized"] != "ephemeral"
    }


@lru_cache
def dbt_manifest() -> Mapping[str, Any]:
    """What dbt knows of its models, sources and columns."""
    return json.loads(dbt_project().manifest_path.read_text())


def dbt_run_environment(dataset: Dataset, horizons: Sequence[int], window: Window) -> dict[str, str]:
    """What tells the generic models which rows to make (read by dbt_project/macros/run_range.sql)."""
    return {
        "QUANTLYTIC_RUN_DATASET": dataset.name,
        "QUANTLYTIC_RUN_INTERVAL": dataset.interval,
        "QUANTLYTIC_RUN_INTERVALS": ",".join(dataset.feature_intervals),
        "QUANTLYTIC_RUN_HORIZONS": ",".join(str(horizon) for horizon in sorted(set(horizons))),
        "QUANTLYTIC_RUN_START": window.first.isoformat(),
        "QUANTLYTIC_RUN_END": window.last.isoformat(),
        "QUANTLYTIC_RUN_DELAY": str(dataset.delay.total_seconds()),
        "QUANTLYTIC_RUN_INCOMPLETE": dataset.incomplete_bars,
        **run_environment(dataset.features, dataset.plugins),
    }


def absent_families(dataset: Dataset) -> list[str]:
    """The families of which a dataset has no feature."""
    return sorted(FAMILIES.keys() - families(dataset.features, dataset.plugins))


def feature_assets(
    dataset: Dataset, datasets: Mapping[str, Dataset], horizons: Sequence[int], common: Mapping[str, Any]
) -> dg.AssetsDefinition:
    """The dbt models for one dataset of the universe's. `horizons` (bars) are those of the dataset's strategies."""
    project = dbt_project()
    manifest = dbt_manifest()
    models = feature_models(manifest)
    translator = _Translator(dataset, datasets, common)

    @dbt_assets(
        manifest=manifest,
        project=project,
        exclude=" ".join(translator.absent),
        name=f"{dataset.name}__features",
        partitions_def=common["partitions_def"],
        backfill_policy=common["backfill_policy"],
        dagster_dbt_translator=translator,
        required_resource_keys={"quantlytic", "dbt"},
    )
    def features(context: dg.AssetExecutionContext) -> Iterator[Any]:
        resources: Resources = context.resources.quantlytic
        dbt: DbtCliResource = context.resources.dbt
        (window,) = windows(dataset, context.partition_keys)
        # Not --vars: they would make dbt parse the whole project again in each run.
        os.environ.update(resources.lake.dbt_environment() | dbt_run_environment(dataset, horizons, window))
        # One target directory an installation: dbt finds what it parsed last time there.
        target = resources.settings.directory("dbt") / "target"
        # The lake's tables are there before dbt looks for them. Locks are taken by dbt's materializations, a model at a
        # time (storage/dbt_writes.py).
        resources.lake.connect()
        with _noted_costs() as costs:
            # Its manifest, which nobody reads there, would be written twice: a tenth of a short run.
            for event in dbt.cli(["build", "--no-write-json"], context=context, target_path=target).stream():
                if isinstance(event, dg.Output):
                    # The model's rows are there; its materializations are written when the output is handed on.
                    key = context.asset_key_for_output(event.output_name)
                    more = run_costs(costs, key.path[-1])
                    _report(context, resources, dataset, window, key, models[key.path[-1]], more)
                yield event

    return features


@contextmanager
def _noted_costs() -> Iterator[Path]:
    """A directory in which dbt's models note what they cost; the environment names it for as long as it is there."""
    with TemporaryDirectory() as directory:
        os.environ[COSTS] = directory
        try:
            yield Path(directory)
        finally:
            os.environ.pop(COSTS, None)


def _report(
    context: dg.AssetExecutionContext,
    resources: Resources,
    dataset: Dataset,
    window: Window,
    key: dg.AssetKey,
    table: str,
    costs: Mapping[str, float],
) -> None:
    counts = table_counts(resources.lake, MADE_BY_DBT[table], dataset.name, since=window.since, before=window.before)
    per_key = {
        row.pop("partition"): row
        for row in with_partition(counts, dataset)
        .group_by("partition")
        .agg(pl.col("rows").sum().alias("dagster/partition_row_count"), pl.col("symbols").max())
        .iter_rows(named=True)
    }
    name = key.path[-1]
    for partition, entry in group_by_key(window.keys, per_key, {"dagster/partition_row_count": 0}).items():
        links = resources.links
        if name in FAMILIES:
            page = links.partition(dataset.name, partition)
            entry.update(costs, **chart_and_page(links.family_chart(dataset.name, partition, name), page))
        else:
            entry.update(partition_charts(links, dataset, partition, _CHARTS.get(name, "features")))
        context.add_asset_metadata(entry, asset_key=key, partition_key=partition)

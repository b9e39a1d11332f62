"""Keeps trained models in MLflow and finds them again by strategy and partition.

Everything goes through explicit clients, never through MLflow's process-wide settings, so that two stores or threads do
not disturb each other. A model can be found only when everything about it is written: its alias is set last.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import polars as pl

from quantlytic_assets.learning.moved_models import follow
from quantlytic_assets.learning.training import TrainedModel
from quantlytic_assets.schemas.ml import MODELS

if TYPE_CHECKING:
    import polars as pl
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from sklearn.pipeline import Pipeline

    from quantlytic_assets.universe.models import ModelStrategy

# Compiled classes inside our pipelines. skops rejects what is neither well known nor named here, so that reading
# a model cannot run arbitrary code the way a pickle can.
_TRUSTED_TYPES = ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor", "sklearn.tree._tree.Tree"]
# The chart beside each model, and how many rows show what one takes.
_EVALUATION = "evaluation.png"
_EXAMPLE_ROWS = 5
# What of a strategy concerns its models, beside the columns and symbols that they learn from.
_LEARNED_WITH = (
    "dataset", "interval", "model", "horizon", "retrain", "min_train_sessions", "embargo_sessions",
)  # fmt: skip
# The alias of the model that decides today, and the beginning of those of partitions.
CHAMPION = "champion"
_CUT = "cut-"
_SQLITE_SCHEMES = ("sqlite:///", "sqlite+pysqlite:///")


class ModelNotFound(LookupError):
    """No finished model is registered for this strategy and partition."""


class ChartNotFound(ModelNotFound):
    """The model is there and has no chart: it was trained by a version that kept none."""


def alias_of(partition_key: str) -> str:
    """The registered model's alias for a partition: `cut-2015-01-01` for `2015-01-01`.

    The prefix keeps clear of names that MLflow reserves (`v1`, `latest`); what it does not allow becomes a dash.
    """
    return _CUT + re.sub(r"[^0-9A-Za-z_-]", "-", partition_key)


class ModelStore:
    """Models of all strategies in one MLflow tracking server and registry.

    tracking_uri: anything MLflow takes, such as `sqlite:////data/mlflow/mlflow.db` or `http://host:5000`.
    artifact_root: a directory, or a URI such as `s3://bucket/mlflow`, in which each strategy's experiment keeps its
    files. MLflow is loaded with the first use.
    """

    def __init__(self, tracking_uri: str, artifact_root: str | Path) -> None:
        self.tracking_uri = tracking_uri
        root = str(artifact_root)
        self.artifact_root = root.rstrip("/") if "://" in root else Path(root).absolute().as_uri()
        self._client: MlflowClient | None = None

    def log(
        self,
        strategy: ModelStrategy,
        partition_key: str,
        trained: TrainedModel,
        run_tags: Mapping[str, str] | None = None,
    ) -> str:
        """Writes a trained model as a new version of the registered model named by the strategy; returns the version.

        The experiment named by the strategy gets a run with the strategy's settings and the model's hyperparameters as
        parameters, the model's metrics, importances and the baselines' metrics (`majority_accuracy`, …), the rows it
        learned from as an input dataset with their digest, a chart, and `run_tags`. The model has a signature and an
        input example. The partition's alias then moves to the new version: a rerun adds a version. Killed on the way,
        it leaves an unfinished run, and the alias where it was. The newest partition's model is the `champion`.
        """
        client = self._connect()
        experiment = self._experiment(strategy.name)
        partition = {"quantlytic.strategy": strategy.name, "quantlytic.partition": partition_key}
        run = client.create_run(experiment, tags={**partition, **(run_tags or {})}, run_name=partition_key)
        run_id = run.info.run_id
        try:
            self._log_figures(run_id, strategy, trained)
            self._log_input(run_id, strategy, trained)
            self._log_evaluation(run_id, strategy, partition_key, trained)
            model_id, source = self._log_files(experiment, run_id, strategy, trained, partition)
            self._registered_model(strategy.name)
            found = client.create_model_version(
                strategy.name,
                source=source,
                run_id=run_id,
                model_id=model_id,
                tags={
                    **partition,
                    "quantlytic.features": json.dumps(trained.feature_names),
                    "quantlytic.trained_through": trained.trained_through.isoformat(),
                },
            )
            client.set_terminated(run_id)
            client.set_registered_model_alias(strategy.name, alias_of(partition_key), found.version)
            self._name_champion(strategy.name)
        except BaseException:
            client.set_terminated(run_id, status="FAILED")
            raise
        return str(found.version)

    def load(self, strategy: ModelStrategy, partition_key: str) -> tuple[Pipeline, tuple[str, ...], str, datetime]:
        """(pipeline, feature_names, version, trained_through in UTC) of a partition's model.

        Raises `ModelNotFound`, saying what to do, if that partition's model was never finished.
        """
        import_mlflow()
        import mlflow.sklearn

        found = self._version(strategy, partition_key)
        return (
            mlflow.sklearn.load_model(found.source),
            tuple(json.loads(found.tags["quantlytic.features"])),
            str(found.version),
            datetime.fromisoformat(found.tags["quantlytic.trained_through"]).astimezone(UTC),
        )

    def in_force(self, strategy: ModelStrategy, partition_keys: Sequence[str]) -> pl.DataFrame:
        """The models that steps predict with (`schemas.ml.MODELS`); nulls but for step and cut where there is none."""
        client = self._connect()
        rows: list[dict[str, object]] = []
        for key in partition_keys:
            cut = datetime.combine(date.fromisoformat(key), datetime.min.time(), UTC)
            row: dict[str, object] = {"step": key, "cut": cut}
            try:
                found = self._version(strategy, key)
            except ModelNotFound:
                rows.append(row)
                continue
            figures = client.get_run(str(found.run_id)).data.metrics
            rows.append(
                row
                | {
                    "model_version": str(found.version),
                    "trained_through": datetime.fromisoformat(found.tags["quantlytic.trained_through"]),
                    "training_rows": int(figures["rows"]),
                    "training_sessions": int(figures["sessions"]),
                }
            )
        return pl.DataFrame(rows, MODELS.polars)

    def exists(self) -> bool:
        """Whether anything can have been kept here yet; asking makes nothing."""
        scheme = next((s for s in _SQLITE_SCHEMES if self.tracking_uri.startswith(s)), None)
        return scheme is None or Path(self.tracking_uri[len(scheme) :]).exists()

    def trained(self, strategy: ModelStrategy) -> list[dict[str, str]]:
        """partition, version, trained_through of each partition's model, the newest partition first."""
        from mlflow.exceptions import MlflowException

        client = self._connect()
        try:
            aliases = client.get_registered_model(strategy.name).aliases
        except MlflowException as error:
            if error.error_code not in _missing():
                raise
            return []
        cuts = [version for alias, version in aliases.items() if alias.startswith(_CUT)]
        found = [client.get_model_version(strategy.name, version).tags for version in cuts]
        versions = zip(found, cuts, strict=True)
        rows = [
            {
                "partition": tags["quantlytic.partition"],
                "version": str(version),
                "trained_through": tags["quantlytic.trained_through"],
            }
            for tags, version in versions
        ]
        return sorted(rows, key=lambda row: row["partition"], reverse=True)

    def described(self, name: str, version: str) -> dict[str, Any] | None:
        """What is on record of a version of a strategy's model; None where the registry does not have it.

        name, version, created_at (UTC), run_id, aliases, and `tags`, `metrics` and `inputs` (name and digest of the
        rows learned from) of the version and its run.
        """
        from mlflow.exceptions import MlflowException

        client = self._connect()
        try:
            found = client.get_model_version(name, version)
        except MlflowException as error:
            if error.error_code not in _missing():
                raise
            return None
        run = client.get_run(str(found.run_id))
        tags = {**run.data.tags, **found.tags}
        inputs = run.inputs.dataset_inputs if run.inputs else []
        return {
            "name": name,
            "version": str(found.version),
            "created_at": datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
            "run_id": str(found.run_id),
            "aliases": list(found.aliases),
            "tags": {key: value for key, value in tags.items() if not key.startswith("mlflow.")},
            "metrics": dict(run.data.metrics),
            "inputs": {one.dataset.name: one.dataset.digest for one in inputs},
        }

    def evaluation_chart(self, strategy: ModelStrategy, partition_key: str) -> bytes:
        """The PNG of a partition's model. Raises `ModelNotFound` where there is none, else `ChartNotFound`."""
        from mlflow.exceptions import MlflowException

        run_id = str(self._version(strategy, partition_key).run_id)
        with tempfile.TemporaryDirectory(prefix="quantlytic-model-") as scratch:
            try:
                return Path(self._connect().download_artifacts(run_id, _EVALUATION, scratch)).read_bytes()
            except (MlflowException, OSError) as error:
                raise ChartNotFound(
                    f"the model of {strategy.name} for {partition_key} has no chart: materialize its model partition "
                    f"{partition_key} again"
                ) from error

    def _name_champion(self, name: str) -> None:
        """Give the newest partition's model the alias by which people ask for the one that decides today."""
        client = self._connect()
        while True:
            # Looked at again afterwards: a training beside this one may have set a newer or an older one meanwhile.
            aliases = client.get_registered_model(name).aliases
            newest = aliases[max(one for one in aliases if one.startswith(_CUT))]
            if aliases.get(CHAMPION) == newest:
                return
            client.set_registered_model_alias(name, CHAMPION, newest)

    def _version(self, strategy: ModelStrategy, partition_key: str) -> ModelVersion:
        from mlflow.exceptions import MlflowException

        client = self._connect()
        try:
            return client.get_model_version_by_alias(strategy.name, alias_of(partition_key))
        except MlflowException as error:
            if error.error_code not in _missing():
                raise
            raise ModelNotFound(
                f"strategy {strategy.name} has no model for {partition_key}: materialize its model partition "
                f"{partition_key} first"
            ) from error

    def _connect(self) -> MlflowClient:
        if self._client is None:
            mlflow = import_mlflow()
            self._lay_out()
            self._client = mlflow.MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)
            self._client.search_experiments(max_results=1)
        return self._client

    def _lay_out(self) -> None:
        """Make a SQLite database that is not there yet, and move it into place whole.

        MLflow lays it out in dozens of steps: one that is killed between two leaves a database that nobody can use or
        mend, and its own lock against others is per machine and not per file.
        """
        scheme = next((s for s in _SQLITE_SCHEMES if self.tracking_uri.startswith(s)), None)
        if scheme is None:
            return
        from filelock import FileLock

        database = Path(self.tracking_uri[len(scheme) :])
        database.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{database}.lock"):
            if database.exists():
                follow(database, self.artifact_root)
                return
            for left in database.parent.glob(f"{database.name}.new-*"):
                left.unlink()
            # Another name each time, for MLflow remembers by it what it has laid out.
            made = database.with_name(f"{database.name}.new-{uuid4().hex}")
            uri = f"{scheme}{made}"
            import_mlflow().MlflowClient(tracking_uri=uri, registry_uri=uri).search_experiments(max_results=1)
            made.replace(database)

    def _experiment(self, name: str) -> str:
        client = self._connect()

        def current():
            return client.get_experiment_by_name(name)

        experiment = current()
        if experiment is None:
            _unless_it_exists(lambda: client.create_experiment(name, f"{self.artifact_root}/{name}"))
            experiment = current()
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
        return experiment.experiment_id

    def _registered_model(self, name: str) -> None:
        _unless_it_exists(lambda: self._connect().create_registered_model(name))

    def _log_figures(self, run_id: str, strategy: ModelStrategy, trained: TrainedModel) -> None:
        from mlflow.entities import Metric, Param

        settings: dict[str, Any] = {name: getattr(strategy, name) for name in _LEARNED_WITH}
        settings["features"] = ",".join(trained.feature_names)
        settings["symbols"] = ",".join(strategy.symbols)
        settings["trained_through"] = trained.trained_through.isoformat()
        settings |= _hyperparameters(trained.pipeline)
        now = int(time.time() * 1000)
        figures: dict[str, float | None] = {**trained.metrics, "rows": trained.rows, "sessions": trained.sessions}
        for baseline, metrics in trained.baseline_metrics.items():
            figures |= {f"{baseline}_{name}": value for name, value in metrics.items()}
        figures |= {f"{trained.importances.kind}.{name}": value for name, value in trained.importances.values.items()}
        self._connect().log_batch(
            run_id,
            metrics=[Metric(name, float(value), now, 0) for name, value in figures.items() if value is not None],
            params=[Param(name, str(value)) for name, value in settings.items()],
            synchronous=True,
        )

    def _log_input(self, run_id: str, strategy: ModelStrategy, trained: TrainedModel) -> None:
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.polars_dataset import from_polars
        from mlflow.entities import DatasetInput, InputTag

        source = {"tables": "features.indicators, features.labels", "dataset": strategy.dataset}
        rows = from_polars(
            trained.learned_from,
            source=CodeDatasetSource({**source, "interval": strategy.interval, "horizon": str(strategy.horizon)}),
            targets="label",
            name=strategy.dataset,
            digest=_digest(trained.learned_from),
        )
        tags = [InputTag("mlflow.data.context", "training")]
        inputs = [DatasetInput(rows._to_mlflow_entity(), tags)]
        _again_if_refused(lambda: self._connect().log_inputs(run_id, inputs))

    def _log_evaluation(self, run_id: str, strategy: ModelStrategy, partition_key: str, trained: TrainedModel) -> None:
        from quantlytic_assets.charts.models import evaluation

        drawn = trained.importances
        png = evaluation(trained.holdout, drawn.values, drawn.kind, f"{strategy.name} {partition_key}")
        with tempfile.TemporaryDirectory(prefix="quantlytic-model-") as scratch:
            path = Path(scratch) / _EVALUATION
            path.write_bytes(png)
            self._connect().log_artifact(run_id, str(path))

    def _log_files(
        self, experiment: str, run_id: str, strategy: ModelStrategy, trained: TrainedModel, tags: Mapping[str, str]
    ) -> tuple[str, str]:
        import mlflow.sklearn
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model, infer_signature

        client = self._connect()
        logged = client.create_logged_model(
            experiment,
            name=strategy.name,
            source_run_id=run_id,
            tags=dict(tags),
            params={"model": strategy.model, **_hyperparameters(trained.pipeline)},
        )
        example = trained.learned_from.select(trained.feature_names).head(_EXAMPLE_ROWS).to_pandas()
        signature = infer_signature(example, trained.pipeline.predict_proba(example.to_numpy()))
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        with tempfile.TemporaryDirectory(prefix="quantlytic-model-") as scratch:
            files = Path(scratch) / "model"
            mlflow.sklearn.save_model(
                trained.pipeline,
                str(files),
                mlflow_model=Model(model_id=logged.model_id, model_uuid=logged.model_id, run_id=run_id),
                pip_requirements=[f"{name}=={installed_version(name)}" for name in ("scikit-learn", "skops", "numpy")],
                serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_SKOPS,
                skops_trusted_types=_TRUSTED_TYPES,
                # Served, it answers as it is used here: P(down) and P(up).
                pyfunc_predict_fn="predict_proba",
                signature=signature,
                input_example=example,
                metadata={"feature_names": list(trained.feature_names)},
            )
            client.log_model_artifacts(logged.model_id, str(files))
        client.finalize_logged_model(logged.model_id, "READY")
        # models:/<id> would not do: the registry would look that up in the process-wide tracking store.
        return logged.model_id, logged.artifact_location


def _hyperparameters(pipeline: Pipeline) -> dict[str, str]:
    """Every setting of every step, as `step.setting`."""
    return {
        f"{step}.{name}": str(value)
        for step, part in pipeline.steps
        for name, value in sorted(part.get_params().items())
    }


def _digest(frame: pl.DataFrame) -> str:
    """What rows hold, in 32 letters: the same rows in the same order have the same."""
    said = hashlib.sha256(",".join(frame.columns).encode())
    for column in frame.iter_columns():
        said.update(column.to_numpy().tobytes())
    return said.hexdigest()[:32]


def import_mlflow() -> Any:
    """The mlflow module, told before it loads to send no usage data and to keep its progress notes to itself."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("DO_NOT_TRACK", "true")
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow


def _missing() -> tuple[str, ...]:
    """MLflow's codes for what is not there."""
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode

    return ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), ErrorCode.Name(INVALID_PARAMETER_VALUE)


def _again_if_refused(write: Callable[[], object]) -> None:
    """Calls `write`, and once more if the database refuses it.

    MLflow keeps rows that several runs learned from once. It looks for them before it writes them: of two runs that do
    so at the same time one is refused as a whole, and finds them when it looks again.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import BAD_REQUEST, ErrorCode

    try:
        write()
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(BAD_REQUEST):
            raise
        write()


def _unless_it_exists(create: Callable[[], object]) -> None:
    """Calls `create`; that somebody else was quicker is as good as having done it."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

    try:
        create()
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise

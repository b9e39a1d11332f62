import logging
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
import sqlalchemy as sa

from quantlytic_assets import settings
from quantlytic_assets.checks.schemas import failures
from quantlytic_assets.learning.features import design_matrix, with_labels
from quantlytic_assets.learning.models import MODEL_NAMES
from quantlytic_assets.learning.registry import CHAMPION, ChartNotFound, ModelNotFound, ModelStore, alias_of
from quantlytic_assets.learning.training import train
from quantlytic_assets.schemas.ml import MODELS
from quantlytic_tests.learning.frames import indicators, labels, strategy, weekdays

CUT = datetime(2015, 1, 1, tzinfo=UTC)

LOG_ONE = """
import sys
from quantlytic_tests.learning.test_registry import store_in, trained_model
from quantlytic_tests.learning.frames import strategy
print(store_in(sys.argv[1]).log(strategy(), sys.argv[2], trained_model()))
"""


def store_in(directory) -> ModelStore:
    return ModelStore(f"sqlite:///{directory}/mlflow.db", f"{directory}/artifacts")


def frame():
    rows = indicators(300)
    return with_labels(design_matrix(rows, strategy().features), labels(rows))


def trained_model(name: str = "logistic_regression"):
    return train(strategy(model=name), frame(), CUT, weekdays(300))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return store_in(tmp_path_factory.mktemp("mlflow"))


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_a_model_comes_back_as_it_went_in(shared, name, caplog, capfd):
    trained = trained_model(name)
    named = strategy(name=name, model=name)
    with caplog.at_level(logging.INFO):
        version = shared.log(named, "2015-01-01", trained, {"dagster.run_id": "abc"})
        pipeline, names, found, trained_through = shared.load(named, "2015-01-01")
    matrix = frame().select(names).to_numpy()
    assert np.array_equal(pipeline.predict_proba(matrix), trained.pipeline.predict_proba(matrix))
    assert (names, found, trained_through) == (trained.feature_names, version, trained.trained_through)
    assert [record for record in caplog.records if record.name.split(".")[0] in ("mlflow", "alembic")] == []
    assert "".join(capfd.readouterr()) == ""


def test_which_models_are_in_force_is_told_with_the_steps_that_have_none(shared):
    trained, named = trained_model(), strategy(name="in_force")
    shared.log(named, "2015-01-01", trained)
    version = shared.log(named, "2015-01-01", trained)
    found = shared.in_force(named, ["2015-01-01", "2015-02-01"])
    assert found.schema == MODELS.polars
    assert found.row(0, named=True) == {
        "step": "2015-01-01",
        "cut": CUT,
        "model_version": version,
        "trained_through": trained.trained_through,
        "training_rows": trained.rows,
        "training_sessions": trained.sessions,
    }
    keyed = found.with_columns(pl.col("step").alias("partition"))
    assert set(failures(keyed, MODELS)["partition"]) == {"2015-02-01"}
    late = keyed.head(1).with_columns(trained_through=pl.col("cut") + pl.duration(microseconds=1))
    assert failures(late, MODELS)["check"].to_list() == ["the model learned from nothing known after the cut"]


def test_the_run_shows_settings_and_the_model_beside_its_baselines(shared):
    import mlflow

    named = strategy(name="shown")
    trained = trained_model()
    version = shared.log(named, "2015-01-01", trained, {"dagster.run_id": "abc"})
    client = mlflow.MlflowClient(shared.tracking_uri, shared.tracking_uri)
    run = client.get_run(client.get_model_version("shown", version).run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["dagster.run_id"] == "abc"
    assert run.data.params["features"] == "ret_1,sma_20,rsi_14"
    assert run.data.params["horizon"] == "1"
    assert run.data.metrics["accuracy"] == trained.metrics["accuracy"]
    assert run.data.metrics["persistence_accuracy"] == trained.baseline_metrics["persistence"]["accuracy"]
    assert "majority_ic" not in run.data.metrics


@pytest.mark.parametrize("name", ["logistic_regression", "gradient_boosting"])
def test_a_version_says_what_it_takes_what_it_learned_from_and_what_it_goes_by(shared, name):
    import json

    import mlflow

    named, trained = strategy(name=f"told_{name}", model=name), trained_model(name)
    version = shared.log(named, "2015-01-01", trained)
    client = mlflow.MlflowClient(shared.tracking_uri, shared.tracking_uri)
    found = client.get_model_version(named.name, version)
    run = client.get_run(found.run_id)
    # Hyperparameters, those of every step of the pipeline.
    settings = {"logistic_regression": ("model.C", "0.1"), "gradient_boosting": ("model.max_leaf_nodes", "8")}
    key, value = settings[name]
    assert run.data.params[key] == value
    # Importances: a number a feature; the last return is what this data leans on.
    kind = {"logistic_regression": "coefficient", "gradient_boosting": "permutation"}[name]
    kept = {key: value for key, value in run.data.metrics.items() if key.startswith(f"{kind}.")}
    assert kept == {f"{kind}.{key}": value for key, value in trained.importances.values.items()}
    assert max(kept, key=lambda key: abs(kept[key])) == f"{kind}.ret_1"
    # The rows it learned from.
    (given,) = run.inputs.dataset_inputs
    assert (given.dataset.name, len(given.dataset.digest)) == ("equities_1d", 32)
    assert json.loads(given.dataset.profile)["num_rows"] == trained.rows
    assert [tag.value for tag in given.tags] == ["training"]
    # What it takes, with an example that it answers as it does here.
    served = mlflow.pyfunc.load_model(found.source)
    assert served.metadata.signature.inputs.input_names() == list(trained.feature_names)
    example = served.input_example
    assert list(example.columns) == list(trained.feature_names)
    assert np.allclose(served.predict(example), trained.pipeline.predict_proba(example.to_numpy()))
    assert shared.evaluation_chart(named, "2015-01-01").startswith(b"\x89PNG")
    told = shared.described(named.name, version)
    assert (told["run_id"], told["inputs"]) == (found.run_id, {"equities_1d": given.dataset.digest})
    assert told["tags"]["quantlytic.trained_through"] == trained.trained_through.isoformat()
    assert (sorted(told["aliases"]), told["metrics"]["rows"]) == ([CHAMPION, "cut-2015-01-01"], trained.rows)
    assert told["created_at"].utcoffset() is not None and shared.described(named.name, "99") is None
    rows = shared.trained(named)
    assert [(row["partition"], row["version"]) for row in rows] == [("2015-01-01", version)]


def test_the_champion_is_the_newest_partitions_model_in_whatever_order_they_are_trained(shared):
    import mlflow

    named, client = strategy(name="crowned"), mlflow.MlflowClient(shared.tracking_uri, shared.tracking_uri)
    versions = []
    for partition in ("2015-01-01", "2017-01-01", "2016-01-01", "2017-01-01"):
        versions.append(shared.log(named, partition, trained_model()))
        newest = versions[-2] if partition == "2016-01-01" else versions[-1]
        assert str(client.get_model_version_by_alias("crowned", CHAMPION).version) == newest
    assert [row["partition"] for row in shared.trained(named)] == ["2017-01-01", "2016-01-01", "2015-01-01"]


def test_the_digest_is_that_of_the_rows(shared):
    import mlflow

    named, client = strategy(name="digested"), mlflow.MlflowClient(shared.tracking_uri, shared.tracking_uri)
    later = train(named, frame(), datetime(2014, 12, 1, tzinfo=UTC), weekdays(300))

    def digest(trained) -> str:
        version = shared.log(named, "2015-01-01", trained)
        run = client.get_run(client.get_model_version(named.name, version).run_id)
        return run.inputs.dataset_inputs[0].dataset.digest

    first = digest(trained_model())
    assert digest(trained_model()) == first
    assert digest(later) != first


def test_a_model_without_a_chart_says_how_to_get_one(shared, monkeypatch):
    named = strategy(name="undrawn")
    with monkeypatch.context() as patched:
        patched.setattr(shared, "_log_evaluation", lambda *_: None)
        shared.log(named, "2015-01-01", trained_model())
    with pytest.raises(ChartNotFound, match="has no chart: materialize its model partition 2015-01-01 again"):
        shared.evaluation_chart(named, "2015-01-01")
    assert shared.trained(strategy(name="nobody")) == []


def test_asking_whether_there_is_a_store_makes_none(tmp_path):
    store = store_in(tmp_path)
    assert not store.exists() and list(tmp_path.iterdir()) == []
    store.log(strategy(), "2015-01-01", trained_model())
    assert store.exists()


def test_a_rerun_makes_a_new_version_and_moves_the_alias(shared):
    named, trained = strategy(name="again"), trained_model()
    first = shared.log(named, "2015-01-01", trained)
    other = shared.log(named, "2016-01-01", trained)
    second = shared.log(named, "2015-01-01", trained)
    assert len({first, other, second}) == 3
    assert shared.load(named, "2015-01-01")[2] == second
    assert shared.load(named, "2016-01-01")[2] == other


def test_a_missing_model_says_which_partition_to_materialize(shared):
    with pytest.raises(ModelNotFound, match="momentum_1d has no model for 2013-01-01: materialize"):
        shared.load(strategy(), "2013-01-01")


@pytest.mark.parametrize("step", ["_log_figures", "_log_files", "_registered_model"])
def test_a_death_half_way_leaves_the_alias_on_the_finished_model(shared, monkeypatch, step):
    named, trained = strategy(name=f"dies_{step.strip('_')}"), trained_model()
    first = shared.log(named, "2015-01-01", trained)

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shared, step, die)
        with pytest.raises(KeyboardInterrupt):
            shared.log(named, "2015-01-01", trained)
    assert shared.load(named, "2015-01-01")[2] == first
    assert int(shared.log(named, "2015-01-01", trained)) > int(first)


def test_processes_that_create_everything_at_once_do_not_disturb_each_other(tmp_path):
    def run(partition):
        command = [settings.PROGRAMS / "python", "-c", LOG_ONE, str(tmp_path), partition]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    with ThreadPoolExecutor() as pool:
        versions = list(pool.map(run, ["2015-01-01", "2016-01-01"]))
    assert sorted(versions) == ["1", "2"]
    store = store_in(tmp_path)
    assert [store.load(strategy(), p)[2] for p in ("2015-01-01", "2016-01-01")] == versions


def test_a_run_that_learned_from_the_same_rows_in_the_meantime_disturbs_nobody(shared):
    named, trained = strategy(name="same_rows"), trained_model()
    begun, versions = ["2016-01-01"], []

    def log_another(connection, cursor, statement, *_):
        if statement.startswith("INSERT INTO datasets") and begun:
            versions.append(shared.log(named, begun.pop(), trained))

    sa.event.listen(sa.Engine, "before_cursor_execute", log_another)
    try:
        versions.append(shared.log(named, "2015-01-01", trained))
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", log_another)
    assert versions == ["1", "2"]
    inputs = [shared.described(named.name, version)["inputs"] for version in versions]
    assert inputs[0] == inputs[1] and list(inputs[0]) == ["equities_1d"]
    assert [shared.load(named, key)[2] for key in ("2016-01-01", "2015-01-01")] == versions


def test_aliases_are_legal_and_keep_partitions_apart():
    assert alias_of("2015-01-01") == "cut-2015-01-01"
    assert alias_of("v1") == "cut-v1"
    assert alias_of("a/b c") == "cut-a-b-c"


def test_a_database_whose_making_was_killed_is_made_anew(tmp_path):
    process = subprocess.Popen([settings.PROGRAMS / "python", "-c", LOG_ONE, str(tmp_path), "2015-01-01"])
    deadline = time.monotonic() + 120
    # Somewhere in the middle: the finished one has over 900,000 bytes.
    # Without its journal, which comes and goes.
    made = "mlflow.db.new-" + "[0-9a-f]" * 32
    while not any(path.stat().st_size > 100_000 for path in tmp_path.glob(made)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (tmp_path / "mlflow.db").exists()
    store = store_in(tmp_path)
    store.log(strategy(), "2015-01-01", trained_model())
    assert store.load(strategy(), "2015-01-01")[2] == "1"
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"mlflow.db", "mlflow.db.lock", "artifacts"}


def test_models_that_were_moved_with_their_installation_are_found(tmp_path):
    made, moved = tmp_path / "made", tmp_path / "moved here"
    made.mkdir()
    trained = trained_model()
    store_in(made).log(strategy(), "2015-01-01", trained)
    made.rename(moved)
    store = store_in(moved)
    pipeline, names, version, _ = store.load(strategy(), "2015-01-01")
    matrix = frame().select(names).to_numpy()
    assert np.array_equal(pipeline.predict_proba(matrix), trained.pipeline.predict_proba(matrix))
    # A rerun writes to the new place, and MLflow's database names the old one nowhere.
    assert store.log(strategy(), "2015-01-01", trained) == str(int(version) + 1)
    assert not made.exists()
    with closing(sqlite3.connect(moved / "mlflow.db")) as database:
        left = [line for line in database.iterdump() if f"file://{made}/" in line]
    assert left == []

"""A demo of an empty installation: datasets in this process, beside it the strategies of those that are made."""

from __future__ import annotations

import io
import multiprocessing
import os
from datetime import UTC, datetime

import pytest
import yaml
from rich.console import Console

from quantlytic_assets.commands.backfill import shown
from quantlytic_assets.commands.beside import Beside
from quantlytic_assets.commands.demo import in_order, run_demo
from quantlytic_assets.commands.installation import CommandError, Installation
from quantlytic_assets.universe.loading import load_universe
from quantlytic_tests.commands.test_training_history import UNIVERSE, hours
from quantlytic_tests.storage.places import close_all

HOURLY = UNIVERSE["datasets"]["hourly"]
CROSS = {"dataset": "hourly", "interval": "1h", "rule": {"ma_cross": {"fast": 20, "slow": 50}}}
ACCOUNT = {"account": {"capital": 100000}}


def installed(tmp_path, monkeypatch, datasets: dict, strategies: dict) -> Installation:
    path = tmp_path / "universe.yaml"
    path.write_text(yaml.safe_dump({"datasets": datasets, "strategies": strategies}))
    monkeypatch.setenv("QUANTLYTIC_UNIVERSE", str(path))
    monkeypatch.setenv("QUANTLYTIC_HOME", str(tmp_path / "home"))
    # The environment of Dagster and of dbt is set by the command.
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return Installation()


@pytest.fixture
def clean():
    yield
    close_all()


def made_by(installation: Installation, job: str) -> set[int]:
    """The processes that executed the steps of a job's runs."""
    instance = installation.instance
    runs = [run.run_id for run in instance.get_runs() if run.job_name == job]
    entries = [entry for run in runs for entry in instance.all_logs(run) if entry.is_dagster_event]
    return {entry.dagster_event.pid for entry in entries if entry.dagster_event.event_type_value == "STEP_START"}


def test_strategies_are_made_in_a_second_process_and_all_of_it_is_told(tmp_path, monkeypatch, clean):
    universe = {"other": HOURLY | {"symbols": ["BBB"], "last_session": HOURLY["first_session"]}, "hourly": HOURLY}
    strategies = {
        "both": {**CROSS, **ACCOUNT, "portfolio": {"cross": "60%"}},
        "cross": {**CROSS, **ACCOUNT},
        "young": UNIVERSE["strategies"]["young"] | ACCOUNT,
    }
    del strategies["both"]["rule"]
    installation = installed(tmp_path, monkeypatch, universe, strategies)
    lander = installation.resources.lander(installation.dataset("hourly"))
    lander.publish(hours(datetime(2025, 1, 5, 12, tzinfo=UTC)))
    out = io.StringIO()
    run_demo(installation, Console(file=out, width=200))
    text = out.getvalue()
    assert made_by(installation, "hourly_pipeline") == made_by(installation, "other_pipeline") == {os.getpid()}
    (beside,) = made_by(installation, "cross_trading") | made_by(installation, "both_trading")
    assert beside != os.getpid() and beside not in [process.pid for process in multiprocessing.active_children()]
    # What the other process made is counted, and what it said of partitions that it could not make is said.
    assert "126 partitions materialized" in text
    assert "young: too few training sessions for a model of 2025-02-01 (19 of 22)" in text
    assert "cross on hourly" in text and "both on hourly" in text and "young: no report yet" in text

    again = io.StringIO()
    run_demo(Installation(), Console(file=again, width=200))
    assert "0 partitions materialized, 0 vendor requests" in again.getvalue()
    assert "young: too few training sessions for a model of 2025-02-01 (19 of 22)" in again.getvalue()

    # Of a strategy alone there is something to do: it is done here.
    strategies["cross"]["rule"] = {"ma_cross": {"fast": 20, "slow": 200}}
    changed = installed(tmp_path, monkeypatch, universe, strategies)
    run_demo(changed, Console(file=io.StringIO(), width=200))
    assert made_by(changed, "cross_trading") == {beside, os.getpid()}


def test_what_a_strategy_lacks_is_raised_here_as_it_would_be_there(tmp_path, monkeypatch, clean):
    installed(tmp_path, monkeypatch, {"hourly": HOURLY}, {"cross": {**CROSS, **ACCOUNT}})
    with shown(Console(file=io.StringIO())) as progress, Beside(progress) as beside:
        beside.make(["cross"])
        with pytest.raises(
            CommandError, match="cross has no features to decide on yet; run: quantlytic backfill hourly"
        ):
            list(beside.outcomes())


def test_a_second_process_that_is_killed_is_told_of_in_a_sentence():
    with shown(Console(file=io.StringIO())) as progress:
        others = multiprocessing.active_children()
        with Beside(progress) as beside:
            (started,) = [process for process in multiprocessing.active_children() if process not in others]
            started.kill()
            started.join()
            with pytest.raises(CommandError, match="was killed; run the command again"):
                beside.make(["cross"])
                list(beside.outcomes())


@pytest.mark.parametrize(
    ("changes", "order"),
    [
        ({}, ["second", "first", "third"]),
        ({"second": {"features": ["core", "beta(5, third:AAA)"]}}, ["third", "second", "first"]),
        ({"second": {"compare_with": {"dataset": "first", "tolerance_bps": 1}}}, ["first", "second", "third"]),
        (
            {
                "second": {"features": ["core", "beta(5, third:AAA)"]},
                "third": {"features": ["core", "beta(5, second:AAA)"]},
            },
            ["third", "second", "first"],
        ),
    ],
)
def test_datasets_with_strategies_come_first_and_after_what_they_read(tmp_path, changes, order):
    datasets = {name: HOURLY | changes.get(name, {}) for name in ("first", "second", "third")}
    strategies = {"cross": {**CROSS, **ACCOUNT, "dataset": "second"}}
    path = tmp_path / "universe.yaml"
    path.write_text(yaml.safe_dump({"datasets": datasets, "strategies": strategies}))
    assert [dataset.name for dataset in in_order(load_universe(path))] == order

"""`paper_trades` of a strategy at a broker: it trades what is in time, exchanges orders, and says what stops it."""

from __future__ import annotations

from dataclasses import replace

import dagster as dg
import polars as pl
import pytest

from quantlytic_assets.assets.paper_trades import paper_trades_asset
from quantlytic_assets.automation.conditions import follow_upstream
from quantlytic_assets.resources import BROKER_LOCK, Resources, trading_lock
from quantlytic_assets.settings import Settings
from quantlytic_assets.universe.models import Universe
from quantlytic_tests.brokers.bench import ACCOUNT, APPLE, IBM, Bench
from quantlytic_tests.services.desk import DATASET, Desk, recorded_days
from quantlytic_tests.services.floor import LAST, STRATEGY


@pytest.fixture
def bench(tmp_path):
    with Bench(tmp_path, [APPLE, IBM]).serving() as serving:
        yield serving


@pytest.fixture
def resources(tmp_path, bench) -> Resources:
    """An installation whose lake has recorded days of long ago, beside a loopback TWS."""
    home = tmp_path / "home"
    days = recorded_days().filter(pl.col("session") < LAST)
    Desk(home, days).give(days)
    return Resources(
        Settings(
            home=home, ibkr_account=ACCOUNT, ibkr_allowed_accounts=ACCOUNT, ibkr_paper_port=bench.book.port,
        )
    )  # fmt: skip


def materialized(resources, tmp_path, strategy=STRATEGY, **settings):
    universe = Universe(tmp_path / "universe.yaml", {"daily": DATASET}, {strategy.name: strategy})
    common = {"automation_condition": follow_upstream(), "backfill_policy": dg.BackfillPolicy.multi_run(10)}
    asset = paper_trades_asset(DATASET, strategy, common, universe)
    given = {"quantlytic": dg.ResourceDefinition.hardcoded_resource(resources)}
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize(
            [asset], resources=given, instance=instance, partition_key="2011-01-01", raise_on_error=False
        )
        failures = [one.step_failure_data.error.message for one in done.all_events if one.is_step_failure]
        return done.success, " ".join(failures)


def test_a_run_asks_the_broker_and_trades_no_history(resources, tmp_path, bench):
    success, said = materialized(resources, tmp_path)
    assert success, said
    assert bench.book.connections == 1 and bench.book.orders == []
    assert resources.accounts.last("cross") is None
    (values,) = resources.broker_ledger.values("ibkr")
    assert (values.account, values.equity) == (ACCOUNT, 1e6)


def test_a_run_fails_where_the_broker_is_away_or_the_strategy_is_traded_already(resources, tmp_path, bench):
    with resources.lock(trading_lock("cross"), wait=False):
        success, said = materialized(resources, tmp_path)
        assert not success and "cross is being traded by another process" in said
    away = Resources(resources.settings.model_copy(update={"ibkr_paper_port": 1}))
    success, said = materialized(away, tmp_path)
    assert not success and "does not answer" in said
    live = Resources(resources.settings.model_copy(update={"ibkr_account": "U1234567"}))
    success, said = materialized(live, tmp_path)
    assert not success and "no paper account" in said
    assert bench.book.connections == 0


def test_a_strategy_of_a_process_of_its_own_is_only_published(resources, tmp_path, bench):
    with resources.lock(trading_lock("cross"), wait=False), resources.lock(BROKER_LOCK, wait=False):
        success, said = materialized(resources, tmp_path, replace(STRATEGY, interval="5m"))
    assert success, said
    assert bench.book.connections == 0

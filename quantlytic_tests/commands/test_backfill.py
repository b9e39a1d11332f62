"""What a backfill makes anew beside what it was asked for. Everything else of it is tried end to end."""

from __future__ import annotations

import io
import os
from datetime import UTC, date, datetime

import dagster as dg
import polars as pl
import pytest
import yaml
from rich.console import Console

from quantlytic_assets.commands.backfill import Backfill
from quantlytic_assets.commands.backfilling import run_backfill
from quantlytic_assets.commands.installation import Installation, UsageError
from quantlytic_assets.market_data.actions.reconcile import ACTIONS_SCHEMA
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_tests.market_data.recorded_prices import lean_bars
from quantlytic_tests.storage.places import close_all

EX_DATE, TOLD = date(2014, 6, 9), datetime(2020, 1, 3, tzinfo=UTC)
UNIVERSE = {
    "calendar": "XNYS",
    "interval": "1d",
    "first_session": date(2014, 4, 1),
    "last_session": date(2014, 6, 30),
    "vendors": [],
    "symbols": ["AAPL"],
}


@pytest.fixture
def installation(tmp_path, monkeypatch):
    """Apple as a vendor serves it long after its split; its Dagster instance is a temporary one."""
    path = tmp_path / "universe.yaml"
    path.write_text(yaml.safe_dump({"datasets": {"daily": UNIVERSE}}))
    monkeypatch.setenv("QUANTLYTIC_UNIVERSE", str(path))
    monkeypatch.setenv("QUANTLYTIC_HOME", str(tmp_path / "home"))
    # The environment of dbt is set by the run.
    monkeypatch.setattr(os, "environ", os.environ.copy())
    made = Installation()
    ratio = pl.when(pl.col("session") < EX_DATE).then(7.0).otherwise(1.0)
    bars = lean_bars("AAPL", first=date(2014, 4, 1), last=date(2014, 6, 30)).with_columns(
        *(pl.col(name) / ratio for name in ("open", "high", "low", "close")),
        pl.lit("split").alias("adjustment"),
        pl.lit(TOLD).cast(RAW_SCHEMA["fetched_at"]).alias("fetched_at"),
    )
    lander = made.resources.lander(made.dataset("daily"))
    lander.publish(bars.select(RAW_SCHEMA.names()))
    lander.land()
    with dg.DagsterInstance.ephemeral() as instance:
        made.__dict__["instance"] = instance
        yield made
    close_all()


def test_a_family_with_other_features_is_made_again_and_nothing_else(installation, tmp_path):
    first = Backfill(installation, Console(file=io.StringIO()))
    first.dataset(installation.dataset("daily"))
    assert (first.outcome.partitions, first.outcome.failures) == (3, [])
    (tmp_path / "universe.yaml").write_text(
        yaml.safe_dump({"datasets": {"daily": UNIVERSE | {"features": ["core", "stoch", "beta(5, AAPL)"]}}})
    )
    changed = Installation()
    changed.__dict__["instance"] = installation.instance
    names = ("raw_bars", "bars", "closes", "trend", "momentum", "volatility", "cross_asset", "indicators", "labels")

    def made() -> dict[str, int]:
        keys = {name: dg.AssetKey(["daily", name]) for name in names}
        found = {name: changed.instance.fetch_materializations(key, limit=99).records for name, key in keys.items()}
        return {name: len(records) for name, records in found.items()}

    before = made()
    again = Backfill(changed, Console(file=io.StringIO()))
    again.dataset(changed.dataset("daily"), only_pending=True)
    assert again.outcome.failures == []
    more = {name: count - before[name] for name, count in made().items()}
    # A family that was not there has partitions that were never made: these are made as any other.
    assert more["cross_asset"] == more["momentum"] == 3
    count = changed.resources.lake.query("SELECT count(stoch_k), count(beta_5_AAPL), count(*) FROM features.indicators")
    assert 40 < count.row(0)[0] < count.row(0)[2] and count.row(0)[1] > 40
    (tmp_path / "universe.yaml").write_text(
        yaml.safe_dump({"datasets": {"daily": UNIVERSE | {"features": ["core", "stoch(5)", "beta(5, AAPL)"]}}})
    )
    third = Installation()
    third.__dict__["instance"] = installation.instance
    before = made()
    last = Backfill(third, Console(file=io.StringIO()))
    last.dataset(third.dataset("daily"), only_pending=True)
    assert (last.outcome.partitions, last.outcome.failures) == (3, [])
    more = {name: count - before[name] for name, count in made().items()}
    assert {name for name, count in more.items() if count} == {"momentum", "indicators"}
    last.dataset(third.dataset("daily"), only_pending=True)
    assert last.outcome.partitions == 3


def test_a_split_that_comes_with_later_months_mends_the_earlier_ones(installation):
    dataset = installation.dataset("daily")
    lake = installation.resources.lake
    first = Backfill(installation, Console(file=io.StringIO()))
    first.dataset(dataset, last=date(2014, 5, 31))
    assert (first.outcome.partitions, first.outcome.failures) == (2, [])
    split = {"symbol": "AAPL", "session": EX_DATE, "kind": "split", "value": 7.0, "adjustment": "none"}
    split |= {"vendor": "yahoo", "recorded_at": TOLD}
    installation.resources.actions.record("daily", pl.DataFrame([split], schema=ACTIONS_SCHEMA))
    second = Backfill(installation, Console(file=io.StringIO()))
    second.dataset(dataset, first=date(2014, 6, 1))
    assert (second.outcome.partitions, second.outcome.failures) == (3, [])
    traded = lean_bars("AAPL", first=date(2014, 4, 1), last=date(2014, 6, 30)).sort("session")
    bars = lake.query("SELECT close FROM features.bars ORDER BY session")
    assert (bars["close"] / traded["close"] - 1).abs().max() < 1e-12
    returns = lake.query("SELECT max(abs(ret_1)) FROM features.indicators").item()
    labels = lake.query("SELECT max(abs(forward_return)), count(*) FROM features.labels").row(0)
    assert returns < 0.1 and labels[0] < 0.1 and labels[1] == len(traded) - 2


@pytest.mark.parametrize("partition", ["month", "session"])
def test_a_dataset_that_begins_in_the_future_has_nothing_to_backfill_yet(tmp_path, monkeypatch, partition):
    path = tmp_path / "universe.yaml"
    later = {**UNIVERSE, "first_session": date(2099, 1, 5), "partition": partition}
    del later["last_session"]
    path.write_text(yaml.safe_dump({"datasets": {"daily": later}}))
    monkeypatch.setenv("QUANTLYTIC_UNIVERSE", str(path))
    monkeypatch.setenv("QUANTLYTIC_HOME", str(tmp_path / "home"))
    with pytest.raises(UsageError, match="no session there; it begins on 2099-01-05"):
        run_backfill(Installation(), Console(file=io.StringIO()), "daily", None, None, [], False, False)

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
from quantlytic_assets.services.halts import ask_to_halt
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
    # What a run notes has a directory of its own, which the next dbt must not look for.
    assert "QUANTLYTIC_RUN_COSTS" not in os.environ
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
    # A newer bar of May is on the bus; nobody has landed it.
    better = lean_bars("AAPL", first=date(2014, 5, 15), last=date(2014, 5, 15))
    third.resources.lander(third.dataset("daily")).publish(better.select(RAW_SCHEMA.names()))
    before, out = made(), io.StringIO()
    run_backfill(third, Console(file=out), "daily", None, None, [], False, False)
    # Three months of the changed family, of which May has all else made again.
    assert "3 partitions materialized, 0 vendor requests, 0 failures" in out.getvalue()
    more = {name: count - before[name] for name, count in made().items()}
    assert {name: count for name, count in more.items() if count != 1} == {
        "momentum": 3,
        "indicators": 3,
        "raw_bars": 2,
    }
    again = io.StringIO()
    run_backfill(third, Console(file=again), "daily", None, None, [], False, False)
    assert "nothing was missing or out of date; --from 2014-04-01 makes all of it anew" in again.getvalue()


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


RULE = {"dataset": "daily", "interval": "1d", "rule": {"ma_cross": {"fast": 5, "slow": 10}}}
BOT = """
from quantlytic_assets.plugins import Bot

class Dip(Bot):
    def on_bar(self, bar):
        self.target(bar.symbol, 0.5)
"""


def with_rules(installation: Installation, path, plugins: bool = False, **rules: dict) -> Installation:
    """The same installation with a universe that has these rules."""
    declared = {"datasets": {"daily": UNIVERSE}, "strategies": rules, **({"plugins": ["mine.py"]} if plugins else {})}
    (path / "universe.yaml").write_text(yaml.safe_dump(declared))
    again = Installation()
    again.__dict__["instance"] = installation.instance
    return again


def signals_of(installation: Installation, key: dg.AssetKey) -> dict[str, dg.AssetMaterialization]:
    records = installation.instance.fetch_materializations(key, limit=99, ascending=True).records
    return {record.partition_key: record.asset_materialization for record in records}


def test_signals_of_a_rule_are_made_with_its_dataset_and_again_when_the_rule_changes(installation, tmp_path):
    key = dg.AssetKey(["cross", "signals"])
    first, out = with_rules(installation, tmp_path, cross=RULE), io.StringIO()
    run_backfill(first, Console(file=out, width=120), "daily", None, None, [], False, False)
    made = signals_of(first, key)
    lake = first.resources.lake
    rows = lake.query("SELECT session, signal, reason FROM trading.signals WHERE strategy = 'cross' ORDER BY session")
    assert sorted(made) == ["2014-04-01", "2014-05-01", "2014-06-01"]
    counts = {
        day: {name: event.metadata[name].value for name in ("buys", "sells", "holds")} for day, event in made.items()
    }
    assert {day: event.metadata["dagster/partition_row_count"].value for day, event in made.items()} == {
        day: sum(one.values()) for day, one in counts.items()
    }
    assert sum(sum(one.values()) for one in counts.values()) == len(rows) > 60
    # Ten bars until the slower average is known.
    assert rows["signal"].to_list()[:9] == ["hold"] * 9 and "hold" not in rows["signal"].to_list()[9:]
    assert rows["reason"][0] == "sma(5) or sma(10) is not known yet"
    check = dg.AssetCheckKey(key, "signals_schema")
    told = first.instance.event_log_storage.get_asset_check_execution_history(check, limit=10)
    assert told and all(one.event.dagster_event.event_specific_data.passed for one in told if one.event)
    text = out.getvalue()
    assert f"cross on daily: {rows['signal'].to_list().count('buy')} buys" in text and "AAPL" in text
    # Nothing is pending, until the rule is another one.
    again = Backfill(first, Console(file=io.StringIO()))
    again.strategy(first.universe.strategies["cross"], only_pending=True)
    assert again.outcome.partitions == 0
    changed = with_rules(installation, tmp_path, cross=RULE | {"rule": {"ma_cross": {"fast": 5, "slow": 12}}})
    again = Backfill(changed, Console(file=io.StringIO()))
    again.dataset(changed.dataset("daily"), only_pending=True)
    again.strategy(changed.universe.strategies["cross"], only_pending=True)
    assert again.outcome.failures == []
    assert {
        day: event.tags["dagster/code_version"] for day, event in signals_of(changed, key).items()
    } == dict.fromkeys(made, changed.definitions.resolve_job_def("cross_trading").asset_layer.get(key).code_version)
    newest = lake.query("SELECT reason FROM trading.signals ORDER BY session DESC LIMIT 1").item()
    assert "sma(12)" in newest


def test_a_rule_is_backfilled_by_its_name_for_the_sessions_asked(installation, tmp_path):
    rules = {"cross": RULE, "hold": RULE | {"rule": "buy_and_hold"}, "dip": RULE | {"rule": "Dip"}}
    (tmp_path / "mine.py").write_text(BOT)
    named, out = with_rules(installation, tmp_path, plugins=True, **rules), io.StringIO()
    run_backfill(named, Console(file=out, width=120), "hold", date(2014, 5, 5), date(2014, 5, 20), [], False, False)
    lake = named.resources.lake
    found = lake.query("SELECT strategy, min(session), max(session), count(*) FROM trading.signals GROUP BY ALL")
    assert found.rows() == [("hold", date(2014, 5, 1), date(2014, 5, 30), 21)]
    # Those of the sessions asked for are counted.
    assert "hold on daily: 12 buys, 0 sells, 0 holds" in out.getvalue()
    assert "held whatever prices do" in out.getvalue()
    # It was traded on paper too, and once; a restart trades it anew.
    account = lake.query("SELECT session, kind, event_time FROM trading.events WHERE strategy = 'hold' ORDER BY seq")
    assert account.filter(kind="fill")["session"].to_list() == [date(2014, 5, 2)]
    assert "hold on daily, simulated" in out.getvalue()
    # The rows that each partition is said to have are there.
    said = signals_of(named, dg.AssetKey(["hold", "paper_trades"]))
    assert {key: event.metadata["dagster/partition_row_count"].value for key, event in said.items()} == {
        "2014-05-01": len(account)
    }
    days = (date(2014, 5, 5), date(2014, 5, 20))
    run_backfill(named, Console(file=io.StringIO()), "hold", *days, [], False, True)
    again = lake.query("SELECT session, kind, event_time FROM trading.events WHERE strategy = 'hold' ORDER BY seq")
    assert again.equals(account)
    with pytest.raises(UsageError, match="name the dataset: quantlytic backfill daily --force"):
        run_backfill(named, Console(file=io.StringIO()), "hold", None, None, [], False, False, force=True)
    with pytest.raises(UsageError, match="there are: daily, cross, dip, hold"):
        run_backfill(named, Console(file=io.StringIO()), "crss", None, None, [], False, False)
    # A bot has no signals and an account of its own; that it is halted is said with each partition.
    keys = named.definitions.get_repository_def().asset_graph.get_all_asset_keys()
    assert {key.path[1] for key in keys if key.path[0] == "dip"} == {"paper_trades", "performance", "published"}
    ask_to_halt(named.resources.accounts, "dip", "anna", "too late for these sessions")
    out = io.StringIO()
    run_backfill(named, Console(file=out, width=120), "dip", *days, [], False, False)
    fills = lake.query("SELECT session FROM trading.fills WHERE strategy = 'dip' ORDER BY fill_time")
    assert fills["session"][0] == date(2014, 5, 1) and "dip on daily, simulated" in out.getvalue()
    (event,) = signals_of(named, dg.AssetKey(["dip", "paper_trades"])).values()
    assert event.metadata["halted"].value.endswith("too late for these sessions; takes effect with the next bar")
    again = Backfill(named, Console(file=io.StringIO()))
    again.strategy(named.universe.strategies["dip"], *days, only_pending=True)
    assert again.outcome.partitions == 0

"""`quantlytic import-actions` and `sql --as-of`, without a process of their own: what is printed, kept and changed."""

from __future__ import annotations

import io
from datetime import UTC, date, datetime

import dagster as dg
import polars as pl
import pytest
import yaml
from rich.console import Console

from quantlytic_assets.assets import partitions
from quantlytic_assets.assets.clean_bars import clean_bars_asset
from quantlytic_assets.assets.corporate_actions import corporate_actions_asset
from quantlytic_assets.assets.keys import clean_bars_key, corporate_actions_key
from quantlytic_assets.commands.import_actions import run_import_actions
from quantlytic_assets.commands.inspection import run_sql
from quantlytic_assets.commands.installation import CommandError, Installation, UsageError
from quantlytic_assets.dagster_internals import range_tags
from quantlytic_assets.imports.action_files import read_actions
from quantlytic_assets.market_data.actions.reconcile import ACTIONS_SCHEMA
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.storage.accounts import StoredAccount
from quantlytic_assets.trading.account_tables import event_rows, sessions_frame
from quantlytic_assets.trading.engine.events import EVENTS_SCHEMA
from quantlytic_tests.market_data.recorded_prices import lean_bars
from quantlytic_tests.storage.places import close_all

FILE = """Symbol,Date,Kind,Value
AAPL,2014-06-09,split,7
AAPL,2014-08-07,dividend,0.47
AAPL,2014-13-01,split,2
MSFT,2014-08-19,dividend,minus
"""


def declared(**symbols: list[str]) -> dict:
    fields = {"calendar": "XNYS", "interval": "1d"}
    fields |= {"first_session": date(2014, 6, 2), "last_session": date(2014, 8, 29)}
    return {"datasets": {name: {**fields, "vendors": [], "symbols": those} for name, those in symbols.items()}}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Makes an installation of a universe; its Dagster instance is a temporary one."""
    with dg.DagsterInstance.ephemeral() as instance:

        def make(universe: dict) -> Installation:
            path = tmp_path / "universe.yaml"
            path.write_text(yaml.safe_dump(universe))
            monkeypatch.setenv("QUANTLYTIC_UNIVERSE", str(path))
            monkeypatch.setenv("QUANTLYTIC_HOME", str(tmp_path / "home"))
            installation = Installation()
            installation.__dict__["instance"] = instance
            return installation

        yield make
    close_all()


def imported(installation: Installation, tmp_path, text: str = FILE, dataset: str | None = None) -> str:
    path = tmp_path / "actions.csv"
    path.write_text(text)
    said = io.StringIO()
    run_import_actions(installation, Console(file=said, width=240), path, dataset)
    return said.getvalue()


def test_good_rows_count_at_once_and_bad_ones_are_told_and_kept(install, tmp_path):
    installation = install(declared(daily=["AAPL", "MSFT"]))
    said = imported(installation, tmp_path)
    lines = said.splitlines()
    assert lines[0] == "4 read, 2 accepted, 2 refused"
    assert lines[1].startswith("  line 4: bad_date") and lines[1].endswith("AAPL,2014-13-01,split,2")
    assert lines[2].startswith("  line 5: bad_value") and lines[2].endswith("MSFT,2014-08-19,dividend,minus")
    assert lines[-1] == "next: quantlytic backfill daily --from 2014-06-01"
    lake = installation.resources.lake
    rows = lake.query("SELECT * FROM clean.corporate_actions ORDER BY session")
    assert rows.select("dataset", "symbol", "session", "kind", "value", "vendor", "known_on").rows() == [
        ("daily", "AAPL", date(2014, 6, 9), "split", 7.0, "import", date(2014, 6, 9)),
        ("daily", "AAPL", date(2014, 8, 7), "dividend", 0.47, "import", date(2014, 8, 7)),
    ]
    kept = lake.query("SELECT symbol, reason, raw FROM clean.quarantine ORDER BY raw").rows()
    assert [(symbol, reason.split(":")[1].strip(), raw) for symbol, reason, raw in kept] == [
        ("AAPL", "bad_date", "line 4: AAPL,2014-13-01,split,2"),
        ("MSFT", "bad_value", "line 5: MSFT,2014-08-19,dividend,minus"),
    ]
    event = installation.instance.get_latest_materialization_event(corporate_actions_key(installation.dataset("daily")))
    assert event.asset_materialization.metadata["dagster/row_count"].value == 2


@pytest.mark.parametrize("way", ["command", "corporate_actions", "clean_bars"])
def test_whatever_takes_an_action_in_leaves_the_same_state(install, tmp_path, way):
    installation = install(declared(daily=["AAPL"]))
    dataset, resources = installation.dataset("daily"), installation.resources
    bars = lean_bars("AAPL", first=date(2014, 6, 2), last=date(2014, 8, 29)).with_columns(
        pl.lit("file").alias("vendor")
    )
    lander = resources.lander(dataset)
    lander.publish(bars.select(RAW_SCHEMA.names()))
    lander.land()
    defined = partitions.definition(dataset)
    common = {"partitions_def": defined, "backfill_policy": dg.BackfillPolicy.single_run()}
    assets = {
        "clean_bars": clean_bars_asset(dataset, common),
        "corporate_actions": corporate_actions_asset(dataset, {}),
    }

    def materialize(name: str, **run: object) -> None:
        given = {"quantlytic": resources}
        assert dg.materialize([assets[name]], instance=installation.instance, resources=given, **run).success

    materialize("clean_bars", tags=range_tags("2014-06-01", "2014-08-01"))
    flagged = "SELECT session, flags FROM clean.bars WHERE len(flags) > 0"
    # Nobody knows of the split yet.
    assert resources.lake.query(flagged).rows() == [(date(2014, 6, 9), ["jump"])]
    text = "symbol,date,kind,value\nAAPL,2014-06-09,split,7\n"
    if way == "command":
        imported(installation, tmp_path, text)
    else:
        path = tmp_path / "actions.csv"
        path.write_text(text)
        resources.actions.record("daily", read_actions(path, datetime.now(UTC)).actions)
        materialize(way, **({"partition_key": "2014-08-01"} if way == "clean_bars" else {}))
    assert resources.lake.query(flagged).rows() == []
    assert resources.lake.query("SELECT value FROM clean.corporate_actions").rows() == [(7.0,)]
    assert resources.lake.query("SELECT max(shares) FROM clean.split_factors").item() == 7.0
    made = installation.instance.fetch_materializations(clean_bars_key(dataset), limit=50).records
    june = [one for one in made if one.partition_key == "2014-06-01"]
    assert len(june) == 2, "what follows from June is seen to be out of date"
    actions = installation.instance.fetch_materializations(corporate_actions_key(dataset), limit=50).records
    assert len(actions) == 1


def test_told_again_it_changes_nothing_and_says_so(install, tmp_path):
    installation = install(declared(daily=["AAPL"]))
    text = "symbol,date,kind,value\nAAPL,2014-06-09,split,7\n"
    imported(installation, tmp_path, text)
    before = installation.resources.lake.query("SELECT * FROM clean.corporate_actions")
    said = imported(installation, tmp_path, text)
    assert "1 read, 1 accepted, 0 refused (1 were known already)" in said
    assert installation.resources.lake.query("SELECT * FROM clean.corporate_actions").equals(before)


def test_the_last_word_counts_also_when_it_was_said_before_and_a_split_of_1_takes_one_back(install, tmp_path):
    installation = install(declared(daily=["AAPL"]))
    for value in (7, 8, 7, 1):
        said = imported(installation, tmp_path, f"symbol,date,kind,value\nAAPL,2014-06-09,split,{value}\n")
        assert "known already" not in said
        rows = installation.resources.lake.query("SELECT value FROM clean.corporate_actions")
        assert rows["value"].to_list() == [value]
    assert len(installation.resources.actions.read("daily")) == 4
    assert set(installation.resources.lake.query("SELECT shares FROM clean.split_factors")["shares"]) == {1.0}
    known = "symbol,date,kind,value,known\nAAPL,2014-06-09,split,1,2014-04-23\n"
    assert "known already" not in imported(installation, tmp_path, known)
    days = installation.resources.lake.query("SELECT known_on FROM clean.corporate_actions")
    assert days["known_on"].to_list() == [date(2014, 4, 23)]


def test_a_rename_to_none_takes_one_back_and_splits_before_it_are_the_ticker_s_own_again(install, tmp_path):
    installation = install(declared(daily=["FB", "META"]))
    lake = installation.resources.lake
    head = "symbol,date,kind,value\n"
    imported(installation, tmp_path, f"{head}FB,2014-06-20,split,2\n")
    without = lake.query("SELECT * FROM clean.split_factors ORDER BY ALL")
    for _ in range(2):
        imported(installation, tmp_path, f"{head}FB,2014-07-09,rename,META\n")
        assert "META" in lake.query("SELECT symbol FROM clean.split_factors")["symbol"]
        said = imported(installation, tmp_path, f"{head}FB,2014-07-09,rename,(none)\n")
        assert said.startswith("1 read, 1 accepted, 0 refused\n")
        assert "next: quantlytic backfill daily --from" in said
        assert lake.query("SELECT kind FROM clean.corporate_actions")["kind"].to_list() == ["split"]
        assert lake.query("SELECT * FROM clean.split_factors ORDER BY ALL").equals(without)


@pytest.mark.parametrize(
    ("adjustment", "day", "since"),
    [
        # The vendor had put the split into all prices before it.
        ("split", date(2014, 8, 20), "2014-06-01"),
        # A split counts in the flags of a week before it.
        ("none", date(2014, 8, 4), "2014-07-01"),
        ("none", date(2014, 8, 20), "2014-08-01"),
    ],
)
def test_what_to_run_next_begins_with_the_first_bars_that_the_action_changes(install, tmp_path, adjustment, day, since):
    installation = install(declared(daily=["AAPL"]))
    bars = lean_bars("AAPL", first=date(2014, 6, 2), last=date(2014, 8, 29)).with_columns(
        pl.lit("daily").alias("dataset"), pl.lit(adjustment).alias("adjustment")
    )
    installation.resources.lake.replace([("clean.bars", "false", [], bars)])
    said = imported(installation, tmp_path, f"symbol,date,kind,value\nAAPL,{day},split,3\n")
    assert said.splitlines()[-1] == f"next: quantlytic backfill daily --from {since}"


def test_orders_that_were_decided_without_a_split_are_said_to_stay(install, tmp_path):
    universe = declared(daily=["AAPL"])
    universe["datasets"]["daily"]["first_session"] = date(2013, 1, 2)
    universe["strategies"] = {
        "momentum": {
            "dataset": "daily", "interval": "1d", "model": "logistic_regression", "horizon": 1, "retrain": "monthly",
            "min_train_sessions": 20, "embargo_sessions": 1, "broker": "simulated", "capital": 1000,
            "costs": {"commission_bps": 1, "slippage_bps": 2},
        }
    }  # fmt: skip
    installation = install(universe)
    traded = StoredAccount(datetime(2014, 8, 7, tzinfo=UTC), date(2014, 8, 7), date(2014, 8, 7), 0, ("AAPL",), b"")
    nothing = event_rows(EVENTS_SCHEMA.to_frame()), sessions_frame([])
    assert installation.resources.accounts.advance("momentum", None, traded, *nothing)
    restart = "to trade the past anew: quantlytic backfill momentum --restart"
    said = imported(installation, tmp_path, "symbol,date,kind,value\nAAPL,2014-08-07,dividend,0.47\n")
    assert "next: quantlytic backfill momentum --from 2014-08-01" in said and restart not in said
    assert restart in imported(installation, tmp_path, "symbol,date,kind,value\nAAPL,2014-06-09,split,7\n")


def test_a_dividend_alone_is_a_matter_of_paper_accounts(install, tmp_path):
    installation = install(declared(daily=["AAPL"]))
    said = imported(installation, tmp_path, "symbol,date,kind,value\nAAPL,2014-08-07,dividend,0.47\n")
    assert "backfill daily" not in said


def test_a_user_s_word_wins_over_a_newer_one_of_a_vendor_and_both_stay_in_the_archive(install, tmp_path):
    installation = install(declared(daily=["AAPL"]))
    imported(installation, tmp_path, "symbol,date,kind,value\nAAPL,2014-06-09,split,7\n")
    vendor = {"symbol": "AAPL", "session": date(2014, 6, 9), "kind": "split", "value": 6.0, "adjustment": "none"}
    vendor |= {"vendor": "yahoo", "recorded_at": datetime(2099, 1, 1, tzinfo=UTC)}
    installation.resources.actions.record("daily", pl.DataFrame([vendor], schema=ACTIONS_SCHEMA))
    imported(installation, tmp_path, "symbol,date,kind,value\nAAPL,2014-06-09,split,7\n")
    assert installation.resources.lake.query("SELECT value FROM clean.corporate_actions")["value"].to_list() == [7.0]
    assert sorted(installation.resources.actions.read("daily")["value"]) == [6.0, 7.0]
    event = installation.instance.get_latest_materialization_event(corporate_actions_key(installation.dataset("daily")))
    assert event.asset_materialization.metadata["reported_differently"].value == 1


def test_the_dataset_follows_from_the_symbols_or_has_to_be_said(install, tmp_path):
    installation = install(declared(one=["AAPL"], two=["AAPL", "IBM"], three=["GOOG", "META"]))
    header = "symbol,date,kind,value\n"
    with pytest.raises(UsageError, match="several datasets have symbols of AAPL; say .* one, two"):
        imported(installation, tmp_path, f"{header}AAPL,2014-06-09,split,7\n")
    with pytest.raises(UsageError, match="no dataset has symbols of XYZ"):
        imported(installation, tmp_path, f"{header}XYZ,2014-06-09,split,7\n")
    assert "backfill two --from 2014-06-01" in imported(installation, tmp_path, f"{header}IBM,2014-06-09,split,7\n")
    assert "backfill three" in imported(installation, tmp_path, f"{header}FB,2014-06-09,rename,META\n")
    said = imported(installation, tmp_path, f"{header}XYZ,2014-06-09,split,7\n", "one")
    assert "not among the symbols of one" in said and "XYZ" in said
    with pytest.raises(UsageError, match="no dataset 'four'"):
        imported(installation, tmp_path, f"{header}XYZ,2014-06-09,split,7\n", "four")


def test_a_file_that_is_no_table_is_rejected_whole_and_one_that_is_not_there_is_wrong_usage(install, tmp_path):
    installation = install(declared(daily=["AAPL"]))
    with pytest.raises(CommandError, match=r"was rejected: missing columns: kind, value") as caught:
        imported(installation, tmp_path, "symbol,date\nAAPL,2014-06-09\n")
    assert not isinstance(caught.value, UsageError)
    with pytest.raises(UsageError, match="is not a file"):
        run_import_actions(installation, Console(), tmp_path / "none.csv", None)


def test_sql_takes_the_day_that_views_adjust_for(install, capsys):
    installation = install(declared(daily=["AAPL"]))
    query = "SELECT getvariable('as_of') AS day"
    run_sql(installation, Console(), query, "json", date(2014, 6, 1))
    run_sql(installation, Console(), query, "json")
    assert capsys.readouterr().out == '[{"day": "2014-06-01"}]\n[{"day": null}]\n'

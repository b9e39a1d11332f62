"""`quantlytic broker` and the assets of a broker, on an installation with a loopback TWS behind it."""

from __future__ import annotations

import json
import threading
import time

import dagster as dg
import pytest
import yaml
from typer.testing import CliRunner

from quantlytic_assets import cli
from quantlytic_assets.assets.keys import broker_account_key
from quantlytic_assets.automation.alerts import differing
from quantlytic_assets.commands.broker import sending
from quantlytic_assets.commands.doctor import _broker
from quantlytic_assets.commands.installation import CommandError, Installation, UsageError
from quantlytic_assets.definitions import build_definitions
from quantlytic_assets.resources import BROKER_LOCK, trading_lock
from quantlytic_tests.brokers.bench import ACCOUNT, APPLE, Bench

DATASET = {"calendar": "XNYS", "interval": "1d", "first_session": "2011-01-03", "vendors": [], "symbols": ["AAPL"]}
STRATEGY = {"dataset": "daily", "interval": "1d", "rule": "buy_and_hold"}
UNIVERSE = {
    "datasets": {"daily": DATASET},
    "strategies": {"hold": STRATEGY | {"broker": "ibkr"}, "paper": STRATEGY},
}


@pytest.fixture
def bench(tmp_path):
    with Bench(tmp_path, [APPLE]).serving() as serving:
        yield serving


@pytest.fixture
def installation(tmp_path, monkeypatch, bench):
    (tmp_path / "universe.yaml").write_text(yaml.safe_dump(UNIVERSE))
    for name, value in {
        "UNIVERSE": str(tmp_path / "universe.yaml"), "HOME": str(tmp_path / "home"), "IBKR_ACCOUNT": ACCOUNT,
        "IBKR_ALLOWED_ACCOUNTS": f"DU7654321, {ACCOUNT}", "IBKR_PAPER_PORT": str(bench.book.port),
    }.items():  # fmt: skip
        monkeypatch.setenv(f"QUANTLYTIC_{name}", value)
    made = Installation()
    monkeypatch.setattr(cli, "_installation", made)
    return made


@pytest.fixture
def run(installation, monkeypatch):
    monkeypatch.setattr(cli, "out", cli.Console(width=1000))

    def command(*arguments: str) -> str:
        done = CliRunner().invoke(cli.app, arguments)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.output

    return command


def test_the_status_shows_the_account_and_what_differs(run, bench, installation):
    told = json.loads(run("broker", "status", "--json"))
    assert (told["account"], told["connected"], told["positions"], told["differences"]) == (ACCOUNT, True, [], [])
    assert told["equity"] == 1e6 and told["currency"] == "USD"
    assert differing(installation.resources, "ibkr") == []
    bench.book.place_foreign("", "AAPL", "BUY", 3, 200.0)
    with pytest.raises(CommandError, match=r"1 differences.*docs/brokers.md"):
        run("broker", "status")
    (alert,) = differing(installation.resources, "ibkr")
    assert "AAPL: 0 in the ledger, 3 at the broker" in alert.body
    assert not [kind for _, (kind, *_) in bench.book.received if kind == "3"]


def test_one_process_is_connected_at_a_time(run, installation):
    run("broker", "status")
    resources = installation.resources
    with resources.lock(BROKER_LOCK, wait=False):
        told = json.loads(run("broker", "status", "--json"))
        assert (told["connected"], told["account"]) == (False, ACCOUNT)
        with pytest.raises(CommandError, match="only one can be"):
            run("broker", "trade", "hold")
    with resources.lock(trading_lock("hold"), wait=False), pytest.raises(CommandError, match="hold is being traded"):
        run("broker", "trade", "daily")


def test_the_thread_that_sends_for_the_live_path_connects_again_and_stops_it_at_a_live_account(
    run, installation, bench
):
    hold, said, stopping = installation.universe.strategies["hold"], [], threading.Event()
    run("broker", "status")
    before = bench.book.connections
    with sending(installation, [hold], said.append, stopping) as sender:
        with pytest.raises(CommandError, match="hold is being traded"):
            run("broker", "trade", "hold")
        bench.book.cut()
        until = time.monotonic() + 60
        while bench.book.connections < before + 2 and time.monotonic() < until:
            time.sleep(0.02)
        assert bench.book.connections == before + 2 and sender.failed is None and not stopping.is_set()
        bench.book.rename_accounts("U1234567")
        bench.book.cut()
        assert stopping.wait(60)
    assert "U1234567" in str(sender.failed) and said[0] == f"orders of hold go to ibkr {ACCOUNT}"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ACCOUNT", "U1234567", "no paper account"),
        ("ALLOWED_ACCOUNTS", "", "allow-list"),
        ("PAPER_PORT", "4001", "live session"),
        ("PAPER_PORT", "1", "does not answer"),
    ],
)
def test_settings_that_are_wrong_are_said(run, monkeypatch, name, value, said):
    monkeypatch.setenv(f"QUANTLYTIC_IBKR_{name}", value)
    for arguments in (("broker", "status"), ("broker", "trade", "hold")):
        with pytest.raises(CommandError, match=said):
            run(*arguments)
    if value != "1":
        assert said in _broker(Installation())


def test_a_strategy_without_the_broker_is_not_traded_there(run):
    with pytest.raises(UsageError, match="paper has no strategy with broker: ibkr"):
        run("broker", "trade", "paper")
    with pytest.raises(UsageError, match="nothing"):
        run("broker", "trade", "nothing")


def test_the_account_is_an_asset_with_a_check(installation, bench):
    definitions = build_definitions(installation.settings)
    assets = [one for one in definitions.assets if broker_account_key("ibkr") in one.keys]
    checks = [one for one in definitions.asset_checks if "positions_agree" in str(one.check_keys)]
    resources = {"quantlytic": dg.ResourceDefinition.hardcoded_resource(installation.resources)}

    def materialized():
        with dg.DagsterInstance.ephemeral() as instance:
            done = dg.materialize([*assets, *checks], resources=resources, instance=instance)
            (made,) = done.get_asset_materialization_events()
            (checked,) = done.get_asset_check_evaluations()
            return made.materialization.metadata, checked.passed

    metadata, passed = materialized()
    assert passed and metadata["equity"].value == 1e6 and metadata["differences"].value == 0
    bench.book.place_foreign("", "AAPL", "BUY", 3, 200.0)
    metadata, passed = materialized()
    assert not passed and "AAPL: 0 in the ledger, 3 at the broker" in metadata["found"].value
    rows = installation.resources.lake.query("SELECT differences FROM trading.broker_account ORDER BY asked_at")
    assert rows["differences"].to_list() == [0, 1]

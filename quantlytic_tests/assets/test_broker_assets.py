"""`paper_trades` of a strategy at a broker: it trades what is in time, exchanges orders, and says what stops it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl
import pytest

from quantlytic_assets.assets.broker_account import broker_account_asset
from quantlytic_assets.assets.paper_trades import paper_trades_asset
from quantlytic_assets.automation.conditions import follow_upstream
from quantlytic_assets.brokers import restarts
from quantlytic_assets.calendars.sessions import session_table
from quantlytic_assets.checks.broker_checks import broker_checks
from quantlytic_assets.resources import BROKER_LOCK, Resources, trading_lock
from quantlytic_assets.settings import Settings
from quantlytic_assets.universe.models import Instrument, Universe
from quantlytic_tests.brokers.bench import ACCOUNT, APPLE, IBM, Bench
from quantlytic_tests.services.desk import DATASET, Desk, recorded_days
from quantlytic_tests.services.floor import FIRST, LAST, STRATEGY


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


def recent_days() -> pl.DataFrame:
    """The recorded days up to the first one on which the strategy buys, as if that were the last session until now."""
    days = recorded_days().filter(pl.col("session") <= FIRST)
    now = datetime.now(UTC)
    known = session_table("XNYS", now.date() - timedelta(days=400), now.date())
    known = known.filter(pl.col("close_time") <= now + timedelta(minutes=10))
    olds = days["session"].unique().sort()
    news = known.tail(len(olds)).select(
        olds.alias("old"), pl.col("session").alias("new"), pl.col("open_time").alias("opens"),
        pl.col("close_time").alias("closes"),
    )  # fmt: skip
    return (
        days.join(news, left_on="session", right_on="old", maintain_order="left")
        .with_columns(
            pl.col("new").alias("session"), pl.col("opens").alias("open_time"), pl.col("closes").alias("close_time"),
            pl.col("closes").alias("available_at"),
        )
        .select(days.columns)
        .cast(dict(days.schema))
    )  # fmt: skip


def test_a_daily_strategy_is_traded_by_its_asset_from_the_order_to_the_position(tmp_path, bench, monkeypatch):
    days = recent_days()
    session, home, book = days["session"].max(), tmp_path / "home", bench.book
    Desk(home, days).give(days)
    # No restart is near, whenever this runs.
    monkeypatch.setattr(restarts, "_SUNDAY", None)
    settings = Settings(
        home=home, ibkr_account=ACCOUNT, ibkr_allowed_accounts=ACCOUNT, ibkr_paper_port=book.port,
        ibkr_restart=f"{datetime.now(UTC) + timedelta(hours=12):%H:%M}", ibkr_restart_zone="UTC",
    )  # fmt: skip
    resources = Resources(settings)
    lake, ledger = resources.lake, resources.broker_ledger
    closes = days.filter(session=session).select("symbol", "close")
    book.prices.update(dict(closes.iter_rows()))
    # What is executed belongs to this session also where the next one has opened: that has no row without bars.
    executed_at = days["close_time"].max() + timedelta(minutes=1)
    book.clock, book.closed = lambda: executed_at, True
    book.cash = 100_000.0
    dataset = replace(
        DATASET, first_session=days["session"].min(), last_session=None,
        symbols=tuple(map(Instrument, STRATEGY.symbols)),
    )  # fmt: skip
    universe = Universe(tmp_path / "universe.yaml", {"daily": dataset}, {"cross": STRATEGY})
    common = {"automation_condition": follow_upstream(), "backfill_policy": dg.BackfillPolicy.multi_run(10)}
    trades = paper_trades_asset(dataset, STRATEGY, common, universe)
    account = broker_account_asset("ibkr", universe, {})
    given = {"quantlytic": dg.ResourceDefinition.hardcoded_resource(resources)}
    on_record, take = [], book._take

    def looked_up(client, number, instrument, sent):
        on_record.append(ledger.by_reference([sent["ref"]])[sent["ref"]].status)
        take(client, number, instrument, sent)

    monkeypatch.setattr(book, "_take", looked_up)

    def traded():
        done = dg.materialize(
            [trades], resources=given, instance=instance, partition_key=f"{session:%Y-%m-01}", raise_on_error=False
        )
        assert done.success, [one.step_failure_data.error.message for one in done.all_events if one.is_step_failure]
        (made,) = done.get_asset_materialization_events()
        return {name: one.value for name, one in made.materialization.metadata.items()}

    def looked():
        done = dg.materialize([account, *broker_checks("ibkr")], resources=given, instance=instance)
        (checked,) = done.get_asset_check_evaluations()
        (made,) = done.get_asset_materialization_events()
        return checked, made.materialization.metadata

    def table(name):
        return lake.query(f"SELECT * FROM trading.{name} ORDER BY ALL")

    with dg.DagsterInstance.ephemeral() as instance:
        # The market is closed: the orders are written, then sent, and TWS has confirmed them when the run ends.
        metadata = traded()
        assert (metadata["orders"], metadata["fills"]) == (2, 0)
        assert on_record == ["sent", "sent"]
        orders = ledger.orders("ibkr")
        assert [one.status for one in orders] == ["working", "working"] and book.held() == {}
        assert book.refs() == [one.client_order_id for one in orders]
        assert {one.sent["account"] for one in book.orders} == {ACCOUNT}
        assert set(table("broker_orders")["status"]) == {"working"}
        checked, _ = looked()
        assert checked.passed
        # It opens, and they are filled. Whoever looks next takes the fills in; nothing is sent again.
        book.open_market()
        held = book.held()
        assert set(held) == {"AAPL", "IBM"}
        metadata = traded()
        assert len(book.orders) == 2 and on_record == ["sent", "sent"]
        assert [one.status for one in ledger.orders("ibkr")] == ["filled", "filled"]
        fills = ledger.fills(book.refs())
        assert {one.symbol: one.quantity for one in fills} == held and all(one.taken for one in fills)
        checked, told = looked()
        assert checked.passed and checked.metadata["differences"].value == "none"
        assert told["equity"].value == pytest.approx(100_000 - 2)
        # A third time nothing is left to be done.
        before = resources.accounts.last("cross")
        metadata = traded()
        assert (metadata["orders"], metadata["fills"]) == (2, 2)
        assert len(book.orders) == 2 and resources.accounts.last("cross") == before
    orders, filled = table("orders"), table("fills")
    assert set(orders["status"]) == {"filled"} and dict(filled.select("symbol", "quantity").iter_rows()) == held
    assert dict(filled.select("symbol", "price").iter_rows()) == dict(closes.iter_rows())
    positions = table("positions").filter(session=session)
    assert dict(positions.select("symbol", "quantity").iter_rows()) == held
    assert table("equity")["cash"].to_list() == [pytest.approx(book.cash)]
    at_broker = table("broker_orders")
    assert set(at_broker["status"]) == {"filled"} and set(at_broker["account"]) == {ACCOUNT}
    assert at_broker["commission"].to_list() == [1.0, 1.0]
    accounts = table("broker_account")
    assert accounts["differences"].to_list() == [0] * len(accounts) and len(accounts) >= 2

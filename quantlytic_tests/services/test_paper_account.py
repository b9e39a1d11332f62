"""A rule's paper account: each bar once, the same however the bars come, and what a backtest would have done."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest

from quantlytic_assets.schemas.clean import CORPORATE_ACTIONS
from quantlytic_assets.schemas.ml import PREDICTIONS
from quantlytic_assets.schemas.trading import EQUITY, EVENTS, FILLS, ORDERS, POSITIONS
from quantlytic_assets.services.accounts import read_account
from quantlytic_assets.services.backtest import BacktestError, run_backtest, run_search
from quantlytic_assets.services.paper_account import Trades, publish
from quantlytic_assets.services.signals import make_signals, write_signals
from quantlytic_assets.tables.signals import targets
from quantlytic_assets.trading.account_tables import engine_events
from quantlytic_assets.trading.engine.settings import Exits, OrderStyle
from quantlytic_assets.universe.models import ModelStrategy, PortfolioStrategy
from quantlytic_tests.services.desk import DATASET, END, FIRST, SETTINGS, STRATEGY, TABLES, Desk, recorded_days


@pytest.fixture(scope="module")
def days():
    """Bars with their features."""
    return recorded_days()


@pytest.fixture(scope="module")
def once(tmp_path_factory, days):
    """All of it traded in one call."""
    desk = Desk(tmp_path_factory.mktemp("once"), days)
    desk.give(days)
    desk.done = desk.trade(FIRST, END)
    return desk


def test_the_account_is_what_a_backtest_says(once):
    assert once.done.bars == 252 and once.done.fills > 20 and once.done.late == 0
    backtest = run_backtest(once.lake, DATASET, STRATEGY, FIRST, END - timedelta(days=1))
    assert once.events().equals(backtest.events)
    curve = once.lake.query(
        "SELECT session, equity, cash, gross_exposure AS gross FROM trading.equity ORDER BY session"
    )
    assert curve.equals(backtest.curve)


def test_figures_of_an_account_whose_symbol_was_renamed_are_those_of_a_backtest(tmp_path, days):
    renamed_on, strategy = date(2011, 2, 1), replace(STRATEGY, symbols=("AAPL", "IBM", "BIM"))
    later = (pl.col("symbol") == "IBM") & (pl.col("session") >= renamed_on)
    desk = Desk(tmp_path / "renamed", days)
    desk.give(days.with_columns(pl.when(later).then(pl.lit("BIM")).otherwise("symbol").alias("symbol")))
    action = {"dataset": "daily", "symbol": "IBM", "session": renamed_on, "kind": "rename", "new_symbol": "BIM"}
    desk.lake.replace([(CORPORATE_ACTIONS.name, "true", [], pl.DataFrame([action], CORPORATE_ACTIONS.polars))])
    desk.trade(FIRST, END, strategy=strategy)
    assert desk.events().filter(kind="rename").height == 1
    account = read_account(desk.lake, DATASET, strategy)
    backtest = run_backtest(desk.lake, DATASET, strategy, FIRST, END - timedelta(days=1))
    assert account.statistics == backtest.statistics and account.held_statistics == backtest.held_statistics
    assert account.findings == backtest.findings and (account.random_returns == backtest.random_returns).all()
    # What is bought before the rename and sold after it is one round trip, under the new name.
    over = backtest.round_trips.filter(pl.col("entry_time").dt.date() < renamed_on, symbol="BIM")
    assert len(over) == 1 and set(backtest.round_trips["side"]) == {"long"}


def scored(days: pl.DataFrame) -> pl.DataFrame:
    """Predictions (ml.predictions) of every second symbol and day, up where the close is above its average."""
    up = (pl.col("close") > pl.col("sma_20")).cast(pl.Int32)
    return days.filter(pl.col("session") >= FIRST, pl.col("sma_20").is_not_null()).select(
        pl.lit("trees").alias("strategy"), "symbol", "session", "open_time", "available_at",
        (0.3 + 0.4 * up).alias("score"), up.alias("prediction"),
        pl.col("session").dt.month().cast(pl.String).alias("model_version"),
        pl.lit(datetime(2010, 12, 31, tzinfo=UTC)).alias("trained_through"),
    ).select(PREDICTIONS.polars.names()).cast(dict(PREDICTIONS.polars))  # fmt: skip


def test_a_model_is_traded_as_its_backtest_says_and_waits_for_its_predictions(tmp_path, days):
    trees = ModelStrategy(
        "trees", "daily", "1d", ("AAPL", "IBM"), "model", SETTINGS, declared=("core", "sma(5)"),
        model="random_forest", features=None, horizon=1, retrain="yearly", min_train_sessions=50, embargo_sessions=5,
    )  # fmt: skip
    desk, given = Desk(tmp_path / "trees", days), scored(days)
    desk.give(days)
    with pytest.raises(BacktestError, match="its model has predicted nothing; run: quantlytic backfill trees"):
        run_backtest(desk.lake, DATASET, trees)
    assert desk.trade(FIRST, END, strategy=trees).bars == 0
    for month in range(1, 13):
        known = given.filter(pl.col("session") < (date(2011, month + 1, 1) if month < 12 else END))
        desk.lake.replace([(PREDICTIONS.name, "true", [], known)])
        # All that there are bars for is asked for: what is not predicted yet is left for another time.
        desk.trade(FIRST, END, strategy=trees)
    own = engine_events(desk.accounts.events("trees"))
    backtest = run_backtest(desk.lake, DATASET, trees)
    assert own.equals(backtest.events) and own.filter(kind="fill").height > 20
    assert read_account(desk.lake, DATASET, trees).statistics == backtest.statistics
    versions = desk.lake.query(
        "SELECT DISTINCT month(session) AS month, model_version FROM trading.orders ORDER BY ALL"
    )
    assert versions["month"].cast(pl.String).to_list() == versions["model_version"].to_list() and len(versions) > 6


def test_a_portfolio_trades_what_its_members_want_in_their_shares(tmp_path, days):
    trees = ModelStrategy(
        "trees", "daily", "1d", ("IBM",), {"model": {"margin": 0.1}}, SETTINGS, declared=("core", "sma(5)"),
        model="random_forest", features=None, horizon=1, retrain="yearly", min_train_sessions=50, embargo_sessions=5,
    )  # fmt: skip
    mix = PortfolioStrategy(
        "mix", "daily", "1d", ("AAPL", "IBM"), {"portfolio": {"cross": 0.6, "trees": 0.3}},
        replace(SETTINGS, exits=Exits(), orders=OrderStyle()), declared=("core", "sma(5)"), members=(STRATEGY, trees),
    )  # fmt: skip
    desk = Desk(tmp_path / "mix", days)
    desk.give(days)
    desk.lake.replace([(PREDICTIONS.name, "true", [], scored(days))])
    with pytest.raises(BacktestError, match="its members have decided nothing; run: quantlytic backfill mix"):
        run_backtest(desk.lake, DATASET, mix)
    months = [*(date(2011, month, 1) for month in range(1, 13)), END]
    for first, following in pairwise(months):
        write_signals(desk.lake, STRATEGY, first, following)
        assert desk.trade(first, following, strategy=mix).bars == 0 if first == months[0] else True
        write_signals(desk.lake, trees, first, following)
        desk.trade(first, following, strategy=mix)
    own = engine_events(desk.accounts.events("mix"))
    backtest = run_backtest(desk.lake, DATASET, mix, FIRST)
    assert own.equals(backtest.events) and own.filter(kind="fill").height > 20
    wanted = make_signals(desk.lake, mix, FIRST, END).select("symbol", "open_time", "target", "reason")
    of_cross, of_trees = (targets(desk.lake, name).rename({"target": name}) for name in ("cross", "trees"))
    both = wanted.join(of_cross, on=["symbol", "open_time"]).join(of_trees, on=["symbol", "open_time"], how="left")
    expected = 0.6 * both["cross"].fill_null(0) / 2 + 0.3 * both["trees"].fill_null(0)
    assert (both["target"] - expected).abs().max() < 1e-12
    assert {0.0, 0.3, 0.6} <= set(both["target"].round(9)) and "cross 30.0%, trees 30.0%" in set(both["reason"])
    # The shares can be searched.
    found = run_search(desk.lake, DATASET, mix, {"rule.portfolio.cross": [0.0, 0.6]}, FIRST)
    assert found.table["total_return"].n_unique() == 2
    with pytest.raises(BacktestError, match="at no point of the grid do the parameters go together"):
        run_search(desk.lake, DATASET, mix, {"rule.portfolio.cross": [0.9]}, FIRST)


def test_partition_by_partition_and_day_by_day_are_the_same(once, tmp_path, days):
    months = Desk(tmp_path / "months", days)
    months.give(days)
    firsts = [date(2011, month, 1) for month in range(1, 13)]
    for first, following in zip(firsts, [*firsts[1:], END], strict=True):
        months.trade(max(first, FIRST), following)
    grown = Desk(tmp_path / "grown", days)
    for day in days.filter(pl.col("session") >= FIRST)["session"].unique().sort().head(40):
        grown.give(days.filter(pl.col("session") <= day))
        grown.trade(day.replace(day=1) if day > date(2011, 1, 31) else FIRST, day + timedelta(days=1))
    assert months.events().equals(once.events())
    own = grown.events()
    assert own.equals(once.events().head(len(own))) and own.filter(kind="fill").height > 2
    for name, rows in once.published().items():
        assert months.published()[name].equals(rows), name
    assert months.accounts.last("cross").state == once.accounts.last("cross").state


def test_a_rerun_trades_nothing_and_a_deleted_table_comes_back(once):
    before = once.published()
    assert once.trade(FIRST, END) == Trades("cross")
    assert once.trade(date(2011, 6, 1), date(2011, 7, 1)) == Trades("cross")
    assert all(once.published()[name].equals(rows) for name, rows in before.items())
    once.lake.replace([(table.name, "true", [], pl.DataFrame()) for table in TABLES])
    once.trade(FIRST, date(2011, 2, 1))
    assert all(once.published()[name].equals(rows) for name, rows in before.items())


def test_what_is_published_adds_up(once):
    rows = once.published()
    orders, fills = rows[ORDERS.name], rows[FILLS.name]
    assert set(orders["status"]) >= {"filled", "cancelled"} and orders["order_ref"].is_unique().all()
    # An order that was called back may have been filled in part.
    assert set(orders.filter(status="filled")["order_ref"]) <= set(fills["order_ref"]) <= set(orders["order_ref"])
    held = rows[POSITIONS.name].group_by("session").agg(pl.col("market_value").sum()).sort("session")
    account = rows[EQUITY.name].join(held, on="session", how="left").with_columns(pl.col("market_value").fill_null(0))
    assert ((account["cash"] + account["market_value"]) / account["equity"] - 1).abs().max() < 1e-12
    total = fills["commission"].sum() + fills["slippage"].sum()
    assert account.sort("session")["costs_to_date"][-1] == pytest.approx(total)


def test_a_later_partition_first_takes_the_earlier_ones_with_it(once, tmp_path, days):
    desk = Desk(tmp_path / "gap", days)
    desk.give(days)
    desk.trade(FIRST, date(2011, 2, 1))
    desk.trade(date(2011, 11, 1), END)
    assert desk.events().equals(once.events())
    desk.trade(date(2011, 3, 1), date(2011, 4, 1))
    assert desk.published()[EQUITY.name].equals(once.published()[EQUITY.name])


def test_bars_that_come_late_are_seen_and_not_traded(once, tmp_path, days):
    desk = Desk(tmp_path / "late", days)
    march, april = date(2011, 3, 1), date(2011, 4, 1)
    lacking = days.filter(~((pl.col("symbol") == "IBM") & (pl.col("session") == date(2011, 3, 15))))
    desk.give(lacking)
    desk.trade(FIRST, april)
    before = desk.events()
    desk.give(days)
    # Nothing new to trade: it is told with the next bar.
    assert desk.trade(march, april) == Trades("cross")
    told = desk.trade(march, date(2011, 4, 5))
    assert told.late == 1
    late = desk.events().filter(kind="seen_late")
    assert late.select("symbol", "value").rows() == [("IBM", 1.0)]
    assert desk.events().head(len(before)).equals(before)
    assert desk.trade(march, date(2011, 4, 6)).late == 0


def test_the_newest_time_waits_for_symbols_that_it_lacks(tmp_path, days):
    desk = Desk(tmp_path / "waits", days)
    last = date(2011, 1, 14)
    some = days.filter(pl.col("session") <= last, ~((pl.col("symbol") == "IBM") & (pl.col("session") == last)))
    closed = some["close_time"].max()
    desk.give(some)
    assert desk.trade(FIRST, END, closed + timedelta(minutes=1)).bars == 9
    assert desk.trade(FIRST, END, closed + timedelta(minutes=14)).bars == 0
    assert desk.trade(FIRST, END, closed + timedelta(minutes=16)).bars == 1


def test_of_two_at_once_one_trades(tmp_path, days):
    desk = Desk(tmp_path / "two", days)
    desk.give(days)
    desk.trade(FIRST, date(2011, 2, 1))
    stale = desk.accounts.last("cross")
    desk.trade(FIRST, date(2011, 3, 1))
    events = desk.events()
    nothing = EVENTS.without("strategy", "recorded_at").to_frame()
    assert not desk.accounts.advance("cross", stale, stale, nothing, desk.accounts.sessions("cross").clear())
    assert not desk.accounts.advance("cross", None, stale, nothing, desk.accounts.sessions("cross").clear())
    assert desk.events().equals(events)


def test_a_run_that_dies_before_it_publishes_is_made_good_by_the_next(tmp_path, days, monkeypatch):
    desk = Desk(tmp_path / "dies", days)
    desk.give(days)

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("quantlytic_assets.services.paper_account.publish", dies)
        with pytest.raises(KeyboardInterrupt):
            desk.trade(FIRST, date(2011, 3, 1))
    assert desk.published()[EVENTS.name].is_empty()
    assert desk.trade(FIRST, date(2011, 3, 1)).events == 0
    assert len(desk.published()[EVENTS.name]) == len(desk.events()) > 0
    publish(desk.lake, desk.accounts, "cross", FIRST)
    desk.accounts.reset("cross")
    assert desk.accounts.last("cross") is None and desk.events().is_empty()

"""A paper account that goes on from where it was published: equal to one from its first fill, and read for no more."""

from datetime import date
from itertools import pairwise

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quantlytic_assets.schemas import clean, features, ml, trading
from quantlytic_assets.services import paper_account
from quantlytic_assets.services.paper_account import trade_sessions
from quantlytic_assets.storage.lake import local_lake
from quantlytic_tests.frames import make_dataset
from quantlytic_tests.trading.frames import ledger_in, real_case

SPLIT = date(2014, 6, 9)
MONTHS = [date(2014 + month // 12, month % 12 + 1, 1) for month in range(24)] + [date(2016, 1, 1)]
DATASET = make_dataset(name="equities_1d", interval="1d", first=date(2014, 1, 2), last=date(2015, 12, 31))
STRATEGY, PREDICTIONS, BARS, _ = real_case()
TABLES = (trading.ORDERS, trading.FILLS, trading.POSITIONS, trading.EQUITY)


class Counted:
    """A lake or a ledger that counts the rows it gives, by what was asked."""

    def __init__(self, inner, counted):
        self._inner, self._counted = inner, counted

    def query(self, sql, parameters=()):
        frame = self._inner.query(sql, parameters)
        if "features.bars" in sql:
            self._counted["prices"] += len(frame)
        return frame

    def fills(self, *arguments):
        frame = self._inner.fills(*arguments)
        self._counted["fills"] += len(frame)
        return frame

    def committed_before(self, *arguments):
        frame = self._inner.committed_before(*arguments)
        self._counted["committed"] += len(frame)
        return frame

    def __getattr__(self, name):
        return getattr(self._inner, name)


class Account:
    """A strategy on the shipped bars, traded month by month."""

    def __init__(self, home):
        home.mkdir()
        self.lake, self.ledger = local_lake(home / "lake"), ledger_in(home)
        with self.lake.transaction() as connection:
            connection.execute(f"CREATE TABLE features.bars ({features.BARS.ddl})")
        # Shipped prices are adjusted for the split: as traded they were seven times as high before it.
        before = (pl.col("symbol") == "AAPL") & (pl.col("session") < SPLIT)
        as_traded = pl.when(before).then(7.0).otherwise(1.0)
        bars = BARS.select(
            pl.lit(STRATEGY.dataset).alias("dataset"), pl.lit("1d").alias("interval"), "symbol", "session", "open_time",
            pl.col("open") * as_traded, pl.col("close") * as_traded, "available_at", pl.lit(True).alias("complete"),
        )  # fmt: skip
        self.put(features.BARS, bars)
        self.put(ml.PREDICTIONS, PREDICTIONS)
        self.split = {"symbol": "AAPL", "since": SPLIT, "listing": "AAPL", "company": "AAPL", "shares": 7.0}

    def put(self, table, frame):
        schema = table.polars
        missing = [pl.lit(None, kind).alias(name) for name, kind in schema.items() if name not in frame.columns]
        rows = frame.with_columns(missing).select(pl.col(name).cast(kind) for name, kind in schema.items())
        self.lake.replace([(table.name, "true", [], rows)])

    def act(self, dividends, splits=True):
        """Make these corporate actions known."""
        steps = [{"dataset": STRATEGY.dataset, **self.split}] if splits else []
        self.put(clean.SPLIT_FACTORS, pl.DataFrame(steps, clean.SPLIT_FACTORS.polars))
        paid = [
            {"dataset": STRATEGY.dataset, "symbol": symbol, "session": day, "kind": "dividend", "value": value}
            for symbol, day, value in dividends
        ]
        self.put(clean.CORPORATE_ACTIONS, pl.DataFrame(paid, clean.CORPORATE_ACTIONS.polars))

    def trade(self, months):
        """Rows read in each month's run."""
        counts = []
        for first, before in months:
            counted = dict.fromkeys(("prices", "fills", "committed"), 0)
            lake, ledger = Counted(self.lake, counted), Counted(self.ledger, counted)
            trade_sessions(lake, ledger, DATASET, STRATEGY, first, before)
            counts.append(counted)
        return counts

    def tables(self):
        return {
            table.name: self.lake.query(f"SELECT * FROM {table.name} ORDER BY ALL").drop("created_at", strict=False)
            for table in TABLES
        }


EARLY = [("AAPL", date(2014, 2, 6), 3.05), ("KO", date(2014, 3, 12), 0.305), ("AAPL", date(2014, 8, 7), 0.47)]
LATE = [("KO", date(2014, 6, 12), 0.305), ("SPY", date(2015, 3, 20), 0.931)]
EACH = list(pairwise(MONTHS))


@pytest.fixture
def going_on(tmp_path):
    return Account(tmp_path / "going_on")


@pytest.fixture
def from_the_start(tmp_path, monkeypatch):
    """The same, computed from the first fill in each run."""
    account = Account(tmp_path / "from_the_start")

    def trade(months):
        with monkeypatch.context() as patched:
            patched.setattr(paper_account, "opening_before", lambda *arguments: None)
            return Account.trade(account, months)

    account.trade = trade
    return account


def assert_same(one, other):
    mine, its = one.tables(), other.tables()
    for name, rows in mine.items():
        assert len(rows) > 20
        assert_frame_equal(rows, its[name], rel_tol=1e-9, abs_tol=1e-6)


def test_month_by_month_it_comes_to_the_same_and_reads_as_much_in_the_last_month_as_in_the_second(
    going_on, from_the_start
):
    for account in (going_on, from_the_start):
        account.act(EARLY + LATE)
    mine, its = going_on.trade(EACH), from_the_start.trade(EACH)
    assert_same(going_on, from_the_start)
    assert len(going_on.tables()["trading.fills"]) > 500
    # Three symbols; the prices of a month and of the fourteen days after it, and those of the month that are published.
    assert max(run["prices"] for run in mine[1:]) <= 3 * 60
    assert max(run["fills"] for run in mine[1:]) <= 3 * 2 * 24
    assert max(run["committed"] for run in mine) <= 2 * 3
    assert its[-1]["fills"] > 10 * mine[-1]["fills"]
    assert its[-1]["prices"] > 10 * mine[-1]["prices"]


def test_actions_that_become_known_late_are_counted_from_where_they_belong(going_on, from_the_start):
    for account in (going_on, from_the_start):
        account.act(EARLY[:1])
        account.trade(EACH[:10])
        account.act(EARLY + LATE)
        account.trade(EACH[10:16])
    assert_same(going_on, from_the_start)


def test_a_fill_that_was_recorded_and_not_published_is_not_forgotten(going_on, from_the_start, monkeypatch):
    for account in (going_on, from_the_start):
        account.act(EARLY)
        account.trade(EACH[:6])
    for account in (going_on, from_the_start):
        with monkeypatch.context() as killed:
            killed.setattr(paper_account, "_publish", lambda *arguments: None)
            account.trade(EACH[6:7])
        account.trade(EACH[7:9])
    assert_same(going_on, from_the_start)


def test_a_rerun_of_an_earlier_month_goes_on_from_the_month_before_it(going_on, from_the_start):
    for account in (going_on, from_the_start):
        account.act(EARLY + LATE)
        account.trade([*EACH[:12], EACH[5]])
    assert_same(going_on, from_the_start)


def test_an_account_published_before_this_was_kept_is_computed_from_its_first_fill(going_on, from_the_start):
    for account in (going_on, from_the_start):
        account.act(EARLY)
        account.trade(EACH[:6])
    with going_on.lake.transaction() as connection:
        connection.execute("DELETE FROM trading.accounts")
    for account in (going_on, from_the_start):
        account.trade(EACH[6:8])
    assert_same(going_on, from_the_start)

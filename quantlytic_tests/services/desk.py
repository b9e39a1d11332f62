"""A desk of a strategy: a lake, a state database, and recorded days of Apple and IBM with their features."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from functools import cache

import polars as pl

from quantlytic_assets.features.batch import compute
from quantlytic_assets.features.registry import Registry
from quantlytic_assets.schemas import features
from quantlytic_assets.schemas.trading import EQUITY, EVENTS, FILLS, ORDERS, POSITIONS
from quantlytic_assets.services.paper_account import Trades, trade
from quantlytic_assets.storage.accounts import Accounts
from quantlytic_assets.storage.lake import local_lake
from quantlytic_assets.trading.account_tables import engine_events
from quantlytic_assets.trading.engine.settings import Costs, EngineSettings, Exits, OrderStyle, Risk
from quantlytic_assets.universe.models import Strategy
from quantlytic_tests.frames import make_dataset
from quantlytic_tests.trading.backtest.histories import recorded

FIRST, END = date(2011, 1, 3), date(2012, 1, 1)
SETTINGS = EngineSettings(
    100_000.0,
    costs=Costs(commission_bps=1, slippage_bps=2, minimum=1),
    exits=Exits(stop_loss=0.04, trailing_stop=0.03),
    orders=OrderStyle(type="limit", offset_bps=10, time_in_force="gtc"),
    risk=Risk(max_position=0.6),
    rebalance_band=0.1,
)
STRATEGY = Strategy(
    "cross", "daily", "1d", ("AAPL", "IBM"), {"ma_cross": {"fast": 5, "slow": 20}}, SETTINGS,
    declared=("core", "sma(5)"),
)  # fmt: skip
DATASET = replace(make_dataset("XNYS", "1d", first=FIRST, last=END), name="daily")
TABLES = (EVENTS, ORDERS, FILLS, POSITIONS, EQUITY)


@cache
def recorded_days() -> pl.DataFrame:
    """Bars with their features, as features.bars and features.indicators have them."""
    library = Registry()
    bars = compute(recorded().bars, library.features(["sma(5)", "sma(20)", "ret(1)"])).filter(pl.col("session") < END)
    return bars.with_columns(
        pl.lit("daily").alias("dataset"), pl.lit(True).alias("complete"), pl.lit(200, pl.Int32).alias("history_bars")
    ).filter(pl.col("session") >= date(2010, 10, 1))


class Desk:
    """A lake and a state database, and what a strategy does with the bars that were given to them."""

    def __init__(self, root, days=None):
        """Opens the desk below `root`, or sets one up there for these days."""
        root.mkdir(exist_ok=True)
        self.root = root
        self.lake = local_lake(root / "lake", threads=1)
        # When events are recorded, and when people ask.
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.accounts = Accounts(f"sqlite:///{root / 'state.sqlite'}", clock=lambda: self.now)
        self.shown = [*features.INDICATORS.polars.names(), "sma_5", "sma_20", "ret_1"]
        if days is not None:
            self._set_up(days)

    def _set_up(self, days):
        with self.lake.transaction() as connection:
            for table in (features.BARS, features.LABELS):
                connection.execute(f"CREATE TABLE {table.name} ({table.ddl})")
            connection.execute(
                f"CREATE TABLE features.indicators ({features.INDICATORS.ddl}, "
                "sma_5 DOUBLE, sma_20 DOUBLE, ret_1 DOUBLE)"
            )
        hours = days.group_by("session").agg(pl.col("open_time").min(), pl.col("close_time").max())
        self.lake.replace([("clean.sessions", "true", [], hours.with_columns(pl.lit("daily").alias("dataset")))])

    def give(self, days):
        """Put these bars and their features into the lake, in place of all others."""
        self.lake.replace(
            [
                (features.BARS.name, "true", [], days.select(features.BARS.polars.names())),
                ("features.indicators", "true", [], days.select(self.shown)),
            ]
        )

    def trade(self, first, before, now=None, strategy=STRATEGY, dataset=DATASET) -> Trades:
        """Trade the sessions [first, before)."""
        return trade(self.lake, self.accounts, dataset, strategy, first, before, now)

    def events(self, strategy="cross") -> pl.DataFrame:
        """What is on record of a strategy."""
        return engine_events(self.accounts.events(strategy))

    def published(self) -> dict[str, pl.DataFrame]:
        """The tables of the lake that follow."""
        return {table.name: self.lake.query(f"SELECT * FROM {table.name} ORDER BY ALL") for table in TABLES}

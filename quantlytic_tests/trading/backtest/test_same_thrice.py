"""On the sample data: history at once, session by session from stored states, and bar by bar give one account."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import quantlytic_assets.vendors
from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.calendars.sessions import assign_sessions, session_table
from quantlytic_assets.strategies.registry import Registry
from quantlytic_assets.trading.backtest.history import History
from quantlytic_assets.trading.backtest.simulation import simulate
from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.market import ACTIONS_SCHEMA
from quantlytic_assets.trading.engine.run import Stepper, run
from quantlytic_assets.trading.engine.settings import Costs, EngineSettings, Exits, OrderStyle, Risk
from quantlytic_assets.trading.engine.state import State

SAMPLES = Path(quantlytic_assets.vendors.__file__).parent / "sample_data"
DATASETS = {"crypto_1m": "24/7", "equities_5m": "XNYS", "equities_1d": "XNYS", "yields_1d": "XNYS"}
SETTINGS = EngineSettings(
    100_000.0,
    costs=Costs(commission_bps=1, slippage_bps=2, minimum=1),
    exits=Exits(stop_loss=0.03, take_profit=0.06, trailing_stop=0.02, max_bars=60),
    risk=Risk(max_position=0.4, max_daily_loss=0.05, max_drawdown=0.3, resume_after_sessions=5),
    orders=OrderStyle(type="limit", offset_bps=5),
    rebalance_band=0.1,
    # Yields have no volume.
    volume_cap=None,
)


def sampled(dataset: str, calendar: str) -> tuple[History, tuple[str, ...]]:
    """Some of a dataset's bars as features.bars would have them, the last two thousand times."""
    bars = pl.read_parquet(SAMPLES / f"{dataset}.parquet")
    symbols = tuple(bars["symbol"].unique().sort().head(3))
    interval = dataset.rpartition("_")[2]
    by, count = ("session", 600) if interval == "1d" else ("open_time", 2_000)
    bars = bars.filter(
        pl.col("symbol").is_in(symbols), pl.col(by).is_in(bars[by].unique().sort().tail(count).implode())
    )
    if interval == "1d":
        hours = session_table(calendar, bars["session"].min(), bars["session"].max())
        bars = bars.join(hours.select("session", "open_time", "close_time"), on="session")
    else:
        bars = assign_sessions(bars, calendar).drop_nulls("session")
        hours = session_table(calendar, bars["session"].min(), bars["session"].max())
        bars = bars.with_columns((pl.col("open_time") + INTERVALS[interval]).alias("close_time"))
        within = bars.join(hours.select("session", opens="open_time", ends="close_time"), on="session")
        bars = within.filter(pl.col("open_time") >= pl.col("opens"), pl.col("close_time") <= pl.col("ends"))
    bars = bars.with_columns(
        pl.col("close_time").alias("available_at"),
        pl.lit(interval).alias("interval"),
        pl.col("symbol").alias("listing"),
        pl.lit(1.0).alias("shares"),
    ).sort("symbol", "open_time")
    closes = dict(hours.select("session", "close_time").iter_rows())
    return History(bars, ACTIONS_SCHEMA.to_frame(), closes, 1e-6 if calendar == "24/7" else 1.0), symbols


@pytest.mark.parametrize(("dataset", "calendar"), DATASETS.items())
@pytest.mark.parametrize(
    "rule", [{"ma_cross": {"fast": 5, "slow": 20}}, "vote", {"momentum_rotation": {"window": 10, "every": "daily"}}]
)
def test_an_account_is_the_same_however_its_history_comes(dataset, calendar, rule):
    history, symbols = sampled(dataset, calendar)
    once = simulate(history, Registry().bind(rule), SETTINGS, symbols)
    wanted = once.events("s")
    assert wanted.filter(kind="fill").height > 5

    sessions = once.market.times[:, c.SESSION]
    edges = [0, *(np.flatnonzero(np.diff(sessions)) + 1).tolist(), len(sessions)]
    stored, parts = State(len(symbols), SETTINGS.capital).to_bytes(), []
    for start, stop in zip(edges, edges[1:], strict=False):
        done = run(once.market[start:stop], once.targets[start:stop], once.settings, State.from_bytes(stored))
        stored = done.state.to_bytes()
        parts.append(done.events.frame("s"))
    assert pl.concat(parts).equals(wanted)
    assert stored == once.result.state.to_bytes()

    stepper = Stepper(once.market, once.settings, targets=once.targets)
    while stepper.step():
        pass
    assert stepper.finish().events.frame("s").equals(wanted)

"""End equity and fees of LEAN's regression algorithms, to the cent, from LEAN's own bars.

Its recipe: prices adjusted by the factors, targets of 0.25 % less than the equity, 0.005 USD a share, at least 1 USD,
at most 0.5 % of the value. What each algorithm decides, and when, is told here; what follows from that is the engine's.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from quantlytic_assets.trading.engine.market import BARS_SCHEMA, Market
from quantlytic_assets.trading.engine.requests import Requests
from quantlytic_assets.trading.engine.run import run
from quantlytic_assets.trading.engine.settings import Costs, EngineSettings, Sizing

BARS = pl.read_csv(Path(__file__).parents[2] / "data" / "engine" / "lean_spy.csv")
ACCOUNT = EngineSettings(
    100_000, volume_cap=None, sizing=Sizing("weights"), cash_buffer=0.0025,
    costs=Costs(per_share=0.005, minimum=1, maximum_bps=50),
)  # fmt: skip
# interval, first and last day, when it decides (the opening of the bar on whose close it does), what, end equity, fees.
ALL_IN = None
CASES = {
    "BasicTemplateDailyAlgorithm": ("1d", "2013-10-08", "2013-10-17", "2013-10-08", ALL_IN, 104_486.22, 3.49),
    "WarmupIndicatorRegressionAlgorithm": ("1d", "2013-11-13", "2013-12-10", "2013-11-13", ALL_IN, 101_236.75, 3.23),
    "ConsolidateScanRegressionAlgorithm": (
        "1h", "2013-10-07", "2013-10-10", "2013-10-07 15:00", ALL_IN, 101_062.91, 3.45,
    ),
    "MarketOnOpenOrderRegressionAlgorithm": (
        "1h", "2021-03-01", "2021-03-03", "2021-03-01 15:00", [{"type": "market_on_open"}, {}], 99_981.16, 2.0,
    ),
    "MarketOnCloseOrderRegressionAlgorithm": (
        "1h", "2021-03-01", "2021-03-03", "2021-03-02 11:00", [{"type": "market_on_close"}], 99_993.90, 1.0,
    ),
    # Two dollars below the price at noon, so that it is reached at once.
    "StopMarketOrderRegressionAlgorithm": (
        "1h", "2021-03-01", "2021-03-03", "2021-03-01 11:00", [{"stop": -2.0}], 99_991.05, 1.0,
    ),
}  # fmt: skip


def market_of(interval: str, first: str, last: str) -> Market:
    rows, closes = [], {}
    for _, _, told, *numbers, factor in BARS.filter(
        (pl.col("interval") == interval) & (pl.col("open_time").str.head(10).is_between(pl.lit(first), pl.lit(last)))
    ).iter_rows():
        start = datetime.fromisoformat(told).replace(tzinfo=UTC)
        if interval == "1d":
            start += timedelta(hours=9, minutes=30)
        ends = start + timedelta(hours=1) if interval == "1h" else start.replace(hour=16, minute=0)
        closes[start.date()] = ends
        prices = [price * factor for price in numbers[:4]]
        rows.append(("SPY", start.date(), start, ends, ends, *prices, float(numbers[4])))
    return Market.from_frame(pl.DataFrame(rows, schema=BARS_SCHEMA, orient="row"), session_closes=closes)


@pytest.mark.parametrize("name", CASES)
def test_a_regression_algorithm_of_lean(name: str):
    interval, first, last, decides, what, equity, fees = CASES[name]
    market = market_of(interval, first, last)
    time = market.at(datetime.fromisoformat(decides).replace(tzinfo=UTC))
    if what is ALL_IN:
        targets = np.full((len(market), 1), np.nan)
        targets[time] = 1.0
        result = run(market, targets, ACCOUNT)
    else:
        asked = Requests(market.symbols)
        for how in what:
            if "stop" in how:
                how = {"stop": market.bars[time, 3, 0] + how["stop"]}
            asked.submit("SPY", 1, **how)
        result = run(market, None, ACCOUNT, orders={time: asked})
    assert round(result.equity[-1], 2) == equity
    paid = result.events.frame().filter(kind="fill")["commission"].sum()
    # As it is shown there.
    assert round(paid + 1e-9, 2) == fees

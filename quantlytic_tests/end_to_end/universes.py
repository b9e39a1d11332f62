"""The small universes that the end-to-end tests work on: real sample bars, few sessions of them."""

from __future__ import annotations

import copy

from quantlytic_tests.end_to_end.installations import Universe

# Six sessions, one of them the half day before the fourth of July.
EQUITIES_5M = {
    "calendar": "XNYS",
    "interval": "5m",
    "first_session": "2025-06-30",
    "last_session": "2025-07-08",
    "vendors": ["sample"],
    "venue": "yahoo",
    "feature_intervals": ["5m", "1h"],
    "symbols": ["AAPL", "SPY"],
}

EQUITIES_1D = {
    "calendar": "XNYS",
    "interval": "1d",
    "first_session": "2017-01-03",
    "last_session": "2018-02-28",
    "vendors": ["sample"],
    "venue": "yahoo",
    "symbols": ["AAPL", "MSFT"],
}

MOMENTUM_1D = {
    "dataset": "equities_1d",
    "interval": "1d",
    "model": "logistic_regression",
    "features": ["ret_1", "rsi_14", "vol_20"],
    "horizon": 1,
    "retrain": "monthly",
    "min_train_sessions": 40,
    "embargo_sessions": 2,
    "broker": "simulated",
    "capital": 100000,
    "costs": {"commission_bps": 1, "slippage_bps": 2},
}

CRYPTO_1M = {
    "calendar": "24/7",
    "interval": "1m",
    "first_session": "2025-05-10",
    "last_session": "2025-05-11",
    "vendors": ["sample"],
    "venue": "binance",
    "feature_intervals": ["1h"],
    "symbols": ["BTC-USD"],
}


def universe(*, strategies: bool = False, **datasets: dict) -> Universe:
    """A universe of these datasets, copied, with the strategy on `equities_1d` or without."""
    chosen: Universe = {"datasets": copy.deepcopy(datasets)}
    if strategies:
        chosen["strategies"] = {"momentum_1d": copy.deepcopy(MOMENTUM_1D)}
    return chosen

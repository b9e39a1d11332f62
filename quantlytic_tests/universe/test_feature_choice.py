"""Features in the universe file: sets, parameters, a user's own, and what is said of each that is wrong."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from quantlytic_assets.features.batch import compute
from quantlytic_assets.features.registry import SETS, Registry
from quantlytic_assets.universe.feature_choice import (
    CORE,
    CORE_COLUMNS,
    CORE_DECLARATIONS,
    features_of,
    learned_from,
    others,
)
from quantlytic_assets.universe.loading import load_universe
from quantlytic_assets.universe.models import UniverseError

UNIVERSE = """
plugins: {plugins}
feature_sets: {sets}
datasets:
  minutes:
    calendar: 24/7
    interval: 1m
    first_session: 2025-05-10
    last_session: 2026-05-31
    vendors: [sample]
    symbols: [BTC-USD, ETH-USD]
    features: {features}
  rates:
    calendar: 24/7
    interval: 1m
    first_session: 2025-05-10
    vendors: []
    symbols: [^TNX]
strategies:
  swing:
    dataset: minutes
    interval: 1m
    model: logistic_regression
    min_train_sessions: 2
    features: {learned}
"""
PLUGIN = """
from quantlytic_assets.plugins import feature

@feature(inputs=["close"], lookback=lambda window: window, scale="price")
def my_alpha(close, *, window: int = 5):
    "Twice the close."
    return close * 2.0
"""


@pytest.fixture
def load(tmp_path):
    def read(features="[core]", learned="[ret_1]", sets="{}", plugins="[]", files=()):
        for name, text in dict(files).items():
            (tmp_path / name).write_text(text)
        path = tmp_path / "universe.yaml"
        text = UNIVERSE.format(features=features, learned=learned, sets=sets, plugins=plugins)
        if learned is None:
            text = text.replace("    features: None\n", "")
        path.write_text(text)
        return load_universe(path)

    return read


def plugin(text: str) -> dict:
    """Options of a universe with this file as its plugin."""
    return {"plugins": "[bad.py]", "files": {"bad.py": text}}


def said(load, **options) -> list[str]:
    with pytest.raises(UniverseError) as caught:
        load(**options)
    return caught.value.mistakes


def columns(dataset) -> list[str]:
    return [column for feature in features_of(dataset) for column in feature.columns]


def test_the_set_core_has_the_columns_that_are_checked_without_the_registry():
    assert tuple(column for feature in Registry().features(CORE) for column in feature.columns) == CORE_COLUMNS
    assert SETS["core"] == CORE_DECLARATIONS


def test_sets_parameters_and_other_symbols(load):
    universe = load(
        features='[swing, stoch, "beta(60, ETH-USD)", "spread(rates:^TNX, BTC-USD)", "rank(ret_1)"]',
        sets='{swing: [sma(10), ema(50), "macd(8, 17, 9)"]}',
        learned="[sma_10, beta_60_ETHUSD]",
    )
    minutes = universe.datasets["minutes"]
    assert minutes.features[:3] == ("sma(10)", "ema(50)", "macd(8, 17, 9)")
    assert columns(minutes) == [
        "sma_10", "ema_50", "macd_8_17_9", "macd_signal_8_17_9", "macd_hist_8_17_9", "stoch_k", "stoch_d",
        "beta_60_ETHUSD", "spread_TNX_BTCUSD", "rank_ret_1", "ret_1",
    ]  # fmt: skip
    assert others(features_of(minutes)) == [(None, "ETH-USD"), ("rates", "^TNX"), (None, "BTC-USD")]
    swing = universe.strategies["swing"]
    found = learned_from(swing, swing.features)
    assert {name: one.scales[0] for name, one in found.items()} == {"sma_10": "price", "beta_60_ETHUSD": "ratio"}
    assert universe.datasets["rates"].features == ("core",)


def test_a_strategy_learns_from_all_columns_but_volumes(load):
    assert load(learned=None).strategies["swing"].features is None
    swing = load(features="[rsi, vwap, volume_zscore]", learned=None).strategies["swing"]
    assert swing.features == ("rsi_14", "vwap_20", "volume_zscore_20", "ret_1")


def test_a_long_window_moves_the_first_step_and_a_short_one_does_not(load):
    assert load(features="[rsi]", learned=None).strategies["swing"].warm_up_bars == 200
    assert load(features="[sma(900)]", learned="[sma_900]").strategies["swing"].warm_up_bars == 900


def test_a_user_s_own_feature(load, tmp_path):
    universe = load("[my_alpha, my_alpha(7)]", "[my_alpha_7]", plugins="[mine.py]", files={"mine.py": PLUGIN})
    minutes = universe.datasets["minutes"]
    assert minutes.plugins == (str(tmp_path / "mine.py"),)
    assert columns(minutes) == ["my_alpha_5", "my_alpha_7", "ret_1"]
    bars = pl.DataFrame({"symbol": "A", "interval": "1m", "open_time": [1, 2], "close": [1.0, 2.0]}).with_columns(
        pl.col("open_time").cast(pl.Datetime("us", "UTC"))
    )
    assert compute(bars, features_of(minutes)[:1])["my_alpha_5"].to_list() == [2.0, 4.0]
    assert learned_from(universe.strategies["swing"], ["my_alpha_7"])["my_alpha_7"].scales == ("price",)


def test_a_changed_plugin_is_read_anew(load, tmp_path):
    load("[my_alpha]", "[my_alpha_5]", plugins="[mine.py]", files={"mine.py": PLUGIN})
    changed = PLUGIN.replace("def my_alpha", "def other_alpha")
    path = tmp_path / "mine.py"
    path.write_text(changed)
    newer = path.stat().st_mtime_ns + 10**9
    __import__("os").utime(path, ns=(newer, newer))
    assert "there is no feature 'my_alpha'" in said(load, features="[my_alpha]", plugins="[mine.py]")[0]


@pytest.mark.parametrize(
    ("options", "mistake"),
    [
        ({"features": "[rsii]"}, "datasets.minutes.features[0]: there is no feature 'rsii', did you mean 'rsi'?"),
        ({"features": "[rsi(0)]"}, "datasets.minutes.features[0]: rsi: window is at least"),
        ({"features": '["rsi(2, 3)"]'}, "datasets.minutes.features[0]: rsi takes one parameter, not 2: rsi(window=14)"),
        ({"features": '["beta(60, SPY)"]'}, "beta(60, SPY) reads 'SPY', no symbol of minutes; take one of"),
        ({"features": '["ratio(rate:^TNX, BTC-USD)"]'}, "reads dataset 'rate', did you mean 'rates'?"),
        ({"features": '["rank(nothing)"]'}, "features[0]: there is no column 'nothing'"),
        ({"features": "[rank(obv)]"}, "features[0]: rank(obv) compares sums since the first bar of each symbol"),
        ({"sets": "{core: [rsi]}"}, "feature_sets.core: is a set that is always there"),
        ({"sets": "{swing: [smaa]}"}, "feature_sets.swing[0]: there is no feature 'smaa', did you mean 'sma'?"),
        ({"learned": "[rsi_15]"}, "swing.features[0]: 'rsi_15' is no feature of minutes, did you mean 'rsi_14'?"),
        ({"plugins": "[gone.py]"}, "plugins[0]: there is no file"),
        ({"plugins": "[no_such_module]"}, "plugins[0]: no_such_module can't be loaded: ModuleNotFoundError"),
        (plugin("x = = 1"), "can't be loaded: SyntaxError"),
        (plugin("x = 1"), "has no feature, rule, bot or model; decorate a function with @feature"),
        (plugin(PLUGIN.replace("my_alpha", "rsi")), "give the function another name"),
        (plugin(PLUGIN.replace('"close"', '"cloze"')), "inputs are some of open, high, low, close, volume, not cloze"),
        (plugin(PLUGIN.replace("int = 5", "int")), "needs a number as its default"),
        ({"plugins": "[a.py, b.py]", "files": {"a.py": PLUGIN, "b.py": PLUGIN}}, "plugins[1]: "),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)  # fmt: skip
def test_each_mistake_is_named_with_what_would_be_right(load, options, mistake):
    assert mistake in said(load, **options)[0]


def test_a_feature_of_the_wrong_length_names_itself(load):
    text = PLUGIN.replace("close * 2.0", "close[1:]")
    minutes = load("[my_alpha]", "[my_alpha_5]", plugins="[mine.py]", files={"mine.py": text}).datasets["minutes"]
    bars = pl.DataFrame({"symbol": "A", "interval": "1m", "open_time": [1, 2], "close": np.ones(2)})
    with pytest.raises(ValueError, match=r"my_alpha was given 2 bars and returned an array of shape \(1,\)"):
        compute(bars.with_columns(pl.col("open_time").cast(pl.Datetime("us", "UTC"))), features_of(minutes))


def test_a_plugin_is_found_beside_the_universe_wherever_the_command_runs(load, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)
    assert (
        load("[my_alpha]", "[my_alpha_5]", plugins="[mine.py]", files={"mine.py": PLUGIN}).datasets["minutes"].plugins
    )

"""What features are called, and what is said of a declaration that is wrong."""

import re

import pytest

from quantlytic_assets.features import declarations
from quantlytic_assets.features.custom import spec_of
from quantlytic_assets.features.registry import Registry
from quantlytic_tests.features.walks import REGISTRY, default

COLUMNS = {
    "rsi": "rsi_14",
    "rsi(21)": "rsi_21",
    "macd": "macd macd_signal macd_hist",
    "macd(12, 26, 9)": "macd macd_signal macd_hist",
    "macd(8, 17, 9)": "macd_8_17_9 macd_signal_8_17_9 macd_hist_8_17_9",
    "macd_signal(8, 17)": "macd_signal_8_17_9",
    "bb": "bb_middle bb_upper bb_lower bb_width bb_percent",
    "bb(20, 2.5)": "bb_middle_20_2p5 bb_upper_20_2p5 bb_lower_20_2p5 bb_width_20_2p5 bb_percent_20_2p5",
    "bb_upper": "bb_upper",
    "stoch": "stoch_k stoch_d",
    "stochrsi": "stochrsi_k stochrsi_d",
    "adx": "adx_14 plus_di_14 minus_di_14",
    "aroon": "aroon_up_25 aroon_down_25",
    "keltner": "keltner_middle keltner_upper keltner_lower",
    "donchian": "donchian_upper_20 donchian_lower_20",
    "ichimoku": "ichimoku_tenkan ichimoku_kijun ichimoku_senkou_a ichimoku_senkou_b",
    "supertrend": "supertrend supertrend_direction",
    "psar": "psar",
    "vwap_session": "vwap_session",
    "vwap": "vwap_20",
    "obv": "obv",
    "ad": "ad",
    "cmf": "cmf_20",
    "mfi": "mfi_14",
    "cci": "cci_20",
    "roc": "roc_10",
    "mom": "mom_10",
    "willr": "willr_14",
    "ultosc": "ultosc",
    "atr": "atr_14",
    "natr": "natr_14",
    "vol": "vol_20",
    "vol_parkinson": "vol_parkinson_20",
    "vol_garman_klass": "vol_garman_klass_20",
    "vol_yang_zhang": "vol_yang_zhang_20",
    "sharpe": "sharpe_60",
    "sortino": "sortino_60",
    "drawdown": "drawdown_60",
    "max_drawdown": "max_drawdown_60",
    "beta(60, SPY)": "beta_60_SPY",
    "corr(60, equities_1d:BRK.B)": "corr_60_BRKB",
    "spread(yields_1d:^TNX, yields_1d:^IRX)": "spread_TNX_IRX",
    "ratio(A, B)": "ratio_A_B",
    "rank(ret_1)": "rank_ret_1",
    "zscore(ret_1)": "zscore_ret_1",
    "MA(5)": "MA5",
    "cdldoji": "cdldoji",
}


@pytest.mark.parametrize("declaration", COLUMNS)
def test_columns_have_the_names_of_the_contract(declaration: str):
    assert REGISTRY.feature(declaration).columns == tuple(COLUMNS[declaration].split())


def test_sets_have_the_columns_they_are_known_for():
    columns = {name: [c for one in REGISTRY.features([name]) for c in one.columns] for name in ("alpha158", "candles")}
    assert len(set(columns["alpha158"])) == len(columns["alpha158"]) == 158
    assert {"KMID", "VWAP0", "ROC5", "RSQR60", "VSUMD30"} < set(columns["alpha158"])
    assert len(columns["candles"]) == 61


def test_a_column_that_is_declared_twice_is_there_once():
    features = REGISTRY.features(["bb_upper", "core", "bb", "rsi(14)"])
    columns = [name for one in features for name in one.columns]
    assert len(columns) == len(set(columns)) == 19 and columns[0] == "bb_upper"


def test_no_two_columns_differ_only_in_case():
    columns = [name for spec in REGISTRY.specs() for name in default(spec).columns]
    assert len({name.lower() for name in columns}) == len(columns)


@pytest.mark.parametrize("spec", REGISTRY.specs(), ids=lambda spec: spec.name)
def test_every_feature_says_what_it_is(spec):
    feature = default(spec)
    assert spec.formula in feature.description and spec.source in feature.description
    assert 0 <= feature.lookback <= feature.warmup
    assert len(spec.lookbacks(feature.parameters)) in (1, len(spec.outputs))
    assert all(re.fullmatch(r"\w+", name) for name in feature.columns)
    assert feature.kernel().outputs == len(spec.outputs)
    if spec.kind == "bars":
        assert REGISTRY.of_column(feature.columns[0]).spec is spec


@pytest.mark.parametrize(
    ("declaration", "said"),
    [
        ("rsl", r"no feature 'rsl', did you mean 'rsi'\?"),
        ("qqqqqqq", r"no feature 'qqqqqqq', take one of \d+, such as"),
        ("rsi(", r"'rsi\(' is no feature: write `name` or `name\(1, 2.5\)`"),
        ("rsi(1, )", "an argument is empty"),
        ("rsi(14, 3)", r"rsi takes one parameter, not 2: rsi\(window=14\)"),
        ("psar(1, 2, 3)", r"psar takes 2 parameters, not 3: psar\(acceleration=0.02, maximum=0.2\)"),
        ("obv(3)", "obv takes no parameters"),
        ("rsi(1)", "rsi: window is at least 2, not 1"),
        ("rsi(2.5)", "rsi: window is a whole number of bars, not 2.5"),
        ("rsi(SPY)", "rsi: window is a number, not 'SPY'"),
        ("beta(60)", r"beta needs symbol: beta\(window=60, symbol\)"),
    ],
)
def test_a_wrong_declaration_is_named(declaration: str, said: str):
    with pytest.raises(ValueError, match=said):
        REGISTRY.feature(declaration)


def test_named_parameters_are_checked():
    spec = REGISTRY.spec("bb")
    assert spec.bind(deviations=2.5) == REGISTRY.feature("bb(20, 2.5)")
    with pytest.raises(ValueError, match="bb has no parameter 'width'"):
        spec.bind(width=3)
    with pytest.raises(ValueError, match="window is given twice"):
        spec.bind(20, window=3)


def test_numbers_and_references_are_told_apart():
    assert declarations.split("beta(60, SPY)") == ("beta", (60, "SPY"))
    assert declarations.split("bb(20, 2.0)") == ("bb", (20, 2.0))
    assert declarations.split(" rsi ") == ("rsi", ())


def my_alpha(close, volume, *, window: int = 20):
    """Close times volume."""
    return close * volume


def test_a_name_that_is_taken_is_an_error():
    registry = Registry()
    registry.add(spec_of(my_alpha, ["close", "volume"], lookback=lambda window: window))
    assert registry.feature("my_alpha").columns == ("my_alpha_20",)
    with pytest.raises(ValueError, match="'my_alpha' is declared twice: in .*test_names.py' and in .*test_names.py'"):
        registry.add(spec_of(my_alpha, ["close"], lookback=1))
    my_alpha.__name__ = "bb_upper"
    with pytest.raises(ValueError, match="'bb_upper' is declared twice"):
        registry.add(spec_of(my_alpha, ["close"], lookback=1))
    my_alpha.__name__ = "core"
    with pytest.raises(ValueError, match="has the name of a feature set"):
        registry.add(spec_of(my_alpha, ["close"], lookback=1))
    my_alpha.__name__ = "my_alpha"


def test_a_column_that_nobody_declares_is_an_error():
    assert REGISTRY.of_column("macd_8_17_9").parameters == {"fast": 8, "slow": 17, "signal": 9}
    assert REGISTRY.of_column("bb_upper_20_2p5").columns == ("bb_upper_20_2p5",)
    with pytest.raises(ValueError, match="no column 'rsi_x'"):
        REGISTRY.of_column("rsi_x")

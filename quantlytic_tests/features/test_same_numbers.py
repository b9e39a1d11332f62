"""Every feature gives the same numbers in batch and online, wherever its bars are cut."""

import random
from math import ceil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from quantlytic_assets.features.batch import compute
from quantlytic_assets.features.online import Board
from quantlytic_assets.features.spec import Feature, FeatureSpec
from quantlytic_tests.features.walks import REFERENCES, REGISTRY, array, default, walk

OF_ONE_SYMBOL = [spec for spec in REGISTRY.specs() if spec.kind != "cross_section"]
DATA = Path(__file__).parents[1] / "data" / "indicators"
HISTORY = walk(1500, 11)
names = [spec.name for spec in OF_ONE_SYMBOL]
WITH_PARAMETERS = [spec for spec in OF_ONE_SYMBOL if spec.parameters]
# So that 500 sets of parameters are drawn, or a few more.
DRAWN = ceil(500 / len(WITH_PARAMETERS))


def online(features: list[Feature], bars: pl.DataFrame, opened: int) -> pl.DataFrame:
    board = Board(features)
    if opened:
        board.open(bars[:opened])
    symbol = bars["symbol"][0]
    return pl.DataFrame([board.update(symbol, bar) for bar in bars[opened:].iter_rows(named=True)])


def assert_bitwise(features: list[Feature], bars: pl.DataFrame, opened: int) -> None:
    batch, found = compute(bars, features), online(features, bars, opened)
    for feature in features:
        for name in feature.columns:
            np.testing.assert_array_equal(array(found, name), array(batch, name)[opened:], err_msg=name)


def drawn_parameters(data: st.DataObject, spec: FeatureSpec) -> Feature:
    drawn = {}
    for one in spec.parameters:
        if one.kind == "reference":
            drawn[one.name] = REFERENCES[one.name]
        elif one.kind == "int":
            drawn[one.name] = data.draw(st.integers(int(one.lower), int(one.lower) + 25), one.name)
        else:
            drawn[one.name] = data.draw(st.floats(one.lower, 2 * float(one.default)), one.name)
    return spec.bind(**drawn)


@pytest.mark.parametrize("spec", WITH_PARAMETERS, ids=lambda spec: spec.name)
@seed(158)
@settings(
    max_examples=DRAWN, deadline=None, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(data=st.data())
def test_drawn_parameters_give_the_same_bits_online(spec: FeatureSpec, data: st.DataObject):
    feature = drawn_parameters(data, spec)
    start = data.draw(st.integers(0, 1200), "first bar")
    bars = HISTORY[start : start + data.draw(st.integers(1, 250), "bars")]
    assert_bitwise([feature], bars, data.draw(st.integers(0, len(bars) - 1), "opened with"))
    # And each column begins where it says.
    computed = compute(HISTORY[:400], [feature])
    for name, lookback in zip(feature.columns, feature.lookbacks, strict=True):
        assert computed[name][:lookback].null_count() == min(lookback, 400), name
        if lookback < 350:
            # A window with no volume, no movement or no losses may have no value: not so many in a row.
            assert computed[name][lookback : lookback + 50].null_count() < 50, name


def test_all_defaults_give_the_same_bits_online_with_splits_and_holes():
    bars = HISTORY[:500].with_row_index("n")
    bars = bars.with_columns(
        shares=pl.when(pl.col("n") < 200).then(1.0).otherwise(3.0),
        listing=pl.when(pl.col("n") < 330).then(pl.lit("a")).otherwise(pl.lit("b")),
        session=pl.col("open_time").dt.date(),
        vwap=pl.when(pl.col("n") % 3 == 0).then(pl.col("close") * 1.001),
        close=pl.when(pl.col("n").is_in([5, 100, 431])).then(None).otherwise(pl.col("close")),
        volume=pl.when(pl.col("n").is_in([50, 400])).then(None).otherwise(pl.col("volume")),
        high=pl.when(pl.col("n").is_in([60, 410])).then(None).otherwise(pl.col("high")),
    ).drop("n")
    features = [default(spec) for spec in OF_ONE_SYMBOL]
    for opened in (0, 107, 250, 340):
        assert_bitwise(features, bars, opened)


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e6])
def test_recorded_minutes_give_the_same_bits_online_at_any_level_of_price(scale: float):
    recorded = pl.read_csv(DATA / "skender_intraday.csv")[:600].cast({"volume": pl.Float64})
    prices = (recorded[name] * scale for name in ("open", "high", "low", "close"))
    bars = HISTORY[: len(recorded)].with_columns(*prices, recorded["volume"])
    assert_bitwise([default(spec) for spec in OF_ONE_SYMBOL], bars, 300)


def test_later_bars_change_nothing_before_them():
    features = [default(spec) for spec in REGISTRY.specs()]
    bars = pl.concat([HISTORY[:700], walk(600, 12, "B")])
    whole = compute(bars, features)
    for cut in np.random.default_rng(2).integers(1, 700, 4).tolist():
        time = HISTORY["open_time"][cut]
        part = compute(bars.filter(pl.col("open_time") <= time), features)
        wanted = whole.filter(pl.col("open_time") <= time)
        assert part.equals(wanted, null_equal=True), cut


@pytest.mark.parametrize("declarations", [
    names, ["ema(5)", "rsi(5)", "atr(30)", "adx(5)", "macd(3, 5, 40)", "kama(30)", "tema(30)", "keltner(10, 2, 20)",
            "supertrend(20, 1.5)", "psar(0.05, 0.1)", "stochrsi(20, 5, 3, 3)", "natr(3)"],
], ids=["defaults", "others"])  # fmt: skip
def test_a_computation_from_the_warm_up_on_gives_the_same_numbers(declarations: list[str]):
    features = [
        default(REGISTRY.spec(one)) if one in names else REGISTRY.feature(one)
        for one in declarations
    ]  # fmt: skip
    features = [one for one in features if not one.spec.cumulative and not one.spec.whole_session]
    whole = compute(HISTORY, features)
    for feature in features:
        assert feature.warmup < 1400, feature
        for end in np.random.default_rng(7).integers(feature.warmup, len(HISTORY), 5).tolist():
            part = compute(HISTORY[end - feature.warmup : end + 1], [feature])
            for name, scale in zip(feature.columns, feature.scales, strict=True):
                noise = 1e-9 * HISTORY["close"][end] if scale.startswith("price") else 1e-9
                np.testing.assert_allclose(array(part, name)[-1], array(whole, name)[end], 1e-9, noise, err_msg=name)


@pytest.mark.parametrize("name", ["obv", "ad", "cum_log_ret"])
def test_a_sum_since_the_first_bar_goes_on_from_the_stored_value(name: str):
    feature = REGISTRY.feature(name)
    bars = HISTORY[:200].with_columns(shares=pl.when(pl.int_range(pl.len()) < 80).then(1.0).otherwise(3.0))
    whole = compute(bars, [feature])
    stored = whole[99:100].select("symbol", "interval", "open_time", name)
    part = bars[99 - feature.warmup :].with_columns(lookback=pl.int_range(pl.len()) <= feature.warmup)
    found = compute(part, [feature], stored=stored)
    assert len(found) == 100
    np.testing.assert_allclose(array(found, name), array(whole, name)[100:], 1e-9)
    board = Board([feature])
    board.open(part[:20], stored)
    following = [board.update("A", bar)[name] for bar in part[20:].iter_rows(named=True)]
    np.testing.assert_allclose(following, array(whole, name)[100 - feature.warmup - 1 + 20 :], 1e-9)


def test_session_vwap_from_the_first_bar_of_a_session_is_that_of_all_bars():
    feature = REGISTRY.feature("vwap_session")
    whole = array(compute(HISTORY[:120], [feature]), "vwap_session")
    np.testing.assert_array_equal(array(compute(HISTORY[48:120], [feature]), "vwap_session"), whole[48:])


def test_symbols_of_a_board_do_not_disturb_each_other():
    board = Board(REGISTRY.features(["core"]))
    both = pl.concat([HISTORY[:300], walk(250, 13, "B")])
    board.open(both)
    assert set(board.symbols) == {"A", "B"} and board.warmup == 385
    bar = HISTORY.row(300, named=True)
    wanted = compute(HISTORY[:301], REGISTRY.features(["core"]))
    assert list(board.update("A", bar).values()) == [wanted[name][-1] for name in board.columns]


def test_a_cross_section_has_no_handle():
    with pytest.raises(ValueError, match=r"rank\(ret_1\).*no handle of one symbol"):
        Board([REGISTRY.feature("rank(ret_1)")])


@pytest.mark.parametrize("spec", OF_ONE_SYMBOL, ids=lambda spec: spec.name)
def test_bars_of_many_symbols_at_once_give_the_bits_of_one_after_another(spec: FeatureSpec):
    """Symbols come and go, miss bars and inputs, split, and change their company."""
    feature, drawn = default(spec), random.Random(spec.name)
    walks = {name: walk(90, number).to_dicts() for number, name in enumerate(("A", "B", "C", "D", "E"))}
    together, singly = Board([feature]), Board([feature])
    opened = pl.concat([walk(30, number).with_columns(symbol=pl.lit(name)) for number, name in enumerate(walks)])
    for board in (together, singly):
        board.open(opened.filter(pl.col("symbol").is_in(["B", "D"])))
    for at in range(30, 90):
        bars = [(name, dict(walks[name][at])) for name in drawn.sample(sorted(walks), drawn.randint(1, 5))]
        for name, bar in bars:
            bar["shares"] = 2.0 if name == "B" and at > 50 else 1.0
            bar["listing"] = "later" if name == "C" and at > 60 else name
            if drawn.random() < 0.1:
                bar[drawn.choice(("close", "volume", "high"))] = drawn.choice((None, float("nan")))
        if at == 70:
            for board in (together, singly):
                board.close("D")
        found, wanted = together.values_of(bars), [singly.values(*one) for one in bars]
        assert np.array_equal(np.array(found), np.array(wanted), equal_nan=True), at

"""Settings, markets and states that are wrong are refused, with what would be right."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from quantlytic_assets.trading.engine.market import Market
from quantlytic_assets.trading.engine.run import Stepper, run
from quantlytic_assets.trading.engine.settings import Costs, EngineSettings, Exits, OrderStyle, Risk, Sizing
from quantlytic_assets.trading.engine.state import State
from quantlytic_tests.trading.engine.markets import actions, flat, frame, walks


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: EngineSettings(0), "capital"),
        (lambda: EngineSettings(float("inf")), "capital"),
        (lambda: EngineSettings(1e5, leverage=-1), "leverage"),
        (lambda: EngineSettings(1e5, volume_cap=0), "volume_cap"),
        (lambda: EngineSettings(1e5, limit_fill="maybe"), "limit_fill: 'maybe' is unknown, one of penetrate, touch"),
        (lambda: EngineSettings(1e5, cash_buffer=2), "cash_buffer"),
        (lambda: OrderStyle("iceberg"), "orders.type"),
        (lambda: OrderStyle("limit", "fok"), "orders.time_in_force"),
        (lambda: OrderStyle("trailing_stop"), "orders.trail"),
        (lambda: OrderStyle(offset_bps=-1), "orders.offset_bps"),
        (lambda: Exits(stop_loss=-0.1), "exits.stop_loss: -0.1 is not a number of more than 0"),
        (lambda: Exits(stop_loss=0.05, atr_stop=2), "exits.atr_stop: contradicts exits.stop_loss"),
        (lambda: Exits(stop_loss=0.05, trailing_stop=0.1), "exits.trailing_stop"),
        (lambda: Exits(max_bars=0), "exits.max_bars"),
        (lambda: Sizing("martingale"), "sizing.method"),
        (lambda: Sizing("fixed"), "sizing.amount"),
        (lambda: Sizing("fixed", amount=1, fraction=1), "sizing.amount"),
        (lambda: Sizing("volatility_target"), "sizing.annual"),
        (lambda: Sizing("equal_weight", cap=0.2), "sizing.cap"),
        (lambda: Risk(max_drawdown=1.5), "risk.max_drawdown"),
        (lambda: Risk(cooldown_bars=-1), "risk.cooldown_bars"),
        (lambda: Costs(per_share=-0.01), "costs.per_share"),
        (lambda: Costs(commission_bps=float("nan")), "costs.commission_bps"),
    ],
)
def test_a_wrong_setting_is_named(make, told):
    with pytest.raises(ValueError, match=told):
        make()


def test_a_wrong_market_is_refused():
    bars = frame([("AAA", 0, 20, 20, 20, 20)])
    with pytest.raises(ValueError, match="bars: no column available_at"):
        Market.from_frame(bars.drop("available_at"))
    with pytest.raises(ValueError, match="two bars of one open_time"):
        Market.from_frame(pl.concat([bars, bars]))
    later = bars.with_columns(pl.col("open_time") + timedelta(hours=1))
    with pytest.raises(ValueError, match="session_closes: are needed"):
        Market.from_frame(pl.concat([bars, later]))
    with pytest.raises(ValueError, match="lots: must be finite, and positive"):
        Market.from_frame(bars, lots=0.0)
    with pytest.raises(ValueError, match=r"actions.kind: spinoff is unknown"):
        Market.from_frame(bars, actions=actions(("AAA", 0, "spinoff", 1.0)))
    with pytest.raises(ValueError, match=r"actions.value: 0.0 of AAA's split"):
        Market.from_frame(bars, actions=actions(("AAA", 0, "split", 0.0)))
    with pytest.raises(ValueError, match=r"actions.into"):
        Market.from_frame(bars, actions=actions(("AAA", 0, "rename", "BBB")))


def test_a_market_is_laid_out_by_time_and_symbol():
    market = Market.from_frame(frame([("B", 1, 2, 3, 1, 2, 5), ("A", 0, 4, 4, 4, 4), ("B", 0, 1, 0.5, 2, 1)]))
    assert market.symbols == ("A", "B")
    # One whose high is below its low is none.
    assert np.isnan(market.bars[0, :4, 1]).all() and np.isnan(market.bars[1, :, 0]).all()
    assert market.bars[1, :, 1].tolist() == [2, 3, 1, 2, 5]
    assert market[1:].bars.base is not None and len(market[1:]) == 1
    with pytest.raises(ValueError, match="step 2"):
        market[::2]
    weights = frame([("B", 1, 1, 1, 1, 1)]).with_columns(pl.lit(0.5).alias("weight"))
    late = weights.with_columns(pl.col("open_time") + timedelta(minutes=1))
    laid = market.matrix(pl.concat([weights, late]), "weight")
    assert laid[1, 1] == 0.5 and np.isnan(laid).sum() == 3


def test_targets_of_another_shape_and_a_state_of_another_market_are_refused():
    market = flat([20.0] * 3)
    with pytest.raises(ValueError, match="targets: shape"):
        run(market, np.zeros((2, 1)), EngineSettings(1e4))
    with pytest.raises(ValueError, match="state: is of 2 symbols"):
        run(market, None, EngineSettings(1e4), State(2, 1e4))
    with pytest.raises(ValueError, match="orders: time 7"):
        run(market, None, EngineSettings(1e4), orders={7: Stepper(market, EngineSettings(1e4)).requests})


def test_a_stored_state_is_itself_or_refused():
    market = walks(2, 5, 2)
    state = run(market, np.full((10, 2), 1.0), EngineSettings(1e4, exits=Exits(stop_loss=0.2))).state
    stored = state.to_bytes()
    assert State.from_bytes(stored).to_bytes() == stored == state.copy().to_bytes() == state.with_room(99).to_bytes()
    for wrong in (b"", stored[:-1], stored + b"x", b"XXXX" + stored[4:]):
        with pytest.raises(ValueError, match="state:"):
            State.from_bytes(wrong)


def test_a_run_leaves_the_state_that_it_went_on_from():
    market = walks(2, 5, 2)
    settings = EngineSettings(1e4)
    state = run(market[:5], np.full((5, 2), 1.0), settings).state
    before = state.to_bytes()
    run(market[5:], np.full((5, 2), 1.0), settings, state)
    assert state.to_bytes() == before


def test_a_state_goes_on_with_other_symbols():
    market = walks(3, 6, 2)
    settings = EngineSettings(1e4, exits=Exits(stop_loss=0.05), sizing=Sizing("weights"))
    targets = np.tile([0.4, np.nan, 0.4], (12, 1))
    own, wanted = market.symbols, ("NEW", "S2", "S0", "S1")
    state = run(market[:6], targets[:6], settings).state
    places = [own.index(name) if name in own else None for name in wanted]
    bars = np.full((12, 5, 4), np.nan)
    for place, old in enumerate(places):
        if old is not None:
            bars[:, :, place] = market.bars[:, :, old]
    static = np.stack([np.ones(4), np.full(4, 0.01), np.zeros(4)])
    wider = replace(market, symbols=wanted, bars=bars, static=static)
    one = run(market[6:], np.full((6, 3), np.nan), settings, state).events.frame()
    other = run(wider[6:], np.full((6, 4), np.nan), settings, state.for_symbols(own, wanted)).events.frame()
    assert one.filter(kind="fill").height > 0 and one.equals(other)
    with pytest.raises(ValueError, match="symbols: S2 is held or ordered"):
        state.for_symbols(own, ("S0", "S1"))


def test_an_empty_market_is_no_error():
    result = run(flat([20.0])[:0], np.zeros((0, 1)), EngineSettings(1e4))
    assert len(result.events) == 0 and result.events.frame().is_empty() and result.state.cash == 1e4

"""Settings by their path, and grids of them: what is meant, and what is said of a mistake."""

from __future__ import annotations

import pytest

from quantlytic_assets.trading.backtest.changes import axes_of, changed, grid, parsed
from quantlytic_assets.trading.engine.settings import EngineSettings

RULE = {"ma_cross": {"fast": 20, "slow": 50}}
SETTINGS = EngineSettings(100_000.0)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("rule.ma_cross.fast=10", ("rule.ma_cross.fast", 10)),
        (" exits.stop_loss = 3% ", ("exits.stop_loss", 0.03)),
        ("costs.commission_bps=0.5", ("costs.commission_bps", 0.5)),
        ("account.short=true", ("account.short", True)),
        ("account.volume_cap=none", ("account.volume_cap", None)),
        ("orders.type=limit", ("orders.type", "limit")),
        ("account.capital=1e6", ("account.capital", 1_000_000.0)),
    ],
)
def test_a_setting_is_a_path_and_a_value(text, wanted):
    assert parsed(text) == wanted and type(parsed(text)[1]) is type(wanted[1])


@pytest.mark.parametrize("text", ["rule.ma_cross.fast", "=3", "exits.stop_loss= "])
def test_a_setting_without_a_path_or_a_value_is_a_mistake(text):
    with pytest.raises(ValueError, match="is no setting; write path=value"):
        parsed(text)


def test_each_path_reaches_its_setting():
    rule, settings = changed(
        RULE,
        SETTINGS,
        {"rule.ma_cross.fast": 5, "exits.stop_loss": 0.1, "account.leverage": 2, "costs.minimum": 1.0,
         "sizing.method": "equal_weight", "risk.max_position": 0.5, "orders.type": "market_on_open"},
    )  # fmt: skip
    assert rule == {"ma_cross": {"fast": 5, "slow": 50}} and RULE["ma_cross"]["fast"] == 20
    assert settings.exits.stop_loss == 0.1 and settings.leverage == 2 and settings.costs.minimum == 1.0
    assert settings.risk.max_position == 0.5 and settings.orders.type == "market_on_open"
    assert changed("rsi", SETTINGS, {"rule.rsi.window": 7})[0] == {"rsi": {"window": 7}}


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("exit.stop_loss", 0.1, "there is no exit; did you mean exits"),
        ("exits.stoploss", 0.1, "there is no stoploss; did you mean stop_loss"),
        ("account.costs", 0.1, "there is no costs"),
        ("rule.rsi.window", 7, "the strategy's rule is ma_cross; write rule.ma_cross.PARAMETER"),
        ("exits.stop_loss", -1, "exits.stop_loss"),
        ("orders.type", "lmit", "orders.type"),
    ],
)
def test_a_path_or_value_that_cannot_be_is_named(path, value, said):
    with pytest.raises(ValueError, match=said):
        changed(RULE, SETTINGS, {path: value})


def test_a_grid_is_every_combination():
    points = grid(axes_of(["rule.ma_cross.fast=5:15:5", "exits.stop_loss=2%,5%"]))
    assert [tuple(point.values()) for point in points] == [
        (5, 0.02), (5, 0.05), (10, 0.02), (10, 0.05), (15, 0.02), (15, 0.05),
    ]  # fmt: skip
    assert [point["x"] for point in grid(axes_of(["x=0:1:0.1"]))] == [round(i / 10, 12) for i in range(11)]
    assert [point["x"] for point in grid(axes_of(["x=2:4"]))] == [2, 3, 4]


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        (["x"], "is no axis"),
        (["x=1:2:0"], "has no values"),
        (["x=3:2:1"], "has no values"),
        (["x=a:b:c"], "is no range"),
        (["x=1,2", "x=3"], "is there twice"),
        (["x=1:200:1", "y=1:200:1"], "40,000 points"),
        ([], "0 points"),
    ],
)
def test_a_grid_that_is_none_says_why(axes, said):
    with pytest.raises(ValueError, match=said):
        grid(axes_of(axes))

"""What each rule decides, on frames that can be checked by hand."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest

from quantlytic_assets.features.registry import Registry as Features
from quantlytic_assets.strategies.registry import Registry
from quantlytic_assets.strategies.spec import RuleError, RuleSpec
from quantlytic_tests.strategies.walks import bars

RULES = Registry()


def targets(declaration, frame: pl.DataFrame) -> list[float | None]:
    return RULES.bind(declaration).targets(frame).to_list()


def crossing(**columns) -> pl.DataFrame:
    return bars("AAA", [10.0] * 5, **columns)


def test_the_moving_averages_decide_the_side():
    frame = crossing(sma_3=[None, 9, 11, 10, 8], sma_5=[None, None, 10, 10, 10])
    assert targets({"ma_cross": {"fast": 3, "slow": 5}}, frame) == [None, None, 1, None, 0]
    assert targets({"ma_cross": {"fast": 3, "slow": 5, "short": True}}, frame) == [None, None, 1, None, -1]


def test_the_kind_of_average_is_a_parameter():
    rule = RULES.bind({"ma_cross": {"fast": 3, "slow": 5, "kind": "ema"}})
    assert rule.declarations == ("ema(3)", "ema(5)")
    assert rule.targets(crossing(ema_3=[1, 2, 3, 4, 5], ema_5=[2, 2, 2, 2, 2])).to_list() == [0, None, 1, 1, 1]


def test_rsi_keeps_what_is_held_between_its_limits():
    frame = bars("AAA", [1.0] * 7, rsi_14=[None, 50, 29, 30, 70, 71, 50])
    assert targets("rsi", frame) == [None, None, 1, None, None, 0, None]
    assert targets({"rsi": {"short": True}}, frame) == [None, None, 1, None, None, -1, None]
    assert targets({"rsi": {"low": 51, "high": 60}}, frame) == [None, 1, 1, 1, 0, 0, 1]


def test_mean_reversion_counts_deviations():
    # Middle 100, upper band 110: a deviation is 5. −2.2, −2, −1, −0.2, 0 and 2 deviations.
    frame = bars("AAA", [89, 90, 95, 99, 100, 110], bb_middle=[100] * 6, bb_upper=[110] * 6)
    assert targets("mean_reversion", frame) == [1, None, None, None, 0, 0]
    # From half a deviation under the mean on it is sold.
    assert targets({"mean_reversion": {"entry": 0.9, "exit": 0.5}}, frame) == [1, 1, 1, 0, 0, 0]


def test_prices_that_do_not_move_are_no_deviation():
    frame = bars("AAA", [100, 100], bb_middle=[100, 100], bb_upper=[100, None])
    assert targets("mean_reversion", frame) == [None, None]


def test_a_vote_counts_ema_rsi_and_macd():
    frame = bars(
        "AAA", [1.0] * 6,
        ema_12=[2, 2, 1, 1, 2, None], ema_26=[1, 1, 2, 2, 1, 1],
        rsi_14=[20, 50, 80, 50, 80, 20], macd_hist=[1, 1, -1, -1, -1, 1],
    )  # fmt: skip
    rule = RULES.bind("vote")
    assert rule.opinions(frame)["score"].to_list() == pytest.approx([1, 2 / 3, -1, -2 / 3, -1 / 3, None])
    assert rule.targets(frame).to_list() == [1, 1, 0, 0, None, None]
    assert targets({"vote": {"threshold": 0.9, "short": True}}, frame) == [1, None, -1, None, None, None]
    assert rule.opinions(frame)["reason"][1] == "EMA buy, RSI hold (50.0), MACD buy: score 0.67"


def test_two_thirds_reach_a_threshold_of_two_thirds():
    frame = bars("AAA", [1.0], ema_12=[2], ema_26=[1], rsi_14=[50], macd_hist=[1])
    assert targets({"vote": {"threshold": 0.667}}, frame) == [1]


def rotating() -> pl.DataFrame:
    """Three symbols over the turn of a month: 30 and 31 January, 1 and 2 February."""
    momenta = {"AAA": [1, 9, 5, 9], "BBB": [2, 1, 4, 1], "CCC": [3, 2, -1, 2]}
    return pl.concat([bars(one, [1.0] * 4, date(2024, 1, 30), roc_126=given) for one, given in momenta.items()])


def test_momentum_rotates_at_the_first_bar_of_a_month():
    found = targets({"momentum_rotation": {"top": 2}}, rotating())
    assert found[0:4] == [0, None, 0.5, None]
    assert found[4:8] == [0.5, None, 0.5, None]
    assert found[8:12] == [0.5, None, 0, None]


def test_momentum_holds_nothing_that_fell_unless_told_to():
    frame = bars("AAA", [1.0], roc_126=[-1])
    assert targets({"momentum_rotation": {"top": 1}}, frame) == [0]
    assert targets({"momentum_rotation": {"top": 1, "positive": False}}, frame) == [1]


def test_momentum_rotates_more_often_where_told_to():
    assert targets({"momentum_rotation": {"top": 1, "every": "daily"}}, rotating()) == [
        0,
        1,
        1,
        1,
        0,
        0,
        0,
        0,
        1,
        0,
        0,
        0,
    ]


def test_equal_momentum_is_ranked_by_name_in_whatever_order_rows_are():
    frame = pl.concat([bars(one, [1.0], roc_126=[5]) for one in ("CCC", "AAA", "BBB")])
    assert targets({"momentum_rotation": {"top": 1}}, frame) == [0, 1, 0]
    assert targets({"momentum_rotation": {"top": 1}}, frame[::-1]) == [0, 1, 0]


def test_rebalancing_shares_equally_among_the_symbols_that_are_there():
    late = bars("BBB", [1.0] * 2, date(2024, 2, 1))
    frame = pl.concat([bars("AAA", [1.0] * 4, date(2024, 1, 30)), late])
    assert targets("rebalance", frame) == [1, None, 0.5, None, 0.5, None]


def test_rebalancing_takes_given_weights_and_nothing_of_others():
    frame = pl.concat([bars(one, [1.0] * 8, date(2024, 1, 1)) for one in ("SPY", "TLT", "GLD")])
    found = targets({"rebalance": {"weights": {"SPY": 0.6, "TLT": -0.4}, "every": "weekly"}}, frame)
    rest = [None] * 6
    # 1 and 8 January 2024 are Mondays.
    assert found == [0.6, *rest, 0.6, -0.4, *rest, -0.4, 0, *rest, 0]


def test_buy_and_hold_holds():
    assert targets("buy_and_hold", crossing()) == [1] * 5


def test_a_score_is_taken_beyond_a_margin():
    frame = bars("AAA", [1.0] * 6, score=[0.9, 0.55, 0.5, 0.45, 0.2, None])
    assert targets("model", frame) == [1, 1, None, 0, 0, None]
    assert targets({"model": {"margin": 0.1, "short": True}}, frame) == [1, None, None, None, -1, None]


def test_a_size_follows_the_probability():
    frame = bars("AAA", [1.0] * 4, score=[1.0, 0.75, 0.4, float("nan")])
    assert targets({"model": {"full_at": 0.5}}, frame) == [1, 0.5, 0, None]
    assert targets({"model": {"full_at": 0.5, "short": True}}, frame) == pytest.approx([1, 0.5, -0.2, None])


def test_predicted_returns_are_scores_without_a_neutral_of_a_half():
    frame = bars("AAA", [1.0] * 3, score=[0.02, -0.01, 0.004])
    given = {"neutral": 0.0, "margin": 0.005, "full_at": 0.04, "short": True}
    assert targets({"model": given}, frame) == pytest.approx([0.5, -0.25, None])


@pytest.mark.parametrize("spec", RULES.specs(), ids=lambda one: one.name)
def test_every_rule_names_features_that_there_are(spec: RuleSpec):
    rule = spec.bind()
    columns = {one for feature in Features().features(rule.declarations) for one in feature.columns}
    assert columns == {rule.columns[name] for name in spec.features(rule.values)}
    assert spec.summary and spec.source
    assert rule.warmup >= rule.lookback == spec.lookback


def test_warm_up_is_that_of_the_longest_feature():
    assert RULES.bind({"ma_cross": {"fast": 5, "slow": 200}}).warmup == 199
    assert RULES.bind({"momentum_rotation": {"window": 20}}).warmup == 21


@pytest.mark.parametrize(
    ("declaration", "said"),
    [
        ("ma_cros", "there is no rule 'ma_cros', did you mean 'ma_cross'?"),
        ({"ma_cross": {"fats": 3}}, "ma_cross: there is no parameter 'fats', did you mean 'fast'?"),
        ({"buy_and_hold": {"x": 1}}, "buy_and_hold has no parameters, so x is not one"),
        ({"ma_cross": {"fast": 50, "slow": 50}}, "ma_cross: fast is shorter than slow, not 50 and 50"),
        ({"ma_cross": {"fast": 1}}, "ma_cross: fast is from 2 to 1000, not 1"),
        ({"ma_cross": {"fast": 2.5}}, "ma_cross: fast is a whole number, not 2.5"),
        ({"ma_cross": {"fast": "a"}}, "ma_cross: fast is a number, not 'a'"),
        ({"ma_cross": {"fast": True}}, "ma_cross: fast is a number, not True"),
        ({"ma_cross": {"kind": "wma"}}, "ma_cross: kind is one of sma, ema, not 'wma'"),
        ({"ma_cross": {"short": 1}}, "ma_cross: short is true or false, not 1"),
        ({"ma_cross": 20}, "ma_cross takes its parameters by name, such as {fast: 20}, not 20"),
        ({"ma_cross": {}, "rsi": {}}, "a strategy has one rule"),
        (["ma_cross"], "a strategy has one rule"),
        ({"rsi": {"low": 70, "high": 30}}, "rsi: low is less than high, not 70 and 30"),
        ({"rsi": {"low": float("nan")}}, "rsi: low is from 0 to 100, not nan"),
        ({"mean_reversion": {"entry": 1, "exit": 1}}, "exit is nearer to the mean than entry, not 1 and 1"),
        ({"vote": {"fast": 30}}, "vote: fast is shorter than slow, not 30 and 26"),
        ({"vote": {"low": 80}}, "vote: low is less than high, not 80 and 70"),
        ({"rebalance": {"every": "hourly"}}, "rebalance: every is one of daily, weekly, monthly, not 'hourly'"),
        ({"rebalance": {"weights": {"A": 0.7, "B": -0.7}}}, "together at most 1 without their signs, not 1.4"),
        ({"rebalance": {"weights": {"A": "x"}}}, "the weight of A is a number from -1 to 1, not 'x'"),
        ({"rebalance": {"weights": {"A": float("nan")}}}, "the weight of A is a number from -1 to 1, not nan"),
        ({"rebalance": {"weights": "all"}}, 'weights is "equal" or a weight a symbol'),
        ({"model": {"margin": -1}}, "model: margin is at least 0, not -1"),
        ({"model": {"margin": 0.2, "full_at": 0.1}}, "full_at is 0 or more than margin, not 0.1 and 0.2"),
        ({"momentum_rotation": {"top": 0}}, "momentum_rotation: top is from 1 to 1000, not 0"),
    ],
)  # fmt: skip
def test_a_wrong_declaration_says_what_is_wrong(declaration, said: str):
    with pytest.raises(ValueError) as error:
        RULES.bind(declaration)
    assert said in str(error.value)


def test_parameters_may_be_left_to_their_defaults():
    assert RULES.bind({"ma_cross": None}).values == RULES.bind("ma_cross").values
    assert str(RULES.bind("ma_cross")) == "ma_cross(fast=20, slow=50, kind=sma, short=False)"


def test_a_frame_without_a_column_says_what_to_declare():
    with pytest.raises(RuleError, match=r"rule ma_cross: there is no column sma_20; declare sma\(20\)"):
        targets("ma_cross", crossing())
    with pytest.raises(RuleError, match="rule model: there is no column score; add it"):
        targets("model", crossing())
    with pytest.raises(RuleError, match="rule rebalance: the frame has no session, close"):
        targets("rebalance", crossing().drop("session", "close"))


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="Rule 'rsi' is declared twice"):
        Registry().add(RULES.spec("rsi"))


def test_an_empty_frame_has_no_targets():
    for spec in RULES.specs():
        rule = spec.bind()
        empty = bars("AAA", [], **{column: [] for column in rule.columns.values()})
        assert rule.targets(empty).to_list() == []

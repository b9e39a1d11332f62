"""A user's own rules: declared by a decorator, loaded with a universe's plugins, refused where they go wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from quantlytic_assets.plugins import RULE_ATTRIBUTE, model, rule
from quantlytic_assets.strategies.registry import Registry
from quantlytic_assets.strategies.spec import RuleError
from quantlytic_assets.universe.plugins import PluginError, models_with, registry_with, rules_with
from quantlytic_tests.strategies.walks import bars

PLUGIN = '''
from quantlytic_assets.plugins import Bot, feature, model, rule


@feature(inputs=["close"], lookback=0)
def my_alpha(close):
    return close


@rule
def my_rule(features, *, threshold: float = 0.5, short: bool = False):
    """Long above a threshold."""
    return (features["close"] > threshold).cast(float)


class _Base(Bot):
    size = 1


class MyBot(_Base):
    def on_bar(self, bar):
        self.order(bar.symbol, self.size)


@model
def my_model(**parameters):
    return parameters
'''


def bound(function, **values):
    return Registry([getattr(function, RULE_ATTRIBUTE)]).bind({function.__name__: values})


def frame(number: int = 3) -> pl.DataFrame:
    return bars("AAA", [1.0, 2.0, 3.0, 4.0][:number])


def test_a_function_of_a_frame_is_a_rule():
    @rule
    def above(features, *, threshold: float = 1.5, window: int = 3, short: bool = False):
        """Long above   a threshold.

        And more.
        """
        return pl.when(features["close"] > threshold).then(1).otherwise(-1 if short else None)

    spec = getattr(above, RULE_ATTRIBUTE)
    assert spec.summary == "Long above a threshold. And more"
    assert Path(spec.source).name == "test_custom.py"
    assert bound(above).targets(frame()).to_list() == [None, 1, 1]
    assert bound(above).opinions(frame()).to_dict(as_series=False) == {"target": [None, 1, 1]}
    assert bound(above, threshold=2.5, short=True).targets(frame()).to_list() == [-1, -1, 1]


def test_a_rule_says_what_it_needs():
    @rule(features=["rsi(7)", "macd"], lookback=2, weights="portfolio")
    def mine(features):
        return pl.lit(0.5)

    found = bound(mine)
    assert found.declarations == ("rsi(7)", "macd")
    assert (found.lookback, found.warmup, found.spec.weights) == (2, 35, "portfolio")
    assert found.targets(frame().with_columns(rsi_7=50.0, macd=0.0)).to_list() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    "answer",
    [
        [0, 1, None],
        np.array([0.0, 1.0, -1.0]),
        pl.Series([True, False, None]),
        pl.Series([None, None, None]),
        pl.Series([0.1 + 0.2 + 0.7000000000000001, 0, 0]),
        (0.5, -0.5, 0),
    ],
)  # fmt: skip
def test_weights_come_in_several_shapes(answer):
    @rule
    def mine(features):
        return answer

    found = bound(mine).targets(frame())
    assert found.dtype == pl.Float64 and found.name == "target" and len(found) == 3
    assert found.abs().max() is None or found.abs().max() <= 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([0, 1], "rule mine returned 2 targets for 3 rows; it returns one a row"),
        ([0, 1.5, 0], "the target of row 1 (AAA, 2024-01-03 14:30:00+00:00) is 1.5; targets are from -1 to 1"),
        ([0, 0, float("nan")], "the target of row 2 (AAA, 2024-01-04 14:30:00+00:00) is nan"),
        ([float("-inf"), 0, 0], "the target of row 0 (AAA, 2024-01-02 14:30:00+00:00) is -inf"),
        (["buy", "sell", None], "rule mine returned String; targets are numbers from -1 to 1"),
        (None, "rule mine returned NoneType; a rule returns a series of weights"),
        (pl.DataFrame({"a": [1, 2, 3]}), "rule mine returned DataFrame; a rule returns a series of weights"),
        (1.0, "rule mine returned no series of weights"),
        (pl.col("nothing"), "rule mine"),
    ],
)
def test_an_answer_that_is_no_weights_is_refused(answer, said: str):
    @rule
    def mine(features):
        return answer

    with pytest.raises(RuleError) as error:
        bound(mine).targets(frame())
    assert said in str(error.value)


def test_a_rule_that_raises_is_named():
    @rule
    def mine(features):
        return features["gone"]

    with pytest.raises(RuleError, match="rule mine raised ColumnNotFoundError"):
        bound(mine).targets(frame())


def test_functions_that_are_no_rules():
    with pytest.raises(ValueError, match="mine takes one frame and its parameters by keyword"):

        @rule
        def mine(features, threshold=1):
            return None

    with pytest.raises(ValueError, match="other: parameter threshold needs a number"):

        @rule
        def other(features, *, threshold):
            return None

    with pytest.raises(ValueError, match=r"many: parameters have names and defaults; \*\*rest has neither"):

        @rule
        def many(features, **rest):
            return None

    with pytest.raises(ValueError, match="weights is signal or portfolio, not 'all'"):
        rule(weights="all")
    with pytest.raises(ValueError, match="features is a list of declarations"):
        rule(features="rsi")
    with pytest.raises(ValueError, match="Mine: a rule is a function; what decides bar by bar derives from Bot"):

        @rule
        class Mine:
            pass

    with pytest.raises(ValueError, match="has no name that a rule could have"):
        rule(lambda features: None)


def test_models_take_parameters_by_keyword():
    assert model(lambda_free) is lambda_free
    with pytest.raises(ValueError, match="forest takes its parameters by keyword"):

        @model
        def forest(depth):
            return None


def lambda_free(*, depth: int = 3):
    return depth


@pytest.fixture
def written(tmp_path):
    def write(text: str, name: str = "mine.py") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def test_a_plugin_brings_features_rules_bots_and_models(written):
    plugins = (written(PLUGIN),)
    rules = rules_with(plugins)
    assert [one.name for one in rules.specs()][-2:] == ["my_rule", "MyBot"]
    assert rules.bind({"my_rule": {"threshold": 2}}).targets(frame()).to_list() == [0, 0, 1]
    assert rules.bind({"MyBot": {"size": 3}}).size == 3
    assert models_with(plugins)["my_model"](depth=2) == {"depth": 2}
    assert registry_with(plugins).feature("my_alpha").columns == ("my_alpha",)


def test_a_rule_reads_a_user_s_own_features(written):
    text = PLUGIN.replace("@rule\n", '@rule(features=["my_alpha"])\n')
    found = rules_with((written(text),)).bind("my_rule")
    assert (found.declarations, found.warmup) == (("my_alpha",), 0)
    assert found.targets(frame().with_columns(my_alpha="close")).to_list() == [1, 1, 1]
    with pytest.raises(RuleError, match="there is no column my_alpha; declare my_alpha among"):
        found.targets(frame())


def test_a_plugin_may_have_rules_alone(written):
    only = written(PLUGIN.partition("class _Base")[0].replace("@feature", "# ").replace("def my_alpha", "def _a"))
    assert registry_with((only,)).specs() == registry_with(()).specs()
    assert rules_with((only,)).spec("my_rule").source == only


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "has no feature, rule, bot or model; decorate a function"),
        (PLUGIN.replace("my_rule", "ma_cross"), "Rule 'ma_cross' is declared twice"),
        (PLUGIN.replace("def on_bar", "def on_bars"), "MyBot has no on_bar(self, bar)"),
        (PLUGIN.replace(": float = 0.5", ""), "can't be loaded: ValueError: my_rule: parameter threshold needs"),
        (PLUGIN.replace("**parameters", "parameters"), "my_model takes its parameters by keyword"),
    ],
)  # fmt: skip
def test_a_plugin_that_can_not_be_used_says_why(written, text: str, said: str):
    with pytest.raises(PluginError) as error:
        rules_with((written(text, "bad.py"),))
    assert said in str(error.value) and "bad.py" in str(error.value)


def test_names_of_two_plugins_must_differ(written):
    only_models = "from quantlytic_assets.plugins import model\n@model\ndef my_model(**parameters): ...\n"
    with pytest.raises(PluginError, match="Model 'my_model' is declared twice"):
        models_with((written(only_models, "a.py"), written(only_models, "b.py")))

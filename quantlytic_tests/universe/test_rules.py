"""Strategies that follow a rule: what is read of them, their defaults, and that each mistake is named with its line."""

import subprocess
import sys
from dataclasses import replace

import pytest

from quantlytic_assets.settings import CHECKOUT
from quantlytic_assets.strategies.bots import Bot
from quantlytic_assets.strategies.spec import Rule
from quantlytic_assets.trading.engine.settings import Costs, EngineSettings, Exits, OrderStyle, Risk, Sizing
from quantlytic_assets.universe.feature_choice import features_of
from quantlytic_assets.universe.loading import load_universe
from quantlytic_assets.universe.models import UniverseError
from quantlytic_assets.universe.plugins import rules_with
from quantlytic_tests.universe.test_schema import faults

HEAD = """
datasets:
  daily:
    calendar: XNYS
    interval: 1d
    first_session: 2010-01-04
    last_session: 2018-12-31
    vendors: []
    symbols: [AAPL, SPY]
strategies:
"""
CROSS = """
  cross:
    dataset: daily
    interval: 1d
    rule: {ma_cross: {fast: 20, slow: 50}}
"""
MODEL = """
  trees:
    dataset: daily
    interval: 1d
    model: random_forest
"""
PLUGIN = """
import polars as pl
from quantlytic_assets.plugins import Bot, rule

@rule(features=["sma(7)"])
def my_rule(features, *, threshold: float = 0.5):
    "Above its average."
    return pl.when(pl.col("close") > pl.col("sma_7") * (1 + threshold)).then(1.0).otherwise(0.0)

class Dip(Bot):
    size = 10

    def on_bar(self, bar):
        self.order(bar.symbol, self.size)
"""


@pytest.fixture
def load(tmp_path):
    def read(strategies=CROSS, plugins=None, plugin=PLUGIN):
        (tmp_path / "mine.py").write_text(plugin)
        path = tmp_path / "universe.yaml"
        path.write_text((f"plugins: {plugins}" if plugins else "") + HEAD + strategies)
        return load_universe(path)

    return read


@pytest.fixture
def said(load, tmp_path):
    """What is said of a universe, each mistake without the file, its line apart."""

    def mistakes(strategies, **options) -> list[tuple[str, int]]:
        with pytest.raises(UniverseError) as caught:
            load(strategies, **options)
        found = [one.rpartition(f" ({tmp_path / 'universe.yaml'}:") for one in caught.value.mistakes]
        return [(sentence, int(line.rstrip(")"))) for sentence, _, line in found]

    return mistakes


def with_fields(**fields: str) -> str:
    return CROSS + "".join(f"    {name}: {value}\n" for name, value in fields.items())


def test_fields_left_out_are_the_engine_s_defaults_with_the_costs_of_a_model(load):
    universe = load()
    assert list(universe.strategies) == ["cross"] and universe.models == {}
    cross = universe.strategies["cross"]
    assert (cross.dataset, cross.interval, cross.symbols) == ("daily", "1d", ("AAPL", "SPY"))
    assert cross.rule == {"ma_cross": {"fast": 20, "slow": 50}} and cross.rule_name == "ma_cross"
    assert cross.settings == EngineSettings(
        capital=100_000.0, costs=Costs(commission_bps=1.0, slippage_bps=2.0), sizing=Sizing(periods_per_year=252.0)
    )
    assert (cross.declared, cross.plugins, cross.bar_by_bar) == (("core",), (), False)
    assert str(rules_with(cross.plugins).bind(cross.rule)) == "ma_cross(fast=20, slow=50, kind=sma, short=False)"
    assert hash(cross)


def test_every_field_is_read_and_a_percentage_is_a_fraction(load):
    cross = load(
        with_fields(
            symbols="[SPY]",
            orders="{type: stop_limit, time_in_force: gtc, offset_bps: 10, limit_offset_bps: 5}",
            exits="{stop_loss: 5%, take_profit: 0.1, trailing_stop: 4 %, max_bars: 20}",
            sizing="{method: volatility_target, annual: 12.5%, lookback: 30}",
            risk="{max_position: 25%, max_gross: 150%, max_daily_loss: 3%, max_drawdown: 20%, var_95: 4%, "
            "cooldown_bars: 2, resume_after_sessions: 5, liquidate: false}",
            account="{capital: 5000, short: true, leverage: 2, volume_cap: none, limit_fill: touch, "
            "rebalance_band: 1%, cash_buffer: 2%}",
            costs="{commission_bps: 0, per_share: 0.005, minimum: 1, maximum_bps: 50, borrow_bps_annual: 30}",
        )
    ).strategies["cross"]
    assert cross.symbols == ("SPY",)
    assert cross.settings == EngineSettings(
        capital=5000.0, short=True, leverage=2.0, volume_cap=None, limit_fill="touch", rebalance_band=0.01,
        cash_buffer=0.02,
        orders=OrderStyle("stop_limit", "gtc", 10.0, 5.0),
        exits=Exits(stop_loss=0.05, take_profit=0.1, trailing_stop=0.04, max_bars=20),
        sizing=Sizing("volatility_target", annual=0.125, lookback=30),
        risk=Risk(
            max_position=0.25, max_gross=1.5, max_daily_loss=0.03, max_drawdown=0.2, resume_after_sessions=5,
            var_95=0.04, cooldown_bars=2, liquidate=False,
        ),
        costs=Costs(0.0, 2.0, per_share=0.005, minimum=1.0, maximum_bps=50.0, borrow_bps_annual=30.0),
    )  # fmt: skip


def test_a_rule_may_be_a_name_alone_and_one_of_shares_is_sized_by_its_weights(load):
    universe = load(CROSS.replace("{ma_cross: {fast: 20, slow: 50}}", "rebalance"))
    assert universe.strategies["cross"].rule == "rebalance"
    assert universe.strategies["cross"].settings.sizing.method == "weights"
    held = load(CROSS.replace("{fast: 20, slow: 50}", "").replace("ma_cross", "buy_and_hold")).strategies["cross"]
    assert held.rule == {"buy_and_hold": None} and held.settings.sizing.method == "equal_weight"


def test_a_year_has_as_many_bars_as_the_calendar_gives_the_interval(load, tmp_path):
    path = tmp_path / "hours.yaml"
    hourly = HEAD.replace("XNYS", "24/7").replace("1d", "1h") + CROSS.replace("1d", "1h")
    path.write_text(hourly)
    assert load_universe(path).strategies["cross"].settings.sizing.periods_per_year == 365 * 24


def test_features_that_a_rule_needs_are_the_dataset_s_and_models_learn_from_what_they_did_before(load):
    both = CROSS.replace("fast: 20", "fast: 10") + MODEL
    universe, alone = load(both), load(MODEL)
    assert universe.datasets["daily"].features == ("core", "sma(10)")
    assert universe.strategies["cross"].declared == ("core", "sma(10)")
    assert "sma_10" in {column for one in features_of(universe.datasets["daily"]) for column in one.columns}
    assert replace(universe.models["trees"], declared=("core",)) == alone.models["trees"]
    assert alone.datasets["daily"].features == ("core",)


def test_a_plugin_s_rule_and_bot(load):
    text = CROSS.replace("{ma_cross: {fast: 20, slow: 50}}", "{my_rule: {threshold: 5%}}")
    text += CROSS.replace("  cross:", "  dip:").replace("{ma_cross: {fast: 20, slow: 50}}", "{Dip: {size: 3}}")
    universe = load(text, plugins="[mine.py]")
    mine, dip = universe.strategies["cross"], universe.strategies["dip"]
    assert mine.rule == {"my_rule": {"threshold": 0.05}}
    assert universe.datasets["daily"].features == ("core", "sma(7)")
    assert isinstance(rules_with(mine.plugins).bind(mine.rule), Rule)
    assert (mine.bar_by_bar, dip.bar_by_bar) == (False, True)
    bot = rules_with(dip.plugins).bind(dip.rule)
    assert isinstance(bot, Bot) and bot.size == 3
    assert dip.settings.sizing.method == "weights"


def test_all_mistakes_are_said_at_once_with_their_lines(said):
    text = """
  cross:
    dataset: daily
    interval: 1d
    rule:
      ma_cross:
        fsat: 10
        slow: many
    retrain: yearly
    capital: 5
    exits:
      stop_loss: 5 percent
      trailing_stop: 4
      max_bars: 20.5
      bars: 1
    risk: {liquidate: maybe}
  hold: {dataset: daily, interval: 1d, rule: rebalanc, exits: {stop_loss: 5%, trailing_stop: 6%}}
  both: {dataset: daily, interval: 1d, rule: rebalance, model: random_forest}
  neither: {dataset: daily, interval: 1d}
  misspelt: {dataset: daily, interval: 1d, rle: rebalance}
"""
    found = said(text)
    assert [(sentence.split(":")[0].removeprefix("strategies."), line) for sentence, line in found] == [
        ("cross.rule.ma_cross.fsat", 17),
        ("cross.rule.ma_cross.slow", 18),
        ("cross.retrain", 19),
        ("cross.capital", 20),
        ("cross.exits.stop_loss", 22),
        ("cross.exits.trailing_stop", 23),
        ("cross.exits.max_bars", 24),
        ("cross.exits.bars", 25),
        ("cross.risk.liquidate", 26),
        ("hold.rule", 27),
        ("hold.exits.trailing_stop", 27),
        ("both.rule", 28),
        ("neither", 29),
        ("misspelt.rle", 30),
    ]
    said_of = {sentence.partition(": ")[0].removeprefix("strategies."): sentence for sentence, _ in found}
    assert "there is no parameter 'fsat', did you mean 'fast'?" in said_of["cross.rule.ma_cross.fsat"]
    assert "write account: {capital: …}" in said_of["cross.capital"]
    assert "goes with a model, and this strategy has none" in said_of["cross.retrain"]
    assert "above 0% up to 99%, such as 5% or 0.05" in said_of["cross.exits.trailing_stop"]
    assert "did you mean 'rebalance'?" in said_of["hold.rule"]
    assert "is farther away than exits.stop_loss" in said_of["hold.exits.trailing_stop"]
    assert "does not read the model's score; take the rule model" in said_of["both.rule"]
    assert "neither a model nor a rule nor a portfolio" in said_of["neither"]
    assert "did you mean 'rule'?" in said_of["misspelt.rle"]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("rule", "{ma_cross: {fast: 50, slow: 20}}", "rule.ma_cross: fast is shorter than slow, not 50 and 20"),
        ("rule", "{ma_cross: {fast: 1}}", "rule.ma_cross.fast: fast is from 2 to 1000, not 1"),
        ("rule", "{ma_cross: {}, rsi: {}}", "rule: is a mapping, it should be a rule such as buy_and_hold or"),
        ("rule", "{ma_cross: 20}", "rule: is a mapping, it should be a rule such as"),
        ("rule", "5", "rule: '5' is no rule, it should be a rule such as"),
        ("rule", "", "rule: is empty, it should be a rule such as"),
        ("rule", "{buy_and_hold: {fast: 1}}", "buy_and_hold has no parameters, so fast is not one"),
        ("rule", "model", "rule: model reads the score of a model; add one, such as model: logistic_regression"),
        ("rule", "{rebalance: {weights: {SPY: 2}}}", "weights: the weight of SPY is a number from -1 to 1, not 2"),
        ("rule", "{rebalance: {weights: {SPI: 1}}}", "rule.rebalance.weights.SPI: 'SPI' is no symbol of the strategy"),
        ("orders", "{type: limt}", "orders.type: 'limt' is not known, it should be one of market, limit,"),
        ("orders", "{type: trailing_stop}", "orders.trail: belongs to the type trailing_stop, which needs one"),
        ("orders", "{time_in_force: forever}", "it should be one of day, gtc, ioc"),
        ("exits", "{stop_loss: 5%, atr_stop: 3}", "exits.atr_stop: contradicts exits.stop_loss"),
        ("exits", "5%", "exits: is '5%', it should be a mapping such as {stop_loss: 5%"),
        ("sizing", "{method: kelly}", "sizing.cap: belongs to the method kelly, which needs one"),
        ("sizing", "{method: fixed}", "sizing.amount: the method fixed needs either an amount or a fraction"),
        ("sizing", "{method: martingale}", "sizing.method: 'martingale' is not known"),
        ("risk", "{max_drawdown: 200%}", "risk.max_drawdown: '200%' should be a share above 0% up to 100%"),
        ("risk", "{max_drawdwn: 20%}", "risk.max_drawdwn: unknown field, did you mean 'max_drawdown'?"),
        ("account", "{capital: 0}", "account.capital: '0' should be a number above 0"),
        ("account", "{short: 1}", "account.short: '1' should be true or false"),
        ("account", "{volume_cap: all}", "such as 5% or 0.05, or none"),
        ("account", "{leverage: -1}", "account.leverage: '-1' should be a number above 0 up to 100"),
        ("costs", "{slippage: 2}", "costs.slippage: unknown field, did you mean 'slippage_bps'?"),
        ("symbols", "[QQQ]", "symbols[0]: 'QQQ' is not in dataset daily"),
        ("horizon", "1", "horizon: goes with a model, and this strategy has none; leave it out"),
        ("features", "[rsi_14]", "features: goes with a model"),
    ],
)  # fmt: skip
def test_one_wrong_field_is_one_line_that_says_what_would_be_right(said, field, value, expected):
    lines = [line for line in CROSS.splitlines() if not line.startswith(f"    {field}:")]
    found = said("\n".join([*lines, f"    {field}: {value}", ""]))
    assert len(found) == 1, found
    assert found[0][0].startswith("strategies.cross.") and expected in found[0][0]


def test_a_rule_of_shares_is_not_sized_otherwise_and_a_short_one_can_t_gain_more_than_everything(said):
    of_shares = CROSS.replace("{ma_cross: {fast: 20, slow: 50}}", "rebalance")
    ((found, _),) = said(of_shares + "    sizing: {method: kelly, cap: 25%}\n")
    assert (
        found
        == "strategies.cross.sizing.method: the rule gives shares of the equity itself; take weights, or leave it out"
    )
    ((found, _),) = said(with_fields(exits="{stop_loss: 5%, take_profit: 150%}", account="{short: true}"))
    assert found.startswith("strategies.cross.exits.take_profit: 1.5 is not a number of more than 0 and at most 0.99")


def test_a_model_is_traded_by_the_rule_of_its_score_with_an_account_of_its_own(load):
    plain = load(MODEL).models["trees"]
    assert (plain.rule, plain.model, plain.bar_by_bar, plain.settings.capital) == ("model", "random_forest", False, 1e5)
    fields = "exits: {stop_loss: 5%}", "account: {capital: 5, rebalance_band: 10%}", "costs: {minimum: 1}"
    trees = load(MODEL + "".join(f"    {one}\n" for one in (*fields, "rule: {model: {margin: 5%, full_at: 0.2}}")))
    own = trees.models["trees"]
    assert own.rule == {"model": {"margin": 0.05, "full_at": 0.2}} and own.settings.exits == Exits(stop_loss=0.05)
    assert (own.settings.capital, own.settings.rebalance_band, own.settings.costs.minimum) == (5.0, 0.1, 1.0)
    assert load(MODEL + "    capital: 7\n").models["trees"].settings.capital == 7.0


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("capital: 5\n    account: {capital: 6}", "capital: stands in the account too, keep one of the two"),
        ("rule: rsi", "rule: rsi does not read the model's score; take the rule model, or leave the model out"),
        ("rule: Dip", "rule: Dip is a bot, which reads no score; leave the model out"),
        ("rule: {model: {margin: 0.3, full_at: 0.1}}", "rule.model: full_at is 0 or more than margin"),
        ("account: {leverage: -1}", "account.leverage: '-1' should be a number above 0"),
    ],
)
def test_what_does_not_go_with_a_model_is_a_mistake(said, fields, expected):
    ((found, _),) = said(MODEL + f"    {fields}\n", plugins="[mine.py]", plugin=PLUGIN)
    assert found.startswith(f"strategies.trees.{expected}")


MIX = "  mix:\n    dataset: daily\n    interval: 1d\n    portfolio: {cross: 60%, trees: 0.4}\n"


def test_a_portfolio_has_other_strategies_each_with_its_share(load):
    universe = load(MIX + CROSS + MODEL + "    symbols: [SPY]\n")
    mix = universe.strategies["mix"]
    assert [one.name for one in mix.members] == ["cross", "trees"] and mix.members[1] == universe.models["trees"]
    assert mix.rule == {"portfolio": {"cross": 0.6, "trees": 0.4}} and mix.rule_name == "portfolio"
    assert (mix.symbols, mix.settings.sizing.method, mix.bar_by_bar) == (("AAPL", "SPY"), "weights", False)


@pytest.mark.parametrize(
    ("portfolio", "place", "expected"),
    [
        ("{cross: 60%, trees: 50%}", "portfolio", "together at most 100%, not 110%"),
        ("{cross: 0}", "portfolio.cross", "should be a share above 0% up to 100%"),
        ("{cros: 10%}", "portfolio.cros", "'cros' is no other strategy, did you mean 'cross'?"),
        ("{mix: 10%}", "portfolio.mix", "'mix' is no other strategy"),
        ("{}", "portfolio", "is empty, give at least one or leave it out"),
        ("{dip: 10%}", "portfolio.dip", "dip is a bot, which decides with its own positions in view"),
        ("{cross: 10%}\n    rule: rsi", "rule", "is its members' business in a portfolio; leave it out"),
        ("{cross: 10%}\n    sizing: {}", "sizing", "is its members' business in a portfolio; leave it out"),
        ("{cross: 10%}\n    account: {leverage: -1}", "account.leverage", "'-1' should be a number above 0"),
    ],
)
def test_what_can_t_be_a_portfolio_is_a_mistake(said, portfolio, place, expected):
    dip = CROSS.replace("  cross:", "  dip:").replace("{ma_cross: {fast: 20, slow: 50}}", "Dip")
    mix = MIX.replace("{cross: 60%, trees: 0.4}", portfolio)
    ((found, _),) = said(mix + CROSS + MODEL + dip, plugins="[mine.py]", plugin=PLUGIN)
    assert found.startswith(f"strategies.mix.{place}: ") and expected in found


def test_a_feature_that_a_user_s_rule_needs_must_be_one(said):
    mine = CROSS.replace("{ma_cross: {fast: 20, slow: 50}}", "my_rule")
    for feature, expected in (
        ("smaa(7)", "there is no feature 'smaa', did you mean 'sma'?"),
        ("rank(obv)", "rank(obv) compares sums since the first bar"),
        ("beta(60, QQQ)", "beta(60, QQQ) reads 'QQQ', no symbol of daily"),
    ):
        plugin = PLUGIN.replace("sma(7)", feature).replace("sma_7", "close")
        ((found, _),) = said(mine, plugins="[mine.py]", plugin=plugin + f"# {feature}")
        assert found.startswith("strategies.cross.rule: ") and expected in found


def test_with_a_plugin_that_is_wrong_its_rules_are_not_called_unknown(said):
    mine = CROSS.replace("{ma_cross: {fast: 20, slow: 50}}", "my_rule")
    assert [one.split(":")[0] for one, _ in said(mine, plugins="[gone.py]")] == ["plugins[0]"]
    ((found, _),) = said(mine)
    assert "there is no rule 'my_rule'" in found


def test_a_bot_that_can_t_begin_is_a_mistake(said):
    bot = PLUGIN.replace("    size = 10\n", "    size = 10\n\n    def on_start(self):\n        1 / 0\n")
    dip = CROSS.replace("{ma_cross: {fast: 20, slow: 50}}", "Dip")
    ((found, _),) = said(dip, plugins="[mine.py]", plugin=bot)
    assert found == "strategies.cross.rule: Dip.on_start raised ZeroDivisionError: division by zero"


def test_the_shipped_rule_is_the_documented_one():
    cross = load_universe(CHECKOUT / "universe.yaml").strategies["cross_1d"]
    assert (cross.dataset, cross.rule) == ("equities_1d", {"ma_cross": {"fast": 20, "slow": 50}})
    assert cross.settings.exits == Exits(stop_loss=0.1)
    assert replace(cross.settings.risk, max_drawdown=None).max_position == 0.25


def test_editors_take_and_refuse_the_same_strategies():
    assert (
        faults(HEAD + CROSS + "    exits: {stop_loss: 5%, take_profit: 0.1}\n    account: {volume_cap: none}\n") == []
    )
    assert faults(HEAD + CROSS.replace("{ma_cross: {fast: 20, slow: 50}}", "rebalance")) == []
    for wrong in (
        CROSS + "    retrain: yearly\n",
        MODEL.replace("    model: random_forest\n", ""), CROSS + "    exits: {stop_loss: 5 percent}\n",
        CROSS + "    exits: {stop_lss: 5%}\n", CROSS + "    account: {short: maybe}\n",
        CROSS.replace("{ma_cross: {fast: 20, slow: 50}}", "{ma_cross: {}, rsi: {}}"),
        CROSS.replace("{ma_cross: {fast: 20, slow: 50}}", "[ma_cross]"),
    ):  # fmt: skip
        assert faults(HEAD + wrong), wrong


@pytest.mark.parametrize("strategies", [MODEL, CROSS])
def test_compilers_are_not_loaded_to_read_a_universe(tmp_path, strategies):
    path = tmp_path / "universe.yaml"
    path.write_text(HEAD + strategies)
    code = "import sys\nfrom quantlytic_assets.universe.loading import load_universe\nload_universe(sys.argv[1])\n"
    code += "print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    loaded = {name.removeprefix("quantlytic_assets.") for name in done.stdout.split()}
    assert not loaded & {"numba", "talib", "features.registry"}


def test_the_documentation_has_each_rule_with_its_parameters_and_a_rule_that_works(tmp_path):
    page = (CHECKOUT / "docs" / "strategies.md").read_text("utf-8")
    listed = page.partition("## Rules\n")[2].partition("## ")[0]
    rows = {line.split("`")[1]: line for line in listed.splitlines() if line.startswith("| `")}
    documented = {spec.name: spec for spec in rules_with(()).specs() if spec.name != "model"}
    assert rows.keys() == documented.keys()
    for name, spec in documented.items():
        for one in spec.parameters:
            default = "" if one.kind in ("choice", "weights") else f" {str(one.default).lower().removesuffix('.0')}"
            assert f"`{one.name}`{default}" in rows[name], (name, one.name)
    code = page.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "my_rules.py").write_text(code, "utf-8")
    path = tmp_path / "universe.yaml"
    path.write_text(
        "plugins: [my_rules.py]" + HEAD + CROSS.replace("{ma_cross: {fast: 20, slow: 50}}", "{dips: {low: 20}}")
    )
    dips = load_universe(path).strategies["cross"]
    assert dips.declared == ("core", "rsi(5)", "sma(100)")
    first = page.partition("```yaml\n")[2].partition("```")[0].replace("equities_1d", "daily").replace("MSFT", "SPY")
    path.write_text(HEAD.removesuffix("strategies:\n") + first)
    assert load_universe(path).strategies["cross_1d"].settings.orders == OrderStyle("limit", "gtc", 10.0)

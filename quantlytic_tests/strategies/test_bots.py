"""Bots: their parameters, what they may ask for, and what is said when they go wrong."""

from __future__ import annotations

import math

import pytest

from quantlytic_assets.plugins import Bar, Bot
from quantlytic_assets.strategies.bots import OrderIntent, TargetIntent, bot_of
from quantlytic_assets.strategies.registry import Registry
from quantlytic_assets.strategies.spec import RuleError
from quantlytic_tests.strategies.walks import bars

SESSION, OPEN, AVAILABLE = bars("AAA", [1.0]).row(0)[1:4]


def bar(close: float = 100.0, symbol: str = "AAA") -> Bar:
    return Bar(symbol, SESSION, OPEN, AVAILABLE, close, close, close, close, 1000.0)


class Dip(Bot):
    """Buys a little under the close,
    and then holds.
    """

    size = 10
    below = 0.01
    eager = False

    def on_start(self):
        self.seen = 0

    def on_bar(self, bar):
        self.seen += 1
        if not self.position(bar.symbol):
            self.order(bar.symbol, self.size, limit=bar.close * (1 - self.below))
            self.target("MSFT", 0.1)


def test_a_bot_says_what_it_wants_after_each_bar():
    bot = Dip(size=20)
    assert bot.decide(bar(), {}) == [OrderIntent("AAA", 20, 99), TargetIntent("MSFT", 0.1)]
    assert bot.decide(bar(), {"AAA": 20.0}) == []
    assert bot.seen == 2


def test_intents_of_a_bar_are_not_changed_by_the_next():
    bot = Dip()
    first = bot.decide(bar(), {})
    bot.decide(bar(), {"AAA": 1})
    assert len(first) == 2


def test_parameters_are_the_class_s_attributes():
    spec = bot_of(Dip)
    assert [(one.name, one.default, one.kind) for one in spec.parameters] == [
        ("size", 10, "int"),
        ("below", 0.01, "float"),
        ("eager", False, "flag"),
    ]
    assert spec.summary == "Buys a little under the close, and then holds"
    rules = Registry([spec])
    bot = rules.bind({"Dip": {"below": 0.02, "eager": True}})
    assert (bot.size, bot.below, bot.eager) == (10, 0.02, True)
    assert rules.bind("Dip") is not rules.bind("Dip")


def test_a_derived_bot_has_its_base_s_parameters_with_its_own_defaults():
    class Deeper(Dip):
        below = 0.05
        wait = 3

    bot = bot_of(Deeper).bind(wait=5)
    assert (bot.size, bot.below, bot.wait) == (10, 0.05, 5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sise": 1}, "Dip: there is no parameter 'sise', did you mean 'size'?"),
        ({"size": 1.5}, "Dip: size is a whole number, not 1.5"),
        ({"size": 0}, "Dip: size is at least 1, not 0"),
        ({"below": "a"}, "Dip: below is a number, not 'a'"),
        ({"eager": 1}, "Dip: eager is true or false, not 1"),
        ({"on_bar": 1}, "Dip: there is no parameter 'on_bar'"),
    ],
)
def test_a_wrong_parameter_says_what_is_wrong(given, said: str):
    with pytest.raises(ValueError) as error:
        Registry([bot_of(Dip)]).bind({"Dip": given})
    assert said in str(error.value)


class Asks(Bot):
    """Does what a test tells it to."""

    def on_bar(self, bar):
        self.asked(self)


def asking(wish) -> list:
    bot = Asks()
    bot.asked = wish
    return bot.decide(bar(), {"MSFT": -3})


def test_all_kinds_of_orders():
    assert asking(lambda bot: bot.order("A", -5)) == [OrderIntent("A", -5)]
    assert asking(lambda bot: bot.order("A", 1, stop=2)) == [OrderIntent("A", 1, None, 2)]
    assert asking(lambda bot: bot.order("A", 1, limit=3, stop=2)) == [OrderIntent("A", 1, 3, 2)]
    assert asking(lambda bot: bot.order("A", 0)) == []
    assert asking(lambda bot: bot.order("A", bot.position("MSFT") + bot.position("B"))) == [OrderIntent("A", -3)]


def test_the_last_target_of_a_bar_counts():
    def twice(bot):
        bot.target("A", 1)
        bot.target("B", 0)
        bot.target("A", -0.5)

    assert asking(twice) == [TargetIntent("B", 0), TargetIntent("A", -0.5)]


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (lambda bot: bot.order("A", math.nan), "order('A', nan): the size is a number of units"),
        (lambda bot: bot.order("A", math.inf), "the size is a number of units"),
        (lambda bot: bot.order("A", 1, limit=0), "limit=0): a price is a positive number"),
        (lambda bot: bot.order("A", 1, stop=math.nan), "stop=nan): a price is a positive number"),
        (lambda bot: bot.target("A", 1.5), "target('A', 1.5): a weight is from -1 to 1"),
        (lambda bot: bot.target("A", math.nan), "target('A', nan): a weight is from -1 to 1"),
        (lambda bot: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda bot: bot.bought, "AttributeError"),
    ],
)
def test_a_bot_that_goes_wrong_is_named_with_its_bar(wish, said: str):
    with pytest.raises(RuleError) as error:
        asking(wish)
    assert said in str(error.value)
    assert str(error.value).startswith("bot Asks at AAA, 2024-01-02 14:30:00+00:00: ")


def test_a_class_that_decides_nothing_is_no_bot():
    with pytest.raises(ValueError, match="Idle has no on_bar"):
        bot_of(type("Idle", (Bot,), {}))


def test_a_bot_may_not_hide_what_it_is_driven_by():
    with pytest.raises(ValueError, match="Mine.target hides what Bot has under this name"):
        type("Mine", (Bot,), {"target": 5, "on_bar": lambda self, bar: None})

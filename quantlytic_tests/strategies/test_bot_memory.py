"""What a bot remembers between runs: every value as it was, and what can't be kept is said by name."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict, deque
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property

import numpy as np
import pytest

from quantlytic_assets.plugins import Bar, Bot
from quantlytic_assets.strategies.bot_memory import Memory
from quantlytic_assets.strategies.spec import RuleError

WHEN = datetime(2024, 1, 2, 14, 30, tzinfo=UTC)
BAR = Bar("AAA", WHEN.date(), WHEN, WHEN, 1.0, 2.0, 0.5, 1.5, 100.0, {"sma_5": 1.25, "rsi_14": None})


class Keeps(Bot):
    """Keeps what a test tells it to."""

    size = 10
    eager = False

    def on_start(self):
        self.seen = 0
        self.scratch = "begun"

    def on_bar(self, bar):
        pass

    @cached_property
    def table(self):
        return random.Random(7)


class Run:
    """A run of a bot, which takes over what one before it has left."""

    def __init__(self, before: Run | None = None, made: type[Bot] = Keeps, **parameters):
        self.bot = made(**parameters)
        self.memory = Memory(self.bot, before and before.memory.text())


VALUES = [
    None, True, 7, 10**30, -0.0, 0.1 + 0.2, float("inf"), "Börse", b"\x00\xff", Decimal("1.10"), date(2024, 1, 2), WHEN,
    datetime(2024, 1, 2), time(9, 30), timedelta(days=2, microseconds=3), [1, [2.5, "x"]], (1, ("a", None)), {1, 2},
    frozenset({"a"}), {"AAA": {"held": 3}, ("AAA", 1): [date(2024, 1, 2)]}, deque([1, 2, 3], maxlen=3), deque([1]),
    Counter(a=2), defaultdict(list, a=[1]), defaultdict(None, a=1), np.float64(0.1), np.int32(7), np.bool_(True), BAR,
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_is_what_it_was(value):
    run = Run()
    run.bot.value = value
    found = Run(run).bot.value
    assert found == value and type(found) is type(value) and repr(found) == repr(value)
    if isinstance(value, deque):
        assert found.maxlen == value.maxlen
    if isinstance(value, defaultdict):
        assert found.default_factory is value.default_factory


@pytest.mark.parametrize(
    "array", [np.arange(6.0).reshape(2, 3), np.array([], dtype=np.int32), np.array([np.nan, -0.0])]
)
def test_an_array_is_what_it_was(array):
    run = Run()
    run.bot.array = array
    found = Run(run).bot.array
    assert found.dtype == array.dtype and found.shape == array.shape and found.tobytes() == array.tobytes()


def test_private_attributes_count_and_removed_ones_stay_removed():
    first = Run()
    first.bot.seen, first.bot._last = 3, 1.5
    del first.bot.scratch
    second = Run(first)
    assert (second.bot.seen, second.bot._last) == (3, 1.5) and not hasattr(second.bot, "scratch")
    assert not hasattr(Run(second).bot, "scratch")


def test_parameters_are_the_universe_s_until_the_bot_changes_them():
    first = Run(size=20)
    assert Run(first, size=30).bot.size == 30
    first.bot.size = 40
    second = Run(first, size=30)
    assert (second.bot.size, second.bot.eager, Run(second, size=50).bot.size) == (40, False, 40)


def test_what_a_cached_property_makes_is_made_anew():
    run = Run()
    first = run.bot.table.random()
    assert Run(run).bot.table.random() == first


def test_what_another_bot_has_left_is_not_taken_over():
    other = Run(made=type("Other", (Keeps,), {}))
    other.bot.seen = 9
    assert Run(other).bot.seen == 0


class Point:
    """Something that no JSON has."""


def twice():
    shared = [1]
    return {"one": shared, "other": shared}


def in_a_circle():
    found: list = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Point(), "self.value is a quantlytic_tests.strategies.test_bot_memory.Point"),
        ({"a": [1, Point()]}, "self.value['a'][1] is a "),
        (random.Random(1), "self.value is a random.Random"),
        (lambda: 1, "self.value is a builtins.function"),
        (twice(), "self.value['other'] is the same object as self.value['one']"),
        (in_a_circle(), "self.value[0] is the same object as self.value"),
        (defaultdict(lambda: 1), "self.value makes what is missing by"),
        (np.array([Point()]), "self.value is a numpy.ndarray"),
    ],
)
def test_what_can_not_be_kept_is_named_and_nothing_is_kept(value, said):
    run = Run()
    run.bot.value = value
    with pytest.raises(RuleError) as error:
        run.memory.text()
    assert str(error.value).startswith("bot Keeps: self.value") and said in str(error.value)


def test_what_belongs_to_the_class_is_not_remembered_and_that_is_said():
    class Leaks(Bot):
        closes: list = []

        def on_bar(self, bar):
            self.closes.append(bar.close)

    run = Run(made=Leaks)
    assert json.loads(run.memory.text())["attributes"] == {}
    run.bot.decide(BAR, {})
    with pytest.raises(RuleError, match=r"bot Leaks changed closes, .* self.closes = \[\]"):
        run.memory.text()
    with pytest.raises(ValueError, match="has __slots__"):
        type("Slotted", (Bot,), {"__slots__": ("count",), "on_bar": lambda self, bar: None})

"""Strategies that decide bar by bar, in plain Python.

A bot says what it wants; it does not trade. Whoever drives it hands it one bar after the other by `decide` and reads
the intents it returns.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple, NoReturn

import numpy as np

from quantlytic_assets.strategies.custom import parameter_of
from quantlytic_assets.strategies.spec import Parameter, RuleError, bound


class Features(Mapping[str, "float | None"]):
    """The features of a bar by column name; None where one has no value.

    columns: the place of each column; values: the row, NaN where there is none.
    """

    __slots__ = ("_columns", "_values")

    def __init__(self, columns: Mapping[str, int], values: np.ndarray):
        self._columns = columns
        self._values = values

    def __getitem__(self, name: str) -> float | None:
        value = float(self._values[self._columns[name]])
        return value if value == value else None

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return repr(dict(self))


class Bar(NamedTuple):
    """What a bot sees of one bar: prices, volume in units, and the dataset's features by column name.

    The volume is NaN where nobody knows it.
    """

    symbol: str
    session: date
    open_time: datetime
    available_at: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float
    features: Mapping[str, float | None] = {}


class OrderIntent(NamedTuple):
    """A wish for an order: size in units, negative to sell; at the market without limit and stop."""

    symbol: str
    size: float
    limit: float | None = None
    stop: float | None = None


class TargetIntent(NamedTuple):
    """A wish to hold a share of the equity in a symbol, −1 to 1."""

    symbol: str
    weight: float


Intent = OrderIntent | TargetIntent
# What a bot is driven by: no part of what it remembers.
OWN_ATTRIBUTES = ("_positions", "_intents")


class Bot:
    """The base of a strategy that decides bar by bar.

    Derive from it, give parameters as attributes of the class with their defaults (numbers, or true and false), and
    write `on_bar`. What is kept between bars are attributes of the object; `on_start` sets them. The paper account goes
    on with them in its next run (`strategies.bot_memory` says which values can be kept).

        class Dip(Bot):
            size = 10

            def on_bar(self, bar):
                if not self.position(bar.symbol):
                    self.order(bar.symbol, self.size, limit=bar.close * 0.99)

    A bot is made with its parameters by keyword: `Dip(size=20)`. Raises `ValueError` for what is not one of them.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in ("order", "target", "position", "decide", *OWN_ATTRIBUTES):
            if name in vars(cls):
                raise ValueError(f"{cls.__name__}.{name} hides what Bot has under this name; choose another name")
        if vars(cls).get("__slots__"):
            raise ValueError(f"{cls.__name__} has __slots__, in which nothing is remembered between runs; remove them")

    def __init__(self, **parameters: object):
        for name, value in bound(type(self).__name__, parameters_of(type(self)), parameters).items():
            setattr(self, name, value)
        self._positions: Mapping[str, float] = {}
        self._intents: list[Intent] = []
        self.on_start()

    def on_start(self) -> None:
        """Called when the bot is made, before its first bar; what it kept of earlier runs is set afterwards."""

    def on_bar(self, bar: Bar) -> None:
        """Called for each bar, oldest first, when its row can be used."""
        raise NotImplementedError(f"{type(self).__name__} has no on_bar(self, bar)")

    def order(self, symbol: str, size: float, *, limit: float | None = None, stop: float | None = None) -> None:
        """Ask for an order of `size` units, negative to sell; a size of 0 asks for nothing.

        limit and stop are prices: with one of them it is a limit or a stop order, with both a stop-limit order. Raises
        `RuleError` for a size that is no number and a price that is not positive.
        """
        if not math.isfinite(size):
            self._refuse(f"order({symbol!r}, {size}): the size is a number of units")
        for name, price in (("limit", limit), ("stop", stop)):
            if price is not None and not 0 < price < math.inf:
                self._refuse(f"order({symbol!r}, {size}, {name}={price}): a price is a positive number")
        if size:
            self._intents.append(OrderIntent(symbol, float(size), limit, stop))

    def target(self, symbol: str, weight: float) -> None:
        """Ask to hold a share of the equity in a symbol, −1 to 1; the last one of a bar counts."""
        if not -1 <= weight <= 1:
            self._refuse(f"target({symbol!r}, {weight}): a weight is from -1 to 1")
        self._intents = [one for one in self._intents if not (isinstance(one, TargetIntent) and one.symbol == symbol)]
        self._intents.append(TargetIntent(symbol, float(weight)))

    def position(self, symbol: str) -> float:
        """How many units of a symbol are held, negative for a short; 0 for a symbol that is not."""
        return self._positions.get(symbol, 0.0)

    def decide(self, bar: Bar, positions: Mapping[str, float]) -> list[Intent]:
        """What the bot wants after a bar, in the order it said so; for whoever drives it.

        positions: units held by symbol at this time. Raises `RuleError` with the bot and the bar where it raises.
        """
        self._positions, self._intents = positions, []
        try:
            self.on_bar(bar)
        except Exception as error:  # the bot is the user's: whatever it raises is said with its name
            said = str(error) if isinstance(error, RuleError) else f"{type(error).__name__}: {error}"
            raise RuleError(f"bot {type(self).__name__} at {bar.symbol}, {bar.open_time}: {said}") from error
        return self._intents

    def _refuse(self, why: str) -> NoReturn:
        raise RuleError(why)


@dataclass(frozen=True)
class BotSpec:
    """The declaration of a bot: its class under its name."""

    name: str
    summary: str
    source: str
    parameters: tuple[Parameter, ...]
    made: type[Bot]

    def bind(self, **values: object) -> Bot:
        """A new bot with these parameters. Raises `ValueError` with the parameter that is wrong."""
        return self.made(**values)


def bot_of(made: type[Bot]) -> BotSpec:
    """The declaration of a class that derives from `Bot`. Raises `ValueError` where it can't be one."""
    if made.on_bar is Bot.on_bar:
        raise ValueError(f"{made.__name__} has no on_bar(self, bar), which a bot decides in")
    try:
        source = inspect.getsourcefile(made)
    except TypeError:  # a class of a console
        source = None
    described = inspect.cleandoc(made.__doc__) if made.__doc__ else f"The bot {made.__name__}"
    return BotSpec(
        made.__name__, " ".join(described.split()).rstrip("."), source or "a user's class", parameters_of(made), made
    )


def parameters_of(made: type[Bot]) -> tuple[Parameter, ...]:
    """The parameters of a bot: public attributes of its class and of those between it and `Bot`, in their order.

    What is neither a number nor true or false is no parameter.
    """
    found: dict[str, object] = {}
    for one in reversed(made.__mro__):
        if issubclass(one, Bot) and one is not Bot:
            found |= {name: value for name, value in vars(one).items() if not name.startswith("_")}
    return tuple(
        parameter_of(made.__name__, name, value) for name, value in found.items() if isinstance(value, int | float)
    )

"""Conditions of alerts: `rsi_14 < 30`, `close crosses above sma_200`, `drawdown(cross_1d) > 10%`, `staleness > 5m`.

A condition is read into comparisons joined by `and` and `or` (`and` binds closer), and becomes a polars expression;
nothing in it is ever run as code. Names are columns of bars and features, `staleness` (how old a symbol's newest bar
is, in a running session) or `drawdown(strategy)` (of its account, from the highest equity so far).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import reduce
from operator import and_, or_

import polars as pl

BAR_FIELDS = ("open", "high", "low", "close", "volume")
STALENESS = "staleness"
_TOKEN = re.compile(
    r"\s*(?:(?P<duration>\d+(?:\.\d+)?[smhd]\b)|(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?%?)"
    r"|(?P<drawdown>drawdown\s*\(\s*[a-z][a-z0-9_]*\s*\))|(?P<name>[A-Za-z_]\w*)|(?P<sign><=|>=|<|>))"
)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_WORDS = ("and", "or", "crosses", "above", "below")
_EXAMPLES = "rsi_14 < 30, close crosses above sma_200, drawdown(cross_1d) > 10% or staleness > 5m"
_LONGEST = 500


class ConditionError(ValueError):
    """A condition that can't be read; the message says what would be right."""


@dataclass(frozen=True)
class Operand:
    """A side of a comparison. kind: number, duration (seconds), column, staleness, or drawdown (name: a strategy)."""

    kind: str
    name: str = ""
    value: float = 0.0

    @property
    def expression(self) -> pl.Expr:
        """Its value in each row."""
        return pl.lit(self.value) if self.kind in ("number", "duration") else pl.col(self.column)

    @property
    def column(self) -> str:
        """The column that has it."""
        return f"drawdown({self.name})" if self.kind == "drawdown" else self.name


@dataclass(frozen=True)
class Comparison:
    """Two sides, and `<`, `<=`, `>`, `>=`, `crosses`, `crosses above` or `crosses below` between them."""

    left: Operand
    sign: str
    right: Operand

    @property
    def level(self) -> pl.Expr:
        """Whether it holds in each row; of a crossing, whether the left side is beyond the right one."""
        left, right = self.left.expression, self.right.expression
        if self.sign in ("<", "crosses below"):
            return left < right
        if self.sign in (">", "crosses", "crosses above"):
            return left > right
        return left <= right if self.sign == "<=" else left >= right

    @property
    def event(self) -> pl.Expr:
        """Whether it holds in each row; of a crossing, whether it happens in the row."""
        if not self.sign.startswith("crosses"):
            return self.level
        before = self.level.shift(1)
        return self.level != before if self.sign == "crosses" else self.level & ~before


@dataclass(frozen=True)
class Condition:
    """A condition: comparisons of which all of one of the groups have to hold. `text`: as it was written."""

    text: str
    groups: tuple[tuple[Comparison, ...], ...]

    @property
    def comparisons(self) -> Iterator[Comparison]:
        """All of them."""
        for group in self.groups:
            yield from group

    @property
    def operands(self) -> Iterator[Operand]:
        """All sides of all comparisons."""
        for one in self.comparisons:
            yield from (one.left, one.right)

    @property
    def kind(self) -> str:
        """What it is about: `column`, `staleness` or `drawdown`."""
        return next(one.kind for one in self.operands if one.kind not in ("number", "duration"))

    @property
    def columns(self) -> list[str]:
        """The columns that it reads, each once."""
        return list(dict.fromkeys(one.column for one in self.operands if one.kind not in ("number", "duration")))

    @property
    def crossing(self) -> str | None:
        """`crosses`, `crosses above` or `crosses below` where it is that one comparison alone."""
        only = self.groups[0][0] if len(self.groups) == 1 and len(self.groups[0]) == 1 else None
        return only.sign if only is not None and only.sign.startswith("crosses") else None

    @property
    def momentary(self) -> bool:
        """Whether it holds for a row only, so that nobody is told that it is over."""
        signs = [one.sign for one in self.comparisons]
        return "crosses" in signs or (self.crossing is None and any(sign.startswith("crosses") for sign in signs))

    @property
    def expression(self) -> pl.Expr:
        """Whether it holds, by row, oldest first; null where that is not known."""
        if self.crossing is not None:
            return self.groups[0][0].level
        return reduce(or_, [reduce(and_, [one.event for one in group]) for group in self.groups])


def condition(text: object) -> Condition:
    """The condition of its text. Raises `ConditionError`."""
    if not isinstance(text, str) or not text.strip() or len(text) > _LONGEST:
        raise ConditionError(f"write a condition such as {_EXAMPLES}")
    tokens = _tokens(text)
    groups, position = [], 0
    while True:
        group = []
        while True:
            one, position = _comparison(tokens, position, text)
            group.append(one)
            if position < len(tokens) and tokens[position] == ("name", "and"):
                position += 1
                continue
            break
        groups.append(tuple(group))
        if position < len(tokens) and tokens[position] == ("name", "or"):
            position += 1
            continue
        break
    if position < len(tokens):
        raise ConditionError(f"'{tokens[position][1]}' is not expected after a comparison, join them by and, or")
    found = Condition(" ".join(text.split()), tuple(groups))
    kinds = {one.kind for one in found.operands if one.kind not in ("number", "duration")}
    if len(kinds) > 1:
        raise ConditionError(f"one alert is about {' or '.join(sorted(kinds))}, make one alert of each")
    return found


def _tokens(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    position = 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            raise ConditionError(f"'{text[position:].strip()[:20]}' can't be read, write such as {_EXAMPLES}")
        kind = str(match.lastgroup)
        found.append((kind, match[kind]))
        position = match.end()
    return found


def _comparison(tokens: list[tuple[str, str]], position: int, text: str) -> tuple[Comparison, int]:
    left, position = _operand(tokens, position)
    kind, word = tokens[position] if position < len(tokens) else ("", "")
    if kind == "sign":
        sign, position = word, position + 1
    elif word == "crosses":
        sign, position = word, position + 1
        if position < len(tokens) and tokens[position][1] in ("above", "below"):
            sign, position = f"crosses {tokens[position][1]}", position + 1
    else:
        raise ConditionError(
            f"{f'{word!r} stands' if word else 'nothing is'} where <, <=, >, >= or crosses should be, as in {_EXAMPLES}"
        )
    right, position = _operand(tokens, position)
    made = Comparison(left, sign, right)
    sides = {left.kind, right.kind}
    if not sides - {"number", "duration"}:
        raise ConditionError(f"'{text.strip()}' compares numbers alone, name a column, as in {_EXAMPLES}")
    if ("duration" in sides) != ("staleness" in sides):
        raise ConditionError("compare staleness with a duration such as 5m, and nothing else with one")
    return made, position


def _operand(tokens: list[tuple[str, str]], position: int) -> tuple[Operand, int]:
    if position >= len(tokens):
        raise ConditionError(f"it ends too early, write such as {_EXAMPLES}")
    kind, word = tokens[position]
    position += 1
    if kind == "number":
        return Operand("number", value=float(word[:-1]) / 100 if word.endswith("%") else float(word)), position
    if kind == "duration":
        seconds = timedelta(seconds=float(word[:-1]) * _SECONDS[word[-1]]).total_seconds()
        return Operand("duration", value=seconds), position
    if kind == "drawdown":
        return Operand("drawdown", name=word[word.index("(") + 1 : -1].strip()), position
    if kind == "name" and word not in _WORDS:
        return Operand("staleness" if word == STALENESS else "column", name=word), position
    raise ConditionError(f"'{word}' stands where a column or a number should be, as in {_EXAMPLES}")

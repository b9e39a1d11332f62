"""What strategies want at bars that have just come: the signals of `services.signals`, from rows that are in memory.

A rule is evaluated on the rows of the times that changed, with those that it looks back on and all symbols at them, as
in the graph. A model's score and the targets of a portfolio's members stand beside the features.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, NamedTuple, cast

import numpy as np
import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.live.bars import Bar
from quantlytic_assets.live.lines import KEPT_ROWS, Lines, Row
from quantlytic_assets.services.inputs import rules_of
from quantlytic_assets.strategies.signals import SAYS, Words
from quantlytic_assets.strategies.spec import BASE_COLUMNS, Rule
from quantlytic_assets.universe.models import ModelStrategy, PortfolioStrategy, Strategy

# rows of features.indicators of a strategy's symbols → symbol, open_time, score of those that can be scored
Scorer = Callable[[pl.DataFrame], pl.DataFrame]
_KEYS = ["symbol", "open_time"]
# Of so many rows lists are faster than polars.
_FEW = 128
_TARGET = SAYS.index("target")


class Said(NamedTuple):
    """A signal as it was given out: a row of trading.signals with its revision's number, times in microseconds."""

    strategy: str
    symbol: str
    session: date
    time: int
    available_at: int
    signal: str
    strength: float
    target: float | None
    reason: str
    revision: int

    @property
    def says(self) -> tuple[object, ...]:
        """What makes it another signal where it differs."""
        return self[5:9]


@dataclass
class _Follower:
    """A strategy, its rule, and what it said last of each symbol and time."""

    strategy: Strategy
    rule: Rule
    scorer: Scorer | None
    said: OrderedDict[tuple[str, int], tuple[tuple[object, ...], int]]
    words: Words = field(default_factory=Words)
    symbols: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.symbols = frozenset(self.strategy.symbols)
        self.rule.prepare()


class Deciders:
    """The strategies of one interval that follow rules, members before their portfolios. Bots have no signals.

    scorers: of each strategy with a model.
    """

    def __init__(self, strategies: Sequence[Strategy], scorers: Mapping[str, Scorer]):
        self._followers: dict[str, _Follower] = {}
        self._forgotten: list[tuple[str, str, int]] = []
        for one in sorted(strategies, key=lambda one: isinstance(one, PortfolioStrategy)):
            rule = rules_of(one).bind(one.rule)
            if isinstance(rule, Rule):
                self._followers[one.name] = _Follower(one, rule, scorers.get(one.name), OrderedDict())
        portfolios = [one for one in strategies if isinstance(one, PortfolioStrategy)]
        self._members = {member.name for one in portfolios for member in one.members}

    @property
    def look_back(self) -> int:
        """How many rows before a row rules look back on."""
        return max((one.rule.lookback for one in self._followers.values()), default=0)

    @property
    def names(self) -> tuple[str, ...]:
        """The strategies, in the order in which they decide."""
        return tuple(self._followers)

    def remember(self, strategy: str, symbol: str, time: int, says: Sequence[object], revision: int) -> None:
        """Take note of what was said already."""
        if strategy in self._followers:
            self._followers[strategy].said[symbol, time] = (tuple(says), revision)

    def said(self, strategy: str, symbol: str, time: int) -> tuple[tuple[object, ...], int] | None:
        """What was said last of a symbol's bar of a time (`Said.says`) and its revision, as far as it is remembered."""
        return self._followers[strategy].said.get((symbol, time))

    def adopt(self, said: Said) -> None:
        """Take a signal in place of what was said."""
        self._followers[said.strategy].said[said.symbol, said.time] = (said.says, said.revision)

    def wants(self, strategy: str) -> Callable[[str, int], tuple[float | None] | None] | None:
        """What a strategy wants of a symbol at a time, alone in a tuple, None where it has not said; None of a bot."""
        follower = self._followers.get(strategy)
        if follower is None:
            return None

        def wanted(symbol: str, time: int) -> tuple[float | None] | None:
            known = follower.said.get((symbol, time))
            return None if known is None else (cast("float | None", known[0][_TARGET]),)

        return wanted

    def decide(self, lines: Lines, changed: Sequence[Row]) -> list[Said]:
        """The signals at these rows that say something new, by strategy, time and symbol.

        Raises `RuleError` where a rule fails.
        """
        found: list[Said] = []
        targets: dict[str, pl.DataFrame] = {}
        for one in self._followers.values():
            name = one.strategy.name
            rows, keys = _rows(one, lines, changed)
            if not rows:
                continue
            opinions = _opinions(one, lines, rows, targets)
            if name in self._members:
                told = pl.Series(name, opinions["target"], pl.Float64)
                targets[name] = _keyed(rows).with_columns(told)
            # What is said, and no times: their conversion would take longer than all else here.
            for (bar, _), says in zip(rows, one.words.of(opinions), strict=True):
                key = (bar.symbol, bar.open_time)
                before = one.said.get(key)
                if key not in keys or (before is not None and before[0] == says):
                    continue
                revision = 0 if before is None else before[1] + 1
                one.said[key] = (says, revision)
                found.append(Said._make((name, *bar[:3], bar.available_at, *says, revision)))
            self._forget(one, lines)
        return found

    def forgotten(self) -> list[tuple[str, str, int]]:
        """Strategy, symbol and time of what was said too long ago to be remembered since this was asked last."""
        gone, self._forgotten = self._forgotten, []
        # What was said anew in the meantime is remembered.
        return [one for one in gone if one[1:] not in self._followers[one[0]].said]

    def _forget(self, follower: _Follower, lines: Lines) -> None:
        most = 4 * max(1, len(follower.strategy.symbols)) * (lines.look_back + KEPT_ROWS)
        while len(follower.said) > most:
            # The oldest are about those that were said first.
            (symbol, time), _ = follower.said.popitem(last=False)
            self._forgotten.append((follower.strategy.name, symbol, time))


def _rows(one: _Follower, lines: Lines, changed: Sequence[Row]) -> tuple[Sequence[Row], set[tuple[str, int]]]:
    """The rows that the rule is evaluated on, by symbol and time, and whose signals are wanted."""
    own = [row for row in changed if row.bar.symbol in one.symbols]
    if one.rule.spec.alone and not one.rule.lookback:
        return sorted(own, key=_by_symbol), {(row.bar.symbol, row.bar.open_time) for row in own}
    times = {row.bar.open_time for row in own}
    if not times:
        return (), set()
    wanted = {row.bar.symbol for row in own} if one.rule.spec.alone else one.symbols & set(lines.symbols)
    symbols = sorted(wanted)
    rows = [row for row in lines.rows(min(times), symbols) if row.bar.open_time in times]
    keys = {(row.bar.symbol, row.bar.open_time) for row in rows}
    if one.rule.lookback:
        # Of what a rule can't look back on any more, that stands which was said then.
        back = one.rule.lookback
        keys = {(symbol, time) for symbol, time in keys if lines.has_before(symbol, time, back)}
        since = min(lines.earlier(row.bar.symbol, row.bar.open_time, one.rule.lookback) for row in rows)
        rows = lines.rows(since, symbols)
    return rows, keys


def _by_symbol(row: Row) -> tuple[str, int]:
    return row.bar.symbol, row.bar.open_time


def _opinions(
    one: _Follower, lines: Lines, rows: Sequence[Row], targets: Mapping[str, pl.DataFrame]
) -> Mapping[str, Sequence[Any]]:
    """What the rule says of these rows. targets: of the strategies that have decided before it, by their names."""
    rule = one.rule
    plain = not isinstance(one.strategy, ModelStrategy | PortfolioStrategy) and one.scorer is None
    if plain and rule.spec.function is None and set(rule.columns.values()) <= set(lines.columns):
        own = _own(rows, lines.columns, rule)
        few = rule.opinions_of_few(own) if len(rows) <= _FEW else None
        return few or rule.opinions_of(_own_frame(own)).to_dict(as_series=False)
    frame = indicator_frame(rows, lines.columns)
    if one.scorer is not None:
        frame = frame.join(one.scorer(frame), on=_KEYS, how="left", maintain_order="left")
    elif isinstance(one.strategy, ModelStrategy):
        frame = frame.with_columns(pl.lit(None, pl.Float64).alias("score"))
    if isinstance(one.strategy, PortfolioStrategy):
        for member in one.strategy.members:
            known = targets.get(member.name, pl.DataFrame(schema={**dict.fromkeys(_KEYS), member.name: pl.Float64}))
            if known.is_empty():
                frame = frame.with_columns(pl.lit(None, pl.Float64).alias(member.name))
            else:
                frame = frame.join(known, on=_KEYS, how="left", maintain_order="left")
    return rule.opinions(frame).to_dict(as_series=False)


def indicator_frame(rows: Sequence[Row], columns: Sequence[str]) -> pl.DataFrame:
    """Rows as features.indicators has them: symbol, session, open_time, available_at, close, and the features.

    columns: of the rows' values.
    """
    bars = [row.bar for row in rows]
    values = np.array([row.values for row in rows], dtype=np.float64).reshape(len(rows), len(columns))
    features = [pl.Series(name, values[:, at], nan_to_null=True) for at, name in enumerate(columns)]
    return pl.DataFrame([*(_of_bars(name, bars) for name in BASE_COLUMNS), *features])


def _own(rows: Sequence[Row], columns: Sequence[str], rule: Rule) -> dict[str, list[Any]]:
    """What a rule reads of rows under its own names, None where a number is not known."""
    found: dict[str, list[Any]] = {}
    for name in rule.reads:
        if name in rule.columns:
            at = columns.index(rule.columns[name])
            values = [row.values[at] for row in rows]
        else:
            values = [getattr(row.bar, name) for row in rows]
        found[name] = [None if one != one else one for one in values]
    return found


def _own_frame(own: Mapping[str, list[Any]]) -> pl.DataFrame:
    """The frame of these columns: a small one costs by its columns, and not by its rows."""
    return pl.DataFrame([_typed(name, values) for name, values in own.items()])


def _keyed(rows: Sequence[Row]) -> pl.DataFrame:
    bars = [row.bar for row in rows]
    return pl.DataFrame([_of_bars(name, bars) for name in _KEYS])


def _of_bars(name: str, bars: Sequence[Bar]) -> pl.Series:
    """One of `BASE_COLUMNS` of bars."""
    return _typed(name, [getattr(one, name) for one in bars])


def _typed(name: str, values: list[Any]) -> pl.Series:
    """One of `BASE_COLUMNS`, or of numbers. Without expressions, each of which costs more than a small frame's rows."""
    if name in ("open_time", "available_at"):
        return pl.Series(name, values, dtype=pl.Int64).cast(TIME)
    if name in BASE_COLUMNS and name != "close":
        return pl.Series(name, values, dtype=pl.Date if name == "session" else pl.String)
    return pl.Series(name, np.array(values, dtype=np.float64), nan_to_null=True)

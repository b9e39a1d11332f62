"""What strategies want at bars that have just come: the signals of `services.signals`, from rows that are in memory.

A rule is evaluated on the rows of the times that changed, with those that it looks back on and all symbols at them, as
in the graph. A model's score and the targets of a portfolio's members stand beside the features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

import numpy as np
import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.live.lines import KEPT_ROWS, Lines, Row
from quantlytic_assets.services.inputs import rules_of
from quantlytic_assets.strategies.signals import SAYS, rule_says
from quantlytic_assets.strategies.spec import Rule
from quantlytic_assets.universe.models import ModelStrategy, PortfolioStrategy, Strategy

# rows of features.indicators of a strategy's symbols → symbol, open_time, score of those that can be scored
Scorer = Callable[[pl.DataFrame], pl.DataFrame]
_KEYS = ["symbol", "open_time"]
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
    said: dict[tuple[str, int], tuple[tuple[object, ...], int]]


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
                self._followers[one.name] = _Follower(one, rule, scorers.get(one.name), {})

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

    def targets(self, strategy: str) -> dict[tuple[str, int], float | None] | None:
        """What a strategy wants, by symbol and time, as far as it is remembered; None of a bot."""
        follower = self._followers.get(strategy)
        return None if follower is None else {key: says[_TARGET] for key, (says, _) in follower.said.items()}  # type: ignore[misc]

    def decide(self, lines: Lines, changed: Sequence[Row]) -> list[Said]:
        """The signals at these rows that say something new, by strategy, time and symbol.

        Raises `RuleError` where a rule fails.
        """
        found: list[Said] = []
        targets: dict[str, pl.DataFrame] = {}
        members = {
            member.name
            for one in self._followers.values()
            if isinstance(one.strategy, PortfolioStrategy)
            for member in one.strategy.members
        }
        for one in self._followers.values():
            name = one.strategy.name
            frame, rows, keys = self._frame(one, lines, changed, targets)
            if frame.is_empty():
                continue
            signals = rule_says(one.rule, frame)
            if name in members:
                targets[name] = frame[_KEYS].with_columns(signals["target"].alias(name))
            # What is said, and no times: their conversion would take longer than all else here.
            for (bar, _), says in zip(rows, signals.rows(), strict=True):
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
        return gone

    def _forget(self, follower: _Follower, lines: Lines) -> None:
        most = 4 * max(1, len(follower.strategy.symbols)) * (lines.look_back + KEPT_ROWS)
        if len(follower.said) > most:
            for symbol, time in sorted(follower.said, key=lambda key: key[1])[: most // 2]:
                del follower.said[symbol, time]
                self._forgotten.append((follower.strategy.name, symbol, time))

    def _frame(
        self, one: _Follower, lines: Lines, changed: Sequence[Row], targets: Mapping[str, pl.DataFrame]
    ) -> tuple[pl.DataFrame, Sequence[Row], set[tuple[str, int]]]:
        """What the rule reads, by symbol and time, the rows that this is of, and whose signals are wanted."""
        wanted = set(one.strategy.symbols)
        times = {row.bar.open_time for row in changed if row.bar.symbol in wanted}
        if not times:
            return pl.DataFrame(), (), set()
        if one.rule.spec.alone:
            wanted &= {row.bar.symbol for row in changed}
        symbols = [symbol for symbol in sorted(lines.symbols) if symbol in wanted]
        first = min(times)
        rows = [row for row in lines.rows(first, symbols) if row.bar.open_time in times]
        keys = {(row.bar.symbol, row.bar.open_time) for row in rows}
        if one.rule.lookback:
            # Of what a rule can't look back on any more, that stands which was said then.
            back = one.rule.lookback
            keys = {(symbol, time) for symbol, time in keys if lines.has_before(symbol, time, back)}
            since = min(lines.earlier(row.bar.symbol, row.bar.open_time, one.rule.lookback) for row in rows)
            rows = lines.rows(since, symbols)
        # A frame costs by its columns: a rule of the library is given those that it names, others may read any.
        named = set(one.rule.columns.values()) if one.rule.spec.function is None and one.scorer is None else None
        frame = indicator_frame(rows, lines.columns, named)
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
        return frame, rows, keys


def indicator_frame(rows: Sequence[Row], columns: Sequence[str], named: Set[str] | None = None) -> pl.DataFrame:
    """Rows as features.indicators has them: symbol, session, open_time, available_at, close, and the features.

    columns: of the rows' values. named: which of them are wanted; None for all.
    """
    bars = [row.bar for row in rows]
    places = {name: at for at, name in enumerate(columns) if named is None or name in named}
    # Without expressions, each of which costs more than a small frame's rows.
    values = np.array([row.values for row in rows], dtype=np.float64).reshape(len(rows), len(columns))
    told = [pl.Series("symbol", [one.symbol for one in bars], dtype=pl.String)]
    told.append(pl.Series("session", [one.session for one in bars], dtype=pl.Date))
    for name in ("open_time", "available_at"):
        told.append(pl.Series(name, [getattr(one, name) for one in bars], dtype=pl.Int64).cast(TIME))
    told.append(pl.Series("close", np.array([one.close for one in bars], dtype=np.float64), nan_to_null=True))
    told += [pl.Series(name, values[:, at], nan_to_null=True) for name, at in places.items()]
    return pl.DataFrame(told)

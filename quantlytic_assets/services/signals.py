"""The signals of strategies: made of the features and predictions of a range, and written to the lake."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.features.spec import column_names
from quantlytic_assets.schemas.trading import SIGNALS
from quantlytic_assets.services.inputs import read_inputs, rules_of
from quantlytic_assets.strategies.registry import LIBRARY
from quantlytic_assets.strategies.signals import rule_signals
from quantlytic_assets.strategies.spec import BASE_COLUMNS, Rule
from quantlytic_assets.tables.features import earlier_session, indicators
from quantlytic_assets.tables.whole_rows import feature_columns
from quantlytic_assets.universe.feature_choice import declared

if TYPE_CHECKING:
    from quantlytic_assets.storage.lake import Lake
    from quantlytic_assets.tables.select import Queries
    from quantlytic_assets.universe.models import Strategy

_OURS = frozenset(spec.name for module in LIBRARY for spec in module.SPECS)


class NoSignals(Exception):
    """A strategy's signals can't be made; the message says why and what to do."""


def bound_rule(strategy: Strategy) -> Rule:
    """The rule that a strategy follows, with its parameters. Raises `NoSignals` for a bot, which has no signals."""
    rule = rules_of(strategy).bind(strategy.rule)
    if not isinstance(rule, Rule):
        raise NoSignals(
            f"{strategy.name} follows the bot {strategy.rule_name}, which decides with its positions in view "
            "and has no signals beforehand"
        )
    return rule


def rule_version(strategy: Strategy) -> str:
    """A short text that is another one when the rule, its parameters or text, or the columns of signals are others."""
    rule = bound_rule(strategy)
    said = json.dumps([str(rule), strategy.interval, strategy.symbols, SIGNALS.polars.names()]).encode()
    plugins = () if rule.spec.name in _OURS else strategy.plugins
    texts = [Path(one).read_bytes() if one.endswith(".py") else one.encode() for one in plugins]
    return sha256(b"\0".join([said, *texts])).hexdigest()[:12]


def read_columns(strategy: Strategy, rule: Rule) -> tuple[str, ...]:
    """The columns of features.indicators that a rule is given: those it names, or all where it is a user's function."""
    if rule.spec.function is None:
        named = [column for column in rule.columns.values() if column not in rule.spec.inputs]
        return tuple(dict.fromkeys([*BASE_COLUMNS, *named]))
    columns = column_names(declared(strategy.declared, strategy.plugins))
    return tuple(dict.fromkeys([*BASE_COLUMNS, *columns]))


def rule_frame(lake: Queries, strategy: Strategy, rule: Rule, first: date, last: date) -> pl.DataFrame:
    """What a rule reads to decide in the sessions [first, last), by symbol and time, with what it looks back on.

    Beside the features it has the `score` of a model, null where that predicted nothing, or the targets of a
    portfolio's members.

    Where the rule looks back on `n` bars, all rows are there from the earliest session in which a symbol of the range
    has one of its `n` usable bars before it, so that symbols are compared on those bars as on any other. Raises
    `NoSignals` where a column was never computed.
    """
    columns = read_columns(strategy, rule)
    check_columns(lake, strategy, columns)

    def read(since: date, before: date) -> pl.DataFrame:
        found = indicators(
            lake, strategy.dataset, strategy.interval, columns, since=since, before=before, symbols=strategy.symbols
        )
        inputs = read_inputs(lake, strategy, since, before)
        if inputs is not None:
            found = found.join(inputs, on=["symbol", "open_time"], how="left")
        return found.sort("symbol", "open_time")

    frame = read(first, last)
    if not rule.lookback or frame.is_empty():
        return frame
    symbols = frame["symbol"].unique().to_list()
    since = earlier_session(lake, strategy.dataset, strategy.interval, symbols, bars=rule.lookback, before=first)
    if since is None:
        return frame
    return pl.concat([read(since, first), frame]).sort("symbol", "open_time")


def rule_targets(lake: Queries, strategy: Strategy, rule: Rule, first: date, last: date) -> pl.DataFrame:
    """symbol, open_time and `weight`, −1 to 1 or null, of the rule at the usable bars of the sessions [first, last).

    Raises `NoSignals` for features that were never computed, and `RuleError` where the rule fails.
    """
    frame = rule_frame(lake, strategy, rule, first, last)
    return frame.select("symbol", "open_time").with_columns(rule.targets(frame).alias("weight"))


def check_columns(lake: Queries, strategy: Strategy, columns: Iterable[str]) -> None:
    """Raise `NoSignals` where a column of features.indicators was never computed."""
    missing = sorted({*columns} - {*BASE_COLUMNS} - {*feature_columns(lake)})
    if missing:
        raise NoSignals(
            f"features.indicators has no column {', '.join(missing)} yet; run: quantlytic backfill {strategy.dataset}"
        )


def make_signals(lake: Queries, strategy: Strategy, first: date, last: date) -> pl.DataFrame:
    """The strategy's signals (trading.signals) of the sessions [first, last), by symbol and time.

    Raises `NoSignals` for a bot and for features that were never computed, and `RuleError` where the rule fails.
    """
    rule = bound_rule(strategy)
    frame = rule_frame(lake, strategy, rule, first, last)
    return rule_signals(strategy.name, rule, frame).filter(pl.col("session") >= first)


def write_signals(lake: Lake, strategy: Strategy, first: date, last: date) -> pl.DataFrame:
    """Make the signals of the sessions [first, last) and put them in place of those that are there."""
    made = make_signals(lake, strategy, first, last)
    mine = "strategy = ? AND session >= ? AND session < ?"
    lake.replace([(SIGNALS.name, mine, [strategy.name, first, last], made)])
    return made


def signal_figures(signals: pl.DataFrame, by: str) -> dict[str, dict[str, int]]:
    """symbols, buys, sells and holds of signals, for each value of the column `by`."""
    kinds = [(pl.col("signal") == word).sum().alias(f"{word}s") for word in ("buy", "sell", "hold")]
    counted = signals.group_by(by).agg(pl.col("symbol").n_unique().alias("symbols"), *kinds)
    return {row.pop(by): row for row in counted.iter_rows(named=True)}

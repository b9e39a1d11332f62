"""What a rule is: one declaration from which its parameters, its columns and its targets follow.

Here belong names, parameters and the checks of what a rule answers. The list of rules is in `registry`, and what each
of them decides in `rules`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from quantlytic_assets.features.declarations import unknown
from quantlytic_assets.strategies.few_rows import FewRows, Unusual

if TYPE_CHECKING:
    from quantlytic_assets.features.registry import Registry as Features
    from quantlytic_assets.features.spec import Feature

Values = Mapping[str, Any]
# The columns of every frame that a rule reads, beside those that it asks for.
BASE_COLUMNS = ("symbol", "session", "open_time", "available_at", "close")
# Sums of weights such as thirds may miss 1 by this much.
_ROUNDING = 1e-9
# Of at most so many rows expressions are evaluated one after another.
_FEW_ROWS = 4096


class RuleError(ValueError):
    """A rule can't decide, or decided what can't be held; the message names the rule and the row."""


class Conflict(ValueError):
    """Parameters that are right by themselves and do not go together."""


@lru_cache
def _library() -> Features:
    """The features that are there without a plugin; their compilers are loaded when a rule first asks for a column."""
    from quantlytic_assets.features.registry import Registry

    return Registry()


@dataclass(frozen=True)
class Parameter:
    """A setting of a rule, with its default and its bounds, both included.

    kind: "int", "float" and "flag" are a number or true and false; "choice" is one of `choices`; "weights" is "equal",
    or a weight from −1 to 1 a symbol, together at most 1 without their signs.
    """

    name: str
    default: Any
    lower: float = -math.inf
    upper: float = math.inf
    kind: Literal["int", "float", "flag", "choice", "weights"] = "int"
    choices: tuple[str, ...] = ()

    def checked(self, value: object) -> Any:
        """The value as the rule takes it. Raises `ValueError`, which says what would be right."""
        if self.kind == "flag":
            if not isinstance(value, bool):
                raise ValueError(f"{self.name} is true or false, not {value!r}")
            return value
        if self.kind == "choice":
            if value not in self.choices:
                raise ValueError(f"{self.name} is one of {', '.join(self.choices)}, not {value!r}")
            return value
        if self.kind == "weights":
            return self._weights(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{self.name} is a number, not {value!r}")
        if not math.isfinite(value) or not self.lower <= value <= self.upper:
            raise ValueError(f"{self.name} is {self._range()}, not {value:g}")
        if self.kind == "int":
            if value != int(value):
                raise ValueError(f"{self.name} is a whole number, not {value:g}")
            return int(value)
        return float(value)

    def _weights(self, value: object) -> str | dict[str, float]:
        if value == "equal":
            return "equal"
        if not isinstance(value, Mapping) or not value:
            raise ValueError(
                f'{self.name} is "equal" or a weight a symbol such as {{SPY: 0.6, TLT: 0.4}}, not {value!r}'
            )
        for symbol, weight in value.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not -1 <= weight <= 1:
                raise ValueError(f"{self.name}: the weight of {symbol} is a number from -1 to 1, not {weight!r}")
        gross = sum(abs(weight) for weight in value.values())
        if gross > 1 + _ROUNDING:
            raise ValueError(f"{self.name} are together at most 1 without their signs, not {gross:g}")
        return {str(symbol): float(weight) for symbol, weight in value.items()}

    def _range(self) -> str:
        if math.isinf(self.upper):
            return "a number" if math.isinf(self.lower) else f"at least {self.lower:g}"
        return f"at most {self.upper:g}" if math.isinf(self.lower) else f"from {self.lower:g} to {self.upper:g}"


@dataclass(frozen=True)
class RuleSpec:
    """The declaration of a rule.

    A rule has either `target`, an expression of the columns that it names, or `function`, which is given the whole
    frame and answers with a target a row. `features` gives, by the name that the expression uses, which feature is
    meant: `{"fast": "sma(20)"}`; `inputs` are columns that are no features, such as `score`. `lookback`: how many bars
    of the frame before a bar its target depends on. `conflict` says what is wrong with parameters that don't go
    together.

    `weights`: "signal" targets are a position's direction and strength in its own symbol, to which sizing gives money;
    "portfolio" targets are shares of the equity, which sizing leaves as they are.
    `score` is the rule's opinion from −1 (sell) to 1 (buy); `reason` says in words why a row has its target.
    `alone`: no target, score or reason depends on bars of another symbol, so that one can be had without the others.
    """

    name: str
    summary: str
    source: str
    parameters: tuple[Parameter, ...] = ()
    target: Callable[[Values], pl.Expr] | None = None
    function: Callable[..., object] | None = None
    features: Callable[[Values], Mapping[str, str]] = lambda _: {}
    inputs: tuple[str, ...] = ()
    lookback: int = 0
    conflict: Callable[[Values], str | None] = lambda _: None
    weights: Literal["signal", "portfolio"] = "signal"
    score: Callable[[Values], pl.Expr] | None = None
    reason: Callable[[Values], pl.Expr] | None = None
    alone: bool = False

    def bind(self, library: Features | None = None, /, **values: object) -> Rule:
        """The rule with these parameters, and the defaults of those that are not given.

        library: the features that its declarations are read with, where a user's own are among them. Raises
        `ValueError` with the name of the rule and of the parameter that is wrong.
        """
        return Rule(self, bound(self.name, self.parameters, values, self.conflict), library)

    def signature(self) -> str:
        """The name with its parameters and defaults: `ma_cross(fast=20, slow=50, kind=sma)`."""
        return f"{self.name}({', '.join(f'{one.name}={one.default}' for one in self.parameters)})"


@dataclass(frozen=True)
class Rule:
    """A rule with its parameters, and the features that it may ask for: None for those of the library."""

    spec: RuleSpec
    values: Values
    library: Features | None = None

    @property
    def declarations(self) -> tuple[str, ...]:
        """The features that must be declared for the rule's columns to be there: `("sma(20)", "sma(50)")`."""
        return tuple(dict.fromkeys(self.spec.features(self.values).values()))

    @cached_property
    def columns(self) -> dict[str, str]:
        """Which column of the frame each name of the rule's expression stands for."""
        return {
            **{name: name for name in self.spec.inputs},
            **{name: self._feature(one).columns[0] for name, one in self.spec.features(self.values).items()},
        }

    @property
    def lookback(self) -> int:
        """How many bars of the frame before a bar its target depends on."""
        return self.spec.lookback

    @property
    def warmup(self) -> int:
        """How many bars come before the first one with a decision: those that the features need, and the rule's own."""
        return self.spec.lookback + max((self._feature(one).lookback for one in self.declarations), default=0)

    def targets(self, features: pl.DataFrame) -> pl.Series:
        """The target weight of each row, −1 to 1, in the order of the rows; null keeps what is held.

        features: one row a symbol and bar, in any order: symbol, session, open_time, available_at, close and `columns`.
        Only the row's own bar, bars before it and other symbols at the same time are read. Raises `RuleError` for a
        frame without the columns, and for an answer that is no list of weights.
        """
        if self.spec.target is not None:
            return _weights(self, features, selected(self._frame(features), [self._expressions["target"]]).to_series())
        return _weights(self, features, self._called(features))

    def opinions(self, features: pl.DataFrame) -> pl.DataFrame:
        """`targets`, and where the rule has them `score` (its opinion of each row, −1 to 1) and `reason` (in words)."""
        if self.spec.target is not None:
            return self._opinions(self._frame(features), features)
        given = self._expressions
        targets = _weights(self, features, self._called(features))
        return self._frame(features).select(targets, **given) if given else targets.to_frame()

    def opinions_of(self, own: pl.DataFrame) -> pl.DataFrame:
        """`opinions` of a rule of expressions, of a frame that has what it `reads` under its own names.

        A number that is not known is null there, never NaN: in polars NaN is more than any number.
        """
        return self._opinions(own, own)

    def opinions_of_few(self, own: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]] | None:
        """`opinions_of` as lists, of lists, for a few rows; None where polars has to answer: see `few_rows`.

        It is None of rules that read other columns than numbers, or other rows than the one that is decided.
        """
        if self._few is None:
            return None
        try:
            found = self._few(own)
        except Unusual:
            return None
        found["target"] = [None if one is None else float(one) for one in found["target"]]
        return found if all(one is None or -1 <= one <= 1 for one in found["target"]) else None

    def prepare(self) -> None:
        """Find out whether it needs polars for a few rows, which takes some 25 ms: the first rows shall not wait."""
        _ = self._few

    @cached_property
    def _few(self) -> FewRows | None:
        numbers = {"close", *self.columns}
        if self.spec.target is None or not self.spec.alone or self.lookback or not numbers.issuperset(self.reads):
            return None
        return FewRows.of(self._expressions, self.reads)

    def _opinions(self, own: pl.DataFrame, features: pl.DataFrame) -> pl.DataFrame:
        found = selected(own, [one.alias(name) for name, one in self._expressions.items()])
        return found.replace_column(found.columns.index("target"), _weights(self, features, found["target"]))

    # Expressions are made once: on the live path to make them takes as long as what they say of a few rows.
    @cached_property
    def _expressions(self) -> dict[str, pl.Expr]:
        expressions = {"target": self.spec.target, "score": self.spec.score, "reason": self.spec.reason}
        return {name: one(self.values) for name, one in expressions.items() if one is not None}

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """Which of `BASE_COLUMNS` and `columns` its expressions read, one at least; all where they don't say which."""
        every, given = (*BASE_COLUMNS, *self.columns), self._expressions.values()
        if any(one.meta.has_multiple_outputs() for one in given):
            return every
        named = {name for one in given for name in one.meta.root_names()}
        return tuple(name for name in every if name in named) or ("symbol",)

    @cached_property
    def _own_columns(self) -> list[pl.Expr]:
        # In polars NaN is more than any number: a score that is none would be bought.
        base = {name: pl.col(name).fill_nan(None) if name == "close" else pl.col(name) for name in BASE_COLUMNS}
        own = {name: pl.col(one).cast(pl.Float64).fill_nan(None).alias(name) for name, one in self.columns.items()}
        return [(base | own)[name] for name in self.reads]

    def _feature(self, declaration: str) -> Feature:
        return (self.library or _library()).feature(declaration)

    def _frame(self, features: pl.DataFrame) -> pl.DataFrame:
        """The columns that the rule reads under its own names, and no others: it can't read what it hides."""
        self._check(features)
        return selected(features, self._own_columns)

    def _check(self, features: pl.DataFrame) -> None:
        declared = self.spec.features(self.values)
        for name, column in self.columns.items():
            if column not in features.columns:
                wanted = f"declare {declared[name]} among the dataset's features" if name in declared else "add it"
                raise RuleError(f"rule {self.spec.name}: there is no column {column}; {wanted}")
        missing = [name for name in BASE_COLUMNS if name not in features.columns]
        if missing:
            raise RuleError(f"rule {self.spec.name}: the frame has no {', '.join(missing)}")

    def _called(self, features: pl.DataFrame) -> pl.Series:
        if self.spec.function is None:
            raise RuleError(f"rule {self.spec.name} has neither an expression nor a function")
        self._check(features)
        try:
            answer = self.spec.function(features, **self.values)
            if isinstance(answer, pl.Expr):
                answer = features.with_columns(answer.alias("target"))["target"]
        except Exception as error:  # the function is the user's: whatever it raises is said with its name
            raise RuleError(f"rule {self.spec.name} raised {type(error).__name__}: {error}") from error
        if isinstance(answer, pl.DataFrame) or answer is None:
            raise RuleError(
                f"rule {self.spec.name} returned {type(answer).__name__}; a rule returns a series of weights, one a row"
            )
        try:
            return pl.Series("target", answer, strict=False)
        except Exception as error:  # whatever polars makes of an arbitrary object
            raise RuleError(f"rule {self.spec.name} returned no series of weights: {error}") from error

    def __str__(self) -> str:
        return f"{self.spec.name}({', '.join(f'{name}={value}' for name, value in self.values.items())})"


def selected(frame: pl.DataFrame, expressions: Sequence[pl.Expr]) -> pl.DataFrame:
    """These expressions of a frame, side by side where it is large.

    Of few rows, one after another: on a busy machine to hand them to polars' threads takes longer than they do.
    """
    return frame.select(expressions) if len(frame) > _FEW_ROWS else frame.select_seq(expressions)


def bound(
    owner: str,
    parameters: tuple[Parameter, ...],
    values: Values,
    conflict: Callable[[Values], str | None] = lambda _: None,
) -> dict[str, Any]:
    """All parameters with their values, given or default. Raises `ValueError`, which names the owner.

    Where they are right by themselves and do not go together it is a `Conflict`.
    """
    names = [one.name for one in parameters]
    for name in values:
        if not names:
            raise ValueError(f"{owner} has no parameters, so {name} is not one")
        if name not in names:
            raise ValueError(f"{owner}: {unknown('parameter', str(name), names)}")
    found = {}
    for one in parameters:
        try:
            found[one.name] = one.checked(values.get(one.name, one.default))
        except ValueError as error:
            raise ValueError(f"{owner}: {error}") from error
    if wrong := conflict(found):
        raise Conflict(f"{owner}: {wrong}")
    return found


def _weights(rule: Rule, frame: pl.DataFrame, answer: pl.Series) -> pl.Series:
    """The answer as weights. Raises `RuleError` with the first row that is wrong."""
    name = rule.spec.name
    if len(answer) != len(frame):
        raise RuleError(f"rule {name} returned {len(answer)} targets for {len(frame)} rows; it returns one a row")
    if not (answer.dtype.is_numeric() or answer.dtype in (pl.Boolean, pl.Null)):
        raise RuleError(f"rule {name} returned {answer.dtype}; targets are numbers from -1 to 1, or null")
    weights = answer.cast(pl.Float64).alias("target")
    # On the live path frames are small, and each expression costs more than its rows: these are none. A sum is NaN
    # where a weight is.
    total, low, high = weights.sum(), weights.min(), weights.max()
    if total == total and (low is None or (low >= -1 and high <= 1)):
        return weights
    wrong = (~(weights.abs() <= 1 + _ROUNDING) | weights.is_nan()).fill_null(False)
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        at = ", ".join(str(frame[column][row]) for column in ("symbol", "open_time") if column in frame.columns)
        raise RuleError(
            f"rule {name}: the target of row {row} ({at}) is {weights[row]}; targets are from -1 to 1, "
            "and null where what is held is kept"
        )
    return weights.clip(-1, 1)

"""A rule's expressions for a few rows: list by list in Python, where polars takes longer to set them up than to answer.

polars says what they are: the tree of an expression, as JSON. What this module does not know of it, or does not answer
to the last digit as polars does when it is tried, is left to polars. Numbers that need care, such as those that are not
finite, are left to it as well, when they come.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import copysign, isfinite
from operator import add, eq, ge, gt, le, lt, mul, ne, neg, not_, sub, truediv
from typing import Any

import orjson
import polars as pl

# The values of a column, None where one is not known.
Column = Sequence[Any]
Columns = Mapping[str, Column]
# A step: what is done with columns that are there already, given how many rows there are, and which of them it takes.
_Step = tuple[Callable[..., Column], tuple[int, ...]]

_LITERALS = {"Null", "Float", "Float64", "Int", "Str", "String", "Boolean"}
_COMPARED = {"Gt": gt, "GtEq": ge, "Lt": lt, "LtEq": le, "Eq": eq, "NotEq": ne}
_COMPUTED = {"Plus": add, "Minus": sub, "Multiply": mul, "TrueDivide": truediv}
# Numbers that Python and polars write alike: no others have exponents in both, or in neither.
_SMALLEST, _LARGEST = 1e-4, 1e15
_TRIED_ROWS = 512


class Unusual(ArithmeticError):
    """Values that polars has to answer for."""


class _Unknown(Exception):
    """A part of an expression that is not known here."""


class _Other(Exception):
    """Something else was answered than polars answers."""


class FewRows:
    """Expressions of columns of numbers, evaluated on lists. `of` says whether that can be done.

    Parts that are the same are computed once, in the order of `steps`. places: of each expression, its step's number.
    """

    def __init__(self, numbers: Sequence[str], steps: Sequence[_Step], places: Mapping[str, int]):
        self._numbers = tuple(numbers)
        self._steps = steps
        self._places = places

    @classmethod
    def of(cls, expressions: Mapping[str, pl.Expr], numbers: Sequence[str]) -> FewRows | None:
        """These expressions of columns of numbers; None where one of them is not answered exactly as polars does."""
        try:
            plan = _Plan(numbers)
            places = {name: plan.place(_tree(one)) for name, one in expressions.items()}
            found, tried = cls(numbers, plan.steps, places), _tried(numbers)
            wanted = pl.DataFrame(tried, schema=dict.fromkeys(numbers, pl.Float64)).select(**expressions)
            answered = sum(
                found._says({name: (tried[name][at],) for name in numbers}, row)
                for at, row in enumerate(wanted.select(*places).iter_rows())
            )
        except (_Unknown, _Other, IndexError, KeyError, TypeError, ValueError, pl.exceptions.PolarsError):
            return None
        return found if answered > _TRIED_ROWS / 2 else None

    def _says(self, columns: Columns, wanted: Sequence[Any]) -> bool:
        """Whether a row is answered here. Raises `_Other` where it is answered otherwise than it should be."""
        try:
            given = [one for (one,) in self(columns).values()]
        except Unusual:
            return False
        # As text: minus zero is another number than zero, and a whole number is not written as a float is.
        if str(given) != str(list(wanted)):
            raise _Other(given)
        return True

    def __call__(self, columns: Columns) -> dict[str, list[Any]]:
        """What each expression says, row by row. Raises `Unusual` for values that polars has to answer for."""
        values = [columns[name] for name in self._numbers]
        if not all(one is None or isfinite(one) for column in values for one in column):
            raise Unusual("a value is not finite")
        rows = len(values[0])
        for step, given in self._steps:
            values.append(step(rows, *[values[at] for at in given]))
        return {name: list(values[at]) for name, at in self._places.items()}


class _Plan:
    """The steps of expressions, each once."""

    def __init__(self, numbers: Sequence[str]):
        self.steps: list[_Step] = []
        self._first = len(numbers)
        self._known = {orjson.dumps({"Column": name}): at for at, name in enumerate(numbers)}

    def place(self, tree: Any) -> int:
        """The number of the step that answers a tree. Raises `_Unknown` where it has a part that is not known."""
        key = orjson.dumps(tree)
        if key not in self._known:
            step, parts = _step(tree)
            self.steps.append((step, tuple([self.place(one) for one in parts])))
            self._known[key] = self._first + len(self.steps) - 1
        return self._known[key]


def _tried(numbers: Sequence[str]) -> dict[str, Column]:
    """Columns to try expressions on: like prices, ratios and indicators, halves, equal ones, and some that lack."""
    chance = random.Random(7)
    kinds = (
        lambda: chance.gauss(100, 5), lambda: chance.gauss(0, 0.02), lambda: chance.uniform(0, 100),
        lambda: chance.randrange(-800, 800) / 8, lambda: chance.choice((0.0, -0.0, 1.0, -1.0, 30.0, 70.0)),
        lambda: chance.uniform(1e6, 1e12),
    )  # fmt: skip
    rows = []
    for _ in range(_TRIED_ROWS):
        kind = chance.choice(kinds)
        row = [None if chance.random() < 0.05 else kind() for _ in numbers]
        rows.append([row[0]] * len(row) if chance.random() < 0.1 else row)
    return {name: [row[at] for row in rows] for at, name in enumerate(numbers)}


def _tree(expression: pl.Expr) -> Any:
    with warnings.catch_warnings():
        # The format is not promised to stay: of another one nothing is known here, and polars answers.
        warnings.simplefilter("ignore")
        return orjson.loads(expression.meta.serialize(format="json"))


def _step(tree: Any) -> tuple[Callable[..., Column], Sequence[Any]]:
    """What is done at the top of a tree, and the trees of what it is done with."""
    match tree:
        case {"Literal": of}:
            return partial(_constant, _value(of)), ()
        case {"Alias": [of, _]}:
            return _same, (of,)
        case {"BinaryExpr": {"left": left, "op": "TrueDivide", "right": {"Literal": of}}} if _value(of):
            # As polars does it: the last digit is another one.
            return partial(_computed, mul), (left, {"Literal": {"Dyn": {"Float": 1 / _value(of)}}})
        case {"BinaryExpr": {"left": left, "op": operation, "right": right}}:
            if operation in _COMPARED:
                return partial(_compared, _COMPARED[operation]), (left, right)
            if operation in _COMPUTED:
                return partial(_computed, _COMPUTED[operation]), (left, right)
            if operation in ("And", "Or"):
                return partial(_both if operation == "And" else _either), (left, right)
        case {"Ternary": {"predicate": predicate, "truthy": truthy, "falsy": falsy}}:
            return _chosen, (predicate, truthy, falsy)
        case {"Function": {"input": given, "function": "Sign"}}:
            return partial(_each, _sign), given
        case {"Function": {"input": given, "function": "Negate"}}:
            return partial(_each, neg), given
        case {"Function": {"input": given, "function": "FillNull"}}:
            return _filled, given
        case {"Function": {"input": given, "function": {"Clip": {"has_min": True, "has_max": True}}}}:
            return _clipped, given
        case {"Function": {"input": given, "function": {"Boolean": "IsNull" | "IsNotNull" as asked}}}:
            return partial(_known, asked == "IsNotNull"), given
        case {"Function": {"input": given, "function": {"Boolean": "Not"}}}:
            return partial(_each, not_), given
        case {"Function": {"input": given, "function": {"Round": {"decimals": digits, "mode": "HalfToEven"}}}}:
            return partial(_each, partial(_rounded, 10.0**digits)), given
        case {"Function": {"input": given, "function": {"StringExpr": {"Format": {"format": _} as form}}}}:
            return _form(form["format"], form["insertions"], given)
    raise _Unknown(tree)


def _value(of: Any) -> Any:
    """What a literal stands for."""
    ((_, typed),) = of.items()
    ((kind, value),) = typed.items()
    if kind not in _LITERALS or value is None:
        raise _Unknown(of)
    return None if kind == "Null" else value


def _form(text: str, places: Sequence[int], given: Sequence[Any]) -> tuple[Callable[..., Column], Sequence[Any]]:
    """Words with values between them. places: where in the text each value comes."""
    ends = [*places, len(text)]
    between = [text[first:end].replace("%", "%%") for first, end in zip([0, *places], ends, strict=True)]
    form, others = between[0], []
    for tree, after in zip(given, between[1:], strict=True):
        match tree:
            case {"Literal": {"Scalar": {"String": word}}}:
                form += word.replace("%", "%%") + after
            case _:
                form += "%s" + after
                others.append(tree)
    return partial(_written, form), others


def _constant(value: Any, rows: int) -> Column:
    return [value] * rows


def _same(rows: int, column: Column) -> Column:
    return column


def _compared(compare: Callable[[Any, Any], bool], rows: int, left: Column, right: Column) -> Column:
    return [None if a is None or b is None else compare(a, b) for a, b in zip(left, right, strict=True)]


def _computed(compute: Callable[[Any, Any], Any], rows: int, left: Column, right: Column) -> Column:
    try:
        found = [None if a is None or b is None else compute(a, b) for a, b in zip(left, right, strict=True)]
    except ZeroDivisionError as error:
        raise Unusual("a division by zero") from error
    if not all(one is None or isfinite(one) for one in found):
        raise Unusual("a result is not finite")
    return found


def _both(rows: int, left: Column, right: Column) -> Column:
    # One that is false decides, whether the other is known or not.
    pairs = zip(left, right, strict=True)
    return [False if a is False or b is False else None if a is None or b is None else True for a, b in pairs]


def _either(rows: int, left: Column, right: Column) -> Column:
    pairs = zip(left, right, strict=True)
    return [True if a is True or b is True else None if a is None or b is None else False for a, b in pairs]


def _chosen(rows: int, predicate: Column, truthy: Column, falsy: Column) -> Column:
    # What is not known is no.
    return [a if said else b for said, a, b in zip(predicate, truthy, falsy, strict=True)]


def _each(function: Callable[[Any], Any], rows: int, column: Column) -> Column:
    return [None if one is None else function(one) for one in column]


def _filled(rows: int, column: Column, others: Column) -> Column:
    return [other if one is None else one for one, other in zip(column, others, strict=True)]


def _clipped(rows: int, column: Column, lowest: Column, highest: Column) -> Column:
    return [
        one if one is None else float(low) if one < low else float(high) if one > high else one
        for one, low, high in zip(column, lowest, highest, strict=True)
    ]


def _known(wanted: bool, rows: int, column: Column) -> Column:
    return [(one is not None) is wanted for one in column]


def _sign(value: float) -> float:
    return copysign(1.0, value) if value else value


def _rounded(by: float, value: float) -> float:
    if abs(value) * by > _LARGEST:
        raise Unusual("a number is too large to be rounded")
    return copysign(round(value * by) / by, value)


def _written(form: str, rows: int, *columns: Column) -> Column:
    texts = [[_text(one) for one in column] for column in columns]
    return [None if None in row else form % row for row in zip(*texts, strict=True)] if texts else [form % ()] * rows


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and (value == 0 or _SMALLEST <= abs(value) < _LARGEST):
        return repr(value)
    raise Unusual(f"{value!r} is written otherwise")

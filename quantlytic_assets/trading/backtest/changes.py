"""Settings of a strategy by their path: `rule.ma_cross.fast=10`, `exits.stop_loss=3%`, and grids of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from itertools import product
from typing import Any

from quantlytic_assets.trading.engine.settings import EngineSettings

Declared = str | Mapping[str, Mapping[str, Any] | None]
_PARTS = ("orders", "exits", "sizing", "risk", "costs")
# More points than these are a mistake, or no search any more.
MOST_POINTS = 20_000


def parsed(text: str) -> tuple[str, Any]:
    """Path and value of `path=value`. Raises `ValueError` where there is no value."""
    path, equals, value = text.partition("=")
    if not equals or not path.strip() or not value.strip():
        raise ValueError(
            f"{text!r} is no setting; write path=value, such as rule.ma_cross.fast=10 or risk.max_gross=50%"
        )
    return path.strip(), _value(value.strip())


def axes_of(texts: Sequence[str]) -> dict[str, list[Any]]:
    """The values of each path, of `path=first:last:step` and `path=value,value,…`.

    Raises `ValueError` for a range that has no values.
    """
    axes: dict[str, list[Any]] = {}
    for text in texts:
        path, equals, values = (part.strip() for part in text.partition("="))
        if not equals or not path or not values:
            raise ValueError(f"{text!r} is no axis; write path=first:last:step or path=value,value")
        if path in axes:
            raise ValueError(f"{path} is there twice")
        axes[path] = _range(path, values) if ":" in values else [_value(one.strip()) for one in values.split(",")]
    return axes


def grid(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """All combinations of the axes' values, the last one changing fastest.

    Raises `ValueError` for more than 20,000 combinations.
    """
    count = math.prod(len(values) for values in axes.values()) if axes else 0
    if not 1 <= count <= MOST_POINTS:
        raise ValueError(
            f"the grid has {count:,} points; take from 1 to {MOST_POINTS:,}, or --trials to try some of them"
        )
    return [dict(zip(axes, point, strict=True)) for point in product(*axes.values())]


def changed(rule: Declared, settings: EngineSettings, changes: Mapping[str, Any]) -> tuple[Declared, EngineSettings]:
    """The rule's declaration and the settings with other values; paths are those of the universe file.

    Raises `ValueError` for a path that there is not, naming the nearest, and for a value that the setting can't have.
    """
    for path, value in changes.items():
        part, _, rest = path.partition(".")
        if part == "rule":
            rule = _with_parameter(rule, path, rest, value)
        elif part == "account":
            settings = _replaced(settings, path, rest, value, but=_PARTS)
        elif part in _PARTS:
            settings = replace(settings, **{part: _replaced(getattr(settings, part), path, rest, value)})
        else:
            raise ValueError(f"{path}: {_unknown(part, ('rule', 'account', *_PARTS))}")
    return rule, settings


def _with_parameter(rule: Declared, path: str, rest: str, value: Any) -> Declared:
    name, _, parameter = rest.partition(".")
    own = rule if isinstance(rule, str) else next(iter(rule))
    if name != own or not parameter:
        raise ValueError(f"{path}: the strategy's rule is {own}; write rule.{own}.PARAMETER")
    given = {} if isinstance(rule, str) else dict(rule[own] or {})
    return {own: {**given, parameter: value}}


def _replaced(settings: Any, path: str, name: str, value: Any, but: Sequence[str] = ()) -> Any:
    known = [one.name for one in fields(settings) if one.name not in but]
    if name not in known:
        raise ValueError(f"{path}: {_unknown(name, known)}")
    return replace(settings, **{name: value})


def _unknown(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"there is no {name}; {f'did you mean {near[0]}?' if near else 'there are: ' + ', '.join(known)}"


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    percent = text.endswith("%")
    try:
        number = float(text[:-1] if percent else text)
    except ValueError:
        return text
    if percent:
        return number / 100
    return int(number) if number == int(number) and not set(text) & set(".eE") else number


def _range(path: str, text: str) -> list[Any]:
    return list(_steps(path, text))


def _steps(path: str, text: str) -> Iterator[Any]:
    parts = [_value(part.strip()) for part in text.split(":")]
    numbers = [one for one in parts if isinstance(one, int | float) and not isinstance(one, bool)]
    if len(parts) not in (2, 3) or len(numbers) != len(parts):
        raise ValueError(f"{path}: {text!r} is no range; write first:last:step in numbers")
    first, last, step = (*numbers, 1)[:3]
    if step <= 0 or last < first:
        raise ValueError(f"{path}: {text!r} has no values; the step is above 0 and the last one not below the first")
    whole = all(isinstance(one, int) for one in (first, step))
    for i in range(int((last - first) / step + 1e-9) + 1):
        # Times the step, for sums of it drift.
        yield first + i * step if whole else round(first + i * step, 12)

"""What a bot remembers between runs: its attributes as JSON, each value as it was, and no code.

Plain values, containers, days and times, numbers and arrays of numpy, and bars can be remembered. What can't is said by
name, before anything is kept. Nothing of it is pickled: reading it runs no code that is stored with it.
"""

from __future__ import annotations

import inspect
import json
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np

from quantlytic_assets.strategies.bots import OWN_ATTRIBUTES, Bar, Bot, Features, parameters_of
from quantlytic_assets.strategies.spec import RuleError

# What a defaultdict may make of a name that is not there.
_FACTORIES: dict[str, Callable[[], Any]] = {one.__name__: one for one in (int, float, bool, str, list, dict, set)}
_KIND = "type"


class Memory:
    """What a bot has remembered so far; made when the bot has been made, before the first bar that it is handed.

    kept: what `text` gave after the bars before, None at the beginning. What another bot has left is not taken over.
    """

    def __init__(self, bot: Bot, kept: str | None = None):
        self._bot = bot
        self._made = {name: _written(bot, name, value) for name, value in _parameters(bot).items()}
        self._begun = set(_attributes(bot))
        self._shared = _of_class(bot)
        told = json.loads(kept) if kept else {}
        if told.get("bot") == type(bot).__name__:
            for name in told["removed"]:
                vars(bot).pop(name, None)
            for name, value in told["attributes"].items():
                setattr(bot, name, _read(value))

    def text(self) -> str:
        """All of it, to be handed to the bot of the next run. Raises `RuleError` with the attribute that can't be kept.

        Parameters are left out unless the bot has changed them: they are the universe's to say.
        """
        bot, seen = self._bot, dict[int, str]()
        shared = _of_class(bot)
        for name in [name for name, before in self._shared.items() if shared.get(name) != before]:
            raise RuleError(
                f"bot {type(bot).__name__} changed {name}, which belongs to its class and not to the bot: what is "
                f"remembered between bars is set in on_start, as in self.{name} = []"
            )
        attributes = {name: _written(bot, name, value, seen) for name, value in _attributes(bot).items()}
        kept = {name: value for name, value in attributes.items() if self._made.get(name, _NEVER) != value}
        removed = sorted((self._begun | {*self._made}) - {*attributes})
        return json.dumps({"bot": type(bot).__name__, "attributes": kept, "removed": removed})


_NEVER = object()


def _attributes(bot: Bot) -> dict[str, Any]:
    """The attributes that are remembered: all but what a bot has from `Bot`, and cached properties, made anew."""
    return {
        name: value
        for name, value in vars(bot).items()
        if name not in OWN_ATTRIBUTES and not isinstance(inspect.getattr_static(type(bot), name, None), cached_property)
    }


def _parameters(bot: Bot) -> dict[str, Any]:
    return {one.name: vars(bot)[one.name] for one in parameters_of(type(bot)) if one.name in vars(bot)}


def _of_class(bot: Bot) -> dict[str, str]:
    """Containers that the bot's classes have, as text: they are the same ones for all bots of a process."""
    found: dict[str, str] = {}
    for one in reversed(type(bot).__mro__):
        if issubclass(one, Bot) and one is not Bot:
            found |= {
                name: repr(value)
                for name, value in vars(one).items()
                if isinstance(value, list | dict | set | deque) and not name.startswith("__")
            }
    return found


def _written(bot: Bot, name: str, value: Any, seen: dict[int, str] | None = None) -> Any:
    """A value as JSON has it. Raises `RuleError` with the place in the bot where something can't be kept."""
    seen = {} if seen is None else seen

    def refuse(place: str, why: str) -> RuleError:
        return RuleError(
            f"bot {type(bot).__name__}: self.{place} {why}. Its paper account goes on between runs with what the bot "
            "remembers: numbers, texts, days and times, lists, tuples, sets, dicts, deques, numpy arrays and bars. "
            "Anything else is made by a functools.cached_property, or left out"
        )

    def write(one: Any, place: str) -> Any:
        kind = type(one)
        if one is None or kind in (bool, int, float, str):
            return one
        if kind in (list, dict, set, deque, defaultdict, Counter, np.ndarray):
            # Two names of one object would be two objects afterwards.
            if id(one) in seen:
                raise refuse(place, f"is the same object as self.{seen[id(one)]}; keep it once")
            seen[id(one)] = place
        if kind is list:
            return [write(each, f"{place}[{at}]") for at, each in enumerate(one)]
        if kind in _PLAIN:
            return {_KIND: kind.__name__, "value": _PLAIN[kind][0](one)}
        if kind is Bar:
            # Its features are not to be changed, so that bars may share them.
            fields = [write(each, place) for each in one[:-1]]
            return {_KIND: "Bar", "value": [*fields, write_mapping(one.features, dict, place)]}
        if kind in (tuple, set, frozenset, deque):
            told = {_KIND: kind.__name__, "value": [write(each, f"{place}[{at}]") for at, each in enumerate(one)]}
            return told | ({"most": one.maxlen} if kind is deque else {})
        if kind is Features:
            return write_mapping(one, dict, place)
        if kind in (dict, defaultdict, Counter):
            return write_mapping(one, kind, place)
        if kind is np.ndarray and one.dtype.kind in "biuf" and one.dtype.itemsize <= 8:
            return {_KIND: "ndarray", "dtype": one.dtype.str, "shape": list(one.shape), "value": one.ravel().tolist()}
        if isinstance(one, np.bool_ | np.integer | np.floating) and one.dtype.itemsize <= 8:
            return {_KIND: "numpy", "dtype": one.dtype.str, "value": one.item()}
        raise refuse(place, f"is a {kind.__module__}.{kind.__qualname__}, which can't be kept")

    def write_mapping(one: Mapping[Any, Any], kind: type, place: str) -> dict[str, Any]:
        items = [[write(key, f"{place} key {key!r}"), write(each, f"{place}[{key!r}]")] for key, each in one.items()]
        told: dict[str, Any] = {_KIND: kind.__name__, "value": items}
        if isinstance(one, defaultdict):
            factory = one.default_factory
            named = None if factory is None else getattr(factory, "__name__", "")
            if named is not None and _FACTORIES.get(named) is not factory:
                raise refuse(place, f"makes what is missing by {factory!r}; take one of {', '.join(_FACTORIES)}")
            told["missing"] = named
        return told

    return write(value, name)


# How values without parts are written and read.
_PLAIN: dict[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    datetime: (datetime.isoformat, datetime.fromisoformat),
    date: (date.isoformat, date.fromisoformat),
    time: (time.isoformat, time.fromisoformat),
    timedelta: (lambda one: [one.days, one.seconds, one.microseconds], lambda told: timedelta(*told)),
    Decimal: (str, Decimal),
    bytes: (bytes.hex, bytes.fromhex),
}
_PLAIN_BY_NAME = {kind.__name__: read for kind, (_, read) in _PLAIN.items()}


def _read(told: Any) -> Any:
    """A value of what `_written` made of it."""
    if isinstance(told, list):
        return [_read(one) for one in told]
    if not isinstance(told, dict):
        return told
    kind, value = told[_KIND], told["value"]
    if kind in _PLAIN_BY_NAME:
        return _PLAIN_BY_NAME[kind](value)
    if kind == "ndarray":
        return np.array(value, dtype=np.dtype(told["dtype"])).reshape(told["shape"])
    if kind == "numpy":
        return np.dtype(told["dtype"]).type(value)
    if kind in ("dict", "defaultdict", "Counter"):
        items = {_read(key): _read(one) for key, one in value}
        if kind == "Counter":
            return Counter(items)
        return items if kind == "dict" else defaultdict(_FACTORIES.get(told["missing"] or ""), items)
    parts = [_read(one) for one in value]
    if kind == "Bar":
        return Bar(*parts)
    if kind == "deque":
        return deque(parts, told["most"])
    makers: dict[str, Callable[[list[Any]], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
    return makers[kind](parts)

"""Reading declarations as people write them: `rsi`, `bb(20, 2.5)`, `beta(60, SPY)`, `spread(yields_1d:^TNX, ^IRX)`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

from quantlytic_assets.features.spec import Value

_FORM = re.compile(r"\s*(?P<name>[A-Za-z_]\w*)\s*(?:\((?P<arguments>[^()]*)\))?\s*")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def split(declaration: str) -> tuple[str, tuple[Value, ...]]:
    """The name and the arguments of a declaration; arguments that are no numbers stay text.

    >>> split("beta(60, SPY)")
    ('beta', (60, 'SPY'))
    """
    found = _FORM.fullmatch(declaration)
    if not found:
        raise ValueError(f"{declaration!r} is no feature: write `name` or `name(1, 2.5)`")
    inner = found["arguments"]
    if inner is None or not inner.strip():
        return found["name"], ()
    arguments = [part.strip() for part in inner.split(",")]
    if not all(arguments):
        raise ValueError(f"{declaration!r}: an argument is empty")
    return found["name"], tuple(map(_value, arguments))


def unknown(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """The error for a name that nobody has declared: what was probably meant."""
    names = sorted(set(known))
    near = get_close_matches(name, names, n=1, cutoff=0.6) or [one for one in names if one.lower() == name.lower()]
    meant = f"did you mean {near[0]!r}?" if near else f"take one of {len(names)}, such as {', '.join(names[-3:])}"
    return ValueError(f"there is no {kind} {name!r}, {meant}")


def _value(argument: str) -> Value:
    if not _NUMBER.fullmatch(argument):
        return argument
    number = float(argument)
    return int(number) if number == int(number) and "." not in argument and "e" not in argument.lower() else number

"""What the dialects of other vendors have in common: which dataset a symbol is taken from, and rows as they want them.

They let programs that were written for these vendors ask here instead, by nothing but another base address.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING

from quantlytic_assets.api.context import intervals_of
from quantlytic_assets.api.problems import Problem, unknown
from quantlytic_assets.calendars.sessions import ROUND_THE_CLOCK

if TYPE_CHECKING:
    from quantlytic_assets.api.context import Context
    from quantlytic_assets.universe.models import Dataset

_WITHOUT_TRADES = re.compile(rb'((?:"v"|"c"):[^,}]*)(?=\})|("v":[^,}]*),(?="vw":)')
_WITHOUT_AVERAGE = re.compile(rb'("n":[^,}]*)\}')


def dataset_for(context: Context, symbol: str, interval: str | None, crypto: bool) -> Dataset:
    """The dataset that a symbol's bars of an interval are taken from: one whose own interval it is, before others.

    interval: None for the shortest there is. crypto: whether markets round the clock are meant, or exchanges.
    """
    every = context.declared.datasets.values()
    markets = [one for one in every if (one.calendar == ROUND_THE_CLOCK) == crypto]
    having = [one for one in markets if any(each.symbol == symbol for each in one.symbols)]
    if not having:
        known = sorted({each.symbol for one in markets for each in one.symbols})
        raise unknown("symbol", symbol, known)
    if interval is None:
        from quantlytic_assets.calendars.intervals import INTERVALS

        return min(having, key=lambda one: INTERVALS[one.interval])
    with_it = [one for one in having if interval in intervals_of(one)]
    if not with_it:
        there = sorted({length for one in having for length in intervals_of(one)})
        raise Problem(422, f"{symbol} has bars at {', '.join(there)}, not at {interval}.", known=there)
    return min(with_it, key=lambda one: one.interval != interval)


def with_every_member(body: bytes, rows: int) -> bytes:
    """Rows of bars with `n` and `vw`, null where they are not known: Alpaca's client takes no row without them."""
    if not rows:
        return body
    trades, averages = body.count(b',"n":'), body.count(b',"vw":')
    if trades == averages == rows:
        return body
    if trades == averages == 0:
        return body[:-1].replace(b"},{", b',"n":null,"vw":null},{') + b',"n":null,"vw":null}'
    body = _WITHOUT_TRADES.sub(lambda found: (found[1] or found[2]) + b',"n":null' + (b"," if found[2] else b""), body)
    return _WITHOUT_AVERAGE.sub(rb'\1,"vw":null}', body)


def token(*parts: str) -> str:
    """A cursor as an opaque text."""
    return urlsafe_b64encode("|".join(parts).encode()).decode()


def parts_of(name: str, text: str, count: int) -> list[str]:
    """The parts of a cursor that `token` made. Raises `Problem` 422 for another text."""
    try:
        parts = urlsafe_b64decode(text.encode()).decode().rsplit("|", count - 1)
    except ValueError:
        parts = []
    if len(parts) != count:
        raise Problem(422, f"{name} is none that an answer of this API had.", parameter=name)
    return parts

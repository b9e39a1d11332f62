"""What follows from a batch, as one record of the kept state.

It is written in the batch's transaction. From it comes all that is done later: what is published, what is served, and
what changes in the places of the kept state. A process that was killed in between makes these of the record.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import orjson

from quantlytic_assets.live.bars import Bar, Revised
from quantlytic_assets.live.deciding import Said
from quantlytic_assets.live.lines import Row
from quantlytic_assets.live.pipeline import Made

_NAN = float("nan")


def packed(made: Made) -> bytes:
    """What follows from a batch, as bytes. What is counted of it is not in them."""
    parts = (made.bars, made.rows, made.signals, made.untraded, made.forgotten, made.moved)
    return orjson.dumps(parts, default=tuple)


def unpacked(kept: bytes) -> Made:
    """What `packed` was given."""
    bars, rows, signals, untraded, forgotten, moved = orjson.loads(kept)
    return Made(
        {name: [Revised(_bar(bar), *rest) for bar, *rest in own] for name, own in bars.items()},
        {
            name: [(Row(_bar(bar), _numbers(values)), trace) for (bar, values), trace in own]
            for name, own in rows.items()
        },
        [(_said(said), interval, trace) for said, interval, trace in signals],
        [(symbol, time) for symbol, time in untraded],
        [(interval, symbol, time) for interval, symbol, time in forgotten],
        [
            (interval, symbol, begins, None if stored is None else (stored[0], _numbers(stored[1])))
            for interval, symbol, begins, stored in moved
        ],
    )


def _bar(values: Sequence[Any]) -> Bar:
    symbol, session, *rest = values
    return Bar._make((symbol, date.fromisoformat(session), *rest))


def _said(values: Sequence[Any]) -> Said:
    strategy, symbol, session, *rest = values
    return Said._make((strategy, symbol, date.fromisoformat(session), *rest))


def _numbers(values: Sequence[float | None]) -> tuple[float, ...]:
    """JSON has no number that is none."""
    return tuple([_NAN if one is None else one for one in values])

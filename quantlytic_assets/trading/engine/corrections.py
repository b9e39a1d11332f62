"""Fills as they finally are: what a broker corrected or took back later, in the fill that it was told of first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

_DECIMALS = 9


def corrected(events: pl.DataFrame, symbols: Sequence[str]) -> pl.DataFrame:
    """Events without corrections: their fills, and what was held from then on, are as the corrections say.

    events: EVENTS_SCHEMA, or those kinds of it that change a position. symbols: of the market, by which a rename names
    the new one. A fill that was taken back has a quantity of 0.
    """
    if not (events["kind"] == "correction").any():
        return events
    rows = events.to_dicts()
    for place, row in enumerate(rows):
        if row["kind"] == "correction":
            _fold(rows[:place], row, symbols)
    return pl.DataFrame([row for row in rows if row["kind"] != "correction"], schema=events.schema)


def _fold(before: list[dict[str, Any]], change: dict[str, Any], symbols: Sequence[str]) -> None:
    side = 1 if change["side"] == "buy" else -1
    own = [place for place, row in enumerate(before) if row["kind"] == "fill" and row["order"] == change["order"]]
    if not own:
        # It was filled before these events begin.
        return
    # A correction does not name its fill: of several of an order it is the one that makes the same change of the cash.
    first = min(own, key=lambda place: abs(_cash(before[place], change, side) - change["value"]))
    fill, more = before[first], side * change["quantity"]
    fill["quantity"] = round(fill["quantity"] + change["quantity"], _DECIMALS)
    fill["price"] = change["price"]
    symbol = fill["symbol"]
    for row in before[first:]:
        if row["symbol"] != symbol:
            continue
        if row["kind"] == "split":
            more *= row["value"]
        if row["position"] is not None:
            row["position"] = round(row["position"] + more, _DECIMALS)
        if row["kind"] == "rename" and int(row["value"]) < len(symbols):
            symbol = symbols[int(row["value"])]


def _cash(fill: dict[str, Any], change: dict[str, Any], side: int) -> float:
    """What the cash changes by where this is the fill that a correction is of."""
    after = fill["quantity"] + change["quantity"]
    return -side * (after * change["price"] - fill["quantity"] * fill["price"])

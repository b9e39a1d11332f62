"""An automatic review of a backtest: what in its own figures speaks against believing it.

Each check is a function of frames and numbers that gives no finding, or one with the figures that it was drawn from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import polars as pl

Severity = Literal["error", "warning", "note"]
_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}

FILL_COLUMNS = (
    "symbol",
    "open_time",
    "price",
    "quantity",
    "bar_volume",
    "stale",
    "incomplete",
    "ambiguous",
)
ROUND_TRIP_COLUMNS = ("symbol", "session", "profit")


@dataclass(frozen=True)
class Finding:
    """Something that a reader of the result should know.

    code is fixed and for programs. severity: "error" for what could not have been traded so, "warning" for what makes
    the result doubtful, "note" for what should be said beside it. text is a sentence with the figures.
    """

    code: str
    severity: Severity
    text: str


@dataclass(frozen=True)
class Limits:
    """From where on something is found.

    trades_per_parameter: round trips that there should be for each parameter that was searched, and at the least
    altogether. one_trade, one_day: the largest share of the net profit that may come from one. ambiguous: the largest
    share of fills whose bar does not tell what came first. cost_share: the largest share of the result that doubled
    costs may take.
    """

    trades_per_parameter: int = 30
    one_trade: float = 0.5
    one_day: float = 0.5
    ambiguous: float = 0.05
    cost_share: float = 0.5


def review(
    fills: pl.DataFrame,
    round_trips: pl.DataFrame,
    *,
    volume_cap: float,
    parameters: int = 0,
    total_return: float | None = None,
    doubled_costs_return: float | None = None,
    limits: Limits | None = None,
) -> list[Finding]:
    """All findings about a backtest, the gravest first.

    fills: symbol, open_time (of the bar it was filled in), price, quantity (units, sign or not), bar_volume (null where
    unknown), stale, incomplete, ambiguous (true or false). round_trips: symbol, session (in which it was closed),
    profit (money after costs). volume_cap: the share of a bar's volume that may be filled. parameters: how many were
    searched. total_return, doubled_costs_return: the result as a fraction, and that of the same run at twice the costs.

    Raises `ValueError` for a frame without its columns.
    """
    _has(fills, "fills", FILL_COLUMNS)
    _has(round_trips, "round trips", ROUND_TRIP_COLUMNS)
    bounds = limits or Limits()
    # A frame without a row may have columns without a type.
    fills = fills.with_columns(pl.col("stale", "incomplete", "ambiguous").cast(pl.Boolean))
    found: Iterable[Finding | None] = (
        _no_trades(fills),
        _flagged(fills, "stale", "on a price that had not changed for too long to be one"),
        _flagged(fills, "incomplete", "on a bar that lacked part of its data"),
        _over_cap(fills, volume_cap),
        _without_volume(fills),
        _ambiguous(fills, bounds.ambiguous),
        _few_trades(round_trips, parameters, bounds.trades_per_parameter),
        _one_trade(round_trips, bounds.one_trade),
        _one_day(round_trips, bounds.one_day),
        _costs(total_return, doubled_costs_return, bounds.cost_share),
    )
    return sorted((one for one in found if one), key=lambda one: _ORDER[one.severity])


def _no_trades(fills: pl.DataFrame) -> Finding | None:
    if len(fills):
        return None
    return Finding("no_trades", "note", "It never traded: there is no result to speak of.")


def _flagged(fills: pl.DataFrame, flag: str, why: str) -> Finding | None:
    hit = fills.filter(pl.col(flag))
    if hit.is_empty():
        return None
    first = hit.sort("open_time").row(0, named=True)
    return Finding(
        f"{flag}_fills",
        "error",
        f"{_of(len(hit), len(fills), 'fill')} {_were(len(hit))} {why}, the first of {first['symbol']} at "
        f"{first['open_time']:%Y-%m-%d %H:%M}.",
    )


def _over_cap(fills: pl.DataFrame, cap: float) -> Finding | None:
    """Orders of a symbol share its bar: what counts is what they filled together."""
    bars = fills.group_by("symbol", "open_time").agg(
        pl.col("quantity").abs().sum().alias("filled"), pl.col("bar_volume").max()
    )
    # A share computed from the cap may miss it in the last digit.
    over = bars.filter(pl.col("filled") > pl.col("bar_volume") * cap * (1 + 1e-9)).with_columns(
        (pl.col("filled") / pl.col("bar_volume")).alias("share")
    )
    if over.is_empty():
        return None
    worst = over.sort("share", "open_time", "symbol", descending=[True, False, False]).row(0, named=True)
    of = f"{_percent(worst['share'])} of it" if worst["bar_volume"] else "no volume at all"
    return Finding(
        "over_volume_cap",
        "error",
        f"{_of(len(over), len(bars), 'traded bar')} took more than {_percent(cap)} of the bar's volume; the worst was "
        f"{worst['symbol']} at {worst['open_time']:%Y-%m-%d %H:%M} with {of}.",
    )


def _without_volume(fills: pl.DataFrame) -> Finding | None:
    unknown = fills["bar_volume"].null_count()
    if not unknown:
        return None
    return Finding(
        "unknown_volume", "warning", f"{_of(unknown, len(fills), 'fill')} {_were(unknown)} on a bar of unknown volume."
    )


def _ambiguous(fills: pl.DataFrame, most: float) -> Finding | None:
    number = int(fills["ambiguous"].sum())
    if not number:
        return None
    share = number / len(fills)
    return Finding(
        "ambiguous_fills",
        "warning" if share > most else "note",
        f"{_of(number, len(fills), 'fill')} ({_percent(share)}) {_were(number)} in a bar that touched both the stop "
        "and the target; the stop was taken. Finer bars would tell which came first.",
    )


def _few_trades(trips: pl.DataFrame, parameters: int, each: int) -> Finding | None:
    wanted = each * max(1, parameters)
    if len(trips) >= wanted or trips.is_empty():
        return None
    searched = "no searched parameter" if not parameters else _count(parameters, "searched parameter")
    return Finding(
        "few_trades",
        "warning",
        f"{_count(len(trips), 'round trip')} for {searched}: fewer than {wanted}, too few to tell skill from luck.",
    )


def _one_trade(trips: pl.DataFrame, most: float) -> Finding | None:
    net = _net(trips)
    if net <= 0 or len(trips) < 2:
        return None
    best = trips.sort("profit", "session", "symbol", descending=[True, False, False]).row(0, named=True)
    if best["profit"] <= most * net:
        return None
    return Finding(
        "one_trade",
        "warning",
        f"One round trip, {best['symbol']} closed on {best['session']}, made {best['profit']:,.2f} of the net profit "
        f"of {net:,.2f}; the others together made {net - best['profit']:,.2f}.",
    )


def _one_day(trips: pl.DataFrame, most: float) -> Finding | None:
    net = _net(trips)
    days = trips.group_by("session").agg(pl.col("profit").sum(), pl.len())
    if net <= 0 or len(days) < 2:
        return None
    best = days.sort("profit", "session", descending=[True, False]).row(0, named=True)
    # A day of one trade is that trade's finding.
    if best["profit"] <= most * net or best["len"] == 1:
        return None
    return Finding(
        "one_day",
        "warning",
        f"One session, {best['session']}, closed {_count(best['len'], 'round trip')} with {best['profit']:,.2f} of the "
        f"net profit of {net:,.2f}; all others together made {net - best['profit']:,.2f}.",
    )


def _costs(total: float | None, doubled: float | None, most: float) -> Finding | None:
    if total is None or doubled is None or total <= 0:
        return None
    said = f"At doubled costs the return is {_percent(doubled)} instead of {_percent(total)}"
    if doubled <= 0:
        return Finding("costs", "error", f"{said}: what is left depends on costs that nobody knows so well.")
    if total - doubled > most * total:
        return Finding("costs", "warning", f"{said}: costs take more than {_percent(most)} of it.")
    return None


def _net(trips: pl.DataFrame) -> float:
    return float(trips["profit"].sum())


def _has(frame: pl.DataFrame, what: str, columns: tuple[str, ...]) -> None:
    if missing := [one for one in columns if one not in frame.columns]:
        raise ValueError(f"{what} have no {', '.join(missing)}")


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %" if abs(share) < 10 else f"{share * 100:,.0f} %"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _of(number: int, every: int, what: str) -> str:
    return f"{number:,} of {_count(every, what)}"


def _were(number: int) -> str:
    return "was" if number == 1 else "were"

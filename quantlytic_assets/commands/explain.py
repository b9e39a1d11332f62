"""`quantlytic explain`: an order back to what vendors gave, or why a strategy did not trade in a session."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.table import Table

from quantlytic_assets.commands.inspection import print_json
from quantlytic_assets.commands.installation import UsageError
from quantlytic_assets.services.explain import OrderExplanation, UnknownOrder, explain_order
from quantlytic_assets.services.inaction import BarAnswer, SessionAnswer, explain_session, session_at
from quantlytic_assets.services.provenance import Link

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation
    from quantlytic_assets.universe.models import Dataset, Strategy

# Links of one kind that follow each other are shown up to this many; JSON has them all.
_SHOWN = 8
# What the table leaves to JSON: a row for each native bar.
_LONG = ("rows",)
# Answers that have a row for each bar, while bars with another one are told together.
_EACH = ("traded", "order_not_filled")


def show_explanation(
    installation: Installation,
    out: Console,
    what: str,
    session: date | None,
    at: datetime | None,
    symbol: str | None,
    as_json: bool,
) -> None:
    """Explain an order by its id, or by the name of a strategy what became of one of its sessions.

    Raises `UsageError` for an order, strategy or symbol that there is not, and for options that do not go together.
    """
    universe = installation.universe
    strategies = universe.strategies
    if what in strategies:
        strategy = strategies[what]
        answer = _answer(installation, universe.datasets[strategy.dataset], strategy, session, at, symbol)
        if as_json:
            print_json(_session_json(answer))
        else:
            _print_session(out, answer)
        return
    if session or at or symbol:
        there = ", ".join(strategies) or "none"
        raise UsageError(f"--session, --at and --symbol go with the name of a strategy; there are: {there}")
    owner = strategies.get(what.partition(":")[0])
    dataset = universe.datasets[owner.dataset] if owner else None
    try:
        explained = explain_order(installation.resources, dataset, owner, what)
    except UnknownOrder as error:
        raise UsageError(f"{error}\nStrategies of {universe.path}: {', '.join(strategies) or 'none'}") from error
    if as_json:
        print_json(explained.told())
    else:
        _print_order(out, explained)


def _answer(
    installation: Installation,
    dataset: Dataset,
    strategy: Strategy,
    session: date | None,
    at: datetime | None,
    symbol: str | None,
) -> SessionAnswer:
    if session and at:
        raise UsageError("--session and --at say the same: take one of them")
    if symbol and symbol not in strategy.symbols:
        raise UsageError(f"{strategy.name} has no symbol {symbol!r}; it has: {', '.join(strategy.symbols)}")
    stored = installation.resources.accounts.last(strategy.name)
    day = session or (session_at(dataset, at) if at else None) or (stored.session if stored else None)
    if day is None:
        raise UsageError(
            f"{strategy.name} has not traded yet: say which --session, or run: quantlytic backfill {strategy.name}"
        )
    symbols = [symbol] if symbol else strategy.symbols
    return explain_session(installation.resources, dataset, strategy, day, symbols, at)


def _print_order(out: Console, explained: OrderExplanation) -> None:
    table = Table("link", "id", "time (UTC)", "what it says", title=_title(explained))
    for kind, links in groupby(explained.links, key=lambda one: one.kind):
        some = list(links)
        for link in some[:_SHOWN]:
            time = "" if link.time is None else f"{link.time:%Y-%m-%d %H:%M:%S}"
            table.add_row(link.kind, link.id, time, _says(link))
        if len(some) > _SHOWN:
            table.add_row(kind, f"and {len(some) - _SHOWN} more", "", "--json has all of them")
    out.print(table)


def _title(explained: OrderExplanation) -> str:
    order = explained.order
    filled = f", {order['filled']:g} at {order['average_price']:g}" if order.get("filled") else ""
    quantity = f" {order['quantity']:g}" if order.get("quantity") else ""
    asked = f"{order.get('side', 'order of')}{quantity} {order['symbol']}"
    return f"{explained.order_id}: {asked} is {order['status']}{filled}"


def _says(link: Link) -> str:
    facts = ", ".join(f"{name} {_shown(value)}" for name, value in link.facts.items() if name not in _LONG)
    return "\n".join(one for one in (facts, link.note) if one)


def _shown(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value)) or "none"
    return str(value)


def _session_json(answer: SessionAnswer) -> dict[str, Any]:
    bars = [
        {
            "symbol": one.symbol,
            "open_time": one.open_time,
            "close_time": one.close_time,
            "answer": one.verdict.code,
            "text": one.verdict.text,
            "signal": one.signal["signal"] if one.signal else None,
            "strength": one.signal["strength"] if one.signal else None,
            "reason": one.signal["reason"] if one.signal else None,
            "flags": list(one.flags),
            "orders": list(one.verdict.orders),
            "events": list(one.verdict.events),
        }
        for one in answer.answers
    ]
    return {
        "strategy": answer.strategy,
        "session": answer.session,
        "traded_through": answer.traded_through,
        "why": answer.why,
        "bars": bars,
    }


def _print_session(out: Console, answer: SessionAnswer) -> None:
    """A row a stretch of bars of a symbol with the same answer."""
    if answer.why:
        out.print(f"{answer.strategy}: {answer.why}", highlight=False, soft_wrap=True)
        return
    table = Table("symbol", "bars (UTC)", "answer", "why", "orders", title=f"{answer.strategy} on {answer.session}")
    for (symbol, code), some in groupby(answer.answers, key=lambda one: (one.symbol, one.verdict.code)):
        for stretch in [[one] for one in some] if code in _EACH else [list(some)]:
            orders = dict.fromkeys(order for one in stretch for order in one.verdict.orders)
            table.add_row(symbol, _bars(stretch), code, _why(stretch), "\n".join(orders))
    out.print(table)


def _bars(stretch: list[BarAnswer]) -> str:
    first, last = stretch[0], stretch[-1]
    return f"{first.open_time:%H:%M} … {last.close_time:%H:%M} ({len(stretch):,})"


def _why(stretch: list[BarAnswer]) -> str:
    texts = list(dict.fromkeys(one.verdict.text for one in stretch))
    said = texts[-1] if len(texts) == 1 else f"the last one: {texts[-1]}"
    flags = dict.fromkeys(flag for one in stretch for flag in one.flags)
    return f"{said}\nflags: {', '.join(flags)}" if flags else said

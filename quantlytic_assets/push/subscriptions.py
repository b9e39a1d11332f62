"""Subscriptions: which channels of the journal a reader wants, read from its frame and checked against the catalog."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantlytic_assets.push.catalog import Catalog
from quantlytic_assets.push.frames import FrameError
from quantlytic_assets.push.updates import PARTS

# What a channel may be read with.
SCOPES = {
    "bars": "market:read",
    "latest": "market:read",
    "features": "market:read",
    "signals": "trading:read",
    "orders": "trading:read",
}
FIELDS = (
    "action",
    "id",
    "dataset",
    "symbols",
    "channels",
    "intervals",
    "strategies",
    "snapshot",
    "conflate_ms",
    "cursor",
)
_MOST_NAMES = 5_000
_MOST_ROWS = 5_000
_MOST_CONFLATED_MS = 10_000


@dataclass(frozen=True)
class Subscription:
    """Channels of one dataset, or of strategies. None for symbols, intervals or strategies: all of them."""

    channels: frozenset[str]
    dataset: str | None = None
    symbols: frozenset[str] | None = None
    intervals: frozenset[str] | None = None
    strategies: frozenset[str] | None = None

    def wants(self, channel: tuple[str, ...]) -> bool:
        """Whether a channel of the journal, which is known, belongs to it."""
        if channel[0] not in self.channels:
            return False
        for part, value in zip(PARTS[channel[0]], channel[1:], strict=True):
            if part == "dataset":
                wanted = value == self.dataset
            else:
                names: frozenset[str] | None = getattr(self, f"{part}s" if part != "strategy" else "strategies")
                wanted = names is None or value in names
            if not wanted:
                return False
        return True


Selection = frozenset[Subscription]


def wants(selection: Iterable[Subscription], channel: tuple[str, ...]) -> bool:
    """Whether one of the subscriptions wants a channel, which is known."""
    return any(one.wants(channel) for one in selection)


@dataclass(frozen=True)
class Request:
    """What a frame `subscribe` asks for.

    identity: the reader's name of the subscription, None where it gave none; snapshot: rows of bars and features in
    the snapshot; conflate_ms: how long updates are gathered, None where nothing is said; cursor: as it was sent.
    """

    identity: str | None
    subscription: Subscription
    snapshot: int
    conflate_ms: int | None
    cursor: str | None


def requested(frame: Mapping[str, Any], catalog: Catalog) -> Request:
    """What a frame asks for; raises `FrameError` that says what would be right."""
    _no_other_fields(frame, FIELDS)
    channels = _names(frame, "channels", tuple(PARTS)) or _default_channels(frame)
    dataset = _dataset(frame, catalog, channels)
    strategies = _names(frame, "strategies", tuple(catalog.strategies))
    of_strategies = sorted(channel for channel in channels if "strategy" in PARTS[channel])
    if of_strategies and strategies is None and frame.get("strategies") != "*":
        raise FrameError(
            "strategies", f'strategies: name those whose {" and ".join(of_strategies)} you want, or "*"; there are '
            + _listed(tuple(catalog.strategies)),
        )  # fmt: skip
    market = catalog.markets[dataset] if dataset is not None else None
    if market is not None:
        symbols, intervals = _names(frame, "symbols", market.symbols), _names(frame, "intervals", market.intervals)
        if symbols is None and frame.get("symbols") != "*":
            raise FrameError(
                "symbols", f'symbols: name some, or "*" for all; {dataset} has {_listed(market.symbols)}'
            )  # fmt: skip
    else:
        every = tuple(dict.fromkeys(symbol for _, symbols in catalog.strategies.values() for symbol in symbols))
        symbols, intervals = _names(frame, "symbols", every), None
    return Request(
        _identity(frame),
        Subscription(channels, dataset, symbols, intervals, strategies),
        _whole(frame, "snapshot", 0, _MOST_ROWS, 1),
        _whole(frame, "conflate_ms", 0, _MOST_CONFLATED_MS, None),
        _text(frame, "cursor"),
    )


def _default_channels(frame: Mapping[str, Any]) -> frozenset[str]:
    market, trading = frame.get("dataset") is not None, frame.get("strategies") is not None
    return frozenset((["bars", "latest"] if market or not trading else []) + (["signals", "orders"] if trading else []))


def _dataset(frame: Mapping[str, Any], catalog: Catalog, channels: frozenset[str]) -> str | None:
    named = _text(frame, "dataset")
    of_markets = sorted(channel for channel in channels if "dataset" in PARTS[channel])
    if named is None:
        if of_markets:
            raise FrameError(
                "dataset", f"dataset: {' and '.join(of_markets)} need one of {_listed(tuple(catalog.markets))}"
            )  # fmt: skip
        return None
    if named not in catalog.markets:
        raise FrameError("dataset", f"dataset: there is no {named!r:.60}; there are {_listed(tuple(catalog.markets))}")
    return named


def _identity(frame: Mapping[str, Any]) -> str | None:
    named = _text(frame, "id")
    if named is not None and not 0 < len(named) <= 64:
        raise FrameError("id", "id: a text of 1 to 64 characters, or left out")
    return named


def _no_other_fields(frame: Mapping[str, Any], fields: Sequence[str]) -> None:
    other = [str(name)[:40] for name in frame if name not in fields]
    if other:
        raise FrameError("field", f"{', '.join(other[:5])}: no such field; there are {', '.join(fields)}")


def _text(frame: Mapping[str, Any], field: str) -> str | None:
    value = frame.get(field)
    if value is not None and not isinstance(value, str):
        raise FrameError(field, f"{field}: a text, not {value!r:.60}")
    return value


def _whole(frame: Mapping[str, Any], field: str, least: int, most: int, default: Any) -> Any:
    value = frame.get(field)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise FrameError(field, f"{field}: a whole number from {least} to {most}, not {value!r:.60}")
    return value


def _names(frame: Mapping[str, Any], field: str, there: Sequence[str]) -> frozenset[str] | None:
    """The names in a field, each of which must be there; None where it is left out or "*"."""
    value = frame.get(field)
    if value is None or value == "*":
        return None
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or len(names) > _MOST_NAMES:
        raise FrameError(field, f'{field}: a list of 1 to {_MOST_NAMES} names, or "*", not {value!r:.60}')
    # What is no text has no hash, perhaps.
    wrong = [name for name in names if not isinstance(name, str) or name not in there]
    if wrong:
        raise FrameError(field, f"{field}: there is no {wrong[0]!r:.60}; there are {_listed(there)}")
    return frozenset(names)


def _listed(names: Sequence[str]) -> str:
    return (", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")) or "none"

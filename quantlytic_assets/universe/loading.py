"""Reading a universe file: which fields its datasets and outages have, and what makes them consistent.

Nothing here fetches, stores or computes. What comes of it is in `universe`, the fields of strategies are in
`universe_strategies`; how YAML is read and how a field's type is checked is in `universe_validation`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.universe.models import Comparison, Dataset, Instrument, Outage, Strategy, Universe, UniverseError
from quantlytic_assets.universe.strategies import read_strategy
from quantlytic_assets.universe.validation import REJECTED, Fields, describe, nearest, read_tree, short, suggestion
from quantlytic_assets.vendors.registry import VENDOR_NAMES

PARTITIONS = ("session", "month")
OUT_OF_SESSION = ("drop", "keep")
INCOMPLETE_BARS = ("drop", "keep")
FEEDS = ("binance_trades", "binance_klines", "coinbase_trades")

# No new bar for so long in a running session is worth an alert: several missed landings, not one that is late.
_STALE_AFTER = timedelta(minutes=15)
# Nobody keeps more, and dates end somewhere.
_LONGEST_SPAN = timedelta(days=36_500)

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_SYMBOL = re.compile(r"[\w^.=/:+\-&$#@!~*]{1,64}")
_INSTRUMENT_FIELDS = ("symbol", "from", "to", "names")
_DATASET_FIELDS = (
    "calendar",
    "interval",
    "partition",
    "first_session",
    "last_session",
    "vendors",
    "venue",
    "out_of_session",
    "delay",
    "feature_intervals",
    "incomplete_bars",
    "feed",
    "stale_after",
    "keep",
    "compare_with",
    "symbols",
)
_DATASET_REQUIRED = ("calendar", "interval", "first_session", "vendors", "symbols")
_COMPARISON_FIELDS = ("dataset", "tolerance_bps")
_OUTAGE_FIELDS = ("venue", "from", "to", "source")
_OUTAGE_REQUIRED = ("venue", "from", "to")


def load_universe(path: str | Path) -> Universe:
    """Read and check a universe file. Raises `UniverseError` with all its mistakes."""
    path = Path(path)
    tree, mistakes = read_tree(path)
    if mistakes and not tree:
        raise UniverseError(path, mistakes)
    top = Fields(tree, "", mistakes, ("datasets", "strategies", "outages"), ("datasets",))
    datasets = {
        name: _dataset(name, part, mistakes)
        for name, part in _parts(top, "datasets", "a mapping of datasets by name", mistakes)
    }
    if not datasets and isinstance(tree.get("datasets"), dict) and not tree["datasets"]:
        top.wrong("datasets", "is empty, declare at least one dataset")
    _check_comparisons(datasets, mistakes)
    outages = _outages(top, datasets, mistakes)
    datasets = {
        name: replace(one, outages=tuple(outage for outage in outages if outage.venue == one.venue))
        for name, one in datasets.items()
    }
    strategies: dict[str, Strategy] = {}
    if top.has("strategies"):
        for name, part in _parts(top, "strategies", "a mapping of strategies by name", mistakes):
            if name in datasets:
                mistakes.append(f"strategies.{short(name)}: a dataset has this name too, give the strategy another one")
            strategies[name] = read_strategy(name, part, datasets, mistakes)
    if mistakes:
        raise UniverseError(path, mistakes)
    return Universe(path, datasets, strategies)


def _parts(top: Fields, section: str, wanted: str, mistakes: list[str]) -> list[tuple[str, Mapping[str, Any]]]:
    """Name and mapping of each declaration in a section, its name checked."""
    found = top.raw(section, wanted)
    if found is None:
        return []
    if not isinstance(found, dict):
        top.wrong(section, f"is {describe(found)}, it should be {wanted}")
        return []
    parts = []
    for name, part in found.items():
        place = f"{section}.{short(name)}"
        if not _NAME.fullmatch(name):
            mistakes.append(
                f"{place}: no usable name, take lower-case letters, digits and _ (63 at most), a letter first"
            )
        if part is REJECTED:
            continue
        if not isinstance(part, dict):
            mistakes.append(f"{place}: is {describe(part)}, it should be a mapping of fields")
            continue
        parts.append((name, part))
    return parts


def _dataset(name: str, part: Mapping[str, Any], mistakes: list[str]) -> Dataset:
    """The dataset, with placeholders where there was a mistake: such a universe is never handed out."""
    path = f"datasets.{short(name)}"
    fields = Fields(part, path, mistakes, _DATASET_FIELDS, _DATASET_REQUIRED)
    calendar = _calendar(fields)
    interval = fields.choice("interval", tuple(INTERVALS))
    first = fields.day("first_session")
    last = fields.day("last_session")
    backwards = bool(first and last and last < first)
    if backwards:
        fields.wrong("last_session", f"{last} is before first_session {first}, swap or correct them")
    return Dataset(
        name=name,
        calendar=calendar or "",
        interval=interval or "",
        partition=fields.choice("partition", PARTITIONS) or ("month" if interval == "1d" else "session"),
        first_session=first or date.min,
        last_session=last,
        vendors=_vendors(fields),
        venue=_venue(fields) or name,
        out_of_session=fields.choice("out_of_session", OUT_OF_SESSION, "drop") or "drop",
        delay=fields.duration("delay", timedelta(0)),
        feature_intervals=_feature_intervals(fields, interval),
        symbols=_instruments(fields, path, None if backwards else first, None if backwards else last, mistakes),
        feed=_feed(fields, calendar, interval),
        stale_after=_stale_after(fields, interval),
        keep=_span(fields, "keep", timedelta(days=1)),
        compare_with=_comparison(fields, path, mistakes),
        incomplete_bars=fields.choice("incomplete_bars", INCOMPLETE_BARS, "drop") or "drop",
    )


def _comparison(fields: Fields, path: str, mistakes: list[str]) -> Comparison | None:
    wanted = "{dataset: …, tolerance_bps: 10}"
    found = fields.raw("compare_with", wanted)
    if found is None:
        return None
    if not isinstance(found, dict):
        fields.wrong("compare_with", f"is {describe(found)}, it should be {wanted}")
        return None
    inner = Fields(found, f"{path}.compare_with", mistakes, _COMPARISON_FIELDS, ("dataset",))
    other = inner.text("dataset", "the name of another dataset")
    tolerance = inner.number("tolerance_bps", 10, 0, 10_000)
    return Comparison(other, tolerance) if other is not None else None


def _check_comparisons(datasets: Mapping[str, Dataset], mistakes: list[str]) -> None:
    """Whether what is compared can be: another dataset at the same interval with a symbol of the same name."""
    for name, one in datasets.items():
        if one.compare_with is None:
            continue
        place = f"datasets.{short(name)}.compare_with.dataset"
        others = tuple(other for other in datasets if other != name)
        wanted = one.compare_with.dataset
        if wanted not in others:
            hint = suggestion(wanted, others) if others else "declare another one or leave compare_with out"
            mistakes.append(f"{place}: '{short(wanted)}' is not another dataset, {hint}")
            continue
        other = datasets[wanted]
        if one.interval and other.interval and one.interval != other.interval:
            mistakes.append(
                f"{place}: {wanted} has {other.interval} bars and {name} {one.interval} ones, take one with the same"
            )
        elif one.symbols and other.symbols and not {i.symbol for i in one.symbols} & {i.symbol for i in other.symbols}:
            mistakes.append(f"{place}: {wanted} has none of the symbols of {name}, take one that has")


def _outages(top: Fields, datasets: Mapping[str, Dataset], mistakes: list[str]) -> list[Outage]:
    """The register of known outages, oldest first."""
    wanted = "{venue: …, from: …, to: …, source: …}"
    venues = tuple(dict.fromkeys(one.venue for one in datasets.values()))
    found = []
    for i, item in enumerate(top.listed("outages", f"a list of {wanted}") or []):
        place = f"outages[{i}]"
        if not isinstance(item, dict):
            if item is not REJECTED:
                top.wrong(place, f"is {describe(item)}, it should be {wanted}")
            continue
        fields = Fields(item, place, mistakes, _OUTAGE_FIELDS, _OUTAGE_REQUIRED)
        venue, start, end = fields.text("venue", "a venue of a dataset"), fields.moment("from"), fields.moment("to")
        source = fields.text("source", "who says so, such as an address") or ""
        if venue is not None and venue not in venues:
            fields.wrong("venue", f"no dataset is of venue '{short(venue)}', {suggestion(venue, venues)} or remove it")
        elif start and end and end <= start:
            fields.wrong("to", f"{end:%Y-%m-%dT%H:%MZ} is not after from, swap or correct them")
        elif venue and start and end:
            found.append(Outage(venue, start, end, source))
    return sorted(found, key=lambda outage: outage.start)


def _span(fields: Fields, name: str, least: timedelta) -> timedelta | None:
    """A length of time that may be left out, at least so long."""
    if not fields.has(name):
        return None
    span = fields.duration(name, least)
    if span < least:
        fields.wrong(name, f"is too short, take {f'{least.days}d' if least.days else '1m'} or more")
    elif span > _LONGEST_SPAN:
        fields.wrong(name, f"is too long, take {_LONGEST_SPAN.days}d or less, or leave it out")
    return span


def _feed(fields: Fields, calendar: str | None, interval: str | None) -> str | None:
    feed = fields.choice("feed", FEEDS)
    if feed and calendar and interval and (calendar, interval) != ("24/7", "1m"):
        fields.wrong("feed", f"live feeds give 1m bars round the clock, not {interval} on {calendar}; leave it out")
    return feed


def _stale_after(fields: Fields, interval: str | None) -> timedelta | None:
    """A fed dataset that names none has the usual one."""
    span = _span(fields, "stale_after", timedelta(minutes=1))
    if span is not None and interval == "1d":
        fields.wrong("stale_after", "a 1d dataset has no bar while its session runs, leave it out")
    return span if span is not None or not fields.has("feed") else _STALE_AFTER


def _calendar(fields: Fields) -> str | None:
    calendar = fields.text("calendar", "24/7 or a name of exchange_calendars such as XNYS")
    if calendar is None or calendar == "24/7":
        return calendar
    # Here, because the library takes a second to load and a round-the-clock universe does without it.
    from exchange_calendars import get_calendar_names

    known = get_calendar_names(include_aliases=True)
    if calendar not in known:
        near = nearest(calendar, known)
        hint = f"did you mean '{near}'?" if near else "take 24/7 or a name of exchange_calendars such as XNYS"
        fields.wrong("calendar", f"'{short(calendar)}' is no known calendar, {hint}")
        return None
    return calendar


def _vendors(fields: Fields) -> tuple[str, ...]:
    listed = fields.words("vendors", "a list of vendors, or [] for imported files and live feeds only") or []
    for place, name in listed:
        if name not in VENDOR_NAMES:
            fields.wrong(place, f"'{short(name)}' is no known vendor, {suggestion(name, VENDOR_NAMES)}")
    return tuple(name for _, name in listed)


def _venue(fields: Fields) -> str | None:
    venue = fields.text("venue", "the name of the market place")
    if venue is not None and not venue.strip():
        fields.wrong("venue", "is blank, name the market place or leave the field out")
    return venue


def _feature_intervals(fields: Fields, native: str | None) -> tuple[str, ...]:
    """Finest first, whatever the order in the file; the native interval alone where the file names none."""
    listed = fields.words("feature_intervals", f"a list of {', '.join(INTERVALS)}")
    if listed is None:
        return (native,) if native and not fields.has("feature_intervals") else ()
    if not listed and not fields.listed("feature_intervals", "a list"):
        fields.wrong("feature_intervals", "is empty, name an interval or leave the field out")
    good = []
    for place, interval in listed:
        if interval not in INTERVALS:
            fields.wrong(place, f"'{short(interval)}' is not an interval, take one of {', '.join(INTERVALS)}")
        elif native and INTERVALS[interval] < INTERVALS[native]:
            fields.wrong(place, f"{interval} is finer than the bars ({native}), take {native} or coarser")
        elif native and INTERVALS[interval] % INTERVALS[native]:
            fields.wrong(place, f"{interval} is not a multiple of {native}, take one that is")
        else:
            good.append(interval)
    return tuple(sorted(good, key=INTERVALS.__getitem__))


def _instruments(
    fields: Fields, path: str, first: date | None, last: date | None, mistakes: list[str]
) -> tuple[Instrument, ...]:
    items = fields.listed("symbols", "a list of symbols")
    if items is not None and not items:
        fields.wrong("symbols", "is empty, list at least one symbol")
    found: dict[str, Instrument] = {}
    for i, item in enumerate(items or []):
        place = f"symbols[{i}]"
        since = until = None
        names: dict[str, str] = {}
        if isinstance(item, dict):
            inner = Fields(item, f"{path}.{place}", mistakes, _INSTRUMENT_FIELDS, ("symbol",))
            symbol = inner.text("symbol", "a symbol such as AAPL")
            since, until = inner.day("from"), inner.day("to")
            _check_membership(inner, since, until, first, last)
            names = _names(inner, f"{path}.{place}", mistakes)
        else:
            symbol = fields.as_text(item, place, "a symbol, or {symbol: …, from: …, to: …}")
        if symbol is None:
            continue
        if not _SYMBOL.fullmatch(symbol):
            fields.wrong(place, f"'{short(symbol)}' is no usable symbol, take letters, digits and ^.=/:+-&$#@!~* only")
        elif symbol in found:
            fields.wrong(place, f"'{symbol}' is listed twice, remove one")
        else:
            found[symbol] = Instrument(symbol, since, until, names)
    return tuple(found.values())


def _names(inner: Fields, path: str, mistakes: list[str]) -> dict[str, str]:
    wanted = "a mapping of vendors to their name of the symbol, such as {binance: BTCUSDT}"
    found = inner.raw("names", wanted)
    if found is None:
        return {}
    if not isinstance(found, dict):
        inner.wrong("names", f"is {describe(found)}, it should be {wanted}")
        return {}
    each = Fields(found, f"{path}.names", mistakes, VENDOR_NAMES, ())
    given = {vendor: each.text(vendor, "the vendor's name of the symbol") for vendor in VENDOR_NAMES if vendor in found}
    return {vendor: name for vendor, name in given.items() if name is not None}


def _check_membership(
    inner: Fields, since: date | None, until: date | None, first: date | None, last: date | None
) -> None:
    if since and until and until < since:
        inner.wrong("to", f"{until} is before from {since}, swap or correct them")
        return
    for name, day in (("from", since), ("to", until)):
        if day and first and day < first:
            inner.wrong(name, f"{day} is before the dataset's first_session {first}, take a later day or leave it out")
        elif day and last and day > last:
            inner.wrong(name, f"{day} is after the dataset's last_session {last}, take an earlier day or leave it out")

"""What the universe file declares: datasets with their symbols, and strategies on them, validated as a whole.

Nothing here fetches, stores or computes. How YAML is read and how a field's type is checked is in
`universe_validation`; what makes a universe consistent is here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from quantlytic_assets.market_data.bars import INTERVALS
from quantlytic_assets.universe_validation import REJECTED, Fields, describe, nearest, read_tree, short, suggestion

PARTITIONS = ("session", "month")
OUT_OF_SESSION = ("drop", "keep")
RETRAIN = ("monthly", "yearly")
BROKERS = ("simulated", "ibkr")
FEEDS = ("binance_trades", "binance_klines", "coinbase_trades")

# No new bar for so long in a running session is worth an alert: several missed landings, not one that is late.
_STALE_AFTER = timedelta(minutes=15)

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_SYMBOL = re.compile(r"[\w^.=/:+\-&$#@!~*]{1,64}")
_INSTRUMENT_FIELDS = ("symbol", "from", "to", "names")
_COST_FIELDS = ("commission_bps", "slippage_bps")
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
    "feed",
    "stale_after",
    "keep",
    "compare_with",
    "symbols",
)
_DATASET_REQUIRED = ("calendar", "interval", "first_session", "vendors", "symbols")
_STRATEGY_FIELDS = (
    "dataset",
    "interval",
    "symbols",
    "model",
    "features",
    "horizon",
    "retrain",
    "min_train_sessions",
    "embargo_sessions",
    "broker",
    "capital",
    "costs",
)
_STRATEGY_REQUIRED = ("dataset", "interval", "model")
_COMPARISON_FIELDS = ("dataset", "tolerance_bps")
_OUTAGE_FIELDS = ("venue", "from", "to", "source")
_OUTAGE_REQUIRED = ("venue", "from", "to")


@dataclass(frozen=True)
class Instrument:
    """A symbol and the first and last session (inclusive) on which it belongs to its dataset; None: no such bound.

    `names`: what a vendor calls it, by vendor, where that can't be derived.
    """

    symbol: str
    first: date | None = None
    last: date | None = None
    names: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Outage:
    """A time [start, end), UTC, in which a venue is known to have been down: nobody has bars. `source`: who says."""

    venue: str
    start: datetime
    end: datetime
    source: str = ""


@dataclass(frozen=True)
class Comparison:
    """Another dataset with bars of the same market, and how far apart (1/10,000 of the price) the two may be."""

    dataset: str
    tolerance_bps: float


@dataclass(frozen=True)
class Dataset:
    """One market at one interval. `last_session` None means open-ended; `delay` is added to a bar's close time;

    `feed` is the live feed that `quantlytic feed` runs for it, if any. `stale_after`: a running session without a new
    bar for so long raises an alert; None: none does. `keep`: older sessions leave the lake; None: all stay. `outages`
    are the known ones of its venue. `compare_with`: what its prices are checked against, if anything.
    """

    name: str
    calendar: str
    interval: str
    partition: str
    first_session: date
    last_session: date | None
    vendors: tuple[str, ...]
    venue: str
    out_of_session: str
    delay: timedelta
    feature_intervals: tuple[str, ...]
    symbols: tuple[Instrument, ...]
    feed: str | None = None
    stale_after: timedelta | None = None
    keep: timedelta | None = None
    outages: tuple[Outage, ...] = ()
    compare_with: Comparison | None = None


@dataclass(frozen=True)
class Costs:
    """What a trade costs, each in basis points (1/10,000) of its value."""

    commission_bps: float = 1.0
    slippage_bps: float = 2.0


@dataclass(frozen=True)
class Strategy:
    """A model traded on a dataset. `symbols` are resolved to the dataset's own where the file names none;
    `features` None means all."""

    name: str
    dataset: str
    interval: str
    symbols: tuple[str, ...]
    model: str
    features: tuple[str, ...] | None
    horizon: int
    retrain: str
    min_train_sessions: int
    embargo_sessions: int
    broker: str
    capital: float
    costs: Costs


@dataclass(frozen=True)
class Universe:
    """Everything a universe file declares, by name and in the file's order."""

    path: Path
    datasets: dict[str, Dataset]
    strategies: dict[str, Strategy]


class UniverseError(Exception):
    """A universe file with mistakes: `path`, and `mistakes` with one line each."""

    def __init__(self, path: Path, mistakes: Sequence[str]):
        super().__init__(path, mistakes)
        self.path = path
        self.mistakes = list(mistakes)

    def __str__(self) -> str:
        return "\n".join(self.mistakes)


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
            strategies[name] = _strategy(name, part, datasets, mistakes)
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
    from quantlytic_assets.vendors.registry import VENDOR_NAMES

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
    from quantlytic_assets.vendors.registry import VENDOR_NAMES

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


def _strategy(name: str, part: Mapping[str, Any], datasets: Mapping[str, Dataset], mistakes: list[str]) -> Strategy:
    """The strategy, with placeholders where there was a mistake: such a universe is never handed out."""
    from quantlytic_assets.learning.models import MODEL_NAMES

    path = f"strategies.{short(name)}"
    fields = Fields(part, path, mistakes, _STRATEGY_FIELDS, _STRATEGY_REQUIRED)
    on = fields.text("dataset", "the name of a dataset above")
    dataset = datasets.get(on) if on is not None else None
    if on is not None and dataset is None and datasets:
        fields.wrong("dataset", f"there is no dataset '{short(on)}', {suggestion(on, tuple(datasets))}")
    interval = fields.choice("interval", tuple(INTERVALS))
    # Empty only where the dataset's own field has a mistake, which is reported there.
    if interval and dataset and dataset.feature_intervals and interval not in dataset.feature_intervals:
        fields.wrong(
            "interval",
            f"{interval} is not among the feature_intervals of {on}, take one of "
            f"{', '.join(dataset.feature_intervals)} or add it there",
        )
    return Strategy(
        name=name,
        dataset=on or "",
        interval=interval or "",
        symbols=_strategy_symbols(fields, dataset),
        model=fields.choice("model", MODEL_NAMES) or "",
        features=_features(fields),
        horizon=fields.whole("horizon", 1, 1, 10_000),
        retrain=fields.choice("retrain", RETRAIN, "yearly") or "yearly",
        min_train_sessions=fields.whole("min_train_sessions", 504, 1, 100_000),
        embargo_sessions=fields.whole("embargo_sessions", 5, 0, 10_000),
        broker=fields.choice("broker", BROKERS, "simulated") or "simulated",
        capital=fields.number("capital", 100_000, 0, 1e15, open_below=True),
        costs=_costs(fields, path, mistakes),
    )


def _strategy_symbols(fields: Fields, dataset: Dataset | None) -> tuple[str, ...]:
    known = tuple(one.symbol for one in dataset.symbols) if dataset else ()
    listed = fields.words("symbols", "a list of the dataset's symbols")
    if listed is None:
        return known
    if not listed and not fields.listed("symbols", "a list"):
        fields.wrong("symbols", "is empty, list symbols or leave the field out for all of the dataset")
    for place, symbol in listed:
        if known and symbol not in known:
            fields.wrong(place, f"'{short(symbol)}' is not in dataset {dataset.name}, {suggestion(symbol, known)}")
    return tuple(symbol for _, symbol in listed)


def _features(fields: Fields) -> tuple[str, ...] | None:
    listed = fields.words("features", "a list of feature columns")
    if listed is None:
        return None
    from quantlytic_assets.learning.features import FEATURE_COLUMNS

    if not listed and not fields.listed("features", "a list"):
        fields.wrong("features", "is empty, name features or leave the field out for all")
    for place, name in listed:
        if name not in FEATURE_COLUMNS:
            fields.wrong(place, f"'{short(name)}' is no feature, {suggestion(name, FEATURE_COLUMNS)}")
    return tuple(name for _, name in listed)


def _costs(fields: Fields, path: str, mistakes: list[str]) -> Costs:
    wanted = "a mapping such as {commission_bps: 1, slippage_bps: 2}"
    found = fields.raw("costs", wanted)
    if found is None:
        return Costs()
    if not isinstance(found, dict):
        fields.wrong("costs", f"is {describe(found)}, it should be {wanted}")
        return Costs()
    inner = Fields(found, f"{path}.costs", mistakes, _COST_FIELDS, ())
    return Costs(
        commission_bps=inner.number("commission_bps", Costs.commission_bps, 0, 1000),
        slippage_bps=inner.number("slippage_bps", Costs.slippage_bps, 0, 1000),
    )

"""What the fields of a universe file must be to each other: every rule that more than one field takes part in.

Declarations may be partial: None is a field with a mistake of its own, of which nothing more is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.universe.declarations import (
    MODEL_FIELDS,
    NOT_OF_PORTFOLIO,
    DatasetDeclaration,
    StrategyDeclaration,
    SymbolDeclaration,
    UniverseDeclaration,
)
from quantlytic_assets.universe.fields import suggestion
from quantlytic_assets.universe.yaml_tree import Place, short

Mistakes = Iterator[tuple[Place, str]]


def inconsistencies(universe: UniverseDeclaration) -> Mistakes:
    """Each mistake with its place."""
    datasets = {name: one for name, one in (universe.datasets or {}).items() if one is not None}
    for name, dataset in datasets.items():
        place: Place = ("datasets", name)
        yield from _dataset(place, dataset)
        yield from _comparison((*place, "compare_with", "dataset"), name, datasets)
    yield from _outages(universe, datasets)
    for name, strategy in (universe.strategies or {}).items():
        if name in (universe.datasets or {}):
            yield ("strategies", name), "a dataset has this name too, give the strategy another one"
        if strategy is not None:
            yield from _strategy(("strategies", name), strategy, datasets)
            yield from _members(("strategies", name, "portfolio"), name, strategy, universe.strategies or {})


def venue_of(name: str, dataset: DatasetDeclaration) -> str:
    """The venue of a dataset: its own name where the file names none."""
    return dataset.venue or name


def _repeated(place: Place, words: Iterable[str | None] | None) -> Mistakes:
    seen: set[str] = set()
    for i, word in enumerate(words or ()):
        if word is not None and word in seen:
            yield (*place, i), f"'{short(word)}' is listed twice, remove one"
        seen.add(word or "")


def _dataset(place: Place, dataset: DatasetDeclaration) -> Mistakes:
    first: date | None = dataset.first_session
    last: date | None = dataset.last_session
    if first and last and last < first:
        yield (*place, "last_session"), f"{last} is before first_session {first}, swap or correct them"
        first = last = None
    replayed = dataset.replay_from
    if replayed and first and replayed <= first:
        yield (*place, "replay_from"), f"{replayed} leaves nothing to ask for, take a day after first_session {first}"
    elif replayed and last and replayed > last:
        yield (*place, "replay_from"), f"{replayed} is after last_session {last}, take an earlier day or leave it out"
    yield from _repeated((*place, "vendors"), dataset.vendors)
    yield from _repeated((*place, "feature_intervals"), dataset.feature_intervals)
    native = dataset.interval
    for i, interval in enumerate(dataset.feature_intervals or ()):
        if interval and native and INTERVALS[interval] < INTERVALS[native]:
            yield (
                (*place, "feature_intervals", i),
                (f"{interval} is finer than the bars ({native}), take {native} or coarser"),
            )
        elif interval and native and INTERVALS[interval] % INTERVALS[native]:
            yield (*place, "feature_intervals", i), f"{interval} is not a multiple of {native}, take one that is"
    if dataset.feed and native and dataset.calendar and (dataset.calendar, native) != ("24/7", "1m"):
        live = f"live feeds give 1m bars round the clock, not {native} on {dataset.calendar}; leave it out"
        yield (*place, "feed"), live
    if dataset.stale_after and native == "1d":
        yield (*place, "stale_after"), "a 1d dataset has no bar while its session runs, leave it out"
    symbols = dataset.symbols or ()
    yield from _repeated((*place, "symbols"), [one.symbol if one else None for one in symbols])
    for i, symbol in enumerate(symbols):
        if symbol:
            yield from _membership((*place, "symbols", i), symbol, first, last)


def _membership(place: Place, symbol: SymbolDeclaration, first: date | None, last: date | None) -> Mistakes:
    since, until = symbol.first, symbol.last
    if since and until and until < since:
        yield (*place, "to"), f"{until} is before from {since}, swap or correct them"
        return
    for name, day in (("from", since), ("to", until)):
        if day and first and day < first:
            said = f"{day} is before the dataset's first_session {first}, take a later day or leave it out"
            yield (*place, name), said
        elif day and last and day > last:
            said = f"{day} is after the dataset's last_session {last}, take an earlier day or leave it out"
            yield (*place, name), said


def _comparison(place: Place, name: str, datasets: dict[str, DatasetDeclaration]) -> Mistakes:
    """Whether what is compared can be: another dataset at the same interval with a symbol of the same name."""
    one = datasets[name]
    if one.compare_with is None or one.compare_with.dataset is None:
        return
    wanted = one.compare_with.dataset
    others = tuple(other for other in datasets if other != name)
    if wanted not in others:
        hint = suggestion(wanted, others) if others else "declare another one or leave compare_with out"
        yield place, f"'{short(wanted)}' is not another dataset, {hint}"
        return
    other = datasets[wanted]
    if one.interval and other.interval and one.interval != other.interval:
        yield place, f"{wanted} has {other.interval} bars and {name} {one.interval} ones, take one with the same"
    elif one.symbols and other.symbols and not _symbols(one) & _symbols(other):
        yield place, f"{wanted} has none of the symbols of {name}, take one that has"


def _symbols(dataset: DatasetDeclaration) -> set[str]:
    return {one.symbol for one in dataset.symbols or () if one and one.symbol}


def _outages(universe: UniverseDeclaration, datasets: dict[str, DatasetDeclaration]) -> Mistakes:
    venues = tuple(dict.fromkeys(venue_of(name, one) for name, one in datasets.items()))
    for i, outage in enumerate(universe.outages or ()):
        if outage is None:
            continue
        if outage.venue and outage.venue not in venues:
            hint = suggestion(outage.venue, venues)
            yield ("outages", i, "venue"), f"no dataset is of venue '{short(outage.venue)}', {hint} or remove it"
        if outage.start and outage.end and outage.end <= outage.start:
            yield ("outages", i, "to"), f"{outage.end:%Y-%m-%dT%H:%MZ} is not after from, swap or correct them"


def _kind(place: Place, strategy: StrategyDeclaration) -> Mistakes:
    """Whether a strategy has a model, a rule or a portfolio, and nothing that goes with another one."""
    given = strategy.model_fields_set
    if "portfolio" in given:
        for name in ("model", "rule", *MODEL_FIELDS, *NOT_OF_PORTFOLIO):
            if name in given:
                yield (*place, name), "is its members' business in a portfolio; leave it out"
    elif "model" in given:
        if "capital" in given and strategy.account and "capital" in strategy.account.model_fields_set:
            yield (*place, "capital"), "stands in the account too, keep one of the two"
    elif "rule" in given:
        for name in MODEL_FIELDS:
            if name in given and name == "capital":
                yield (*place, name), "of a rule stands in its account, write account: {capital: …}"
            elif name in given:
                yield (*place, name), "goes with a model, and this strategy has none; leave it out"
    else:
        yield place, "has neither a model nor a rule nor a portfolio, add one, such as rule: buy_and_hold"


def _members(
    place: Place, name: str, portfolio: StrategyDeclaration, strategies: Mapping[str, StrategyDeclaration | None]
) -> Mistakes:
    """Whether the members of a portfolio are other strategies of its dataset and interval."""
    for member in portfolio.portfolio or {}:
        others = [other for other in strategies if other != name]
        one = strategies.get(member) if member != name else None
        if member not in others:
            hint = suggestion(member, others) if others else "declare another one first"
            yield (*place, member), f"'{short(member)}' is no other strategy, {hint}"
        elif one is not None and "portfolio" in one.model_fields_set:
            yield (*place, member), f"{member} is a portfolio itself; name its members"
        elif one is not None and (one.dataset, one.interval) != (portfolio.dataset, portfolio.interval):
            yield (
                (*place, member),
                f"{member} is on {one.dataset} at {one.interval}; members are on the portfolio's own",
            )


def _strategy(place: Place, strategy: StrategyDeclaration, datasets: dict[str, DatasetDeclaration]) -> Mistakes:
    yield from _kind(place, strategy)
    yield from _repeated((*place, "symbols"), strategy.symbols)
    yield from _repeated((*place, "features"), strategy.features)
    dataset = datasets.get(strategy.dataset)
    if dataset is None:
        if strategy.dataset and datasets:
            hint = suggestion(strategy.dataset, tuple(datasets))
            yield (*place, "dataset"), f"there is no dataset '{short(strategy.dataset)}', {hint}"
        return
    offered = list(dict.fromkeys(one for one in dataset.feature_intervals or [dataset.interval] if one))
    if strategy.interval and offered and strategy.interval not in offered:
        said = f"{strategy.interval} is not among the feature_intervals of {strategy.dataset}, take one of "
        yield (*place, "interval"), f"{said}{', '.join(offered)} or add it there"
    known = list(dict.fromkeys(one.symbol for one in dataset.symbols or () if one and one.symbol))
    for i, symbol in enumerate(strategy.symbols or ()):
        if symbol and known and symbol not in known:
            hint = suggestion(symbol, known)
            yield (*place, "symbols", i), f"'{short(symbol)}' is not in dataset {strategy.dataset}, {hint}"

"""From a universe file to a universe, or to all of its mistakes, each with its place and line.

Shapes of fields are `declarations`' business, rules between them `consistency`'s, YAML `yaml_tree`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.calendars.partitions import check_keep, first_trading_day
from quantlytic_assets.universe.alert_choice import thresholds, wrong_alerts
from quantlytic_assets.universe.consistency import inconsistencies, venue_of
from quantlytic_assets.universe.declarations import DatasetDeclaration, StrategyDeclaration, UniverseDeclaration
from quantlytic_assets.universe.feature_choice import (
    CORE,
    expanded,
    features_of,
    learnable,
    plugins_of,
    warm_up_bars,
    wrong_features,
)
from quantlytic_assets.universe.mistakes import line_of, read_declarations, written
from quantlytic_assets.universe.models import (
    Comparison,
    Dataset,
    Instrument,
    ModelStrategy,
    Outage,
    PortfolioStrategy,
    Strategy,
    Universe,
    UniverseError,
)
from quantlytic_assets.universe.rule_choice import decided_by, has_model, is_portfolio, with_needed, wrong_rules
from quantlytic_assets.universe.yaml_tree import Place, read_tree

# No new bar for so long in a running session is worth an alert: several missed landings, not one that is late.
_STALE_AFTER = timedelta(minutes=15)


def load_universe(path: str | Path) -> Universe:
    """Read and check a universe file.

    Raises `UniverseError` with all its mistakes, a line each, in the file's order: place, what is wrong, what would be
    right, and where it stands.
    """
    path = Path(path)
    tree = read_tree(path)
    declared, mistakes = read_declarations(UniverseDeclaration, tree)
    plugins, wrong_plugins = plugins_of(declared, path.parent)
    mistakes = [
        *mistakes,
        *inconsistencies(declared),
        *wrong_plugins,
        *wrong_features(declared, plugins),
        *wrong_rules(declared, plugins, not wrong_plugins),
    ]
    # The others are partial; what is wrong with them has been said.
    wrong = {place[:2] for place, _ in mistakes}
    good = {name: one for name, one in (declared.datasets or {}).items() if ("datasets", name) not in wrong}
    outages = [Outage(one.venue, one.start, one.end, one.source) for one in declared.outages] if not wrong else []
    # With a mistake in a plugin or a set, nothing that names features can be made.
    if any(place[:1] in {("plugins",), ("feature_sets",)} for place, _ in mistakes):
        good = {}
    sets = {name: members or [] for name, members in (declared.feature_sets or {}).items()}
    datasets = {name: _dataset(name, one, outages, expanded(one, sets), plugins) for name, one in good.items()}
    right = {
        name: one
        for name, one in (declared.strategies or {}).items()
        if ("strategies", name) not in wrong and one.dataset in datasets
    }
    needed: dict[str, list[str]] = {}
    strategies: dict[str, Strategy] = {}
    for name, one in right.items():
        if not is_portfolio(one):
            strategies[name], wanted = _strategy(name, one, datasets[one.dataset])
            needed.setdefault(one.dataset, []).extend(wanted)
    mistakes += _short_histories(datasets, strategies)
    # Models learn from what their dataset declares itself: what rules need beside comes when they have been made.
    whole = datasets | {
        name: replace(datasets[name], features=with_needed(datasets[name].features, plugins, wanted))
        for name, wanted in needed.items()
    }
    mistakes += wrong_alerts(declared, whole)
    if mistakes:
        said = [(line_of(tree, place), f"{written(place) or 'file'}: {sentence}") for place, sentence in mistakes]
        raise UniverseError(path, [f"{one} ({path}:{line})" for line, one in sorted(said, key=lambda pair: pair[0])])
    datasets = whole
    strategies = {name: replace(one, declared=datasets[one.dataset].features) for name, one in strategies.items()}
    strategies |= {
        name: _portfolio(name, one, datasets[one.dataset], strategies)
        for name, one in right.items()
        if is_portfolio(one)
    }
    return Universe(path, datasets, strategies, thresholds(declared, datasets))


def _dataset(
    name: str, one: DatasetDeclaration, outages: list[Outage], features: tuple[str, ...], plugins: tuple[str, ...]
) -> Dataset:
    venue = venue_of(name, one)
    return Dataset(
        name=name,
        calendar=one.calendar,
        interval=one.interval,
        partition=one.partition or ("month" if one.interval == "1d" else "session"),
        first_session=one.first_session,
        last_session=one.last_session,
        vendors=tuple(one.vendors),
        venue=venue,
        out_of_session=one.out_of_session,
        delay=one.delay,
        # Finest first, whatever the order in the file.
        feature_intervals=tuple(sorted(one.feature_intervals or [one.interval], key=INTERVALS.__getitem__)),
        symbols=tuple(Instrument(each.symbol, each.first, each.last, each.names) for each in one.symbols),
        feed=one.feed,
        stale_after=one.stale_after or (_STALE_AFTER if one.feed else None),
        keep=one.keep,
        keep_hot=one.keep_hot,
        outages=tuple(sorted((one for one in outages if one.venue == venue), key=lambda outage: outage.start)),
        compare_with=Comparison(**one.compare_with.model_dump()) if one.compare_with else None,
        incomplete_bars=one.incomplete_bars,
        replay_from=one.replay_from,
        features=features,
        plugins=plugins,
    )


def _strategy(name: str, one: StrategyDeclaration, dataset: Dataset) -> tuple[Strategy, tuple[str, ...]]:
    """A strategy, and the declarations of features that its rule needs."""
    decided, needed = decided_by(one, dataset, dataset.plugins)
    common: dict[str, Any] = {
        "name": name,
        "dataset": one.dataset,
        "interval": one.interval,
        "symbols": tuple(one.symbols or (each.symbol for each in dataset.symbols)),
        "declared": dataset.features,
        "plugins": dataset.plugins,
        "broker": one.broker,
        **decided,
    }
    if not has_model(one):
        return Strategy(**common), needed
    warm_up: dict[str, Any] = (
        {} if dataset.features == CORE else {"warm_up_bars": warm_up_bars(features_of(dataset), one.features)}
    )
    model = ModelStrategy(
        **common,
        **warm_up,
        model=one.model,
        features=tuple(one.features) if one.features else _all_features(dataset),
        horizon=one.horizon,
        retrain=one.retrain,
        min_train_sessions=one.min_train_sessions,
        embargo_sessions=one.embargo_sessions,
    )
    return model, needed


def _portfolio(
    name: str, one: StrategyDeclaration, dataset: Dataset, strategies: Mapping[str, Strategy]
) -> PortfolioStrategy:
    """A portfolio: its symbols are those of its members, in the order of the dataset's."""
    decided, _ = decided_by(one, dataset, dataset.plugins)
    members = tuple(strategies[member] for member in one.portfolio)
    traded = {symbol for member in members for symbol in member.symbols}
    return PortfolioStrategy(
        name=name,
        dataset=one.dataset,
        interval=one.interval,
        symbols=tuple(each.symbol for each in dataset.symbols if each.symbol in traded),
        declared=dataset.features,
        plugins=dataset.plugins,
        broker=one.broker,
        members=members,
        **decided,
    )


def _all_features(dataset: Dataset) -> tuple[str, ...] | None:
    return None if dataset.features == CORE else learnable(features_of(dataset))


def _short_histories(
    datasets: Mapping[str, Dataset], strategies: Mapping[str, Strategy]
) -> Iterator[tuple[Place, str]]:
    """Strategies whose dataset can never have the sessions they are to learn from, or does not keep them so long."""
    for name, strategy in strategies.items():
        if not isinstance(strategy, ModelStrategy):
            continue
        dataset = datasets[strategy.dataset]
        checks: tuple[tuple[Place, Callable[[Dataset, ModelStrategy], object]], ...] = (
            (("strategies", name, "min_train_sessions"), first_trading_day),
            (("datasets", dataset.name, "keep"), check_keep),
        )
        for place, check in checks:
            try:
                check(dataset, strategy)
            except ValueError as error:
                yield place, str(error)

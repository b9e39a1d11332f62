"""Reading a strategy of a universe file: which fields it has, and what they ask of its dataset.

The other parts of the file are `universe_file`'s; what models and features are called is known to `learning`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.learning.models import MODEL_NAMES
from quantlytic_assets.universe.models import Costs, Dataset, Strategy
from quantlytic_assets.universe.validation import Fields, describe, short, suggestion

RETRAIN = ("monthly", "yearly")
BROKERS = ("simulated", "ibkr")

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
_COST_FIELDS = ("commission_bps", "slippage_bps")


def read_strategy(name: str, part: Mapping[str, Any], datasets: Mapping[str, Dataset], mistakes: list[str]) -> Strategy:
    """The strategy of that name with the fields `part`; what is wrong with them is appended to `mistakes`, a line each.

    It has placeholders where there was a mistake: such a universe is never handed out. `datasets` are those of the
    file, by name.
    """
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
    # Here, because it takes a while to load and few strategies name their features.
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

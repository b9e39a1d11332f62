"""What a universe file may hold, as pydantic models: from them follow the checks of each field and the JSON Schema.

Each model is one mapping of the file with the file's own names. What fields mean together is in `consistency`; what the
rest of the code works with, defaults filled in, is in `models`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import ConfigDict, Discriminator, Tag

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.calendars.names import CALENDAR_NAMES
from quantlytic_assets.learning.models import MODEL_NAMES
from quantlytic_assets.universe.fields import (
    SYMBOL_SCHEMA,
    Day,
    Declaration,
    Item,
    Key,
    Moment,
    Name,
    Parsed,
    Symbol,
    Venue,
    number,
    one_of,
    optional,
    required,
    span,
    suggestion,
    symbol,
    text,
    whole,
    wrong,
)
from quantlytic_assets.vendors.registry import VENDOR_NAMES

_ZERO = timedelta(0)
# Nobody keeps more, and dates end somewhere.
_LONGEST = timedelta(days=36_500)
_A_CALENDAR = "24/7 or a name of exchange_calendars such as XNYS"
_UNIQUE: dict[str, Any] = {"json_schema_extra": {"uniqueItems": True}}

_Calendar = one_of(CALENDAR_NAMES, "no known calendar", f"take {_A_CALENDAR}", _A_CALENDAR)
_Interval = one_of(tuple(INTERVALS))
_DropOrKeep = one_of(("drop", "keep"))


def _vendor_key(name: str) -> str:
    if name not in VENDOR_NAMES:
        raise wrong(f"unknown vendor, {suggestion(name, VENDOR_NAMES)}")
    return name


_VendorKey = Parsed("a vendor", _vendor_key, {"type": "string", "enum": list(VENDOR_NAMES)})


class SymbolDeclaration(Declaration):
    """A symbol that joined or left its dataset, or that a vendor calls otherwise."""

    model_config = ConfigDict(title="a symbol, or {symbol: …, from: …, to: …}")

    symbol: Symbol = required("The symbol.")
    first: Day = optional("First session in the dataset, inclusive.", alias="from")
    last: Day = optional("Last session in the dataset, inclusive.", alias="to")
    names: dict[
        Key[Annotated[str, _VendorKey]],
        Item[Annotated[str, text("the vendor's name of the symbol")]],
    ] = optional(
        "What a vendor calls the symbol, where that can't be derived.",
        {},
        "a mapping of vendors to their name of the symbol, such as {binance: BTCUSDT}",
    )


def _kind_of_symbol(value: Any) -> str:
    return "{mapping}" if isinstance(value, dict) else "{name}"


_PlainSymbol = Parsed(
    "a symbol such as AAPL", lambda value: SymbolDeclaration.model_construct(symbol=symbol(value)), SYMBOL_SCHEMA
)
_AnySymbol = Annotated[
    Annotated[SymbolDeclaration, _PlainSymbol, Tag("{name}")] | Annotated[SymbolDeclaration, Tag("{mapping}")],
    Discriminator(_kind_of_symbol),
]


class ComparisonDeclaration(Declaration):
    """Another dataset to compare prices with; a check fails where they are further apart."""

    model_config = ConfigDict(title="{dataset: …, tolerance_bps: 10}")

    dataset: Annotated[str, text("the name of another dataset")] = required("Same interval, and symbols in common.")
    tolerance_bps: Annotated[float, number(0, 10_000)] = optional("How far apart closes may be, in basis points.", 10.0)


class DatasetDeclaration(Declaration):
    """One market at one interval."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"required": ["feed"]},
            "then": {"properties": {"calendar": {"const": "24/7"}, "interval": {"const": "1m"}}},
            "not": {"required": ["stale_after"], "properties": {"interval": {"const": "1d"}}},
        }
    )

    calendar: Annotated[str, _Calendar] = required("24/7, or a name of exchange_calendars: decides what a session is.")
    interval: Annotated[str, _Interval] = required("Length of the bars as they come in.")
    partition: Annotated[str, one_of(("session", "month"))] = optional(
        "How Dagster slices the dataset. Default: month for 1d, session otherwise."
    )
    first_session: Day = required("First session, inclusive.")
    last_session: Day = optional("Last session, inclusive. Left out: it goes on, today included.")
    vendors: list[Item[Annotated[str, one_of(VENDOR_NAMES, "no known vendor")]]] = required(
        "Whom to ask for bars, in order of preference.",
        "a list of vendors, or [] for imported files and live feeds only",
        **_UNIQUE,
    )
    venue: Venue = optional(
        "Bars that most symbols of a venue miss at once are an outage. Default: the dataset's name."
    )
    out_of_session: Annotated[str, _DropOrKeep] = optional(
        "Bars outside trading hours: drop (they go to quarantine) or keep.", "drop"
    )
    delay: Annotated[timedelta, span(_ZERO)] = optional("How long after its close a bar can be used.", _ZERO)
    feature_intervals: list[Item[Annotated[str, one_of(tuple(INTERVALS), "not an interval")]]] = optional(
        "Bars that features are computed on. Default: the dataset's interval.",
        wanted=f"a list of {', '.join(INTERVALS)}",
        min_length=1,
        **_UNIQUE,
    )
    incomplete_bars: Annotated[str, _DropOrKeep] = optional(
        "Whether features, labels, predictions and trades may use bars that have not ended or have a hole.", "drop"
    )
    replay_from: Day = optional(
        "Vendors are not asked for sessions from this one on; `quantlytic replay` publishes them as a live feed would."
    )
    feed: Annotated[str, one_of(("binance_trades", "binance_klines", "coinbase_trades"))] = optional(
        "Live feed for `quantlytic feed`; for 1m bars round the clock."
    )
    stale_after: Annotated[timedelta, span(timedelta(minutes=1), _LONGEST)] = optional(
        "An alert when no bar came in for so long while a session runs. Default: 15m with a feed, else none."
    )
    keep: Annotated[timedelta, span(timedelta(days=1), _LONGEST)] = optional(
        "Older sessions leave the lake's tables, not the archive. Default: all stay."
    )
    features: list[Item[Annotated[str, text("a feature, such as rsi, sma(10) or core")]]] = optional(
        "Feature sets and features of the dataset's bars; `quantlytic features` lists them. Default: core.",
        wanted="a list of features and feature sets",
        min_length=1,
        **_UNIQUE,
    )
    compare_with: ComparisonDeclaration = optional("A dataset that this one's prices are checked against.")
    symbols: list[Item[_AnySymbol]] = required(
        "Symbols, each a name, or a mapping that says from when to when.", "a list of symbols", min_length=1
    )


class OutageDeclaration(Declaration):
    """A known outage of a venue: nobody is asked for what is missing then."""

    model_config = ConfigDict(title="{venue: …, from: …, to: …, source: …}")

    venue: Annotated[str, text("a venue of a dataset")] = required("The venue of one or more datasets.")
    start: Moment = required("When it began.", alias="from")
    end: Moment = required("When it was over.", alias="to")
    source: Annotated[str, text("who says so, such as an address")] = optional("Who says so.", "")


class CostsDeclaration(Declaration):
    """What a trade costs, in basis points of its value."""

    model_config = ConfigDict(title="a mapping such as {commission_bps: 1, slippage_bps: 2}")

    commission_bps: Annotated[float, number(0, 1000)] = optional("Commission.", 1.0)
    slippage_bps: Annotated[float, number(0, 1000)] = optional("Slippage.", 2.0)


def _broker(value: Any) -> str:
    if value == "simulated":
        return "simulated"
    if value == "ibkr":
        raise wrong("there is no ibkr broker yet, only simulated exists until it lands; take simulated")
    raise wrong("{given} is not known, it should be simulated")


class StrategyDeclaration(Declaration):
    """A model that is traded on a dataset."""

    dataset: Annotated[str, text("the name of a dataset above")] = required("The dataset.")
    interval: Annotated[str, _Interval] = required("One of the dataset's feature_intervals.")
    symbols: list[Item[Annotated[str, text("a symbol of the dataset")]]] = optional(
        "Symbols to trade. Default: all of the dataset.",
        wanted="a list of the dataset's symbols",
        min_length=1,
        **_UNIQUE,
    )
    model: Annotated[str, one_of(MODEL_NAMES)] = required("The model.")
    features: list[Item[Annotated[str, text("a column of the dataset's features, such as rsi_14")]]] = optional(
        "Columns of the dataset's features. Default: all that a model can learn from.",
        wanted="a list of feature columns",
        min_length=1,
        **_UNIQUE,
    )
    horizon: Annotated[int, whole(1, 10_000)] = optional("How many bars ahead the model predicts.", 1)
    retrain: Annotated[str, one_of(("monthly", "yearly"))] = optional("Walk forward by month or year.", "yearly")
    min_train_sessions: Annotated[int, whole(1, 100_000)] = optional("Sessions seen before the first prediction.", 504)
    embargo_sessions: Annotated[int, whole(0, 10_000)] = optional("Sessions left out before predicting.", 5)
    broker: Annotated[str, Parsed("simulated", _broker, {"const": "simulated"})] = optional(
        "Who executes orders.", "simulated"
    )
    capital: Annotated[float, number(0, 1e15, above=True)] = optional(
        "Money at the start, in the currency of the prices.", 100_000.0
    )
    costs: CostsDeclaration = optional("What a trade costs.", CostsDeclaration.model_construct())


class UniverseDeclaration(Declaration):
    """What Quantlytic works on: datasets with their symbols, strategies on them, known outages of venues."""

    datasets: dict[Name, Item[DatasetDeclaration]] = required(
        "Markets at an interval, by name.", "a mapping of datasets by name", min_length=1
    )
    strategies: dict[Name, Item[StrategyDeclaration]] = optional(
        "Strategies, by name.", {}, "a mapping of strategies by name"
    )
    plugins: list[Item[Annotated[str, text("a Python file beside this one, or an installed module")]]] = optional(
        "Python files beside the universe file, or installed modules, with features of one's own.",
        [],
        "a list of Python files or modules",
        **_UNIQUE,
    )
    feature_sets: dict[Name, Item[list[Item[Annotated[str, text("a feature, such as rsi or sma(10)")]]]]] = optional(
        "Named lists of features, which datasets may name.", {}, "a mapping of lists of features by name"
    )
    outages: list[Item[OutageDeclaration]] = optional(
        "The register of known outages.", [], "a list of {venue: …, from: …, to: …, source: …}"
    )

"""What a universe file may hold, as pydantic models: from them follow the checks of each field and the JSON Schema.

Each model is one mapping of the file with the file's own names. What fields mean together is in `consistency`; what the
rest of the code works with, defaults filled in, is in `models`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

from pydantic import ConfigDict, Discriminator, Tag

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.calendars.names import CALENDAR_NAMES
from quantlytic_assets.learning.models import MODEL_NAMES
from quantlytic_assets.thresholds.condition import Condition, ConditionError, condition
from quantlytic_assets.trading.engine.codes import FORCES, ORDER_TYPES, SIZINGS
from quantlytic_assets.universe.fields import (
    FLAG,
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
    percentage,
    required,
    share,
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
    keep_hot: Annotated[timedelta, span(timedelta(days=1), _LONGEST)] = optional(
        "Older sessions leave the hot store, from which the API answers. Default: it has all that the lake has."
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


def _condition(value: Any) -> Condition:
    try:
        return condition(value)
    except ConditionError as error:
        raise wrong(str(error).replace("{", "(").replace("}", ")")) from None


class AlertDeclaration(Declaration):
    """A condition on bars, features or an account that people are told of."""

    model_config = ConfigDict(title="{dataset: …, symbols: …, when: …, cooldown: …}")

    when: Annotated[
        Condition,
        Parsed("a condition such as rsi_14 < 30 or close crosses above sma_200", _condition, {"type": "string"}),
    ] = required(
        "The condition: columns of the dataset's bars and features compared (<, <=, >, >=, crosses, crosses above, "
        "crosses below) with numbers or with each other, joined by and, or; staleness > 5m; drawdown(strategy) > 10%."
    )
    dataset: Annotated[str, text("the name of a dataset above")] = optional(
        "The dataset; left out for the drawdown of a strategy."
    )
    symbols: list[Item[Annotated[str, text("a symbol of the dataset")]]] = optional(
        "Symbols that are looked at. Default: all of the dataset.",
        wanted="a list of the dataset's symbols",
        min_length=1,
        **_UNIQUE,
    )
    interval: Annotated[str, _Interval] = optional("One of the dataset's feature_intervals. Default: the first.")
    cooldown: Annotated[timedelta, span(_ZERO, _LONGEST)] = optional(
        "How long after it was told it is not told again.", timedelta(hours=1)
    )


class OutageDeclaration(Declaration):
    """A known outage of a venue: nobody is asked for what is missing then."""

    model_config = ConfigDict(title="{venue: …, from: …, to: …, source: …}")

    venue: Annotated[str, text("a venue of a dataset")] = required("The venue of one or more datasets.")
    start: Moment = required("When it began.", alias="from")
    end: Moment = required("When it was over.", alias="to")
    source: Annotated[str, text("who says so, such as an address")] = optional("Who says so.", "")


class CostsDeclaration(Declaration):
    """What a trade costs beside its price."""

    model_config = ConfigDict(title="a mapping such as {commission_bps: 1, slippage_bps: 2}")

    commission_bps: Annotated[float, number(0, 1000)] = optional("Commission, of an order's value.", 1.0)
    slippage_bps: Annotated[float, number(0, 1000)] = optional("Slippage, of what takes liquidity.", 2.0)
    per_share: Annotated[float, number(0, 1e6)] = optional("Commission for each unit.", 0.0)
    per_order: Annotated[float, number(0, 1e9)] = optional("Commission for each order.", 0.0)
    minimum: Annotated[float, number(0, 1e9)] = optional("The least commission of an order.", 0.0)
    maximum_bps: Annotated[float, number(0, 10_000)] = optional(
        "The most commission of an order, of its value. Default: no limit."
    )
    spread_bps: Annotated[float, number(0, 10_000)] = optional("Bid to ask; what takes liquidity pays half of it.", 0.0)
    impact: Annotated[float, number(0, 1000)] = optional(
        "Market impact: this times the price times the square of the share of the bar's volume.", 0.0
    )
    borrow_bps_annual: Annotated[float, number(0, 100_000)] = optional("A year's fee of what is sold short.", 0.0)
    financing_bps_annual: Annotated[float, number(0, 100_000)] = optional("A year's interest on borrowed cash.", 0.0)


class OrdersDeclaration(Declaration):
    """How targets become orders; distances are from the close that was decided on."""

    model_config = ConfigDict(title="a mapping such as {type: limit, time_in_force: day, offset_bps: 10}")

    type: Annotated[str, one_of(ORDER_TYPES)] = optional("Type of the orders.", "market")
    time_in_force: Annotated[str, one_of(FORCES)] = optional(
        "How long they work: to the session's end (day), until filled (gtc), at the first price (ioc).", "day"
    )
    offset_bps: Annotated[float, number(0, 9_999)] = optional(
        "Of a limit: how much better than the close; of a stop: how far beyond it.", 0.0
    )
    limit_offset_bps: Annotated[float, number(0, 9_999)] = optional(
        "Of a stop_limit: how far its limit is beyond the stop.", 0.0
    )
    trail: Annotated[float, share(0, 0.99, above=True)] = optional("Of a trailing_stop: its distance from the price.")


class ExitsDeclaration(Declaration):
    """When a position is closed although the rule would keep it."""

    model_config = ConfigDict(title="a mapping such as {stop_loss: 5%, take_profit: 10%, max_bars: 20}")

    stop_loss: Annotated[float, share(0, 0.99, above=True)] = optional("At this loss, of the average price.")
    take_profit: Annotated[float, share(0, 9.99, above=True)] = optional("At this gain, of the average price.")
    trailing_stop: Annotated[float, share(0, 0.99, above=True)] = optional("So far below the best price since entry.")
    atr_stop: Annotated[float, number(0, 1000, above=True)] = optional("At a loss of so many ATRs of the entry.")
    max_bars: Annotated[int, whole(1, 1_000_000)] = optional("After so many bars.")
    reenter: Annotated[bool, FLAG] = optional(
        "Whether a symbol is entered again while the signal that was left by an exit is still there.", False
    )


class SizingDeclaration(Declaration):
    """How much money a target is."""

    model_config = ConfigDict(title="a mapping such as {method: volatility_target, annual: 10%}")

    method: Annotated[str, one_of(SIZINGS)] = optional(
        "Default: equal_weight; weights where the rule gives shares of the equity itself, as rebalance does."
    )
    amount: Annotated[float, number(0, 1e15, above=True)] = optional("Of fixed: money in a position.")
    fraction: Annotated[float, share(0, 9.99, above=True)] = optional("Of fixed: a position's share of the equity.")
    annual: Annotated[float, share(0, 9.99, above=True)] = optional("Of volatility_target: the volatility of a year.")
    cap: Annotated[float, share(0, 9.99, above=True)] = optional("Of kelly: the largest share of the equity.")
    lookback: Annotated[int, whole(2, 100_000)] = optional("Bars that volatility and mean are estimated from.", 60)
    periods_per_year: Annotated[float, number(0, 1e7, above=True)] = optional(
        "Bars in a year. Default: those of the dataset's calendar."
    )
    symbols: Annotated[int, whole(1, 100_000)] = optional(
        "Of equal_weight and volatility_target: parts that the equity is in. Default: the strategy's symbols."
    )


class RiskDeclaration(Declaration):
    """Limits: an order beyond them is made smaller or refused, a loss beyond them halts the strategy."""

    model_config = ConfigDict(title="a mapping such as {max_position: 25%, max_drawdown: 20%}")

    max_position: Annotated[float, share(0, 9.99, above=True)] = optional("A position's largest share of the equity.")
    max_gross: Annotated[float, share(0, 9.99, above=True)] = optional(
        "All positions' largest share of the equity.", 1.0
    )
    max_daily_loss: Annotated[float, share(0, 1, above=True)] = optional(
        "A loss since the last session that halts the strategy until the next one."
    )
    max_drawdown: Annotated[float, share(0, 1, above=True)] = optional("A loss since the best equity that halts it.")
    var_95: Annotated[float, share(0, 1, above=True)] = optional(
        "A value at risk of a session (95 %, historical) that halts it."
    )
    cooldown_bars: Annotated[int, whole(0, 1_000_000)] = optional("Bars without entry after a stop.", 0)
    resume_after_sessions: Annotated[int, whole(1, 100_000)] = optional(
        "Sessions after which a halt for drawdown or var_95 ends. Default: it does not end by itself."
    )
    liquidate: Annotated[bool, FLAG] = optional("Whether a halt closes what is held.", True)


class AccountDeclaration(Declaration):
    """The account and the conventions of its fills."""

    model_config = ConfigDict(title="a mapping such as {capital: 100000, short: false, leverage: 1}")

    capital: Annotated[float, number(0, 1e15, above=True)] = optional(
        "Money at the start, in the currency of the prices.", 100_000.0
    )
    short: Annotated[bool, FLAG] = optional("Whether it may sell short.", False)
    leverage: Annotated[float, number(0, 100, above=True)] = optional(
        "Gross exposure that a unit of equity bears.", 1.0
    )
    volume_cap: Annotated[float | None, share(0, 1, above=True, word="none")] = optional(
        "What part of a bar's volume all orders of a symbol can have, or none for no limit.", 0.025
    )
    limit_fill: Annotated[str, one_of(("penetrate", "touch"))] = optional(
        "Whether a limit fills once the price is beyond it, or at it.", "penetrate"
    )
    stop_limit_fill: Annotated[str, one_of(("close_inside", "best"))] = optional(
        "Whether a stop_limit fills in the bar of its stop only if the bar closes inside the limit.", "close_inside"
    )
    fill_at: Annotated[str, one_of(("open", "close"))] = optional(
        "The price of the bar that market orders get.", "open"
    )
    rebalance_band: Annotated[float, share(0, 1)] = optional("A holding so near its target is left as it is.", 0.0)
    cash_buffer: Annotated[float, share(0, 0.99)] = optional("A share of the equity that stays cash.", 0.0)


_RULE = "a rule such as buy_and_hold or {ma_cross: {fast: 20, slow: 50}}"


def _plain(value: Any) -> Any:
    """A parameter of a rule as a plain value: `5%` is 0.05."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    found = percentage(value)
    return value if found is None else found


def _rule(value: Any) -> str | dict[str, dict[str, Any] | None]:
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or len(value) != 1:
        raise wrong(f"{{given}} is no rule, it should be {_RULE}")
    ((name, parameters),) = value.items()
    if parameters is not None and not isinstance(parameters, dict):
        raise wrong(f"{{given}} is no rule, it should be {_RULE}")
    return {name: None if parameters is None else _plain(parameters)}


_RULE_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": {"type": ["object", "null"]},
        },
    ]
}


# Who can execute orders: the engine, or a paper account at Interactive Brokers.
BROKERS = ("simulated", "ibkr")


def _broker(value: Any) -> str:
    if value in BROKERS:
        return str(value)
    raise wrong("{given} is not known, it should be simulated or ibkr")


# What a portfolio does not have, for its members have it; and what a strategy has with a model only.
NOT_OF_PORTFOLIO = ("sizing", "symbols")
MODEL_FIELDS = ("features", "horizon", "retrain", "min_train_sessions", "embargo_sessions", "capital")


def _any_of(names: Sequence[str]) -> dict[str, Any]:
    return {"anyOf": [{"required": [name]} for name in names]}


class StrategyDeclaration(Declaration):
    """A rule that is traded on a dataset, with or without a model whose score it reads."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["model"], "not": _any_of(("portfolio",))},
                {"required": ["rule"], "not": _any_of(("model", "portfolio", *MODEL_FIELDS))},
                {"required": ["portfolio"], "not": _any_of(("model", "rule", *MODEL_FIELDS, *NOT_OF_PORTFOLIO))},
            ]
        }
    )

    dataset: Annotated[str, text("the name of a dataset above")] = required("The dataset.")
    interval: Annotated[str, _Interval] = required("One of the dataset's feature_intervals.")
    symbols: list[Item[Annotated[str, text("a symbol of the dataset")]]] = optional(
        "Symbols to trade. Default: all of the dataset.",
        wanted="a list of the dataset's symbols",
        min_length=1,
        **_UNIQUE,
    )
    model: Annotated[str, one_of(MODEL_NAMES)] = optional(
        "The model, whose score the rule reads; a strategy without one has a rule."
    )
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
    broker: Annotated[str, Parsed("simulated or ibkr", _broker, {"enum": list(BROKERS)})] = optional(
        "Who executes orders: simulated, or ibkr for a paper account at Interactive Brokers.", "simulated"
    )
    capital: Annotated[float, number(0, 1e15, above=True)] = optional(
        "Money at the start, in the currency of the prices, for account: {capital: …}.", 100_000.0
    )
    rule: Annotated[str | dict[str, dict[str, Any] | None], Parsed(_RULE, _rule, _RULE_SCHEMA)] = optional(
        "The rule, built in or a plugin's: its name, or {name: {parameter: value}}. Default with a model: model."
    )
    portfolio: dict[Name, Item[Annotated[float, share(0, 1, above=True)]]] = optional(
        "Other strategies of the dataset and interval, traded in one account, each with its share of the equity.",
        wanted="a mapping of strategies to shares such as {cross_1d: 60%, momentum_1d: 40%}",
        min_length=1,
    )
    orders: OrdersDeclaration = optional("How targets become orders.", OrdersDeclaration.model_construct())
    exits: ExitsDeclaration = optional(
        "What closes a position beside the rule itself.", ExitsDeclaration.model_construct()
    )
    sizing: SizingDeclaration = optional("How large the positions are.", SizingDeclaration.model_construct())
    risk: RiskDeclaration = optional("Limits of the account.", RiskDeclaration.model_construct())
    account: AccountDeclaration = optional("The account.", AccountDeclaration.model_construct())
    costs: CostsDeclaration = optional("What trading costs.", CostsDeclaration.model_construct())


class UniverseDeclaration(Declaration):
    """What Quantlytic works on: datasets with their symbols, strategies on them, known outages of venues."""

    datasets: dict[Name, Item[DatasetDeclaration]] = required(
        "Markets at an interval, by name.", "a mapping of datasets by name", min_length=1
    )
    strategies: dict[Name, Item[StrategyDeclaration]] = optional(
        "Strategies, by name.", {}, "a mapping of strategies by name"
    )
    plugins: list[Item[Annotated[str, text("a Python file beside this one, or an installed module")]]] = optional(
        "Python files beside the universe file, or installed modules, with features and rules of one's own.",
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
    alerts: list[Item[AlertDeclaration]] = optional(
        "What people are told of, by QUANTLYTIC_NOTIFY.", [], "a list of {dataset: …, when: …, cooldown: …}"
    )

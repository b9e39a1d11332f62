"""What strategies decide by: their declarations against the registry of rules and the engine's settings.

Rules are loaded only where a universe has such a strategy. The registry of features, which brings compilers with it, is
loaded only for plugins and for rules that read more than the set `core`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from quantlytic_assets.calendars.partitions import bars_per_session
from quantlytic_assets.calendars.sessions import ROUND_THE_CLOCK
from quantlytic_assets.universe.declarations import (
    DatasetDeclaration,
    SizingDeclaration,
    StrategyDeclaration,
    UniverseDeclaration,
)
from quantlytic_assets.universe.feature_choice import Mistakes, are_core, missing_declarations, wrong_declaration
from quantlytic_assets.universe.fields import Declaration, suggestion
from quantlytic_assets.universe.models import Dataset
from quantlytic_assets.universe.yaml_tree import Place, short

if TYPE_CHECKING:
    from quantlytic_assets.strategies.registry import Registry as Rules
    from quantlytic_assets.strategies.spec import Rule
    from quantlytic_assets.trading.engine.settings import EngineSettings

_PARTS = ("orders", "exits", "sizing", "risk", "costs")
# What a stop of so many ATRs is counted in.
_ATR = "atr(14)"
# The rule of a strategy with a model that declares none.
_OF_SCORE = "model"
_SESSIONS_A_YEAR = {True: 365, False: 252}


def has_model(strategy: StrategyDeclaration) -> bool:
    """Whether a strategy declares a model, a right one or not."""
    return "model" in strategy.model_fields_set


def is_portfolio(strategy: StrategyDeclaration) -> bool:
    """Whether a strategy is a portfolio of others."""
    return "portfolio" in strategy.model_fields_set


def rule_of(strategy: StrategyDeclaration) -> Any:
    """The rule of a strategy: with a model, unless another one is declared, the one that reads its score."""
    return _OF_SCORE if has_model(strategy) and "rule" not in strategy.model_fields_set else strategy.rule


def wrong_rules(declared: UniverseDeclaration, plugins: tuple[str, ...], all_plugins: bool = True) -> Mistakes:
    """Each mistake of strategies' rules: their names, their parameters, their features, and the settings.

    Without `all_plugins` some can't be used, which is said already, and an unknown name may be of one of them.
    """
    strategies = {name: one for name, one in (declared.strategies or {}).items() if one}
    if not strategies:
        return
    every = strategies
    strategies = {name: one for name, one in every.items() if not is_portfolio(one)}
    from quantlytic_assets.strategies.spec import Rule

    rules = _rules(plugins)
    datasets = {name: one for name, one in (declared.datasets or {}).items() if one is not None}
    for name, one in strategies.items():
        place: Place = ("strategies", name)
        weights = None
        if (rule := rule_of(one)) is not None:
            wrong = list(_wrong_rule((*place, "rule"), rule, rules))
            known = not wrong or _name(rule) in {spec.name for spec in rules.specs()}
            if not known and not all_plugins:
                wrong = []
            elif not wrong:
                bound = rules.bind(rule)
                weights = _weights(bound)
                if isinstance(bound, Rule):
                    wrong = [
                        *_wrong_features((*place, "rule"), bound, one.dataset, datasets, plugins),
                        *_wrong_inputs((*place, "rule"), bound, has_model(one)),
                        *_strange_symbols((*place, "rule"), bound, one, datasets.get(one.dataset)),
                    ]
                elif has_model(one):
                    wrong = [((*place, "rule"), f"{_name(rule)} is a bot, which reads no score; leave the model out")]
            yield from wrong
        yield from _wrong_settings(place, one, weights)
    for name, one in every.items():
        if is_portfolio(one):
            yield from _wrong_portfolio(("strategies", name), one, strategies, rules)
            yield from _wrong_settings(("strategies", name), one, None)


def _wrong_portfolio(
    place: Place, portfolio: StrategyDeclaration, strategies: Mapping[str, StrategyDeclaration], rules: Rules
) -> Mistakes:
    """Shares that are more than everything, and members that decide bar by bar."""
    shares = {name: value for name, value in (portfolio.portfolio or {}).items() if value is not None}
    if (total := sum(shares.values())) > 1 + 1e-9:
        yield (*place, "portfolio"), f"the shares of the members are together at most 100%, not {total:.0%}"
    from quantlytic_assets.strategies.bots import BotSpec

    bots = {spec.name for spec in rules.specs() if isinstance(spec, BotSpec)}
    for member in shares:
        rule = strategies[member].rule if member in strategies else None
        if rule is not None and _name(rule) in bots:
            yield (*place, "portfolio", member), f"{member} is a bot, which decides with its own positions in view"


def _wrong_rule(place: Place, declared: str | Mapping[str, Mapping[str, Any] | None], rules: Rules) -> Mistakes:
    """What is wrong with the rule's name, with each of its parameters, or with them together."""
    name = _name(declared)
    values = {} if isinstance(declared, str) else declared[name]
    within = place if isinstance(declared, str) else (*place, name)
    try:
        spec = rules.spec(name)
    except ValueError as error:
        yield within, str(error)
        return
    known = {one.name: one for one in spec.parameters}
    fine = True
    for parameter, value in (values or {}).items():
        try:
            # The message for a name that is none of them is the rule's own.
            _ = known[parameter].checked(value) if parameter in known else spec.bind(**{parameter: value})
        except ValueError as error:
            fine = False
            yield (*within, parameter), str(error).removeprefix(f"{name}: ")
    if fine:
        try:
            rules.bind(declared)
        except ValueError as error:
            yield within, str(error).removeprefix(f"{name}: ")
        except Exception as error:  # a bot begins with code of the user's: whatever it raises is said with its name
            yield within, f"{name}.on_start raised {type(error).__name__}: {error}"


def _rules(plugins: tuple[str, ...]) -> Rules:
    """The rules of the library and of plugins."""
    if plugins:
        from quantlytic_assets.universe.plugins import rules_with

        return rules_with(plugins)
    from quantlytic_assets.strategies.registry import Registry

    return Registry()


def _name(declared: str | Mapping[str, Any]) -> str:
    return declared if isinstance(declared, str) else next(iter(declared))


def _wrong_features(
    place: Place,
    rule: Rule,
    dataset: str,
    datasets: Mapping[str, DatasetDeclaration],
    plugins: tuple[str, ...],
) -> Mistakes:
    """What a rule reads and no dataset can have."""
    if not are_core(rule.declarations):
        from quantlytic_assets.universe.plugins import registry_with

        for one in rule.declarations:
            yield from wrong_declaration(place, one, dataset, datasets, registry_with(plugins))


def _wrong_inputs(place: Place, rule: Rule, with_model: bool) -> Mistakes:
    """Whether a rule reads the score of a model where there is one, and nowhere else; a user's function can."""
    if rule.spec.inputs and not with_model:
        names = ", ".join(rule.spec.inputs)
        yield place, f"{rule.spec.name} reads the {names} of a model; add one, such as model: logistic_regression"
    elif with_model and not rule.spec.inputs and rule.spec.function is None:
        yield place, f"{rule.spec.name} does not read the model's score; take the rule model, or leave the model out"


def _strange_symbols(
    place: Place, rule: Rule, strategy: StrategyDeclaration, dataset: DatasetDeclaration | None
) -> Mistakes:
    """Symbols that a rule gives weights and that the strategy does not have."""
    declared = (dataset.symbols if dataset else None) or ()
    known = [one for one in strategy.symbols or [each.symbol for each in declared if each] if one]
    for parameter in rule.spec.parameters:
        value = rule.values[parameter.name]
        if parameter.kind == "weights" and isinstance(value, Mapping) and known:
            for symbol in value:
                if symbol not in known:
                    within = (*place, rule.spec.name, parameter.name, symbol)
                    yield within, f"'{short(symbol)}' is no symbol of the strategy, {suggestion(symbol, known)}"


def _wrong_settings(place: Place, one: StrategyDeclaration, weights: str | None) -> Mistakes:
    """What contradicts itself in the settings, as the engine says it; `weights` as `RuleSpec` has it, if known."""
    from quantlytic_assets.trading.engine import settings

    parts: dict[str, Any] = {}
    makers: dict[str, Any] = {
        "orders": settings.OrderStyle, "exits": settings.Exits, "sizing": settings.Sizing, "risk": settings.Risk,
        "costs": settings.Costs,
    }  # fmt: skip
    fine = True
    for part, make in makers.items():
        given: Declaration | None = getattr(one, part)
        if given is None or _is_partial(given):
            fine = False
            continue
        values = given.model_dump()
        if isinstance(given, SizingDeclaration):
            values |= {"method": given.method or "equal_weight", "periods_per_year": given.periods_per_year or 252}
        try:
            parts[part] = make(**values)
        except ValueError as error:
            fine = False
            yield _said(place, error)
    if weights == "portfolio" and one.sizing and one.sizing.method not in (None, "weights"):
        yield (*place, "sizing", "method"), "the rule gives shares of the equity itself; take weights, or leave it out"
    if fine and one.account is not None and not _is_partial(one.account):
        try:
            settings.EngineSettings(**parts, **one.account.model_dump())
        except ValueError as error:
            yield _said(place, error)


def _is_partial(declared: Declaration) -> bool:
    """Whether a field that was given is known to be wrong; a volume cap of `none` is right."""
    return any(getattr(declared, name) is None and name != "volume_cap" for name in declared.model_fields_set)


def _said(place: Place, error: ValueError) -> tuple[Place, str]:
    """A mistake as the engine's settings word it: `exits.stop_loss: …`, fields of the account without its name."""
    field, _, sentence = str(error).partition(": ")
    parts = field.split(".")
    return (*place, *(parts if parts[0] in _PARTS else ("account", *parts))), sentence


def decided_by(
    one: StrategyDeclaration, dataset: Dataset, plugins: tuple[str, ...]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`rule`, `bar_by_bar` and `settings` of a strategy, and the declarations of features that these need.

    The declaration has no mistake.
    """
    from quantlytic_assets.strategies.spec import Rule

    if is_portfolio(one):
        return {"rule": {"portfolio": dict(one.portfolio)}, "settings": _settings(one, dataset, "portfolio")}, ()
    rule = rule_of(one)
    bound = _rules(plugins).bind(rule)
    needed = bound.declarations if isinstance(bound, Rule) else ()
    if one.exits.atr_stop is not None:
        needed = (*needed, _ATR)
    settings = _settings(one, dataset, _weights(bound))
    return {"rule": rule, "bar_by_bar": not isinstance(bound, Rule), "settings": settings}, needed


def with_needed(features: Sequence[str], plugins: tuple[str, ...], needed: Iterable[str]) -> tuple[str, ...]:
    """The features of a dataset and, behind them, those that its rules need and it does not have."""
    return (*features, *missing_declarations(features, plugins, needed))


def _settings(one: StrategyDeclaration, dataset: Dataset, weights: str) -> EngineSettings:
    from quantlytic_assets.trading.engine import settings

    sizing, account = one.sizing.model_dump(), one.account.model_dump()
    if "capital" in one.model_fields_set:
        account["capital"] = one.capital
    sizing["method"] = one.sizing.method or ("weights" if weights == "portfolio" else "equal_weight")
    sizing["periods_per_year"] = one.sizing.periods_per_year or _bars_per_year(dataset, one.interval)
    return settings.EngineSettings(
        orders=settings.OrderStyle(**one.orders.model_dump()),
        exits=settings.Exits(**one.exits.model_dump()),
        sizing=settings.Sizing(**sizing),
        risk=settings.Risk(**one.risk.model_dump()),
        costs=settings.Costs(**one.costs.model_dump()),
        **account,
    )


def _bars_per_year(dataset: Dataset, interval: str) -> float:
    return float(_SESSIONS_A_YEAR[dataset.calendar == ROUND_THE_CLOCK] * bars_per_session(dataset, interval))


def _weights(bound: object) -> str:
    """`signal` or `portfolio`, as `RuleSpec` has it; a bot's targets are shares of the equity."""
    from quantlytic_assets.strategies.spec import Rule

    return bound.spec.weights if isinstance(bound, Rule) else "portfolio"

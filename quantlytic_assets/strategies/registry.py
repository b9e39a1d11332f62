"""All rules by name, ours and a user's own; a name may be taken only once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from quantlytic_assets.features.declarations import unknown
from quantlytic_assets.strategies.bots import Bot, BotSpec
from quantlytic_assets.strategies.rules import allocation, mean_reversion, model_scores, momentum, trend, voting
from quantlytic_assets.strategies.spec import Rule, RuleSpec

if TYPE_CHECKING:
    from quantlytic_assets.features.registry import Registry as Features

LIBRARY = (trend, momentum, mean_reversion, voting, allocation, model_scores)


class Registry:
    """The rules and bots that a strategy may name.

    features: what the declarations of rules are read with, where a user's own features are among them.
    """

    def __init__(self, specs: Iterable[RuleSpec | BotSpec] | None = None, features: Features | None = None):
        self._features = features
        self._specs: dict[str, RuleSpec | BotSpec] = {}
        for spec in (one for module in LIBRARY for one in module.SPECS) if specs is None else specs:
            self.add(spec)

    def add(self, spec: RuleSpec | BotSpec) -> None:
        """Adds a rule or a bot; a name that another one already has is an error."""
        if other := self._specs.get(spec.name):
            raise ValueError(f"Rule {spec.name!r} is declared twice: in {spec.source!r} and in {other.source!r}")
        self._specs[spec.name] = spec

    def specs(self) -> tuple[RuleSpec | BotSpec, ...]:
        """All rules and bots, in the order they were added."""
        return tuple(self._specs.values())

    def spec(self, name: str) -> RuleSpec | BotSpec:
        """The rule or bot of a name; ValueError with the nearest name where there is none."""
        if name not in self._specs:
            raise unknown("rule", name, self._specs)
        return self._specs[name]

    def bind(self, declaration: str | Mapping[str, Mapping[str, object] | None]) -> Rule | Bot:
        """What a strategy declares: `buy_and_hold`, or `{ma_cross: {fast: 20, slow: 50}}`; a bot is made anew.

        Raises `ValueError` for an unknown rule or parameter, a wrong value, and a form that is neither of the two.
        """
        if isinstance(declaration, str):
            return self._bound(declaration, {})
        if not isinstance(declaration, Mapping) or len(declaration) != 1:
            raise ValueError(f"a strategy has one rule, such as {{ma_cross: {{fast: 20}}}}, not {declaration!r}")
        ((name, values),) = declaration.items()
        if values is not None and not isinstance(values, Mapping):
            raise ValueError(f"{name} takes its parameters by name, such as {{fast: 20}}, not {values!r}")
        return self._bound(str(name), {str(one): value for one, value in (values or {}).items()})

    def _bound(self, name: str, values: Mapping[str, object]) -> Rule | Bot:
        spec = self.spec(name)
        return spec.bind(**values) if isinstance(spec, BotSpec) else spec.bind(self._features, **values)

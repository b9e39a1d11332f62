"""The user's own features, rules, bots and models: plugins of a universe, loaded beside the library's."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from quantlytic_assets.features.registry import Registry
from quantlytic_assets.features.spec import FeatureSpec
from quantlytic_assets.plugins import MODEL_ATTRIBUTE, RULE_ATTRIBUTE, SPEC_ATTRIBUTE, Bot
from quantlytic_assets.strategies.bots import BotSpec, bot_of
from quantlytic_assets.strategies.registry import Registry as Rules
from quantlytic_assets.strategies.spec import RuleSpec


class PluginError(Exception):
    """A plugin can't be used; the message says why and what to change."""


def located(plugin: str, directory: Path) -> str:
    """A plugin as any process finds it: a file by its whole path, a module by its name. Raises `PluginError`."""
    if not plugin.endswith(".py"):
        return plugin
    path = Path(plugin) if Path(plugin).is_absolute() else directory / plugin
    if not path.is_file():
        raise PluginError(f"there is no file {path}; correct the name, or remove it")
    return str(path.resolve())


def registry_with(plugins: tuple[str, ...]) -> Registry:
    """The library's features and those of plugins, each as `located` gives it. Raises `PluginError`."""
    return _registries(plugins, _marks(plugins))[0]


def rules_with(plugins: tuple[str, ...]) -> Rules:
    """The library's rules and the rules and bots of plugins, each as `located` gives it. Raises `PluginError`."""
    return _registries(plugins, _marks(plugins))[1]


def models_with(plugins: tuple[str, ...]) -> dict[str, Callable[..., object]]:
    """The models of plugins by name. Raises `PluginError`."""
    return _registries(plugins, _marks(plugins))[2]


def _marks(plugins: tuple[str, ...]) -> tuple[int, ...]:
    """By what it is seen that a file has changed."""
    return tuple(Path(one).stat().st_mtime_ns if one.endswith(".py") else 0 for one in plugins)


@lru_cache(16)
def _registries(
    plugins: tuple[str, ...], _marks: tuple[int, ...]
) -> tuple[Registry, Rules, dict[str, Callable[..., object]]]:
    """Features, rules and models, of modules that are loaded once for all three."""
    features, models = Registry(), dict[str, Callable[..., object]]()
    rules = Rules(features=features)
    for plugin in plugins:
        module = _module(plugin)
        try:
            own_features, own_rules, own_models = features_of(module), rules_of(module), models_of(module)
        except ValueError as error:
            raise PluginError(f"{plugin}: {error}") from error
        try:
            for feature in own_features:
                features.add(feature)
            for rule in own_rules:
                rules.add(rule)
        except ValueError as error:
            raise PluginError(f"{plugin}: {error}; give the function another name") from error
        if taken := own_models.keys() & models.keys():
            raise PluginError(f"{plugin}: Model {min(taken)!r} is declared twice; give the function another name")
        models |= own_models
        if not (own_features or own_rules or own_models):
            raise PluginError(
                f"{plugin} has no feature, rule, bot or model; decorate a function with @feature, @rule or @model from "
                "quantlytic_assets.plugins, or derive a class from its Bot"
            )
    return features, rules, models


def features_of(module: ModuleType) -> list[FeatureSpec]:
    """The features that a module declares itself, in their order; what it imports is not among them."""
    specs = [getattr(one, SPEC_ATTRIBUTE, None) for one in _own(module)]
    return list({one.name: one for one in specs if isinstance(one, FeatureSpec)}.values())


def rules_of(module: ModuleType) -> list[RuleSpec | BotSpec]:
    """The rules and bots that a module declares itself, in their order. Raises `ValueError` for a bot that is none.

    A class whose name begins with an underscore is a base of others, and no bot.
    """
    found: dict[str, RuleSpec | BotSpec] = {}
    for one in _own(module):
        if isinstance(one, type) and issubclass(one, Bot) and not one.__name__.startswith("_"):
            found[one.__name__] = bot_of(one)
        elif isinstance(spec := getattr(one, RULE_ATTRIBUTE, None), RuleSpec):
            found[spec.name] = spec
    return list(found.values())


def models_of(module: ModuleType) -> dict[str, Callable[..., object]]:
    """The models that a module declares itself, by name."""
    found = {getattr(one, MODEL_ATTRIBUTE, None): one for one in _own(module)}
    return {name: one for name, one in found.items() if isinstance(name, str) and callable(one)}


def _own(module: ModuleType) -> list[object]:
    return [one for one in vars(module).values() if getattr(one, "__module__", None) == module.__name__]


def _module(plugin: str) -> ModuleType:
    """The module of a plugin, loaded anew where it is a file."""
    try:
        if not plugin.endswith(".py"):
            return importlib.import_module(plugin)
        path = Path(plugin)
        name = f"quantlytic_plugin_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise PluginError(f"{path} is no Python file")
        module = importlib.util.module_from_spec(spec)
        # Known by its name, so that what it defines can be pickled.
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module
    except PluginError:
        raise
    except Exception as error:  # the file is the user's: whatever it raises is said with its name
        raise PluginError(f"{plugin} can't be loaded: {type(error).__name__}: {error}") from error

"""The user's own features: plugins of a universe, loaded into a registry beside the library's."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from quantlytic_assets.features.registry import Registry
from quantlytic_assets.features.spec import FeatureSpec
from quantlytic_assets.plugins import SPEC_ATTRIBUTE


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
    marks = tuple(Path(one).stat().st_mtime_ns if one.endswith(".py") else 0 for one in plugins)
    return _registry(plugins, marks)


@lru_cache(16)
def _registry(plugins: tuple[str, ...], _marks: tuple[int, ...]) -> Registry:
    registry = Registry()
    for plugin in plugins:
        specs = features_of(_module(plugin))
        if not specs:
            raise PluginError(
                f"{plugin} has no feature; decorate a function with @feature from quantlytic_assets.plugins"
            )
        for spec in specs:
            try:
                registry.add(spec)
            except ValueError as error:
                raise PluginError(f"{plugin}: {error}; give the function another name") from error
    return registry


def features_of(module: ModuleType) -> list[FeatureSpec]:
    """The features that a module declares itself, in their order; what it imports is not among them."""
    mine = [one for one in vars(module).values() if getattr(one, "__module__", None) == module.__name__]
    specs = [getattr(one, SPEC_ATTRIBUTE, None) for one in mine]
    return list({one.name: one for one in specs if isinstance(one, FeatureSpec)}.values())


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

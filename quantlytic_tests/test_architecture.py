"""Which way imports point: the layers of docs/architecture.md, read from the source of every module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1] / "quantlytic_assets"
NAME = "quantlytic_assets"

# From what imports nothing of the house to what nothing imports. A module may import from earlier layers and its own.
LAYERS = (
    "calendars.intervals", "settings", "schemas", "notify", "dagster_internals", "run_statuses", "thresholds",
    "universe.models", "calendars", "universe.membership", "market_data", "features", "strategies", "schemas.dbt",
    "schemas.page", "schemas.generate", "plugins", "serving", "push", "storage", "tables", "trading", "charts",
    "imports", "vendors", "brokers", "learning", "universe", "feeds", "services", "live", "pages", "api", "resources",
    "reader", "observability", "assets", "checks", "automation", "definitions", "commands", "cli",
)  # fmt: skip
WITH_DAGSTER = {
    "dagster_internals", "run_statuses", "observability", "assets", "checks", "automation", "definitions", "commands",
}  # fmt: skip
# Neighbours in the list above that know nothing of each other all the same.
STRANGERS = {
    "vendors": {"serving", "storage", "tables", "trading", "charts", "imports", "notify"},
    "brokers": {"serving", "storage", "tables", "trading", "charts", "imports", "notify"},
    "imports": {"serving", "storage", "tables", "trading", "charts", "vendors"},
    "learning": {"storage", "tables", "vendors", "imports"},
    "trading": {"tables"},
    "services": {"pages", "feeds"},
    "api": {"pages", "feeds", "vendors", "charts", "imports"},
    "live": {"feeds", "vendors", "imports", "charts"},
    "automation": {"assets", "checks"},
}


def modules() -> list[Path]:
    return sorted(HOUSE.rglob("*.py"))


def layer(module: str) -> str:
    """The layer of a module, its name without the house's."""
    package = module.split(".")[0]
    return next((one for one in LAYERS if module == one or (module.startswith(f"{one}.") and "." in one)), package)


def imported(path: Path) -> Iterator[str]:
    """Modules that a module imports, wherever in it, but for what only type checkers read."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            # `from package import module` names a module as well as `from package.module import name` does.
            inner = [HOUSE.parent.joinpath(*node.module.split("."), f"{one.name}.py").exists() for one in node.names]
            yield from (
                f"{node.module}.{one.name}" if is_module else node.module
                for one, is_module in zip(node.names, inner, strict=True)
            )
        elif isinstance(node, ast.Import):
            yield from (one.name for one in node.names)


def edges() -> Iterator[tuple[str, str]]:
    """Each import of one module of the house by another, both without the house's name."""
    for path in modules():
        own = ".".join(path.relative_to(HOUSE).with_suffix("").parts).removesuffix(".__init__")
        for name in imported(path):
            if name.startswith(f"{NAME}."):
                yield own, name.removeprefix(f"{NAME}.")


def test_every_module_is_in_a_layer():
    tops = {path.relative_to(HOUSE).parts[0].removesuffix(".py") for path in modules()} - {"__init__", "__main__"}
    assert tops - {layer(one) for one in LAYERS} == set()


def test_imports_point_to_earlier_layers():
    at = {name: number for number, name in enumerate(LAYERS)}
    # What `import quantlytic_assets` offers is the house's front door: it may lead anywhere.
    inner = [(own, other) for own, other in edges() if own != "__init__"]
    wrong = sorted(f"{own} imports {other}" for own, other in inner if at[layer(own)] < at[layer(other)])
    assert wrong == []


def test_neighbours_that_know_nothing_of_each_other_do_not():
    wrong = sorted(f"{own} imports {other}" for own, other in edges() if layer(other) in STRANGERS.get(layer(own), ()))
    assert wrong == []


def test_commands_name_assets_and_import_no_other_part_of_them():
    wrong = sorted(
        f"{own} imports {other}"
        for own, other in edges()
        if layer(own) in ("commands", "cli")
        and (layer(other) in ("automation", "checks") or (layer(other) == "assets" and other != "assets.keys"))
    )
    assert wrong == []


@pytest.mark.parametrize("package", [one for one in LAYERS if one not in WITH_DAGSTER])
def test_the_domain_imports_no_dagster(package: str):
    wrong = sorted(
        f"{path.relative_to(HOUSE)} imports {name}"
        for path in modules()
        if layer(".".join(path.relative_to(HOUSE).with_suffix("").parts)) == package
        for name in imported(path)
        if name.split(".")[0].startswith("dagster")
    )
    assert wrong == []

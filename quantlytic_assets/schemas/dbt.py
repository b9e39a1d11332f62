"""What dbt knows of the tables, written from their declarations: sources, and columns and tests of the models.

Sources are written whole. A model's description, columns and partitioning are written too, and the tests that follow
from key, nullability, limits and rules. Other configuration of a model stays as somebody wrote it.
"""

from __future__ import annotations

from collections.abc import Iterable
from io import StringIO
from typing import Any

from ruamel.yaml import YAML

from quantlytic_assets.features.columns import with_core
from quantlytic_assets.schemas import clean, features, ml, trading
from quantlytic_assets.schemas.table import Column, Table, quoted

_NOTE = "# Written by `make generate` from quantlytic_assets/schemas: change the declaration there.\n"
_MODELS_NOTE = (
    "# Descriptions, columns, tests and partitioned_by are written by `make generate` from\n"
    "# quantlytic_assets/schemas/features.py: change the declaration there. Other configuration is written here.\n"
)
_SOURCES = {
    "clean": ("Checked bars, what was rejected or is missing, and what is known of prices.", clean.TABLES),
    "ml": ("What the strategies' models predict.", ml.TABLES),
    "trading": (
        "Signals of rules; orders, fills, holdings and equity of paper accounts.",
        trading.TABLES,
    ),
}


def sources_yaml() -> str:
    """The text of models/sources.yml."""
    sources = [
        {
            "name": name,
            "description": description,
            "database": "lake",
            "schema": name,
            "tables": [
                {
                    "name": table.table_name,
                    "description": table.description,
                    "columns": [_column(column) for column in table.columns],
                }
                for table in tables
            ],
        }
        for name, (description, tables) in _SOURCES.items()
    ]
    return _NOTE + _dump({"version": 2, "sources": sources})


def models_yaml(current: str) -> str:
    """The text of models/features/features.yml, from the one that is there; models that are not declared are left out.

    Raises `LookupError` for a declared model that the text does not have: its configuration is missing.
    """
    written = {model["name"]: model for model in _yaml().load(current)["models"]}
    models = []
    for table in features.TABLES:
        if table.table_name not in written:
            raise LookupError(f"features.yml has no model {table.table_name}: add it there by its name alone")
        config = dict(written[table.table_name].get("config", {}))
        if table.partitioned_by:
            config["partitioned_by"] = ", ".join(table.partitioned_by)
        models.append(
            {
                "name": table.table_name,
                "description": table.description,
                **({"config": config} if config else {}),
                "columns": [_column(column) for column in with_core(table).columns],
                "data_tests": list(_tests(table)),
            }
        )
    return _MODELS_NOTE + _dump({"version": 2, "models": models})


def _column(column: Column) -> dict[str, Any]:
    told: dict[str, Any] = {"name": column.name, "data_type": column.sql_type.lower()}
    if quoted(column.name) != column.name:
        told["quote"] = True
    return {**told, "description": column.documentation}


def _tests(table: Table) -> Iterable[dict[str, Any]]:
    """The tests of a model's run: its key, what has a value, limits and rules."""
    present = [quoted(column.name) for column in table.columns if not column.nullable]
    limits = " and ".join(column.sql_limits for column in table.columns if column.sql_limits)
    key = [quoted(name) for name in table.key]
    if table.rows_of is None:
        yield _test(table, "unique_key", "unique", f"One row per {', '.join(table.key)}.", {"columns": key})
        told = "Columns that are never null have a value."
        yield _test(table, "always_present", "present", told, {"columns": present})
    if limits and table.rows_of is None:
        within = "Numbers are within their limits."
        yield _test(table, "holds", "within_bounds", within, {"condition": limits})
    for rule in table.rules:
        config = {"config": {"severity": "warn"}} if rule.warning else {}
        yield _test(table, "holds", rule.name, rule.statement, {"condition": rule.condition}, config)


def _test(
    table: Table,
    macro: str,
    name: str,
    description: str,
    arguments: dict[str, Any],
    config: dict[str, Any] | None = None,
) -> dict[str, Any]:
    session = {"session": table.session} if table.session != "session" else {}
    told = {
        "name": f"{table.schema_name}_{table.table_name}_{name}",
        "description": description,
        "arguments": {**arguments, **session},
    }
    return {macro: {**told, **(config or {})}}


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.representer.sort_base_mapping_type_on_output = False
    yaml.width = 116
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _dump(data: dict[str, Any]) -> str:
    text = StringIO()
    _yaml().dump(data, text)
    # Where a long text is folded a space stays behind, which means nothing.
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())

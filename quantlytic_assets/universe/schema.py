"""The JSON Schema of universe files, which editors use to complete, explain and check them.

It is made from `declarations` and shipped as `universe.schema.json`; `python -m quantlytic_assets.universe.schema`
writes it anew. What several fields must be to each other is checked by `quantlytic doctor` alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from quantlytic_assets.universe.declarations import UniverseDeclaration

SCHEMA_FILE = Path(__file__).with_name("universe.schema.json")


class _Schema(GenerateJsonSchema):
    """No default None, which follows from other fields, and no names that do not match their pattern."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        made = super().default_schema(schema)
        if made.get("default", ...) is None:
            del made["default"]
        elif isinstance(made.get("default"), dict):
            made["default"] = {name: value for name, value in made["default"].items() if value is not None}
        return made

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        made = super().dict_schema(schema)
        return made | {"additionalProperties": False} if "patternProperties" in made else made


def universe_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a universe file."""
    return {"$schema": _Schema.schema_dialect, **UniverseDeclaration.model_json_schema(schema_generator=_Schema)}


if __name__ == "__main__":
    SCHEMA_FILE.write_text(json.dumps(universe_schema(), indent=1, ensure_ascii=False) + "\n", "utf-8")

"""SQL with its parameters written into it as literals.

DuckDB's Python client loads pandas to look at a parameter, which takes longer than most questions to a lake.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any


def with_literals(sql: str, parameters: Sequence[Any]) -> str:
    """Each `?` of a statement replaced by its parameter. The statement's own text holds no other question mark.

    Raises `ValueError` where there are more or fewer parameters than question marks, `TypeError` as `literal` does.
    """
    if not parameters:
        return sql
    parts = sql.split("?")
    if len(parts) != len(parameters) + 1:
        raise ValueError(f"{len(parts) - 1} question marks and {len(parameters)} parameters in {sql}")
    return parts[0] + "".join(literal(value) + part for value, part in zip(parameters, parts[1:], strict=True))


def literal(value: Any) -> str:
    """A value as DuckDB reads it: None, bool, int, str, date, an aware time, or a list of these.

    Raises `TypeError` for anything else: a float, whose text may round, and a naive time among them.
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise TypeError(f"the time {value} has no zone")
        return f"TIMESTAMPTZ '{value.astimezone(UTC).isoformat(' ')}'"
    if isinstance(value, date):
        return f"DATE '{value.isoformat()}'"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(literal(one) for one in value) + "]"
    raise TypeError(f"a {type(value).__name__} is no parameter of a statement")

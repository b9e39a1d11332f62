"""A SELECT on one declared table, made of typed parts: values are parameters, columns are declared ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol

import polars as pl

from quantlytic_assets.schemas.table import Table, quoted


class Queries(Protocol):
    """Whatever answers a SELECT with its parameters: a lake, or a read-only connection to one."""

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        """Its rows; a frame without columns where the table does not exist yet and that is no error."""


@dataclass(frozen=True)
class Condition:
    """What rows must satisfy: SQL with a `?` for each of its parameters."""

    sql: str
    parameters: tuple[Any, ...] = ()


def equal(column: str, value: str | int | bool | date) -> Condition:
    """Rows with this value."""
    return Condition(f"{quoted(column)} = ?", (value,))


def one_of(column: str, values: Collection[str] | None) -> Condition | None:
    """Rows with one of these values; all rows for None."""
    if values is None:
        return None
    return Condition(f"{quoted(column)} IN (SELECT unnest(?::VARCHAR[]))", (list(values),))


def sessions(since: date | None, before: date | None, column: str = "session") -> Condition | None:
    """Rows of the sessions from `since` on and before `before`; None is no limit."""
    parts = [(f"{quoted(column)} >= ?", since), (f"{quoted(column)} < ?", before)]
    given = [(sql, value) for sql, value in parts if value is not None]
    if not given:
        return None
    return Condition(" AND ".join(sql for sql, _ in given), tuple(value for _, value in given))


def where(conditions: Sequence[Condition | None]) -> tuple[str, list[Any]]:
    """The WHERE clause of all conditions that are given, empty without one, and its parameters."""
    given = [condition for condition in conditions if condition is not None]
    clause = " WHERE " + " AND ".join(f"({condition.sql})" for condition in given) if given else ""
    return clause, [value for condition in given for value in condition.parameters]


def rows(lake: Queries, sql: str, parameters: Sequence[Any], schema: pl.Schema) -> pl.DataFrame:
    """The rows of a SELECT with the types of a schema; none where the table does not exist yet."""
    found = lake.query(sql, parameters)
    return found.cast(schema) if found.columns else schema.to_frame()


def select(
    lake: Queries,
    table: Table,
    columns: Sequence[str],
    *conditions: Condition | None,
    order: Sequence[str] = (),
    distinct: bool = False,
) -> pl.DataFrame:
    """Some columns of the rows that satisfy all conditions, with the types the table is declared with.

    Raises `KeyError` for a column that the table is not declared with.
    """
    schema = table.schema(columns)
    clause, parameters = where(conditions)
    names = ", ".join(quoted(name) for name in schema)
    sorting = f" ORDER BY {', '.join(quoted(name) for name in order)}" if order else ""
    sql = f"SELECT {'DISTINCT ' if distinct else ''}{names} FROM {table.name}{clause}{sorting}"
    return rows(lake, sql, parameters, schema)


def scalar(lake: Queries, table: Table, expression: str, *conditions: Condition | None) -> Any:
    """One aggregate over the rows that satisfy all conditions; null over none where SQL says so."""
    clause, parameters = where(conditions)
    found = lake.query(f"SELECT {expression} AS value FROM {table.name}{clause}", parameters)
    return found["value"].item() if found.columns else None

"""What the declaration of a table says: columns with type, nullability, unit, meaning and limits, key and rules.

Polars schema, DDL, pandera schema, dbt's files and the documentation follow from it. The tables themselves are declared
in the modules beside; this one and those import nothing of the house but the type of a time stamp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import polars as pl
from polars.datatypes import DataType, DataTypeClass

_SQL_NAMES: dict[DataTypeClass, str] = {
    pl.String: "VARCHAR",
    pl.Date: "DATE",
    pl.Float64: "DOUBLE",
    pl.Int64: "BIGINT",
    pl.Int32: "INTEGER",
    pl.Boolean: "BOOLEAN",
    pl.Datetime: "TIMESTAMPTZ",
}
# Words of SQL that are also names of columns.
_RESERVED = frozenset({"interval", "start", "end"})


def quoted(name: str) -> str:
    """A column's name as SQL needs it."""
    return f'"{name}"' if name in _RESERVED else name


def sql_type(dtype: DataType | DataTypeClass) -> str:
    """A polars type as DuckDB names it. Raises `TypeError` for one that no table has."""
    if isinstance(dtype, pl.List):
        return f"{sql_type(dtype.inner)}[]"
    if isinstance(dtype, pl.Struct):
        return "STRUCT(" + ", ".join(f'"{field.name}" {sql_type(field.dtype)}' for field in dtype.fields) + ")"
    name = _SQL_NAMES.get(dtype.base_type())
    if name is None:
        raise TypeError(f"no table has a column of type {dtype}")
    return name


@dataclass(frozen=True)
class Column:
    """One column: `unit` in words, None where the description says enough.

    `allowed` lists the only values a text, or each text of a list, may have. Numbers are finite, and lie above `above`,
    at or above `at_least`, at or below `at_most`; a null breaks none of these.
    """

    name: str
    dtype: DataType | DataTypeClass
    description: str
    nullable: bool = False
    unit: str | None = None
    allowed: tuple[str, ...] = ()
    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def sql_type(self) -> str:
        """The type as DuckDB names it."""
        return sql_type(self.dtype)

    @property
    def limits(self) -> str:
        """The limits in words, empty where there are none."""
        parts = [
            f"{words} {limit:g}"
            for words, limit in (("above", self.above), ("at least", self.at_least), ("at most", self.at_most))
            if limit is not None
        ]
        return " and ".join(parts)

    @property
    def documentation(self) -> str:
        """The description, with the unit behind it where it does not say it."""
        if self.unit is None or self.unit in self.description:
            return self.description
        return f"{self.description} Unit: {self.unit}."

    @property
    def sql_limits(self) -> str:
        """The limits as a SQL condition, empty where there are none."""
        parts = [
            f"{quoted(self.name)} {sign} {limit:g}"
            for sign, limit in ((">", self.above), (">=", self.at_least), ("<=", self.at_most))
            if limit is not None
        ]
        return " and ".join(parts)


@dataclass(frozen=True)
class Rule:
    """What holds in every row: a SQL condition that DuckDB and polars read alike; an unknown (null) one holds.

    `name` is a word for tests and checks, `statement` says the rule to people. A breach of a `warning` fails nothing.
    """

    name: str
    statement: str
    condition: str
    warning: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the lake, or of the archive: `name` is `schema.table`.

    `writer` names the asset that writes it (of a dbt model: the model). `key`: the columns that no two rows share.
    `partitioned_by`: SQL expressions by which its files are split. `session` is the column that says which partition a
    row belongs to. `more`: the type of further columns, which others declare, where the table has such. `rows_of`:
    the table whose rows it has, one for one; key and nulls are tested there.
    """

    name: str
    writer: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    partitioned_by: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    session: str = "session"
    more: DataType | DataTypeClass | None = None
    rows_of: str | None = None

    @cached_property
    def polars(self) -> pl.Schema:
        """All columns with their polars types."""
        return pl.Schema({column.name: column.dtype for column in self.columns})

    @property
    def schema_name(self) -> str:
        """The part of the name before the point."""
        return self.name.partition(".")[0]

    @property
    def table_name(self) -> str:
        """The part of the name after the point."""
        return self.name.partition(".")[2]

    @property
    def ddl(self) -> str:
        """The column definitions of `CREATE TABLE`."""
        return ", ".join(f"{quoted(column.name)} {column.sql_type}" for column in self.columns)

    def column(self, name: str) -> Column:
        """One column. Raises `KeyError` where there is none of that name."""
        found = next((column for column in self.columns if column.name == name), None)
        if found is None:
            raise KeyError(f"{self.name} has no column {name}")
        return found

    def schema(self, names: Sequence[str]) -> pl.Schema:
        """The polars types of some columns, in the order given. Raises `KeyError` for one that can't be there."""
        own = self.polars
        return pl.Schema(
            {name: self.more if self.more and name not in own else self.column(name).dtype for name in names}
        )

    def without(self, *names: str) -> pl.Schema:
        """The polars types of all columns but some."""
        return self.schema([column.name for column in self.columns if column.name not in names])


def described(column: Column, description: str, **changes: object) -> Column:
    """The same column as another table means it."""
    return replace(column, description=description, **changes)  # type: ignore[arg-type]

"""What tables promise of every row, as pandera schemas, and how breaches are told per partition.

The promises are the declarations in `quantlytic_assets.schemas`; here stands how they are checked, whoever wrote the
rows. Which asset check looks at which table is decided in the check modules. pandera takes seconds to import, so a
schema is built when it is first used.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import polars as pl

from quantlytic_assets.schemas.table import Column, Table

if TYPE_CHECKING:
    import pandera.polars as pa

FAILURES_SCHEMA = pl.Schema({"partition": pl.String, "check": pl.String, "failures": pl.Int64, "example": pl.String})

_EXAMPLE_FIELDS = ("symbol", "session", "open_time")


def conditions(table: Table) -> dict[str, pl.Expr]:
    """The rules of a table by what they say (name → true where a row satisfies it): columns' limits, key, rules."""
    rules: dict[str, pl.Expr] = {}
    for column in table.columns:
        rules |= _of_column(column)
    rules |= {rule.statement: pl.sql_expr(rule.condition) for rule in table.rules}
    if table.key:
        rules[f"one row per {', '.join(table.key)}"] = ~pl.struct(table.key).is_duplicated()
    return rules


def _of_column(column: Column) -> dict[str, pl.Expr]:
    value = pl.col(column.name)
    limited = " and ".join(part for part in ("finite", column.limits) if part)
    rules: dict[str, pl.Expr] = {}
    if column.dtype == pl.Float64:
        rules[f"{column.name} is {limited}"] = value.is_finite() & _within(column)
    elif column.limits:
        rules[f"{column.name} is {column.limits}"] = _within(column)
    if column.allowed:
        if column.dtype == pl.String:
            rules[f"{column.name} is a known one"] = value.is_in(column.allowed)
        else:
            rules[f"{column.name} are known ones"] = value.list.set_difference(list(column.allowed)).list.len() == 0
    return rules


def _within(column: Column) -> pl.Expr:
    value, within = pl.col(column.name), pl.lit(True)
    if column.above is not None:
        within &= value > column.above
    if column.at_least is not None:
        within &= value >= column.at_least
    if column.at_most is not None:
        within &= value <= column.at_most
    return within


@lru_cache
def pandera_schema(table: Table) -> pa.DataFrameSchema:
    """A table's declaration as pandera has it; other columns beside are allowed."""
    import pandera.polars as pa

    def holds(rule: pl.Expr) -> Callable[[Any], pl.LazyFrame]:
        return lambda data: data.lazyframe.select(rule)

    # A null is the column's own failure, so the rules take it as satisfied.
    return pa.DataFrameSchema(
        {column.name: pa.Column(column.dtype, nullable=column.nullable) for column in table.columns},
        checks=[pa.Check(holds(rule.fill_null(True)), name=name) for name, rule in conditions(table).items()],
        name=table.name,
    )


def failures(frame: pl.DataFrame, table: Table) -> pl.DataFrame:
    """Breaches of a declaration, counted per partition and check (FAILURES_SCHEMA), with one example each.

    `frame` is the table's rows with the key of each one's `partition` beside. A missing or mistyped column is a
    breach of every partition of the frame, and the only one told. Empty when all holds.
    """
    import pandera.polars as pa

    try:
        pandera_schema(table).validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        return _by_partition(frame, table, error)
    return pl.DataFrame(schema=FAILURES_SCHEMA)


def _by_partition(frame: pl.DataFrame, table: Table, error: pa.errors.SchemaErrors) -> pl.DataFrame:
    """Pandera names rows by number for some checks only, so which rows a failed check is about is asked again here."""
    rules = conditions(table)
    broken: dict[str, pl.Expr] = {}
    structural: list[str] = []
    for fault in error.schema_errors:
        name = fault.check if isinstance(fault.check, str) else fault.check.name
        if name in rules:
            broken[name] = ~rules[name].fill_null(True)
        elif name == "not_nullable":
            broken[f"{fault.schema.name} is not null"] = pl.col(fault.schema.name).is_null()
        else:
            structural.append(str(fault).splitlines()[0])
    if not structural:
        shown = [name for name in dict.fromkeys((*_EXAMPLE_FIELDS, *table.key)) if name in frame.columns]
        found = [_count(frame, check, fails, shown) for check, fails in broken.items()]
        return pl.concat(found).match_to_schema(FAILURES_SCHEMA).sort("partition", "check")
    # Rules about a column that is missing or mistyped can't be judged; the column is what is to be mended.
    faults = pl.DataFrame({"example": structural}).select(
        pl.lit("columns and types").alias("check"), pl.lit(1, pl.Int64).alias("failures"), "example"
    )
    return frame.select(pl.col("partition").unique()).join(faults, how="cross").sort("partition", "example")


def _count(frame: pl.DataFrame, check: str, fails: pl.Expr, shown: list[str]) -> pl.DataFrame:
    return (
        frame.filter(fails)
        .group_by("partition")
        .agg(pl.len().cast(pl.Int64).alias("failures"), pl.struct(shown).first().struct.json_encode().alias("example"))
        .select("partition", pl.lit(check).alias("check"), "failures", "example")
    )

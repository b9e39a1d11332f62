"""What the clean tables promise of every row, as pandera schemas, and how breaches are told per partition.

The rules by which cleaning keeps its promises are in `market_data.cleaning`; here stands what must hold afterwards,
whoever wrote the rows. Which asset check runs a schema is decided in the check modules. pandera takes seconds to
import, so a schema is built when it is first used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from quantlytic_assets.market_data.bars import ADJUSTMENTS, CLEAN_SCHEMA, COVERAGE_SCHEMA, QUARANTINE_SCHEMA
from quantlytic_assets.market_data.quality.cleaning import FLAGS, OHLC_TOLERANCE
from quantlytic_assets.market_data.quality.coverage import CAUSES

if TYPE_CHECKING:
    import pandera.polars as pa

FAILURES_SCHEMA = pl.Schema({"partition": pl.String, "check": pl.String, "failures": pl.Int64, "example": pl.String})

_EXAMPLE_FIELDS = ("symbol", "session", "open_time")


@dataclass(frozen=True)
class TableSchema:
    """A table's columns, the ones that may be null, and the rules every row satisfies (name → true where it does).

    `pandera` is the same as a `pandera.polars.DataFrameSchema`.
    """

    name: str
    columns: pl.Schema
    nullable: frozenset[str]
    rules: Callable[[], dict[str, pl.Expr]]

    @cached_property
    def pandera(self) -> pa.DataFrameSchema:
        """The schema as pandera has it; other columns beside are allowed."""
        return _build(self)


def _bar_rules() -> dict[str, pl.Expr]:
    top, bottom = pl.max_horizontal("open", "close"), pl.min_horizontal("open", "close")
    prices = {
        f"{name} is positive and finite": pl.col(name).is_finite() & (pl.col(name) > 0)
        for name in ("open", "high", "low", "close")
    }
    return prices | {
        "volume is finite and not negative": pl.col("volume").is_finite() & (pl.col("volume") >= 0),
        "high is not below open or close": pl.col("high") >= top * (1 - OHLC_TOLERANCE),
        "low is not above open or close": pl.col("low") <= bottom * (1 + OHLC_TOLERANCE),
        "open_time is before close_time": pl.col("open_time") < pl.col("close_time"),
        "available_at is not before close_time": pl.col("available_at") >= pl.col("close_time"),
        "adjustment is none or split": pl.col("adjustment").is_in(ADJUSTMENTS),
        "flags are known ones": pl.col("flags").list.set_difference(list(FLAGS)).list.len() == 0,
        "one bar a symbol and open_time": ~pl.struct("dataset", "symbol", "open_time").is_duplicated(),
    }


def _coverage_rules() -> dict[str, pl.Expr]:
    ranges = pl.col("missing_ranges")
    return {
        "no count is negative": pl.min_horizontal("expected_bars", "present_bars", "missing_bars", "attempts") >= 0,
        "expected is present and missing": pl.col("expected_bars") == pl.col("present_bars") + pl.col("missing_bars"),
        "cause is a known one": pl.col("cause").is_null() | pl.col("cause").is_in(list(CAUSES)),
        "a cause where bars are missing only": pl.col("cause").is_null() == (pl.col("missing_bars") == 0),
        "ranges where bars are missing only": (ranges.list.len() == 0) == (pl.col("missing_bars") == 0),
        "one row a symbol and session": ~pl.struct("dataset", "symbol", "session").is_duplicated(),
    }


def _quarantine_rules() -> dict[str, pl.Expr]:
    return {"reason is not empty": pl.col("reason").str.len_chars() > 0}


CLEAN_BARS = TableSchema("clean.bars", CLEAN_SCHEMA, frozenset({"vwap", "trade_count"}), _bar_rules)
COVERAGE = TableSchema("clean.coverage", COVERAGE_SCHEMA, frozenset({"cause"}), _coverage_rules)
# Of a record that could not be read not even the symbol is known.
QUARANTINE = TableSchema(
    "clean.quarantine",
    QUARANTINE_SCHEMA,
    frozenset({"symbol", "session", "open_time", "source_row"}),
    _quarantine_rules,
)


def _build(table: TableSchema) -> pa.DataFrameSchema:
    import pandera.polars as pa

    def holds(rule: pl.Expr) -> Callable[[Any], pl.LazyFrame]:
        return lambda data: data.lazyframe.select(rule)

    # A null is the column's own failure, so the rules take it as satisfied.
    return pa.DataFrameSchema(
        {name: pa.Column(kind, nullable=name in table.nullable) for name, kind in table.columns.items()},
        checks=[pa.Check(holds(rule.fill_null(True)), name=name) for name, rule in table.rules().items()],
        name=table.name,
    )


def failures(frame: pl.DataFrame, table: TableSchema) -> pl.DataFrame:
    """Breaches of a schema, counted per partition and check (FAILURES_SCHEMA), with one example each.

    `frame` is the table's rows with the key of each one's `partition` beside. A missing or mistyped column is a
    breach of every partition of the frame, and the only one told. Empty when the schema holds.
    """
    import pandera.polars as pa

    try:
        table.pandera.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        return _by_partition(frame, table, error)
    return pl.DataFrame(schema=FAILURES_SCHEMA)


def _by_partition(frame: pl.DataFrame, table: TableSchema, error: pa.errors.SchemaErrors) -> pl.DataFrame:
    """Pandera names rows by number for some checks only, so which rows a failed check is about is asked again here."""
    rules = table.rules()
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
        found = [_count(frame, check, fails) for check, fails in broken.items()]
        return pl.concat(found).match_to_schema(FAILURES_SCHEMA).sort("partition", "check")
    # Rules about a column that is missing or mistyped can't be judged; the column is what is to be mended.
    faults = pl.DataFrame({"example": structural}).select(
        pl.lit("columns and types").alias("check"), pl.lit(1, pl.Int64).alias("failures"), "example"
    )
    return frame.select(pl.col("partition").unique()).join(faults, how="cross").sort("partition", "example")


def _count(frame: pl.DataFrame, check: str, fails: pl.Expr) -> pl.DataFrame:
    shown = [name for name in _EXAMPLE_FIELDS if name in frame.columns]
    return (
        frame.filter(fails)
        .group_by("partition")
        .agg(pl.len().cast(pl.Int64).alias("failures"), pl.struct(shown).first().struct.json_encode().alias("example"))
        .select("partition", pl.lit(check).alias("check"), "failures", "example")
    )

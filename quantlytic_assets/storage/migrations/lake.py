"""The layout of the lake: which steps were applied, and applying those that were not.

Functions take a DuckDB connection with the lake in use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from quantlytic_assets.storage.lake_catalog import lake_tables
from quantlytic_assets.storage.migrations.lake_steps import (
    accounts_of_the_engine,
    features_by_family,
    features_need_no_state,
    relative_data_path,
    repairs_use_later_bars,
    targets_of_signals,
    words_of_the_field,
)
from quantlytic_assets.storage.migrations.layout import NewLayout, OldLayout

if TYPE_CHECKING:
    import duckdb

    from quantlytic_assets.storage.lake import LakePlace

_WHAT = "the lake"
_APPLIED = "meta.layout_steps"


class Step(Protocol):
    """A module of `lake_steps`. Its name is what the lake remembers; its docstring's first line is what people read."""

    __name__: str
    __doc__: str | None

    def apply(self, connection: duckdb.DuckDBPyConnection, place: LakePlace) -> None:
        """Change the lake, in the transaction that also records the step.

        A module that says `IN_TRANSACTION = False` is applied before that transaction: what it does may be done twice.
        """


# Oldest first. What is on main stays: append only.
LAKE_STEPS: tuple[Step, ...] = cast(
    "tuple[Step, ...]",
    (
        relative_data_path,
        repairs_use_later_bars,
        words_of_the_field,
        features_need_no_state,
        features_by_family,
        accounts_of_the_engine,
        targets_of_signals,
    ),
)


def step_name(step: Step) -> str:
    """What the lake calls a step."""
    return step.__name__.rpartition(".")[2]


def step_title(step: Step) -> str:
    """What a step does, in one line."""
    return (step.__doc__ or step_name(step)).strip().splitlines()[0].rstrip(".")


def pending_steps(connection: duckdb.DuckDBPyConnection, tables: set[str] | None = None) -> list[Step]:
    """Steps that the lake lacks, oldest first. `tables`: its tables' names (`schema.table`) where they are known.

    Raises `NewLayout` where a step was applied that this code does not know.
    """
    known = {step_name(step): step for step in LAKE_STEPS}
    applied = []
    if _APPLIED in (lake_tables(connection) if tables is None else tables):
        applied = [name for (name,) in connection.execute(f"SELECT step FROM lake.{_APPLIED}").fetchall()]
    unknown = sorted(set(applied) - set(known))
    if unknown:
        raise NewLayout(_WHAT, f"step {', '.join(unknown)}")
    return [step for name, step in known.items() if name not in applied]


def check_lake(connection: duckdb.DuckDBPyConnection, tables: set[str]) -> None:
    """Raise `LayoutError` where the lake has another layout than this code's."""
    pending = pending_steps(connection, tables)
    if pending:
        raise OldLayout(_WHAT, len(pending))


def apply_step(connection: duckdb.DuckDBPyConnection, place: LakePlace, step: Step) -> None:
    """Apply one step and record it, in one transaction; an error rolls both back and passes."""
    inside = getattr(step, "IN_TRANSACTION", True)
    if not inside:
        step.apply(connection, place)
    connection.execute("BEGIN")
    try:
        if inside:
            step.apply(connection, place)
        record_steps(connection, [step])
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def record_steps(connection: duckdb.DuckDBPyConnection, steps: list[Step] | tuple[Step, ...]) -> None:
    """Record steps as applied: within a step's transaction, or with the tables of a new lake."""
    connection.execute("CREATE SCHEMA IF NOT EXISTS lake.meta")
    connection.execute(f"CREATE TABLE IF NOT EXISTS lake.{_APPLIED} (step VARCHAR, applied_at TIMESTAMPTZ)")
    for step in steps:
        connection.execute(f"INSERT INTO lake.{_APPLIED} VALUES (?, now())", [step_name(step)])

"""Other people's SQL: only what reads is let through. A read-only lake alone does not stop a COPY to a file."""

from __future__ import annotations

import re

import duckdb


class NotReading(ValueError):
    """It is not one SELECT; the message says what it is."""


def one_select(connection: duckdb.DuckDBPyConnection, query: str) -> duckdb.Statement:
    """The one statement of a query, which must be a SELECT or explain one. Raises `NotReading`."""
    statements = connection.extract_statements(query)
    if len(statements) != 1:
        raise NotReading(f"one SELECT is wanted, {len(statements)} statements were given")
    if not _only_reads(connection, statements[0]):
        raise NotReading("only reading is allowed here: give a SELECT")
    return statements[0]


def _only_reads(connection: duckdb.DuckDBPyConnection, statement: duckdb.Statement) -> bool:
    """Whether it is a SELECT, or explains one: EXPLAIN ANALYZE carries out what it explains, a COPY to a file too."""
    if statement.type != duckdb.StatementType.EXPLAIN:
        return statement.type == duckdb.StatementType.SELECT
    explained = re.sub(r"^\s*EXPLAIN(\s+ANALYZE)?(\s*\([^)]*\))?\s+", "", statement.query, flags=re.IGNORECASE)
    inner = connection.extract_statements(explained)
    return [one.type for one in inner] == [duckdb.StatementType.SELECT]

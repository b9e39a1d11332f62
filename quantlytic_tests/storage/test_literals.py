"""Parameters written into a statement are what DuckDB would have been given."""

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta, timezone

import duckdb
import pytest

from quantlytic_assets.storage.lake import local_lake
from quantlytic_assets.storage.literals import literal, with_literals

_VALUES = [
    None,
    True,
    False,
    0,
    -(2**62),
    "AAPL",
    "O'Neil ? -- ; \\ \n é",
    "",
    date(2020, 2, 29),
    datetime(2020, 2, 29, 23, 59, 59, 999_999, UTC),
    datetime(1900, 1, 1, tzinfo=timezone(timedelta(hours=-5))),
    [],
    ["a?", "b'"],
    [1, None],
]


@pytest.mark.parametrize("value", _VALUES, ids=repr)
def test_a_literal_is_the_value_that_a_parameter_would_be(value):
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    ((there, same),) = connection.execute(
        f"SELECT {literal(value)}, {literal(value)} IS NOT DISTINCT FROM ?", [value]
    ).fetchall()
    assert same
    assert there == value


@pytest.mark.parametrize("value", [0.1, datetime(2020, 1, 1), b"x", {"a": 1}], ids=repr)
def test_what_has_no_exact_literal_is_rejected(value):
    with pytest.raises(TypeError):
        literal(value)


def test_question_marks_within_values_stay():
    assert with_literals("SELECT ?, ?", ["a?b", "?"]) == "SELECT 'a?b', '?'"


@pytest.mark.parametrize("values", [[1], [1, 2, 3]])
def test_another_number_of_values_than_question_marks_is_rejected(values):
    with pytest.raises(ValueError, match="question marks"):
        with_literals("SELECT ?, ?", values)


def test_a_query_with_parameters_does_not_load_pandas(tmp_path):
    local_lake(tmp_path).connect()
    program = (
        "import sys; from pathlib import Path; from quantlytic_assets.storage.lake import local_lake; "
        f"lake = local_lake(Path({str(tmp_path)!r})); lake.query('SELECT ? AS x', ['a']); "
        "lake.has_table('clean.bars'); print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

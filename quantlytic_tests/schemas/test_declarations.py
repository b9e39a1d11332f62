"""What follows from the declarations of tables: committed files, a new lake, and how an old one is compared."""

import polars as pl
import pytest

from quantlytic_assets.checks.schemas import conditions
from quantlytic_assets.features.columns import with_core
from quantlytic_assets.schemas import clean, features
from quantlytic_assets.schemas.archive import BARS as ARCHIVED_BARS
from quantlytic_assets.schemas.dbt import models_yaml
from quantlytic_assets.schemas.generate import generated
from quantlytic_assets.schemas.lake import TABLES, WRITTEN_BY_ASSETS
from quantlytic_assets.schemas.table import sql_type
from quantlytic_assets.storage.declared import differences
from quantlytic_assets.storage.lake import local_lake


def test_the_committed_files_are_what_make_generate_writes():
    differing = [path.name for path, text in generated().items() if path.read_text() != text]
    assert differing == []


def test_configuration_of_a_model_stays_and_a_model_without_is_an_error():
    named = [f"{{name: {table.table_name}}}" for table in features.TABLES]
    written = models_yaml(f"models: [{{name: bars, config: {{tags: [mine]}}}}, {', '.join(named[1:])}]")
    assert "tags:" in written and 'partitioned_by: dataset, "interval", year(session)' in written
    with pytest.raises(LookupError, match="no model labels"):
        models_yaml(f"models: [{', '.join(named[:-1])}]")


def test_every_table_and_column_is_described_and_every_key_declared():
    for table in (*TABLES.values(), ARCHIVED_BARS):
        assert table.description.endswith(".")
        assert len(table.polars) == len(table.columns), f"{table.name} names a column twice"
        for column in table.columns:
            assert column.description.endswith("."), f"{table.name}.{column.name}"
        for name in (*table.key, table.session):
            assert table.polars.get(name) is not None or (table is ARCHIVED_BARS and name == "session")


def test_polars_reads_every_rule_as_it_is_declared():
    for table in (*TABLES.values(), ARCHIVED_BARS):
        assert with_core(table).polars.to_frame().select(**conditions(table)).is_empty(), table.name


@pytest.mark.parametrize("name", list(TABLES))
def test_duckdb_reads_every_rule_as_polars_does(lake, name):
    table = TABLES[name]
    told = [rule.condition for rule in table.rules] + [one.sql_limits for one in table.columns if one.sql_limits]
    for condition in told:
        rows = f"SELECT {condition} AS holds FROM (SELECT * FROM made.{table.name.replace('.', '_')})"
        assert lake.connect().execute(rows).fetchall() == []


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    lake = local_lake(tmp_path_factory.mktemp("lake"), threads=1)
    with lake.transaction() as connection:
        connection.execute("CREATE SCHEMA made")
        for table in TABLES.values():
            connection.execute(f"CREATE TABLE made.{table.name.replace('.', '_')} ({with_core(table).ddl})")
    return lake


def test_a_new_lake_is_as_declared(lake):
    assert differences(lake.connect()) == []
    partitioned = {table.name for table in WRITTEN_BY_ASSETS.values() if table.partitioned_by}
    found = lake.query(
        "SELECT s.schema_name || '.' || t.table_name AS name "
        "FROM __ducklake_metadata_lake.ducklake_partition_info p "
        "JOIN __ducklake_metadata_lake.ducklake_table t USING (table_id) "
        "JOIN __ducklake_metadata_lake.ducklake_schema s ON s.schema_id = t.schema_id"
    )
    assert set(found["name"]) == partitioned


def test_where_a_lake_is_not_as_declared_it_is_said_what_differs(tmp_path):
    lake = local_lake(tmp_path, threads=1)
    with lake.transaction() as connection:
        connection.execute("DROP TABLE ml.predictions")
        connection.execute("ALTER TABLE clean.bars DROP COLUMN vwap")
        connection.execute("ALTER TABLE clean.coverage ADD COLUMN extra DATE")
        connection.execute("ALTER TABLE trading.equity DROP COLUMN cash")
        connection.execute("ALTER TABLE trading.equity ADD COLUMN cash BIGINT")
        connection.execute(f"CREATE TABLE features.labels ({features.LABELS.ddl})")
    assert sorted(map(str, differences(lake.connect()))) == [
        "clean.bars has no column vwap DOUBLE",
        "clean.coverage has a column extra DATE, which is not declared",
        "ml.predictions is missing",
        "trading.equity.cash is BIGINT, declared DOUBLE",
    ]


def test_a_column_and_a_type_that_no_table_has_are_errors():
    with pytest.raises(KeyError, match="has no column nothing"):
        clean.BARS.schema(["nothing"])
    with pytest.raises(TypeError, match="Duration"):
        sql_type(pl.Duration)

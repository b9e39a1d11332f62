"""The lake attached by others, and at another place than it was made."""

import re
import shutil
from datetime import date

import duckdb
import pytest

from quantlytic_assets.settings import CHECKOUT
from quantlytic_assets.storage.lake import local_lake
from quantlytic_tests.storage.processes import replace_session

DAY = date(2025, 3, 3)


@pytest.fixture
def made(tmp_path):
    """A checkout with the default data directory, and rows in its lake."""
    lake = local_lake(tmp_path / "checkout" / ".quantlytic" / "lake")
    # More rows than DuckLake keeps in the catalog itself.
    replace_session(lake, 1, "A", DAY, 500)
    lake.connect().close()
    return tmp_path / "checkout"


def readme_statements() -> str:
    text = (CHECKOUT / "README.md").read_text()
    (found,) = [block for block in re.findall(r"```sql\n(.*?)```", text, re.DOTALL) if "ATTACH" in block]
    return found


def test_the_readme_s_attach_statement_works_from_the_checkout_as_it_stands(made, monkeypatch):
    monkeypatch.chdir(made)
    with duckdb.connect() as client:
        client.execute(readme_statements())
        assert client.execute("SELECT count(*), max(close) FROM lake.clean.bars").fetchall() == [(500, 1.0)]
        with pytest.raises(duckdb.Error, match="read-only"):
            client.execute("DELETE FROM lake.clean.bars")


def test_it_works_where_the_checkout_was_moved_to(made, monkeypatch):
    moved = made.rename(made.with_name("elsewhere"))
    monkeypatch.chdir(moved)
    with duckdb.connect() as client:
        client.execute(readme_statements())
        assert client.execute("SELECT count(*) FROM lake.clean.bars").fetchall() == [(500,)]


def test_a_lake_that_was_moved_is_read_and_written_where_it_is(made):
    moved = made.rename(made.with_name("elsewhere"))
    lake = local_lake(moved / ".quantlytic" / "lake")
    assert lake.query("SELECT count(*) FROM clean.bars").item() == 500
    replace_session(lake, 2, "A", DAY, 400)
    assert lake.query("SELECT count(*), max(close) FROM clean.bars").rows() == [(400, 2.0)]
    assert not made.exists()


def test_a_copy_of_a_lake_leaves_the_original_alone(made, tmp_path):
    shutil.copytree(made, tmp_path / "copy")
    before = {path: path.read_bytes() for path in made.rglob("*.parquet")}
    lake = local_lake(tmp_path / "copy" / ".quantlytic" / "lake")
    replace_session(lake, 2, "B", DAY, 500)
    assert {path: path.read_bytes() for path in made.rglob("*.parquet")} == before
    original = local_lake(made / ".quantlytic" / "lake")
    assert original.query("SELECT count(*) FROM clean.bars").item() == 500
    # The catalog does not lead back to the original either.
    names = lake.query("SELECT data_file FROM ducklake_list_files('lake', 'bars', schema => 'clean')")["data_file"]
    assert len(names) == 2 and all(str(tmp_path / "copy") in name for name in names)

"""`quantlytic_assets.open`: what an installation holds, as frames; and the notebook that shows it."""

import subprocess
import sys
from datetime import date, timedelta

import duckdb
import nbformat
import pandas as pd
import polars as pl
import pytest
from nbclient import NotebookClient

import quantlytic_assets as ql
from quantlytic_assets.reader import ReadError
from quantlytic_assets.resources import make_resources
from quantlytic_assets.services.migrations import migrate
from quantlytic_assets.settings import CHECKOUT
from quantlytic_assets.storage.migrations.layout import OldLayout
from quantlytic_tests.old_installation import unpacked
from quantlytic_tests.storage.places import PROFILES, opened
from quantlytic_tests.storage.processes import replace_session

NOTEBOOKS = sorted((CHECKOUT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Two symbols' daily bars of 2017, a minute dataset, an imported one with a split, a strategy with its trades."""
    made = unpacked(tmp_path_factory.mktemp("installed"))
    with pytest.raises(OldLayout, match="quantlytic migrate"):
        ql.open(made.home)
    migrate(make_resources(made.settings()))
    return made


@pytest.fixture(scope="module")
def lake(installed):
    with ql.open(installed.home) as opened_lake:
        yield opened_lake


def test_the_import_is_cheap():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, quantlytic_assets; print({'polars', 'duckdb', 'dagster', 'pandas', 'sqlalchemy', 'pydantic'} "
            "& set(sys.modules))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()"


def test_bars_come_oldest_first_with_what_was_served(lake):
    bars = lake.bars("equities_1d")
    assert isinstance(bars, pl.DataFrame) and len(bars) == 544
    assert bars.equals(bars.sort("open_time", "symbol"))
    assert bars["session"].min() == date(2017, 1, 3) and set(bars["symbol"]) == {"AAPL", "MSFT"}
    assert bars.schema["open_time"] == pl.Datetime("us", "UTC") and "dataset" not in bars.columns


def test_sessions_and_symbols_are_chosen(lake):
    bars = lake.bars("equities_1d", symbols=["AAPL"], start="2017-02-01", end=date(2017, 2, 3))
    assert bars.select("symbol", "session").rows() == [("AAPL", date(2017, 2, day)) for day in (1, 2, 3)]
    assert bars.equals(lake.bars("equities_1d", symbols="AAPL", start=date(2017, 2, 1), end="2017-02-03"))
    assert len(lake.bars("equities_1d", symbols=[])) == 0


def test_prices_are_adjusted_as_of_a_day(lake):
    """ACME splits 2:1 on 2017-01-10 and pays 0.05 on 2017-01-09."""

    def closes(**options):
        rows = lake.bars("mine_1d", symbols="ACME", **options)
        return dict(zip(rows["session"], rows["close"], strict=True))

    first, last = date(2017, 1, 3), date(2017, 1, 10)
    served = closes()
    assert served[first] == 10.2 and served[last] == 5.5
    assert closes(adjusted="splits")[first] == pytest.approx(5.1)
    # The close before the ex-date is 10.4: 2017-01-05 has a high below its low, and 2017-01-06 no open.
    assert closes(adjusted=True)[first] == pytest.approx(5.1 * (1 - 0.05 / 10.4))
    before = closes(adjusted="splits", as_of="2017-01-09")
    assert before[first] == 10.2 and last not in before
    assert closes(as_of="2017-01-09") == {day: close for day, close in served.items() if day < last}
    # The day does not stay.
    assert closes(adjusted="splits")[first] == pytest.approx(5.1)


def test_features_have_their_keys_and_the_columns_asked_for(lake):
    features = lake.features("equities_1d", columns=["rsi_14", "ret_1"], symbols="AAPL", start="2017-03-01")
    assert features.columns == ["symbol", "session", "interval", "open_time", "available_at", "rsi_14", "ret_1"]
    assert features["rsi_14"].null_count() == 0 and features["session"].is_sorted()
    assert len(lake.features("crypto_1m", interval="1h")) == 24
    assert {"sma_20", "macd"} <= set(lake.features("equities_1d").columns)


def test_predictions_were_made_before_and_trades_have_their_orders(lake):
    predictions = lake.predictions("momentum_1d")
    assert len(predictions) and (predictions["trained_through"] < predictions["available_at"]).all()
    trades = lake.trades("momentum_1d", symbols="AAPL")
    assert len(trades) and set(trades["symbol"]) == {"AAPL"} and trades["fill_time"].is_sorted()
    assert len(lake.trades("momentum_1d")) == 32


def test_frames_are_pandas_where_that_is_asked_for(installed, lake):
    bars = lake.bars("equities_1d", symbols="AAPL", as_pandas=True)
    assert isinstance(bars, pd.DataFrame) and str(bars["open_time"].dt.tz) == "UTC"
    with ql.open(installed.home, frames="pandas") as pandas_lake:
        assert pandas_lake.bars("equities_1d", symbols="AAPL").equals(bars)
        assert isinstance(pandas_lake.sql("SELECT 1", as_pandas=False), pl.DataFrame)


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (
            lambda lake: lake.bars("equity_1d"),
            "no dataset 'equity_1d'.*did you mean 'equities_1d'.*quantlytic backfill",
        ),
        (lambda lake: lake.bars("equities_1d", symbols="APPL"), "no symbol 'APPL' in equities_1d: did you mean 'AAPL'"),
        (lambda lake: lake.features("equities_1d", ["rsi14"]), "no feature 'rsi14'.*did you mean 'rsi_14'"),
        (lambda lake: lake.features("crypto_1m", interval="1d"), "no interval '1d'.*There are: 1h"),
        (lambda lake: lake.predictions("momentum"), "no strategy 'momentum'.*did you mean 'momentum_1d'"),
        (lambda lake: lake.bars("equities_1d", start="2017-13-01"), "start='2017-13-01' is no day"),
        (lambda lake: lake.bars("equities_1d", start="2017-03-01", end="2017-02-01"), "is after end"),
        (lambda lake: lake.bars("equities_1d", adjusted="dividends"), "adjusted='dividends' is none of"),
        (lambda lake: lake.sql("DELETE FROM clean.bars"), "only reading is allowed"),
        (lambda lake: lake.sql("COPY clean.bars TO 'bars.csv'"), "only reading is allowed"),
        (lambda lake: lake.sql("SELECT 1; SELECT 2"), "one SELECT is wanted"),
        (lambda lake: ql.open(frames="arrow"), "frames='arrow' is none of"),
        (lambda lake: ql.open("/nowhere"), "no installation in /nowhere.*quantlytic demo"),
    ],
)
def test_what_is_not_there_is_told_with_what_is_meant(lake, ask, told):
    with pytest.raises(ReadError, match=told):
        ask(lake)


def test_sql_takes_parameters_and_raises_duckdb_s_errors(lake):
    assert lake.sql("SELECT count(*) AS n FROM clean.bars WHERE symbol = ?", ["AAPL"])["n"].item() == 272
    with pytest.raises(duckdb.Error, match="no_such_table"):
        lake.sql("SELECT * FROM no_such_table")


def test_nothing_is_written_and_nobody_waits(installed, lake):
    before = installed.fingerprint("lake", "state", "archive")
    with make_resources(installed.settings()).lake.commit_lock:
        assert len(lake.bars("equities_1d")) == 544
        with ql.open(installed.home) as another:
            assert len(another.bars("equities_1d")) == 544
    after = installed.fingerprint("lake", "state", "archive")
    assert {name: digest for name, digest in after.items() if not name.endswith(".lock")} == {
        name: digest for name, digest in before.items() if not name.endswith(".lock")
    }


@pytest.mark.parametrize("profile", PROFILES)
def test_each_profile_is_read_by_its_environment(profile, tmp_path, monkeypatch):
    with opened(profile, tmp_path / "home") as place:
        replace_session(place.resources.lake, 1, "A", date(2025, 3, 3), 10)
        monkeypatch.setenv("QUANTLYTIC_PROFILE", profile)
        monkeypatch.setenv("QUANTLYTIC_HOME", str(place.settings.data))
        monkeypatch.setenv("QUANTLYTIC_NAMESPACE", place.settings.namespace)
        with ql.open() as lake:
            assert lake.sql("SELECT count(*) AS n FROM clean.bars")["n"].item() == 10


def test_a_reader_sees_what_is_committed_after_it_was_opened(tmp_path):
    with opened("embedded", tmp_path / "home") as place:
        replace_session(place.resources.lake, 1, "A", date(2025, 3, 3), 10)
        with ql.open(place.settings.data) as lake:
            replace_session(place.resources.lake, 1, "A", date(2025, 3, 3) + timedelta(days=1), 5)
            assert lake.sql("SELECT count(*) AS n FROM clean.bars")["n"].item() == 15


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_notebook_of_the_docs_runs_and_has_its_outputs(installed, path, monkeypatch):
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [out for cell in cells for out in cell.outputs if out.output_type == "error"]
    assert any("image/png" in out.get("data", {}) for cell in cells for out in cell.outputs)
    monkeypatch.setenv("QUANTLYTIC_HOME", str(installed.home))
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    assert not [out for cell in cells for out in cell.outputs if out.output_type == "error"]

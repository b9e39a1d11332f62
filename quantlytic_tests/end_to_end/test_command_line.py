"""The contract of the `quantlytic` command: what each command prints, what it leaves alone, and its exit codes."""

from __future__ import annotations

import csv
import io
import json
import re
import socket
from datetime import date, datetime
from pathlib import Path

import pytest
import yaml

from quantlytic_assets.schemas.features import FAMILIES
from quantlytic_assets.storage.bus import LocalBus, bars_topic
from quantlytic_tests.end_to_end.installations import Installed
from quantlytic_tests.end_to_end.universes import EQUITIES_5M, universe

ISO_UTC = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)$")
COMMANDS = ["demo", "serve", "pages", "import", "backfill", "replay", "gaps", "status", "sql", "docs", "doctor"]

TEN_MISTAKES = {
    "datasets": {
        "prices": {
            "calendar": "MOON",
            "interval": "7m",
            "partition": "week",
            "first_session": "@2024-13-45",
            "vendors": ["nobody"],
            "out_of_session": "maybe",
            "delay": "soon",
            "feature_intervals": ["2m"],
            "symbols": [],
            "colour": "red",
        }
    },
    "strategies": {"dreams": {"dataset": "nowhere", "model": "oracle"}},
}
MISTAKEN = [
    "datasets.prices.calendar",
    "datasets.prices.interval",
    "datasets.prices.partition",
    "datasets.prices.first_session",
    "datasets.prices.vendors",
    "datasets.prices.out_of_session",
    "datasets.prices.delay",
    "datasets.prices.feature_intervals",
    "datasets.prices.symbols",
    "datasets.prices.colour",
    "strategies.dreams.dataset",
    "strategies.dreams.model",
]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """An installation in which nothing has been done yet; tests leave it like that."""
    return Installed(tmp_path_factory.mktemp("empty"), universe(equities_5m=EQUITIES_5M))


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """An installation whose universe file has a dozen mistakes, a date that YAML itself rejects among them."""
    installed = Installed(tmp_path_factory.mktemp("mistaken"), universe())
    # Quoted it would be text; bare, it is a date that PyYAML refuses to make.
    installed.universe_path.write_text(yaml.safe_dump(TEN_MISTAKES).replace("'@2024-13-45'", "2024-13-45"))
    return installed


def test_help_names_every_command(empty: Installed):
    done = empty.run("--help").expect(0)
    assert [name for name in COMMANDS if not re.search(rf"^\W*{name}\b", done.out, re.MULTILINE)] == []


def test_wrong_usage_ends_with_2_and_says_what_is_wrong(empty: Installed):
    file = empty.root / "bars.csv"
    file.write_text("time,open,high,low,close,volume\n2025-06-30T14:00:00Z,1,2,1,2,3\n")
    mine = ["import", str(file), "--dataset", "equities_5m", "--symbol", "AAPL"]
    wrong = {
        ("backfil",): "backfil",
        ("backfill",): "DATASET|STRATEGY",
        ("backfill", "nothing"): "there are: equities_5m",
        ("backfill", "equities_5m", "--symbols", "AAPL,NOPE"): "NOPE",
        ("backfill", "equities_5m", "--from", "2025-07-08", "--to", "2025-07-01"): "is after",
        ("backfill", "equities_5m", "--from", "2031-01-01"): "no session there",
        ("backfill", "equities_5m", "--from", "July"): "July",
        ("gaps", "nothing"): "there are: equities_5m",
        ("replay", "nothing"): "there are: equities_5m",
        ("replay", "equities_5m", "--speed", "0"): "--speed",
        ("sql", "SELECT 1", "--format", "xml"): "xml",
        ("import", str(empty.root / "none.csv"), "--dataset", "equities_5m", "--symbol", "AAPL"): "is not a file",
        (*mine[:3], "nothing", *mine[4:]): "there are: equities_5m",
        (*mine, "--columns", "time"): "time=",
        (*mine, "--label", "middle"): "middle",
        (*mine, "--adjustment", "dividends"): "dividends",
        (*mine, "--time-zone", "Mars/Olympus"): "Mars/Olympus",
    }
    found = empty.run_in_turn([list(arguments) for arguments in wrong])
    told = {
        arguments: (done.code, said in done.err + done.out, "Traceback" in done.err, done.err)
        for (arguments, said), done in zip(wrong.items(), found, strict=True)
    }
    assert {arguments: seen for arguments, seen in told.items() if seen[:3] != (2, True, False)} == {}


def test_a_traceback_is_shown_with_debug_only(base: Installed):
    plain, debug = base.run_all([["sql", "SELECT nope"], ["sql", "SELECT nope", "--debug"]])
    plain.expect(1)
    assert "nope" in plain.err and plain.out == ""
    assert debug.code == 1
    assert "Traceback" in debug.err


def test_every_mistake_of_the_universe_is_listed_by_every_command_that_reads_it(mistaken: Installed):
    file = mistaken.root / "bars.csv"
    file.write_text("time,open,high,low,close,volume\n")
    commands = [
        ["doctor"],
        ["status", "--json"],
        ["gaps"],
        ["backfill", "prices"],
        ["import", str(file), "--dataset", "prices", "--symbol", "A"],
        ["replay", "prices"],
        ["demo", "--no-serve"],
        ["serve"],
    ]
    for command, done in zip(commands, mistaken.run_in_turn(commands), strict=True):
        done.expect(2)
        lines = done.err.strip().splitlines()
        assert done.out == "", command
        unnamed = [field for field in MISTAKEN if not any(line.startswith(f"{field}") for line in lines)]
        assert unnamed == [], (command, done.err)
        assert all(re.match(r"^(datasets|strategies)\.\S+: \S", line) for line in lines), done.err


def test_wrong_variables_are_listed_and_end_with_2(empty: Installed):
    wrong = {"QUANTLYTIC_PORT": "harbour", "QUANTLYTIC_BACKFILL_CHUNK": "0", "QUANTLYTIC_PROFILE": "cloud"}
    for done in empty.run_in_turn([["status"], ["doctor"], ["sql", "SELECT 1"]], **wrong):
        done.expect(2)
        for name, value in wrong.items():
            assert f"{name}=" in done.err and value in done.err
        assert done.out == ""
    missing = str(empty.root / "none.yaml")
    done = empty.run("status", QUANTLYTIC_UNIVERSE=missing).expect(2)
    assert missing in done.err


def test_status_json_tells_of_each_dataset(base: Installed):
    done = base.run("status", "--json").expect(0)
    rows = {row["dataset"]: row for row in done.json()}
    assert list(rows) == ["equities_5m", "equities_1d"]
    intraday = rows["equities_5m"]
    assert intraday["sessions"] == intraday["materialized"] == 6
    assert intraday["bars"] == base.rows("SELECT * FROM clean.bars WHERE dataset = 'equities_5m'").height
    assert intraday["holes"] == base.rows("SELECT * FROM clean.coverage WHERE missing_bars > 0").height
    assert intraday["last_bar"] == "2025-07-08T19:55:00+00:00"
    archived = sum(path.stat().st_size for path in (base.home / "archive/equities_5m").glob("partition=*/*"))
    assert intraday["bytes"] == archived


def test_status_as_a_table_names_each_dataset(base: Installed):
    done = base.run("status").expect(0)
    assert "equities_5m" in done.out and "equities_1d" in done.out


def test_status_and_gaps_of_a_fresh_installation_are_empty_not_errors(empty: Installed):
    status, gaps, table = empty.run_in_turn([["status", "--json"], ["gaps", "--json"], ["gaps"]])
    assert [(row["materialized"], row["bars"], row["last_bar"]) for row in status.expect(0).json()] == [(0, 0, None)]
    assert gaps.expect(0).json() == []
    assert "no holes" in table.expect(0).out


def test_gaps_json_has_exactly_the_promised_shape(base: Installed):
    every, intraday, daily = base.run_in_turn(
        [["gaps", "--json"], ["gaps", "equities_5m", "--json"], ["gaps", "equities_1d", "--json"]]
    )
    rows = every.expect(0).json()
    assert rows and rows == intraday.expect(0).json()
    assert daily.expect(0).json() == []
    for row in rows:
        assert list(row) == ["dataset", "symbol", "session", "missing_bars", "cause", "attempts", "ranges", "next"]
        assert row["next"].startswith(("asked", "nothing"))
        assert isinstance(row["attempts"], int) and isinstance(row["missing_bars"], int)
        assert date.fromisoformat(row["session"])
        minutes = 0
        for stretch in row["ranges"]:
            assert list(stretch) == ["start", "end", "cause"]
            assert ISO_UTC.match(stretch["start"]) and ISO_UTC.match(stretch["end"])
            length = datetime.fromisoformat(stretch["end"]) - datetime.fromisoformat(stretch["start"])
            minutes += length.total_seconds() / 60
        assert minutes == 5 * row["missing_bars"]
    half_day = {(row["symbol"], row["session"]): row for row in rows}[("SPY", "2025-07-03")]
    assert half_day["cause"] == "vendor_hole" and half_day["missing_bars"] == 2
    assert half_day["ranges"] == [
        {"start": "2025-07-03T16:50:00+00:00", "end": "2025-07-03T17:00:00+00:00", "cause": "vendor_hole"}
    ]


def test_gaps_as_a_table_shows_ranges_and_causes(base: Installed):
    done = base.run("gaps").expect(0)
    assert "16:50-17:00 vendor_hole" in done.out


def test_sql_json_is_an_array_of_objects_with_iso_times_and_nothing_else(base: Installed):
    query = (
        "SELECT symbol, session, open_time, close, flags, 'nan'::DOUBLE AS nothing, 1.5::DECIMAL(4, 2) AS exact "
        "FROM clean.bars WHERE symbol = 'SPY' ORDER BY open_time DESC LIMIT 1"
    )
    done = base.run("sql", query, "--format", "json").expect(0)
    (row,) = done.json()
    assert list(row) == ["symbol", "session", "open_time", "close", "flags", "nothing", "exact"]
    assert row["session"] == "2025-07-08" and row["open_time"] == "2025-07-08T19:55:00+00:00"
    assert row["flags"] == [] and row["nothing"] is None and row["exact"] == 1.5
    assert done.err == ""


def test_sql_json_of_no_rows_is_an_empty_array(base: Installed):
    assert base.run("sql", "SELECT * FROM clean.bars WHERE false", "--format", "json").expect(0).json() == []


def test_sql_has_no_row_cap_in_any_format(base: Installed):
    wanted = base.rows("SELECT * FROM clean.bars").height
    assert wanted > 1000
    query = "SELECT symbol, open_time, close, flags FROM clean.bars ORDER BY ALL"
    table, text, objects = base.run_in_turn([["sql", query, "--format", name] for name in ("table", "csv", "json")])
    assert len(objects.expect(0).json()) == wanted
    rows = list(csv.DictReader(io.StringIO(text.expect(0).out)))
    assert len(rows) == wanted and ISO_UTC.match(rows[0]["open_time"])
    assert float(rows[-1]["close"]) == objects.json()[-1]["close"]
    assert json.loads(rows[0]["flags"]) == objects.json()[0]["flags"]
    assert sum("│" in line for line in table.expect(0).out.splitlines()) == wanted


def test_sql_reads_the_information_schema_and_explains(base: Installed):
    query = "SELECT column_name FROM information_schema.columns WHERE table_schema = 'clean' AND table_name = 'bars'"
    columns, plan, values = base.run_in_turn(
        [
            ["sql", query, "--format", "json"],
            ["sql", "EXPLAIN SELECT * FROM clean.bars"],
            ["sql", "FROM clean.bars SELECT count(*)", "--format", "json"],
        ]
    )
    assert "open_time" in [row["column_name"] for row in columns.expect(0).json()]
    plan.expect(0)
    values.expect(0)


def test_sql_refuses_everything_that_writes(base: Installed, tmp_path: Path):
    target = tmp_path / "out.csv"
    writes = [
        "DELETE FROM clean.bars",
        "INSERT INTO clean.sessions SELECT * FROM clean.sessions",
        "CREATE TABLE clean.mine AS SELECT 1",
        f"COPY (SELECT 1) TO '{target}'",
        # Explaining this way carries it out.
        f"EXPLAIN ANALYZE COPY (SELECT 1) TO '{target}'",
        f"/* no more */ EXPLAIN (ANALYZE, FORMAT json) COPY (SELECT 1) TO '{target}'",
        f"ATTACH '{target}' AS other",
        "SELECT 1; DELETE FROM clean.bars",
        "SET memory_limit = '9GB'",
        "",
    ]
    before = base.fingerprint("lake")
    found = base.run_in_turn([["sql", query] for query in writes])
    assert {query: done.code for query, done in zip(writes, found, strict=True) if done.code != 2} == {}
    assert all("Traceback" not in done.err and done.err.strip() for done in found)
    assert not target.exists()
    assert base.fingerprint("lake") == before


def test_a_dry_run_says_what_would_be_asked_asks_nobody_and_changes_nothing(tmp_path: Path):
    fresh = Installed(tmp_path, universe(equities_5m=EQUITIES_5M))
    done = fresh.run("backfill", "equities_5m", "--from", "2025-07-03", "--to", "2025-07-07", "--dry-run").expect(0)
    assert "2 requests to sample" in done.out
    # A half day of 42 bars and a whole one of 78, for two symbols.
    assert "240 bars missing" in done.out
    assert fresh.fingerprint("bus", "archive", "dagster", "mlflow") == {}


def test_a_dry_run_of_what_is_complete_asks_for_nothing(base: Installed):
    before = base.fingerprint("bus", "archive", "lake", "state")
    whole, one = base.run_in_turn(
        [["backfill", "equities_5m", "--dry-run"], ["backfill", "momentum_1d", "--dry-run", "--symbols", "AAPL"]]
    )
    assert "0 requests" in whole.expect(0).out
    assert "0 requests" in one.expect(0).out
    assert base.fingerprint("bus", "archive", "lake", "state") == before


def test_demo_with_nothing_to_do_asks_nobody_and_shows_what_there_is(base: Installed):
    before = base.fingerprint("bus", "archive")
    done = base.run("demo", "--no-serve").expect(0)
    assert "0 partitions materialized, 0 vendor requests" in done.out
    assert "buy and hold" in done.out and "sharpe" in done.out and "momentum_1d.html" in done.out
    assert base.fingerprint("bus", "archive") == before


def test_docs_describe_every_model_and_column(base: Installed):
    done = base.run("docs", "--no-serve").expect(0)
    index = Path(re.search(r"docs: (\S+index\.html)", done.out).group(1))
    assert index.stat().st_size > 100_000
    manifest = json.loads((index.parent / "manifest.json").read_text())
    catalog = json.loads((index.parent / "catalog.json").read_text())
    ours = {
        key: node
        for key, node in {**manifest["nodes"], **manifest["sources"]}.items()
        if node["resource_type"] in ("model", "source") and node["package_name"] == "quantlytic"
    }
    assert {"bars", "indicators", "labels"} <= {node["name"] for node in ours.values()}
    assert [key for key, node in ours.items() if not node["description"].strip()] == []
    catalogued = {**catalog["nodes"], **catalog["sources"]}
    for key, node in ours.items():
        if node["resource_type"] == "model" and node["config"]["materialized"] in ("view", "ephemeral"):
            continue
        # No dataset here has features of these families, and there is no table.
        if node["name"] in FAMILIES and key not in catalogued:
            continue
        described = {name.lower() for name, column in node["columns"].items() if column["description"].strip()}
        assert set(map(str.lower, catalogued[key]["columns"])) - described == set(), key


def test_doctor_finds_a_good_installation_good(base: Installed):
    done = base.run("doctor").expect(0)
    assert "WRONG" not in done.out and "asset graph" in done.out


def test_doctor_says_what_is_wrong_and_how_to_mend_it(tmp_path: Path):
    broken = Installed(tmp_path, universe(equities_5m=EQUITIES_5M))
    broken.home.write_text("a file where a directory should be")
    done = broken.run("doctor").expect(1)
    assert "WRONG data directory" in done.out and "QUANTLYTIC_HOME" in done.out


def test_replay_publishes_and_leaves_landing_to_the_sensor(base: Installed, tmp_path: Path):
    installed = base.copied_to(tmp_path, with_lake=True, universe=universe(equities_5m=EQUITIES_5M))
    before = LocalBus(installed.home / "bus").watermarks(bars_topic("equities_5m"))
    archive = installed.fingerprint("archive")
    done = installed.run(
        "replay", "equities_5m", "--speed", "1000000", "--from", "2025-07-07", "--to", "2025-07-07"
    ).expect(0)
    played = int(re.search(r"(\d+) bars of .* published to", done.out).group(1))
    assert played >= 156
    after = LocalBus(installed.home / "bus").watermarks(bars_topic("equities_5m"))
    assert after[0][1] == before[0][1] + played
    assert installed.fingerprint("archive") == archive


def test_serve_says_that_its_port_is_taken(empty: Installed):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = empty.run("serve", QUANTLYTIC_PORT=str(taken.getsockname()[1])).expect(1)
    assert "QUANTLYTIC_PORT" in done.err

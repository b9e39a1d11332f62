"""`quantlytic gaps` on a lake: each hole with what will be done about it, and the same as a map."""

import io
import json
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
import yaml
from rich.console import Console

from quantlytic_assets.calendars.sessions import session_table
from quantlytic_assets.commands.backfilling import run_backfill
from quantlytic_assets.commands.gaps import gap_rows, show_gaps
from quantlytic_assets.commands.installation import CommandError, Installation, UsageError
from quantlytic_assets.commands.metrics import calls_left
from quantlytic_assets.commands.notify import run_notify
from quantlytic_assets.market_data.bars import COVERAGE_SCHEMA
from quantlytic_tests.frames import utc
from quantlytic_tests.receivers import Webhook

FIRST, LAST = date(2025, 3, 3), date(2025, 3, 14)
UNIVERSE = {
    "datasets": {
        "live": {
            "calendar": "24/7", "interval": "1m", "first_session": FIRST, "last_session": LAST, "vendors": ["coinbase"],
            "venue": "coinbase", "symbols": ["A-USD", "B-USD", {"symbol": "C-USD", "from": date(2025, 3, 10)}],
        },
        "files": {
            "calendar": "XNYS", "interval": "5m", "first_session": FIRST, "last_session": LAST, "vendors": [],
            "symbols": ["AAPL"],
        },
    },
    "outages": [{"venue": "coinbase", "from": "2025-03-07T00:00Z", "to": "2025-03-07T02:00Z"}],
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def installation(tmp_path, home, monkeypatch):
    """With nothing in its tables."""
    path = tmp_path / "universe.yaml"
    path.write_text(yaml.safe_dump(UNIVERSE))
    monkeypatch.setenv("QUANTLYTIC_UNIVERSE", str(path))
    monkeypatch.setenv("QUANTLYTIC_HOME", str(home))
    monkeypatch.delenv("QUANTLYTIC_NOTIFY", raising=False)
    opened = Installation()
    yield opened
    # A lake that no test opened is not opened here to be emptied.
    if "lake" in vars(opened.resources):
        opened.resources.lake.replace([("clean.coverage", "true", [], pl.DataFrame())])


def hole(day, hours, cause):
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return [{"start": start, "end": start + timedelta(hours=hours), "cause": cause}]


def cover(installation, dataset, symbols, holes, first=FIRST):
    """Coverage of the dataset's sessions, complete but for `holes`: (symbol, day) → (hours, cause)."""
    sessions = session_table("XNYS" if dataset == "files" else "24/7", first, LAST)["session"]
    rows = []
    for symbol in symbols:
        for day in sessions:
            hours, cause = holes.get((symbol, day), (0, None))
            rows.append(
                {
                    "dataset": dataset, "symbol": symbol, "session": day, "expected_bars": 1440,
                    "present_bars": 1440 - 60 * hours, "missing_bars": 60 * hours, "cause": cause,
                    "missing_ranges": hole(day, hours, cause) if cause else [], "attempts": 0,
                    "checked_at": utc("2025-03-20T00:00"),
                }
            )  # fmt: skip
    table = pl.DataFrame(rows, schema=COVERAGE_SCHEMA)
    installation.resources.lake.replace([("clean.coverage", "dataset = ?", [dataset], table)])


HOLES = {
    ("A-USD", date(2025, 3, 4)): (3, "not_fetched"),
    ("A-USD", date(2025, 3, 5)): (1, "vendor_hole"),
    ("B-USD", date(2025, 3, 6)): (2, "outage"),
    ("B-USD", date(2025, 3, 7)): (2, "outage"),
    ("B-USD", date(2025, 3, 11)): (20, "not_fetched"),
}


def show(installation, *arguments, width=100, **options):
    out = Console(file=io.StringIO(), width=width)
    show_gaps(installation, out, *arguments, **options)
    return out.file.getvalue()


def test_each_hole_says_what_will_be_done_about_it(installation, capsys):
    cover(installation, "live", ("A-USD", "B-USD", "GONE"), HOLES | {("GONE", date(2025, 3, 3)): (1, "not_fetched")})
    cover(installation, "files", ("AAPL",), {("AAPL", date(2025, 3, 4)): (1, "unknown")})
    in_vain = pl.DataFrame({"symbol": ["A-USD"], "session": [date(2025, 3, 5)], "error": [None]})
    for _ in range(3):
        installation.resources.attempts.record("live", in_vain)
    rows = {(row["symbol"], row["session"].day): row["next"] for row in gap_rows(installation, None)}
    assert rows == {
        ("A-USD", 4): "asked by live_gap_sensor where it is switched on, or now by `quantlytic backfill live`",
        ("A-USD", 5): "nothing: the vendors don't have it; `quantlytic backfill live --force` asks again",
        ("AAPL", 4): "nothing by itself: the dataset has no vendor; `quantlytic import` brings a file",
        # All symbols at once, and nobody has asked.
        ("B-USD", 6): rows["A-USD", 4],
        ("B-USD", 7): "nothing: the venue was down, says the universe's list of outages",
        ("B-USD", 11): rows["A-USD", 4],
        ("GONE", 3): "nothing: the symbol is not in the universe on that session any more",
    }
    show(installation, "live", True)
    shown = json.loads(capsys.readouterr().out)
    assert list(shown[0]) == ["dataset", "symbol", "session", "missing_bars", "cause", "attempts", "ranges", "next"]
    assert len(shown) == 6
    listed = show(installation, "live", False, width=240)
    assert "00:00-03:00 not_fetched" in listed and "live_gap_sensor" in listed
    assert "live: 5 sessions of 1 symbols not looked at yet, 2025-03-10 to 2025-03-14" in listed


def table_rows(shown: str) -> list[list[str]]:
    """Cells of the rows of a table that is not folded."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if line.startswith("│")]


def test_neighbouring_sessions_with_the_same_cause_are_one_row_of_the_list(installation, capsys):
    holes = {("A-USD", date(2025, 3, day)): (2, "not_fetched") for day in (8, 9, 10, 12, 13)}
    holes |= {("A-USD", date(2025, 3, 11)): (2, "no_trade"), ("A-USD", date(2025, 3, 13)): (5, "not_fetched")}
    holes |= {("B-USD", date(2025, 3, day)): (24, "not_fetched") for day in range(3, 15)}
    cover(installation, "live", ("A-USD", "B-USD"), holes)
    rows = [row[1:7] for row in table_rows(show(installation, "live", False, width=400))]
    assert rows == [
        ["A-USD", "2025-03-08 … 2025-03-10 (3)", "360", "not_fetched", "0", "00:00-02:00 not_fetched"],
        ["A-USD", "2025-03-11", "120", "no_trade", "0", "00:00-02:00 no_trade"],
        ["A-USD", "2025-03-12 … 2025-03-13 (2)", "420", "not_fetched", "0", "2 ranges"],
        ["B-USD", "2025-03-03 … 2025-03-14 (12)", "17,280", "not_fetched", "0", "00:00-00:00 not_fetched"],
    ]
    show(installation, "live", True)
    assert len(json.loads(capsys.readouterr().out)) == 18


def test_weekends_part_no_stretch_and_complete_sessions_do(installation):
    holes = {("AAPL", date(2025, 3, day)): (1, "unknown") for day in (6, 7, 10, 12)}
    cover(installation, "files", ("AAPL",), holes)
    rows = [row[2] for row in table_rows(show(installation, "files", False, width=400))]
    assert rows == ["2025-03-06 … 2025-03-10 (3)", "2025-03-12"]


def test_a_symbol_of_which_nothing_was_imported_says_so_once(installation, capsys):
    wanted = [
        "files", "AAPL", "2025-03-03 … 2025-03-14 (10)", "780", "never imported", "0", "everything",
        "`quantlytic import FILE --dataset files --symbol AAPL` brings it",
    ]  # fmt: skip
    # One session is not looked at yet, the other was looked at in vain.
    shown = show(installation, "files", False, width=400)
    assert table_rows(shown) == [wanted]
    assert "not looked at" not in shown
    cover(installation, "files", ("AAPL",), {("AAPL", date(2025, 3, day)): (24, "unknown") for day in range(3, 15)})
    assert table_rows(show(installation, "files", False, width=400)) == [[*wanted[:3], "14,400", *wanted[4:]]]
    # One bar is something.
    cover(installation, "files", ("AAPL",), {("AAPL", date(2025, 3, day)): (24, "unknown") for day in range(4, 15)})
    assert [row[4] for row in table_rows(show(installation, "files", False, width=400))] == ["unknown"]
    show(installation, "files", True)
    assert {row["cause"] for row in json.loads(capsys.readouterr().out)} == {"unknown"}


def test_the_list_is_no_wider_than_the_terminal(installation):
    cover(installation, "live", ("A-USD", "B-USD"), HOLES)
    for width in (80, 120):
        assert max(map(len, show(installation, "live", False, width=width).splitlines()[:-1])) <= width


def test_the_map_is_symbol_by_session_with_the_cause_s_letter(installation):
    cover(installation, "live", ("A-USD", "B-USD"), HOLES)
    lines = show(installation, "live", False, heat_map=True).splitlines()
    assert lines[0] == "live, 2025-03-03 to 2025-03-14; a cell is a session"
    assert lines[1].strip() == "2025-03-03"
    assert lines[2:5] == ["A-USD ·fh·········", "B-USD ···oo···F···", "C-USD        NNNNN"]
    assert lines[5].split("complete")[1].strip() == (
        "O outage  H vendor_hole  F not_fetched  N never looked at  (small: less than half is missing)"
    )


def test_a_long_map_is_no_wider_than_the_terminal(installation):
    table = pl.DataFrame({"session": pl.date_range(date(2020, 1, 1), date(2024, 12, 31), "1d", eager=True)}).select(
        pl.lit("live").alias("dataset"), pl.lit("A-USD").alias("symbol"), "session", pl.lit(10).alias("expected_bars"),
        pl.lit(10).alias("present_bars"), pl.lit(0).alias("missing_bars"), pl.lit(0).alias("attempts"),
        pl.lit(utc("2025-03-20T00:00")).alias("checked_at"),
    )  # fmt: skip
    installation.resources.lake.replace([("clean.coverage", "true", [], table)])
    for width in (60, 300):
        lines = show(installation, "live", False, heat_map=True, width=width).splitlines()
        assert "the worst is shown" in lines[0]
        assert max(map(len, lines[1:5])) <= min(width, 126)
    # One that nobody has looked at is all N.
    assert "AAPL NNNNNNNNNN" in show(installation, "files", False, heat_map=True)


def test_expired_sessions_are_no_gaps(installation, tmp_path, monkeypatch):
    cover(installation, "live", ("A-USD",), HOLES)
    kept = {"datasets": {"live": UNIVERSE["datasets"]["live"] | {"keep": "30d"}}}
    (tmp_path / "universe.yaml").write_text(yaml.safe_dump(kept))
    assert gap_rows(Installation(), None) == []
    assert "no holes known" in show(Installation(), "live", False)


def test_a_backfill_begins_with_what_is_kept_unless_an_older_day_is_named(installation, tmp_path):
    today = datetime.now(UTC).date()
    changes = {"first_session": today - timedelta(days=20), "keep": "3d", "symbols": ["A-USD"]}
    live = {name: value for name, value in UNIVERSE["datasets"]["live"].items() if name != "last_session"}
    kept = {"datasets": {"live": live | changes}}
    (tmp_path / "universe.yaml").write_text(yaml.safe_dump(kept))

    def plan(first, force=False):
        out = Console(file=io.StringIO(), width=200)
        run_backfill(Installation(), out, "live", first, today, [], True, False, force)
        return out.file.getvalue()

    assert plan(None).startswith("live: 4 partitions")
    assert plan(today - timedelta(days=9)).startswith("live: 10 partitions")


def test_force_asks_for_known_holes_too_and_only_of_datasets(installation):
    answered = pl.DataFrame({"symbol": ["A-USD"], "session": [LAST], "error": pl.Series([None], dtype=pl.String)})
    for _ in range(3):
        installation.resources.attempts.record("live", answered)

    def plan(force):
        out = Console(file=io.StringIO(), width=200)
        run_backfill(installation, out, "live", LAST, LAST, ["A-USD"], True, False, force)
        return out.file.getvalue()

    assert "0 bars missing" in plan(False)
    assert "1,440 bars missing" in plan(True)


def test_notify_reaches_whom_the_settings_name(installation, monkeypatch):
    out = Console(file=io.StringIO(), width=200)
    with pytest.raises(UsageError, match="QUANTLYTIC_NOTIFY is not set"):
        run_notify(installation, out, "hello")
    with Webhook().serving() as webhook:
        monkeypatch.setenv("QUANTLYTIC_NOTIFY", webhook.url)
        told = Installation()
        assert "s3cret" not in repr(told.settings)
        run_notify(told, out, "hello")
        assert webhook.texts == [("Quantlytic", "hello")] and "taken by 1 of 1" in out.file.getvalue()
        webhook.status = 500
        with pytest.raises(CommandError, match="address 1") as caught:
            run_notify(told, out, "hello")
        assert "s3cret" not in str(caught.value)


def test_the_metrics_know_what_vendors_still_allow(installation):
    before = calls_left(installation)
    assert before and {vendor for vendor, _ in before} == {"coinbase"}
    installation.resources.budgets.open_circuit("coinbase", 60, "banned")
    assert set(calls_left(installation).values()) == {0}

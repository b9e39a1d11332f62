"""`quantlytic import`: whatever file a user brings, each of its rows ends as a bar, in quarantine, or as a repeat."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from quantlytic_assets.storage.bus import LocalBus, bars_topic
from quantlytic_tests.end_to_end.installations import Done, Installed
from quantlytic_tests.end_to_end.universes import universe

HEADER = "time,open,high,low,close,volume"
# New York's clocks go forward on the ninth of March: its session opens at 14:30 UTC before, at 13:30 after.
FRIDAY, MONDAY = date(2025, 3, 7), date(2025, 3, 10)
MINE = {
    "calendar": "XNYS",
    "interval": "5m",
    "first_session": "2025-03-06",
    "last_session": "2025-03-11",
    "vendors": [],
    "feature_intervals": ["5m"],
    "symbols": ["MESS", "PARQ", "FEAT", "ENDS", "ZONE", "MIXED", "TWICE", "NAMES", "EPOCH"],
}
MINE_DAILY = {
    "calendar": "XNYS",
    "interval": "1d",
    "first_session": "2025-03-03",
    "last_session": "2025-03-31",
    "vendors": [],
    "symbols": ["DAYS"],
}

GOOD = [
    f"{FRIDAY}T{14 + (30 + 5 * i) // 60}:{(30 + 5 * i) % 60:02d}:00Z,{10 + i},{12 + i},{9 + i},{11 + i},100"
    for i in range(12)
]
ON_MONDAY = f"{MONDAY}T15:00:00Z,10,12,9,11,100"
REPEATED = [GOOD[3], GOOD[3], GOOD[7]]
# Rows that are no bars: rejected at the door, each alone.
TEXT = [
    (f"{FRIDAY}T16:00:00Z,abc,12,9,11,100", "bad_number: open"),
    (f"{FRIDAY}T16:05:00Z,10,12,9", "wrong_field_count"),
    ("yesterday,10,12,9,11,100", "bad_time"),
    ("2199-01-04T15:00:00Z,10,12,9,11,100", None),
]
# Rows that are bars, but wrong ones: accepted, archived, and quarantined when they are cleaned.
WRONG = [
    (f"{FRIDAY}T16:10:00Z,-10,12,-11,11,100", "non_positive_price"),
    (f"{FRIDAY}T16:15:00Z,10,9,8,11,100", "bad_ohlc"),
    (f"{FRIDAY}T16:20:00Z,10,12,9,,100", "null_price"),
    (f"{FRIDAY}T16:21:00Z,10,12,9,11,100", "off_grid"),
    (f"{FRIDAY}T23:00:00Z,10,12,9,11,100", "out_of_session"),
    (f"{FRIDAY}T16:25:00Z,10,12,9,11,-5", "negative_volume"),
    ("2025-03-03T15:00:00Z,10,12,9,11,100", "not_in_universe"),
]
# The same bar twice with other values: one of the two is superseded.
CONFLICTING = [f"{FRIDAY}T17:00:00Z,10,12,9,11,100", f"{FRIDAY}T17:00:00Z,10,12,9,11.5,100"]


@dataclass
class Imports:
    """An installation, the import of each symbol's file, and what the printed commands came to."""

    installed: Installed
    done: dict[str, Done]
    printed: dict[str, str]
    next: dict[str, Done]

    def bars(self, symbol: str) -> pl.DataFrame:
        """Clean bars of a symbol, oldest first."""
        return self.installed.rows(f"SELECT * FROM clean.bars WHERE symbol = '{symbol}' ORDER BY open_time")

    def quarantine(self, symbol: str) -> pl.DataFrame:
        """Quarantined rows of a symbol."""
        return self.installed.rows(f"SELECT * FROM clean.quarantine WHERE symbol = '{symbol}' ORDER BY source_row")


def table(*moments: datetime) -> pl.DataFrame:
    """A frame of bars as somebody's own program would have them."""
    steps = pl.Series(range(len(moments)), dtype=pl.Float64)
    return pl.DataFrame({"Timestamp": moments, "OPEN": 10 + steps, "High": 12 + steps, "low": 9 + steps}).with_columns(
        Close=11 + steps, volume=pl.lit(100), comment=pl.lit("not ours")
    )


def next_command(done: Done) -> list[str]:
    """The arguments of the command that an import says to run next."""
    (line,) = re.findall(r"^next: quantlytic (.+)$", done.out, re.MULTILINE)
    return shlex.split(line)


def counts(done: Done) -> tuple[int, int, int]:
    """(read, accepted, rejected) as printed."""
    (found,) = re.findall(r"^(\d+) read, (\d+) accepted, (\d+) refused$", done.out, re.MULTILINE)
    return tuple(map(int, found))


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory) -> Imports:
    """Files of all kinds imported, two at a time, then the commands run that the imports said to run next."""
    root = tmp_path_factory.mktemp("imports")
    installed = Installed(root, universe(mine_5m=MINE, mine_1d=MINE_DAILY))
    mess = [*GOOD, ON_MONDAY, *REPEATED, *[row for row, _ in TEXT], *[row for row, _ in WRONG], *CONFLICTING]
    (root / "mess.csv").write_text("\n".join([HEADER, *reversed(mess)]) + "\n")
    opens = datetime(2025, 3, 7, 14, 30, tzinfo=UTC)
    table(opens, opens + timedelta(minutes=5)).write_parquet(root / "parquet.txt")
    table(opens, opens + timedelta(minutes=5)).write_ipc(root / "feather.csv")
    (root / "ends.csv").write_text(f"{HEADER}\n{FRIDAY}T14:35:00Z,10,12,9,11,100\n")
    (root / "zone.csv").write_text(
        f"{HEADER}\n{FRIDAY} 09:30,10,12,9,11,100\n2025-03-09 02:30,10,12,9,11,100\n{MONDAY} 09:30,10,12,9,11,100\n"
    )
    (root / "mixed.csv").write_text(
        f"{HEADER}\n{FRIDAY}T09:30:00-05:00,10,12,9,11,100\n{FRIDAY} 09:35:00,10,12,9,11,100\n"
    )
    (root / "twice.csv").write_text("\n".join([HEADER, *GOOD[:4]]))
    (root / "names.csv").write_text(f"tag;o;h;l;c;v\n{FRIDAY}T14:30Z;10;12;9;11;100\n")
    stamp = int(opens.timestamp())
    (root / "epoch.csv").write_text(
        f"{HEADER}\n{stamp},1,2,1,2,3\n{stamp + 300}000,1,2,1,2,3\n{stamp + 600}000000,1,2,1,2,3\n"
        f"{stamp + 900}000000000,1,2,1,2,3\n"
    )
    (root / "days.csv").write_text(
        f"Date,Open,High,Low,Close,Volume\n{FRIDAY},10,12,9,11,100\n{MONDAY},11,13,10,12,100\n"
    )
    files = {
        "MESS": ["mess.csv"],
        "PARQ": ["parquet.txt"],
        "FEAT": ["feather.csv"],
        "ENDS": ["ends.csv", "--label", "end", "--adjustment", "split"],
        "ZONE": ["zone.csv", "--time-zone", "America/New_York"],
        "MIXED": ["mixed.csv", "--time-zone", "America/New_York"],
        "TWICE": ["twice.csv"],
        "TWICE again": ["twice.csv"],
        "NAMES": ["names.csv", "--columns", "time=tag,open=o,high=h,low=l,close=c,volume=v"],
        "EPOCH": ["epoch.csv"],
        "STRANGER": ["twice.csv"],
    }
    commands = {
        name: ["import", *rest, "--dataset", "mine_5m", "--symbol", name.split()[0]] for name, rest in files.items()
    }
    commands["DAYS"] = ["import", "days.csv", "--dataset", "mine_1d", "--symbol", "DAYS"]
    done = dict(zip(commands, installed.run_in_turn(list(commands.values()), at_once=2), strict=True))
    rejected_early = installed.rows("SELECT count(*) FROM clean.quarantine").item()
    printed = {name: " ".join(next_command(done[name])) for name in done if done[name].code == 0}
    ran = installed.run_all([next_command(done["MESS"]), next_command(done["DAYS"])])
    outcome = Imports(installed, done, printed, dict(zip(("mine_5m", "mine_1d"), ran, strict=True)))
    assert rejected_early == len(TEXT) + 1
    return outcome


def test_each_import_says_how_many_rows_were_read_accepted_and_rejected(imports: Imports):
    for done in imports.done.values():
        done.expect(0)
    everything = len(GOOD) + 1 + len(REPEATED) + len(TEXT) + len(WRONG) + len(CONFLICTING)
    assert counts(imports.done["MESS"]) == (everything, everything - len(TEXT), len(TEXT))
    wanted = dict.fromkeys(("PARQ", "FEAT", "MIXED", "DAYS"), (2, 2, 0)) | {"ZONE": (3, 2, 1), "EPOCH": (4, 4, 0)}
    assert {name: counts(imports.done[name]) for name in wanted} == wanted


def test_the_printed_next_command_works_as_printed(imports: Imports):
    assert imports.printed["DAYS"].startswith("backfill mine_1d --from 2025-03-0")
    # One row lies before the first session: it is decided with that one.
    assert imports.printed["MESS"] == f"backfill mine_5m --from {MINE['first_session']} --to {MONDAY}"
    assert imports.printed["ZONE"] == f"backfill mine_5m --from {FRIDAY} --to {MONDAY}"
    for done in imports.next.values():
        assert "0 failures" in done.expect(0).out


def test_good_rows_become_bars_in_order_whatever_their_order_in_the_file(imports: Imports):
    bars = imports.bars("MESS")
    opens = datetime(2025, 3, 7, 14, 30, tzinfo=UTC)
    assert bars["open_time"].to_list()[:12] == [opens + timedelta(minutes=5 * i) for i in range(12)]
    assert bars["close"].to_list()[:12] == [11.0 + i for i in range(12)]
    assert set(bars["vendor"]) == {"import"}


def test_rows_that_are_no_bars_are_quarantined_with_reason_text_and_line(imports: Imports):
    lines = (imports.installed.root / "mess.csv").read_text().splitlines()
    rows = imports.quarantine("MESS").filter(pl.col("source_object").str.contains("/refused/"))
    for text, reason in TEXT:
        (row,) = rows.filter(pl.col("raw").str.ends_with(text)).to_dicts()
        assert row["raw"] == f"line {lines.index(text) + 1}: {text}"
        assert row["reason"] == reason or reason is None
        assert row["dataset"] == "mine_5m"


def test_bars_that_are_wrong_are_quarantined_with_reason_and_what_they_said(imports: Imports):
    rows = imports.quarantine("MESS").filter(~pl.col("source_object").str.contains("/refused/"))
    assert sorted(rows["reason"]) == sorted([*(reason for _, reason in WRONG), "superseded"])
    for row in rows.to_dicts():
        said = json.loads(row["raw"])
        assert datetime.fromisoformat(said["open_time"].replace("Z", "+00:00")) == row["open_time"]
        assert (imports.installed.home / "archive" / row["source_object"]).is_file()


def test_nothing_is_lost(imports: Imports):
    read, accepted, rejected = counts(imports.done["MESS"])
    quarantine = imports.quarantine("MESS")
    at_the_door = quarantine.filter(pl.col("source_object").str.contains("/refused/")).height
    exact_repeats = len(REPEATED)
    assert at_the_door == rejected
    assert imports.bars("MESS").height + quarantine.height + exact_repeats == read == accepted + rejected


def test_files_are_known_by_content_not_by_name(imports: Imports):
    opens = datetime(2025, 3, 7, 14, 30, tzinfo=UTC)
    for symbol in ("PARQ", "FEAT"):
        bars = imports.bars(symbol)
        assert bars.select("open_time", "close").rows() == [(opens, 11.0), (opens + timedelta(minutes=5), 12.0)]


def test_times_that_mark_the_end_are_turned_into_starts(imports: Imports):
    (row,) = imports.bars("ENDS").to_dicts()
    assert row["open_time"] == datetime(2025, 3, 7, 14, 30, tzinfo=UTC)
    assert row["close_time"] == datetime(2025, 3, 7, 14, 35, tzinfo=UTC)
    assert row["adjustment"] == "split"


def test_naive_times_follow_the_zone_over_a_clock_change_and_a_skipped_one_is_rejected(imports: Imports):
    bars = imports.bars("ZONE")
    assert bars["open_time"].to_list() == [
        datetime(2025, 3, 7, 14, 30, tzinfo=UTC),
        datetime(2025, 3, 10, 13, 30, tzinfo=UTC),
    ]
    assert bars["session"].to_list() == [FRIDAY, MONDAY]
    (row,) = imports.quarantine("ZONE").to_dicts()
    assert row["reason"] == "time_skipped_by_clock_change" and row["raw"].startswith("line 3: 2025-03-09 02:30")


def test_offsets_beside_naive_times_are_read_when_the_zone_is_given(imports: Imports):
    opens = datetime(2025, 3, 7, 14, 30, tzinfo=UTC)
    assert imports.bars("MIXED")["open_time"].to_list() == [opens, opens + timedelta(minutes=5)]


def test_columns_of_other_names_and_delimiters_are_mapped(imports: Imports):
    (row,) = imports.bars("NAMES").to_dicts()
    assert [row[name] for name in ("open", "high", "low", "close", "volume")] == [10, 12, 9, 11, 100]


def test_epochs_in_seconds_to_nanoseconds_are_told_apart(imports: Imports):
    opens = datetime(2025, 3, 7, 14, 30, tzinfo=UTC)
    assert imports.bars("EPOCH")["open_time"].to_list() == [opens + timedelta(minutes=5 * i) for i in range(4)]


def test_the_same_file_twice_changes_nothing_but_the_archive(imports: Imports):
    assert counts(imports.done["TWICE again"]) == counts(imports.done["TWICE"]) == (4, 4, 0)
    assert imports.bars("TWICE").height == 4
    assert imports.quarantine("TWICE").is_empty()


def test_a_symbol_outside_the_universe_is_archived_and_quarantined_and_one_is_told(imports: Imports):
    assert "STRANGER is not among the symbols of mine_5m" in imports.done["STRANGER"].expect(0).out
    assert imports.bars("STRANGER").is_empty()
    assert imports.quarantine("STRANGER")["reason"].to_list() == ["not_in_universe"] * 4


def test_a_bare_date_is_that_session_with_its_open_and_close(imports: Imports):
    bars = imports.bars("DAYS")
    assert bars["session"].to_list() == [FRIDAY, MONDAY]
    assert bars["open_time"].to_list() == [
        datetime(2025, 3, 7, 14, 30, tzinfo=UTC),
        datetime(2025, 3, 10, 13, 30, tzinfo=UTC),
    ]
    assert bars["close_time"].to_list() == [
        datetime(2025, 3, 7, 21, 0, tzinfo=UTC),
        datetime(2025, 3, 10, 20, 0, tzinfo=UTC),
    ]


def test_holes_of_imported_data_have_no_known_cause(imports: Imports):
    rows = imports.installed.rows(
        "SELECT DISTINCT cause FROM clean.coverage "
        f"WHERE dataset = 'mine_5m' AND symbol = 'MESS' AND session = DATE '{FRIDAY}'"
    )
    assert rows["cause"].to_list() == ["unknown"]


def test_files_with_a_structural_fault_are_rejected_whole_with_the_reason(imports: Imports, tmp_path: Path):
    good = GOOD[0]
    faulty = {
        "image.csv": (b"\x89PNG\r\n\x1a\n" + bytes(64), "PNG"),
        "empty.csv": (b"", "empty"),
        "data.csv": (json.dumps([{"time": "2025-03-07", "open": 1}]).encode(), "JSON"),
        "columns.csv": (b"time,open,close\n2025-03-07T14:30:00Z,1,2\n", "high, low, volume"),
        "mixed.csv": (f"{HEADER}\n{good}\n{FRIDAY} 15:00:00,10,12,9,11,100\n".encode(), "--time-zone"),
    }
    for name, (content, _) in faulty.items():
        (tmp_path / name).write_bytes(content)
    installed = imports.installed
    bus = LocalBus(installed.home / "bus")
    before = bus.watermarks(bars_topic("mine_5m"))
    found = installed.run_in_turn(
        [["import", str(tmp_path / name), "--dataset", "mine_5m", "--symbol", "MESS"] for name in faulty]
    )
    for (name, (_, said)), done in zip(faulty.items(), found, strict=True):
        done.expect(1)
        assert f"{tmp_path / name} was rejected: " in done.err and said in done.err, done.err
        assert done.out == ""
    assert bus.watermarks(bars_topic("mine_5m")) == before


def test_the_next_command_works_for_a_file_that_lies_after_the_last_session_too(tmp_path: Path):
    installed = Installed(tmp_path, universe(mine_5m=MINE))
    (tmp_path / "later.csv").write_text(f"{HEADER}\n2025-03-20T14:30:00Z,10,12,9,11,100\n")
    done = installed.run("import", "later.csv", "--dataset", "mine_5m", "--symbol", "PARQ").expect(0)
    assert counts(done) == (1, 1, 0)
    assert "1 partitions" in installed.run(*next_command(done), "--dry-run").expect(0).out

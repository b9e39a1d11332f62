"""`quantlytic import` and `unimport` without a process of their own: what is printed, kept, cleaned and behind."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import date
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import yaml
from rich.console import Console

from quantlytic_assets.calendars.partitions import known_keys
from quantlytic_assets.commands.backfill import Backfill
from quantlytic_assets.commands.importing import run_import
from quantlytic_assets.commands.installation import CommandError, Installation, UsageError
from quantlytic_assets.commands.unimport import run_unimport
from quantlytic_assets.imports.options import ImportOptions
from quantlytic_assets.services.clean import quarantine_rejected
from quantlytic_assets.services.imports import Imports
from quantlytic_assets.storage.compaction import Compactor
from quantlytic_tests.storage.places import close_all

HEADER = "time,open,high,low,close,volume\n"
DAYS = ("2024-01-02", "2024-01-03", "2024-01-04")
UNIVERSE = {
    "datasets": {
        name: {
            "calendar": "XNYS",
            "interval": "1d",
            "first_session": date(2024, 1, 2),
            "last_session": date(2024, 2, 29),
            "vendors": [],
            "symbols": ["AAPL", "MSFT"],
        }
        for name in ("daily", "other")
    }
}


@pytest.fixture
def installation(tmp_path, monkeypatch):
    """A new installation of UNIVERSE; its Dagster instance is a temporary one."""
    path = tmp_path / "universe.yaml"
    path.write_text(yaml.safe_dump(UNIVERSE))
    monkeypatch.setenv("QUANTLYTIC_UNIVERSE", str(path))
    monkeypatch.setenv("QUANTLYTIC_HOME", str(tmp_path / "home"))
    with dg.DagsterInstance.ephemeral() as instance:
        found = Installation()
        found.__dict__["instance"] = instance
        yield found
    close_all()


class Desk:
    """What a user types and sees."""

    def __init__(self, installation: Installation, folder: Path):
        self.installation = installation
        self.folder = folder

    def write(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def imported(self, *paths: Path | str, symbol: str | None = "AAPL", dataset: str = "daily", **options) -> str:
        said = io.StringIO()
        texts = [str(path) for path in paths]
        run_import(self.installation, Console(file=said, width=240), texts, dataset, symbol, ImportOptions(**options))
        return said.getvalue()

    def taken_back(
        self,
        *what: Path | str,
        answer: Callable[[str], bool] = lambda _: True,
        dataset: str | None = None,
        symbol: str | None = None,
        first: date | None = None,
        last: date | None = None,
    ) -> str:
        said = io.StringIO()
        texts = [str(one) for one in what]
        run_unimport(self.installation, Console(file=said, width=240), texts, dataset, symbol, first, last, answer)
        return said.getvalue()

    def clean(self) -> None:
        """Make clean bars of all that is archived."""
        dataset = self.installation.dataset("daily")
        backfill = Backfill(self.installation, Console(file=io.StringIO()))
        backfill.clean(dataset, known_keys(dataset)[:2])
        assert not backfill.outcome.failures

    def bars(self, dataset: str = "daily") -> list[tuple[str, str, float]]:
        """(symbol, session, close) of clean.bars."""
        rows = self.installation.resources.lake.query(
            "SELECT symbol, session, close FROM clean.bars WHERE dataset = ? ORDER BY ALL", [dataset]
        )
        return [(symbol, session.isoformat(), close) for symbol, session, close in rows.rows()]

    def quarantine(self) -> pl.DataFrame:
        return self.installation.resources.lake.query("SELECT * FROM clean.quarantine ORDER BY ALL")

    def objects(self) -> set[str]:
        """Every file of the archive, by name and content."""
        root = self.installation.settings.directory("archive")
        return {f"{one.relative_to(root)} {hash(one.read_bytes())}" for one in root.rglob("*") if one.is_file()}


@pytest.fixture
def desk(installation, tmp_path):
    return Desk(installation, tmp_path / "files")


def csv(closes: dict[str, float], header: str = HEADER) -> str:
    return header + "".join(f"{day},{close},{close + 1},{close - 1},{close},100\n" for day, close in closes.items())


WRONG = dict(zip(DAYS, (10.0, 11.0, 12.0), strict=True))
RIGHT = dict(zip(DAYS, (100.0, 101.0, 102.0), strict=True))


def as_bars(closes: dict[str, float], symbol: str = "AAPL") -> list[tuple[str, str, float]]:
    return [(symbol, day, close) for day, close in closes.items()]


# Import ------------------------------------------------------------------------------------------------------------


def test_a_file_of_two_symbols_is_split_by_its_column_and_never_imported_as_one(desk):
    text = "symbol," + HEADER + f"AAPL,{DAYS[0]},1,2,1,1,1\nmsft,{DAYS[0]},5,6,5,5,1\n,{DAYS[1]},1,2,1,1,1\n"
    path = desk.write("two.csv", text)
    with pytest.raises(CommandError, match=r"its column symbol says AAPL, msft, and not AAPL; give --symbol-column"):
        desk.imported(path)
    assert not desk.objects()
    said = desk.imported(path, symbol=None, symbol_column="symbol")
    assert "3 read, 2 accepted, 1 refused" in said
    desk.clean()
    assert desk.bars() == [("AAPL", DAYS[0], 1.0), ("MSFT", DAYS[0], 5.0)]
    (row,) = desk.quarantine().to_dicts()
    assert (row["reason"], row["raw"]) == ("no_symbol", f"line 4: ,{DAYS[1]},1,2,1,1,1")


def test_symbols_that_the_dataset_does_not_have_are_listed_with_what_to_add(desk):
    path = desk.write("two.csv", "ticker," + HEADER + f"AAPL,{DAYS[0]},1,2,1,1,1\nTSLA,{DAYS[0]},5,6,5,5,1\n")
    with pytest.raises(CommandError, match=r"daily does not have: TSLA; add them .* datasets.daily.symbols, as \[TSLA"):
        desk.imported(path, symbol=None, symbol_column="ticker")
    assert not desk.objects()
    desk.imported(path, symbol="MSFT=TSLA", symbol_column="ticker")
    desk.clean()
    assert desk.bars() == [("AAPL", DAYS[0], 1.0), ("MSFT", DAYS[0], 5.0)]


def test_a_file_of_which_every_row_is_rejected_fails_with_reasons_lines_and_the_option_that_takes_it(desk):
    lines = [f"{day};1,5;2,5;0,5;1,5;1.000" for day in DAYS] + [f"{DAYS[0]};1;2;3;4"]
    path = desk.write("europe.csv", HEADER.replace(",", ";") + "\n".join(lines))
    with pytest.raises(CommandError) as caught:
        desk.imported(path)
    assert str(caught.value).splitlines() == [
        f"{path}: every row was rejected",
        *(f"  line {i + 2}: bad_number: open: {lines[i]}" for i in range(3)),
        "  and 1 more",
        "if the comma is the decimal mark, give --decimal ,",
    ]
    assert desk.quarantine()["raw"].to_list() == [f"line {i + 2}: {line}" for i, line in enumerate(lines)]
    assert "4 read, 3 accepted, 1 refused" in desk.imported(path, decimal=",")
    desk.clean()
    assert desk.bars() == [("AAPL", day, 1.5) for day in DAYS]


def test_several_files_a_folder_and_a_pattern_are_imported_with_one_summary(desk):
    desk.write("bars/AAPL.csv", csv(RIGHT))
    desk.write("bars/deeper/msft.csv", csv(WRONG))
    desk.write("bars/.hidden.csv", "no table")
    pattern = desk.folder / "bars/**/{symbol}.csv"
    said = desk.imported(pattern, symbol=None)
    lines = said.splitlines()
    assert lines[0].endswith("AAPL.csv (AAPL): 3 read, 3 accepted, 0 refused")
    assert lines[2:4] == ["2 files of 2 symbols:", "6 read, 6 accepted, 0 refused"]
    desk.clean()
    assert desk.bars() == [*as_bars(RIGHT), *as_bars(WRONG, "MSFT")]
    with pytest.raises(UsageError, match="no file matches"):
        desk.imported(desk.folder / "*.csv")
    with pytest.raises(UsageError, match="neither|not a file"):
        desk.imported(desk.folder / "none.csv")
    desk.write("bars/TSLA.csv", csv(RIGHT))
    with pytest.raises(UsageError, match=r"paths name symbols that daily does not have: TSLA; add them"):
        desk.imported(pattern, symbol=None)


def test_of_several_files_a_faulty_one_is_named_and_the_others_are_imported(desk):
    desk.write("bars/a.csv", csv(RIGHT))
    faulty = desk.write("bars/b.csv", "time,open\n1,2\n")
    said = io.StringIO()
    with pytest.raises(CommandError, match=f"{faulty} was rejected: missing columns: high"):
        run_import(
            desk.installation,
            Console(file=said, width=240),
            [str(desk.folder / "bars")],
            "daily",
            "AAPL",
            ImportOptions(),
        )
    assert "3 read, 3 accepted, 0 refused" in said.getvalue()


def test_what_to_run_next_follows_from_the_file_whoever_landed_its_rows(desk, monkeypatch):
    publish = Imports.publish

    def publish_and_let_another_land(self, *given):
        record = publish(self, *given)
        self.lander.land()
        return record

    monkeypatch.setattr(Imports, "publish", publish_and_let_another_land)
    said = desk.imported(desk.write("bars.csv", csv(RIGHT)))
    assert f"next: quantlytic backfill daily --from 2024-01-01 --to {DAYS[2]}" in said


# Unimport ----------------------------------------------------------------------------------------------------------


def test_a_wrong_import_is_taken_back_and_importing_the_file_again_brings_it_back(desk):
    path = desk.write("bars.csv", csv(WRONG) + f"{DAYS[0]},x,1,1,1,1\n")
    desk.imported(path)
    desk.clean()
    assert desk.bars() == as_bars(WRONG) and len(desk.quarantine()) == 1
    before = desk.objects()
    said = desk.taken_back(path)
    assert f"daily AAPL: 3 bars of {DAYS[0]} to {DAYS[2]}, imported" in said and f"from {path}" in said
    assert "3 bars and 1 refused rows were taken back by daily/tombstones/" in said
    assert f"next: quantlytic backfill daily --from 2024-01-01 --to {DAYS[2]}" in said
    assert desk.bars() == [] and desk.quarantine().is_empty()
    # Nothing is deleted or changed.
    assert before < desk.objects() and len(desk.objects() - before) == 1
    desk.imported(path)
    desk.clean()
    assert desk.bars() == as_bars(WRONG) and len(desk.quarantine()) == 1


def test_nothing_goes_without_a_yes(desk):
    path = desk.write("bars.csv", csv(WRONG))
    desk.imported(path)
    before = desk.objects()
    with pytest.raises(CommandError, match="nothing was taken back"):
        desk.taken_back(path, answer=lambda _: False)
    assert desk.objects() == before


def test_what_is_made_of_the_bars_is_behind_until_it_is_made_again(desk):
    path = desk.write("bars.csv", csv(WRONG))
    desk.imported(path)
    dataset = desk.installation.dataset("daily")
    backfill = Backfill(desk.installation, Console(file=io.StringIO()))
    backfill.dataset(dataset)
    assert not backfill.outcome.failures
    keys = known_keys(dataset)[:2]
    assert backfill.pending(dataset, keys) == {}
    desk.taken_back(path)
    behind = backfill.pending(dataset, keys)
    names = {key.path[-1] for key in behind[keys[0]]}
    # Its bars were cleaned when it was taken back.
    assert list(behind) == [keys[0]] and names.isdisjoint({"raw_bars", "clean_bars"})
    assert names > {"coverage", "bars", "closes", "momentum", "indicators", "labels"}
    backfill.dataset(dataset, only_pending=True)
    assert not backfill.outcome.failures and backfill.pending(dataset, keys) == {}
    lake = desk.installation.resources.lake
    assert lake.query("SELECT sum(present_bars) FROM clean.coverage").item() == 0
    assert lake.query("SELECT count(*) FROM features.bars").item() == 0


def test_the_right_file_counts_after_the_wrong_one_was_taken_back_whatever_was_compacted_or_rebuilt(desk):
    wrong, right = desk.write("wrong.csv", csv(WRONG)), desk.write("right.csv", csv(RIGHT))
    desk.imported(wrong)
    archive, lake = desk.installation.resources.archive, desk.installation.resources.lake
    desk.imported(wrong, symbol="MSFT")
    assert Compactor(archive, "daily").run(lambda _: True).problems == []
    desk.clean()
    desk.taken_back(dataset="daily", symbol="AAPL")
    assert desk.bars() == as_bars(WRONG, "MSFT")
    desk.imported(right)
    desk.clean()
    both = [*as_bars(RIGHT), *as_bars(WRONG, "MSFT")]
    assert desk.bars() == both
    # Compaction keeps rows under a tombstone, and the tombstone keeps them from counting.
    done = Compactor(archive, "daily").run(lambda _: True)
    assert done.problems == [] and done.merged == 2
    assert len(archive.read(archive.objects("daily"), taken_back=True)) == 9
    assert len(archive.read(archive.objects("daily"))) == len(archive.usable_keys(archive.objects("daily"))) == 6
    lake.replace([(f"clean.{table}", "true", [], pl.DataFrame()) for table in ("bars", "quarantine")])
    desk.clean()
    quarantine_rejected(desk.installation.resources, desk.installation.dataset("daily"))
    assert desk.bars() == both and desk.quarantine().is_empty()
    # The same file again, with the very values that were taken back.
    desk.imported(wrong)
    desk.clean()
    assert desk.bars() == [*as_bars(WRONG), *as_bars(WRONG, "MSFT")]


def test_an_object_of_the_archive_can_be_taken_back_in_part(desk):
    desk.imported(desk.write("bars.csv", csv(WRONG)))
    desk.clean()
    (stored,) = desk.installation.resources.archive.objects("daily")
    desk.taken_back(stored.path, first=date(2024, 1, 3), last=date(2024, 1, 3))
    assert [day for _, day, _ in desk.bars()] == [DAYS[0], DAYS[2]]
    desk.taken_back(stored.path)
    assert desk.bars() == []
    # Again: nothing is left to be taken back, and a command that was killed half way is finished.
    assert "were taken back before" in desk.taken_back(stored.path, answer=lambda _: pytest.fail("asked"))


def test_a_file_is_taken_back_from_each_dataset_that_it_was_imported_into(desk):
    path = desk.write("bars.csv", csv(WRONG))
    desk.imported(path)
    desk.imported(path, dataset="other")
    desk.taken_back(path, dataset="other")
    archive = desk.installation.resources.archive
    assert [len(archive.read(archive.objects(name))) for name in ("daily", "other")] == [3, 0]
    # By its content, wherever the file is now.
    desk.taken_back(path.rename(desk.folder / "moved.csv"))
    assert len(archive.read(archive.objects("daily"))) == 0


def test_what_is_not_said_or_not_there_is_answered_with_the_imports_on_record(desk):
    path = desk.write("bars.csv", csv(WRONG))
    with pytest.raises(CommandError, match="no import is on record"):
        desk.taken_back(path)
    desk.imported(path)
    with pytest.raises(UsageError, match=rf"say what to take back.*\n.*\n.*daily  AAPL  3 bars  {path}"):
        desk.taken_back()
    with pytest.raises(CommandError, match="no imported rows of nowhere.csv"):
        desk.taken_back("nowhere.csv")
    with pytest.raises(UsageError, match="is after --to"):
        desk.taken_back(path, first=date(2024, 2, 1), last=date(2024, 1, 1))


def test_gaps_are_asked_for_again_once_their_bars_were_taken_back(desk):
    path = desk.write("bars.csv", csv(WRONG))
    desk.imported(path)
    archive = desk.installation.resources.archive
    assert len(archive.usable_keys(archive.objects("daily"))) == 3
    desk.taken_back(path)
    assert archive.usable_keys(archive.objects("daily")).is_empty()

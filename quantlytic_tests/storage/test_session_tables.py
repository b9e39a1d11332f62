"""Session tables on disk: those of the library, read without it, and made again where they can't be read."""

import subprocess
import sys
from datetime import date

import pytest
from exchange_calendars import get_calendar, get_calendar_names
from polars.testing import assert_frame_equal

from quantlytic_assets.calendars import sessions
from quantlytic_assets.calendars.names import CALENDAR_NAMES, CALENDAR_ZONES
from quantlytic_assets.storage.session_tables import SessionTables

SPAN = (date(2024, 11, 20), date(2025, 12, 31))


@pytest.fixture
def tables(tmp_path):
    """Kept there for the test, in a process that knows none yet."""
    kept = SessionTables(tmp_path / "sessions")
    sessions._all_sessions.cache_clear()
    sessions.keep_tables(kept)
    yield kept
    sessions.keep_tables(None)
    sessions._all_sessions.cache_clear()


@pytest.mark.parametrize("calendar", ["XNYS", "24/7", "XHKG"])
def test_a_kept_table_is_the_one_that_was_made(tables, calendar):
    made = sessions.session_table(calendar, *SPAN)
    sessions._all_sessions.cache_clear()
    assert_frame_equal(sessions.session_table(calendar, *SPAN), made)
    sessions.keep_tables(None)
    sessions._all_sessions.cache_clear()
    assert_frame_equal(sessions.session_table(calendar, *SPAN), made)


def test_a_kept_table_is_read_without_the_library(tables, tmp_path):
    made = sessions.session_table("XNYS", *SPAN)
    code = f"""
import sys
from datetime import date
from pathlib import Path
from quantlytic_assets.calendars.sessions import calendar_timezone, keep_tables, session_table
from quantlytic_assets.storage.session_tables import SessionTables
keep_tables(SessionTables(Path({str(tmp_path / "sessions")!r})))
print(len(session_table("XNYS", date(2024, 11, 20), date(2025, 12, 31))), calendar_timezone("XNYS"))
assert not {{"exchange_calendars", "pandas"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(made)), "America/New_York"]


def test_what_can_t_be_read_or_written_is_made_again(tables, tmp_path):
    made = sessions.session_table("XNYS", *SPAN)
    (kept,) = (tmp_path / "sessions").iterdir()
    kept.write_bytes(b"half a table")
    sessions._all_sessions.cache_clear()
    assert_frame_equal(sessions.session_table("XNYS", *SPAN), made)
    assert kept.read_bytes()[:4] == b"PAR1"
    (tmp_path / "file").write_text("no directory")
    sessions.keep_tables(SessionTables(tmp_path / "file" / "sessions"))
    sessions._all_sessions.cache_clear()
    assert_frame_equal(sessions.session_table("XNYS", *SPAN), made)


def test_calendars_and_their_zones_are_those_of_the_library():
    assert set(CALENDAR_NAMES) == set(get_calendar_names(include_aliases=True))
    zones = {name: str(get_calendar(name, start="2024-12-01", end="2024-12-31").tz) for name in CALENDAR_NAMES}
    assert zones == CALENDAR_ZONES


def test_an_unknown_calendar_is_refused():
    with pytest.raises(ValueError, match="unknown calendar 'XNYSE'"):
        sessions.session_table("XNYSE", *SPAN)

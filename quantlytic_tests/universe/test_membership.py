"""Which symbol belongs to which session, of a day, of sessions and of rows: the same in all three."""

from dataclasses import replace
from datetime import date, timedelta

import polars as pl
import pytest

from quantlytic_assets.universe.membership import is_member, member_spans, members, symbol_sessions
from quantlytic_assets.universe.models import Instrument
from quantlytic_tests.frames import make_dataset

FIRST, LAST = date(2025, 3, 3), date(2025, 3, 14)
SYMBOLS = (
    Instrument("ALWAYS"),
    Instrument("JOINED", date(2025, 3, 6)),
    Instrument("LEFT", None, date(2025, 3, 7)),
    Instrument("DAY", date(2025, 3, 10), date(2025, 3, 10)),
    # What a file can't say, but a strategy's later first session can make of it.
    Instrument("EARLY", date(2025, 2, 1), date(2025, 12, 31)),
)
WANTED = {
    "ALWAYS": (FIRST, LAST),
    "JOINED": (date(2025, 3, 6), LAST),
    "LEFT": (FIRST, date(2025, 3, 7)),
    "DAY": (date(2025, 3, 10), date(2025, 3, 10)),
    "EARLY": (FIRST, LAST),
}


@pytest.mark.parametrize("last", [LAST, None])
def test_a_symbol_belongs_to_its_sessions_however_it_is_asked(last):
    dataset = replace(make_dataset(first=FIRST, last=last), symbols=SYMBOLS)
    days = [FIRST + timedelta(days=i) for i in range(-10, 30)]
    wanted = {
        (symbol, day)
        for symbol, (begin, end) in WANTED.items()
        for day in days
        if begin <= day and (day <= end or (last is None and symbol in ("ALWAYS", "JOINED", "EARLY")))
    }
    assert {(one.symbol, day) for day in days for one in members(dataset, day)} == wanted
    sessions = pl.DataFrame({"session": days, "bars": range(len(days))})
    paired = symbol_sessions(dataset, sessions)
    assert paired.columns == ["symbol", "session", "bars"]
    assert set(paired.select("symbol", "session").iter_rows()) == wanted
    assert len(paired) == len(wanted)
    rows = pl.DataFrame(
        [(symbol, day) for day in days for symbol in (*WANTED, "OTHER")], ["symbol", "session"], orient="row"
    )
    assert set(rows.filter(is_member(dataset, rows)).iter_rows()) == wanted


def test_a_row_without_a_session_or_symbol_belongs_to_none():
    dataset = replace(make_dataset(first=FIRST, last=LAST), symbols=SYMBOLS)
    rows = pl.DataFrame(
        {"symbol": ["ALWAYS", None], "session": [None, FIRST]}, {"symbol": pl.String, "session": pl.Date}
    )
    assert is_member(dataset, rows).to_list() == [False, False]


def test_spans_may_have_the_symbols_as_a_category():
    dataset = replace(make_dataset(first=FIRST, last=LAST), symbols=SYMBOLS)
    kind = pl.Enum([one.symbol for one in SYMBOLS])
    assert member_spans(dataset, kind).schema == {"symbol": kind, "first": pl.Date, "last": pl.Date}
    assert {row[0]: row[1:] for row in member_spans(dataset).iter_rows()} == WANTED | {"EARLY": (FIRST, LAST)}

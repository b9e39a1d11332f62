"""Files of corporate actions: good rows pass, bad ones are told with line and reason, broken files rejected whole."""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest

from quantlytic_assets.imports.action_files import read_actions
from quantlytic_assets.imports.times import StructuralFault
from quantlytic_assets.market_data.actions.reconcile import ACTIONS_SCHEMA, reconcile

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
HEADER = "symbol,date,kind,value\n"


@pytest.fixture
def read(tmp_path):
    def read_text(text: str | bytes):
        path = tmp_path / "actions.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_actions(path, NOW)

    return read_text


def test_the_three_kinds_are_read_whatever_the_order_and_case_of_the_columns(read):
    found = read(
        '\ufeffValue,KIND,"Symbol",Date,Known,Note\r\n7,Split,AAPL,2014-06-09,2014-04-23,x\r\n'
        " 0.47 , dividend ,AAPL,2014-08-07,,\r\n\r\nMETA,rename,FB,2022-06-09,,\r\n"
    )
    assert found.read == 3 and found.rejected.is_empty()
    assert found.actions.schema == ACTIONS_SCHEMA
    assert found.actions.select("symbol", "session", "kind", "value", "new_symbol", "known_on").rows() == [
        ("AAPL", date(2014, 6, 9), "split", 7.0, None, date(2014, 4, 23)),
        ("AAPL", date(2014, 8, 7), "dividend", 0.47, None, None),
        ("FB", date(2022, 6, 9), "rename", None, "META", None),
    ]
    assert set(found.actions["vendor"]) == {"import"} and set(found.actions["recorded_at"]) == {NOW}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("AAPL,2014-06-09,split", "wrong_field_count"),
        ("AAPL,2014-06-09,split,7,7", "wrong_field_count"),
        (",2014-06-09,split,7", "bad_symbol"),
        ("A B,2014-06-09,split,7", "bad_symbol"),
        ("AAPL,2014-02-30,split,7", "bad_date"),
        ("AAPL,06/09/2014,split,7", "bad_date"),
        ("AAPL,20140609,split,7", "bad_date"),
        ("AAPL,0001-06-09,split,7", "bad_date"),
        ("AAPL,,split,7", "bad_date"),
        ("AAPL,2014-06-09,merger,7", "bad_kind"),
        ("AAPL,2014-06-09,,7", "bad_kind"),
        ("AAPL,2014-06-09,split,7:1", "bad_value"),
        ("AAPL,2014-06-09,split,0", "bad_value"),
        ("AAPL,2014-06-09,split,-7", "bad_value"),
        ("AAPL,2014-06-09,split,inf", "bad_value"),
        ("AAPL,2014-06-09,dividend,nan", "bad_value"),
        ("AAPL,2014-06-09,dividend,-1", "bad_value"),
        ("AAPL,2014-06-09,dividend,$1", "bad_value"),
        ("AAPL,2014-06-09,rename,", "bad_value"),
        ("AAPL,2014-06-09,rename,X Y", "bad_value"),
    ],
)
def test_a_bad_row_is_rejected_alone_with_its_line_reason_and_text(read, row: str, reason: str):
    found = read(f"{HEADER}MSFT,2003-02-18,split,2\n{row}\n")
    assert found.read == 2
    assert found.actions["symbol"].to_list() == ["MSFT"]
    (rejected,) = found.rejected.to_dicts()
    assert rejected["reason"].startswith(reason) and (rejected["line"], rejected["raw"]) == (3, row)


def test_a_bad_known_is_rejected_and_an_empty_one_left_to_the_default(read):
    found = read("symbol,date,kind,value,known\nA,2014-06-09,split,7,soon\nB,2014-06-09,split,7,\n")
    assert found.rejected["reason"].item().startswith("bad_known")
    assert found.actions["symbol"].to_list() == ["B"]
    sourced = found.actions.with_columns(source_object=pl.lit("o"), source_row=pl.lit(0, pl.Int64))
    assert reconcile(sourced, "d").actions["known_on"].to_list() == [date(2014, 6, 9)]


def test_of_rows_that_say_the_same_the_first_counts_and_a_bad_one_is_no_row(read):
    found = read(
        f"{HEADER}A,2014-06-09,dividend,-1\nA,2014-06-09,dividend,1\nA,2014-06-09,dividend,2\nA,2014-06-09,split,2\n"
    )
    assert found.actions["value"].to_list() == [1.0, 2.0]
    assert [(row["line"], row["reason"].split(":")[0]) for row in found.rejected.to_dicts()] == [
        (2, "bad_value"),
        (4, "repeated"),
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "empty"),
        ("\n \n", "empty"),
        ("symbol,date,kind\nA,2014-06-09,split\n", "missing columns: value"),
        ("a,b\n", "missing columns: symbol, date, kind, value"),
        ("symbol,date,kind,value,date\n", "twice: date"),
        (b"PK\x03\x04\xff\xfe", "damaged ZIP archive"),
        (b"symbol,date,kind,value\n\x00\n", "binary data"),
        (b"[[1, 2, 3, 4]]", "no table of text"),
    ],
)
def test_a_file_that_is_no_table_of_actions_is_rejected_whole(read, content, says: str):
    with pytest.raises(StructuralFault, match=says):
        read(content)


def test_a_header_alone_has_no_rows(read):
    found = read(HEADER)
    assert found.read == 0 and found.actions.is_empty() and found.rejected.is_empty()


def test_quotes_semicolons_byte_order_marks_and_windows_text_are_read_as_in_any_csv_file(read):
    for text in (
        '\ufeffsymbol;date;kind;value;note\nA;2014-06-09;split;7;"first; second, third"\n',
        'symbol,date,kind,value,note\nA,2014-06-09,split,7,"first, ""second"""\n',
        "symbol\tdate\tkind\tvalue\nA\t2014-06-09\tsplit\t7\n",
    ):
        found = read(text)
        assert found.rejected.is_empty()
        assert found.actions.select("symbol", "session", "value").rows() == [("A", date(2014, 6, 9), 7.0)]
    found = read("symbol,date,kind,value,note\nA,2014-06-09,split,7,Zürich\n".encode("cp1252"))
    assert found.actions["value"].to_list() == [7.0]

"""Importing a user's file: what it holds becomes raw bars, and what can't be a bar is set aside with its line."""

import gzip
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from quantlytic_assets.calendars.sessions import expected_bars
from quantlytic_assets.imports.options import ColumnsError, ImportOptions, OptionError, parse_columns
from quantlytic_assets.imports.tables import ImportedFile, StructuralFault, read_bars
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.universe.models import Dataset, Instrument
from quantlytic_assets.vendors.sample import SAMPLE_DATA

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HEADER = "time,open,high,low,close,volume\n"
PRICES = "1,2,0.5,1.5,10"


def dataset(calendar: str = "24/7", interval: str = "1m") -> Dataset:
    return Dataset(
        name="mine",
        calendar=calendar,
        interval=interval,
        partition="session",
        first_session=date(2000, 1, 1),
        last_session=None,
        vendors=(),
        venue="mine",
        out_of_session="drop",
        delay=timedelta(0),
        feature_intervals=(interval,),
        symbols=(Instrument("A"),),
    )


@pytest.fixture
def read(tmp_path):
    def read_content(content: str | bytes, calendar: str = "24/7", interval: str = "1m", **options) -> ImportedFile:
        path = tmp_path / "bars.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        fetched_at, symbol = options.pop("fetched_at", NOW), options.pop("symbol", "A")
        imported = read_bars(
            path,
            dataset=dataset(calendar, interval),
            symbol=symbol,
            fetched_at=fetched_at,
            options=ImportOptions(**options),
        )
        assert imported.bars.schema == RAW_SCHEMA
        assert imported.read == len(imported.bars) + len(imported.rejected)
        return imported

    return read_content


def with_times(*times: str) -> str:
    return HEADER + "".join(f"{time},{PRICES}\n" for time in times)


def opened(imported: ImportedFile) -> list[datetime]:
    return imported.bars["open_time"].to_list()


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


def test_a_plain_csv_file_becomes_raw_bars(read):
    imported = read(with_times("2024-01-02 09:30:00", "2024-01-02 09:31:00"), adjustment="split")
    assert imported.read == 2 and imported.rejected.is_empty()
    assert imported.bars.row(0, named=True) == {
        "symbol": "A",
        "open_time": utc(2024, 1, 2, 9, 30),
        "close_time": utc(2024, 1, 2, 9, 31),
        "open": 1.0,
        "high": 2.0,
        "low": 0.5,
        "close": 1.5,
        "volume": 10.0,
        "vwap": None,
        "trade_count": None,
        "vendor": "import",
        "fetched_at": NOW,
        "adjustment": "split",
    }


def test_csv_parquet_feather_and_gzip_are_told_by_content_and_give_the_same_bars(tmp_path):
    spy = pl.read_parquet(SAMPLE_DATA / "equities_5m.parquet").filter(pl.col("symbol") == "SPY")
    paths = [tmp_path / name for name in ("a.xlsx", "b.csv", "c.parquet", "d.txt")]
    spy.write_parquet(paths[0])
    spy.write_ipc(paths[1], compression="lz4")
    spy.write_csv(paths[2])
    paths[3].write_bytes(gzip.compress(paths[2].read_bytes()))
    read = [read_bars(path, dataset=dataset("XNYS", "5m"), symbol="SPY", fetched_at=NOW) for path in paths]
    assert len(read[0].bars) == len(spy) == 11_301
    assert (
        read[0]
        .bars.select("open_time", "open", "high", "low", "close", "volume")
        .equals(spy.select("open_time", "open", "high", "low", "close", "volume"))
    )
    assert all(one.bars.equals(read[0].bars) and one.rejected.is_empty() for one in read[1:])


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_delimiters_line_ends_and_byte_order_marks_make_no_difference(read, delimiter, newline, mark):
    text = with_times("2024-01-02 09:30:00").replace(",", delimiter).replace("\n", newline)
    assert opened(read(mark + text)) == [utc(2024, 1, 2, 9, 30)]


def test_utf_16_as_spreadsheets_write_it_is_read(read):
    assert len(read(with_times("2024-01-02 09:30:00").replace(",", "\t").encode("utf-16")).bars) == 1


def test_quoted_fields_headers_and_other_columns_are_read(read):
    text = '"Note","DateTime",Open,HIGH,low,"Close",Volume\n"a, ""b""",2024-01-02 09:30,"1","2",0.5,"1.5",10\n'
    text += "plain,2024-01-02 09:31,1,2,0.5,1.5,10\n"
    imported = read(text)
    assert opened(imported) == [utc(2024, 1, 2, 9, 30), utc(2024, 1, 2, 9, 31)]
    assert imported.bars["open"].to_list() == [1.0, 1.0]


def test_columns_are_named_ours_to_theirs(read):
    text = "tag;o;h;l;c;v;close\n2024-01-02T09:30Z;1;2;0.5;1.5;10;99\n"
    columns = parse_columns("time=TAG, open=o,high=h,low=l,close=c,volume=v")
    assert columns["time"] == "TAG"
    assert read(text, columns=columns).bars["close"].to_list() == [1.5]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("opem=o", "'opem' is not a column of ours, did you mean open?"),
        ("xyz=a", "ours are time, open, high, low, close, volume"),
        ("time", "'time' is not ours=theirs"),
        ("time=a,,open=b", "'an empty part' is not ours=theirs"),
        ("time=a,time=b", "time is given twice"),
        ("time=", "is not ours=theirs"),
    ],
)
def test_a_columns_option_that_makes_no_sense_says_so(text, expected):
    with pytest.raises(ColumnsError) as caught:
        parse_columns(text)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"time_zone": "America/NewYork"}, "did you mean America/New_York"),
        ({"label": "middle"}, "take one of start, end"),
        ({"adjustment": "all"}, "take one of none, split"),
        ({"columns": {"tag": "time"}}, "no columns of ours: tag"),
    ],
)
def test_options_that_make_no_sense_are_rejected_whatever_the_file(read, options, expected):
    with pytest.raises(OptionError, match=expected):
        read("", **options)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (HEADER, "a header and no rows"),
        (b"\x89PNG\r\n\x1a\n0000", "a PNG picture"),
        (b"PK\x03\x04rest", "a damaged ZIP archive or Excel workbook"),
        (b"%PDF-1.7", "a PDF document"),
        (b"<!doctype html><p>Too many requests", "HTML"),
        (b'{"error": "limit"}', "JSON"),
        (b"[1,2,3]", "JSON, but no array of rows"),
        (b"[[1,2,3", "damaged JSON"),
        (b"time,open\x00\x01\x02", "binary data"),
        (b"time,open,high,low,close,volume\n\x81", "neither UTF-8 text nor Windows'"),
        (b"PAR1 and no more", "a damaged Parquet file"),
        (b"ARROW1 and no more", "a damaged Feather file"),
        (b"\x1f\x8b and no more", "a damaged gzip file"),
        ("date,open,high\n2024-01-02,1,2\n", "missing columns: low, close, volume; found: date, open, high"),
        ("1704189600,1,2,0.5,1.5,10\n1704189660,1,2,0.5,1.5,10\n", "the first line of a CSV file has to be its header"),
        ("Dear Sir or Madam\nwe regret\n", "missing columns"),
        ("time,open,high,low,close,Close,volume\n", "a header and no rows"),
        ("time,open,high,low,close,Close,volume\n1,1,1,1,1,1,1\n", r"could be close \(close, Close\)"),
        ("date,time,open,high,low,close,volume\n1,1,1,1,1,1,1\n", r"could be time \(date, time\)"),
        (with_times("soon", "later"), "can be read as a time, the first is 'soon'; say how .* with --date-format"),
        (with_times("2019-11-05", "2019-11-06"), "holds dates without a time of day, and the dataset has bars of 1m"),
    ],
)
def test_a_file_that_is_no_table_of_bars_is_rejected_whole_with_its_reason(read, content, expected):
    with pytest.raises(StructuralFault, match=expected) as caught:
        read(content)
    assert caught.value.reason and caught.value.remedy and "\n" not in str(caught.value)


def test_a_column_named_by_the_user_and_not_in_the_file_is_named_back(read):
    with pytest.raises(StructuralFault, match=r"tag \(for time\); found: time, open"):
        read(with_times("2024-01-02 09:30"), columns={"time": "tag"})


def test_of_two_spellings_of_a_name_the_user_can_choose_one(read):
    text = "time,open,high,low,close,Close,volume\n2024-01-02 09:30,1,2,0.5,1.5,7,10\n"
    assert read(text, columns={"close": "Close"}).bars["close"].to_list() == [7.0]


def test_bad_rows_are_rejected_alone_with_their_line_and_text(read):
    text = HEADER + (
        "2024-01-02 09:30,1,2,0.5,1.5,10\n"
        "2024-01-02 09:31,abc,2,0.5,1.5,10\n"
        "\n"
        '2024-01-02 09:32,"1,234.5",2,0.5,1.5,10\n'
        "2024-01-02 09:33,1,2,0.5\n"
        "2024-01-02 25:00,1,2,0.5,1.5,10\n"
        '2024-01-02 09:34,"1,2,0.5,1.5,10\n'
        "2024-02-30 09:34,1,2,0.5,1.5,10\n"
        "2024-01-02 09:35,1,2,0.5,1.5,inf\n"
        "2024-01-02,1,2,0.5,1.5,10\n"
        ",,,,,\n"
        "2024-01-02 09:36,1,2,0.5,1.5,10,\n"
    )
    imported = read(text)
    assert imported.read == 11
    assert opened(imported) == [utc(2024, 1, 2, 9, 30), utc(2024, 1, 2, 9, 36)]
    assert imported.rejected.drop("symbol").rows() == [
        (3, "bad_number: open", "2024-01-02 09:31,abc,2,0.5,1.5,10", utc(2024, 1, 2, 9, 31)),
        (5, "bad_number: open", '2024-01-02 09:32,"1,234.5",2,0.5,1.5,10', utc(2024, 1, 2, 9, 32)),
        (6, "wrong_field_count", "2024-01-02 09:33,1,2,0.5", None),
        (7, "bad_time", "2024-01-02 25:00,1,2,0.5,1.5,10", None),
        (8, "unbalanced_quotes", '2024-01-02 09:34,"1,2,0.5,1.5,10', None),
        (9, "bad_time", "2024-02-30 09:34,1,2,0.5,1.5,10", None),
        (10, "bad_number: volume", "2024-01-02 09:35,1,2,0.5,1.5,inf", utc(2024, 1, 2, 9, 35)),
        (11, "date_without_time", "2024-01-02,1,2,0.5,1.5,10", None),
        (12, "bad_time", ",,,,,", None),
    ]


def test_a_stray_quote_in_an_unquoted_field_does_not_swallow_the_next_line(read):
    text = "time,open,high,low,close,volume,note\n"
    text += f'2024-01-02 09:30,{PRICES},5" a,"b\n2024-01-02 09:31,{PRICES},"x"\n'
    imported = read(text)
    assert opened(imported) == [utc(2024, 1, 2, 9, 31)]
    assert imported.rejected.select("line", "reason").rows() == [(2, "wrong_field_count")]


def test_missing_prices_pass_as_null_for_cleaning_to_judge(read):
    text = HEADER + "2024-01-02 09:30,,null,NaN,N/A,\n2024-01-02 09:31,-1,2,0.5,1.5,0\n"
    bars = read(text).bars
    assert bars.select("open", "high", "low", "close", "volume").row(0) == (None,) * 5
    assert bars["open"][1] == -1.0


def test_duplicates_and_reversed_rows_pass_in_the_order_of_the_file(read):
    times = ["2024-01-02 09:31", "2024-01-02 09:30", "2024-01-02 09:30"]
    imported = read(with_times(*times))
    assert [one.minute for one in opened(imported)] == [31, 30, 30]
    assert imported.rejected.is_empty()


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-02T14:30:00Z",
        "2024-01-02T14:30:00.000+00:00",
        "2024-01-02 09:30:00-05:00",
        "2024-01-02 09:30-0500",
        "2024-01-02 09:30 -05",
        "2024-01-02 14:30 UTC",
        "2024/01/02 14:30",
        "2024.1.2 14:30:00",
        "20240102 14:30",
        " 2024-01-02 14:30:00 ",
        "1704205800",
        "1704205800.0",
        "1704205800000",
        "1704205800000000",
        "1704205800000000000",
        "1.7042058e9",
    ],
)
def test_one_moment_in_its_usual_spellings(read, text):
    assert opened(read(with_times(text))) == [utc(2024, 1, 2, 14, 30)]


def test_fractions_of_a_second_are_kept(read):
    text = with_times("2024-01-02 14:30:00.25Z", "1704205800.25", "1704205800250")
    assert {one.microsecond for one in opened(read(text))} == {250_000}


@pytest.mark.parametrize(
    "text", ["100000", "-5", "99999999999999", "2524-01-02 14:30Z", "2024-01-02 14:30+99:00", "noon", "24:00"]
)
def test_numbers_that_can_be_no_epoch_and_text_that_is_no_time_are_rejected(read, text):
    imported = read(with_times("2024-01-02 14:30Z", text))
    assert imported.rejected.select("line", "reason").rows() == [(3, "bad_time")]


def test_times_without_an_offset_are_in_the_zone_given_and_summer_time_counts(read):
    imported = read(with_times("2024-01-02 09:30", "2024-07-02 09:30"), time_zone="America/New_York")
    assert opened(imported) == [utc(2024, 1, 2, 14, 30), utc(2024, 7, 2, 13, 30)]


def test_offsets_mixed_with_times_without_are_rejected_unless_a_zone_is_given(read):
    text = with_times("2024-01-02 09:30:00-05:00", "2024-01-02 09:31:00", "1704205920")
    with pytest.raises(StructuralFault, match=r"an offset \(line 2\) and times without \(line 3\); give --time-zone"):
        read(text)
    imported = read(text, time_zone="America/New_York")
    assert opened(imported) == [utc(2024, 1, 2, 14, 30), utc(2024, 1, 2, 14, 31), utc(2024, 1, 2, 14, 32)]


def test_local_times_that_a_clock_change_skips_or_repeats_are_rejected_and_never_guessed(read):
    times = ["2024-03-10 01:59", "2024-03-10 02:30", "2024-03-10 03:00", "2024-11-03 01:30", "2024-11-03 02:00"]
    imported = read(with_times(*times), time_zone="America/New_York")
    assert opened(imported) == [utc(2024, 3, 10, 6, 59), utc(2024, 3, 10, 7), utc(2024, 11, 3, 7)]
    assert imported.rejected.select("line", "reason").rows() == [
        (3, "time_skipped_by_clock_change"),
        (5, "time_repeated_by_clock_change"),
    ]


def test_end_labels_become_start_times(read):
    imported = read(with_times("2024-01-02 09:31"), label="end")
    assert imported.bars.select("open_time", "close_time").rows() == [(utc(2024, 1, 2, 9, 30), utc(2024, 1, 2, 9, 31))]


@pytest.mark.parametrize("label", ["start", "end"])
def test_either_label_gives_the_calendar_s_bars_where_a_session_cuts_the_last_one_short(read, label):
    grid = expected_bars("XNYS", "1h", date(2024, 7, 2), date(2024, 7, 3))
    times = grid["open_time" if label == "start" else "close_time"].dt.strftime("%Y-%m-%d %H:%M").to_list()
    imported = read(with_times(*times), "XNYS", "1h", label=label)
    assert imported.bars.select("open_time", "close_time").equals(grid.select("open_time", "close_time"))


def test_a_bar_that_was_not_over_when_the_file_was_read_is_rejected(read):
    imported = read(with_times("2024-01-02 09:30", "2024-01-02 09:31"), fetched_at=utc(2024, 1, 2, 9, 31, 30))
    assert opened(imported) == [utc(2024, 1, 2, 9, 30)]
    assert imported.rejected.select("line", "reason", "open_time").rows() == [(3, "unfinished", utc(2024, 1, 2, 9, 31))]


THIRD = [(utc(2024, 7, 3, 13, 30), utc(2024, 7, 3, 17))]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("2024-07-03", "start"),
        ("2024-07-03", "end"),
        ("20240703", "start"),
        ("2024-07-03 00:00:00", "start"),
        ("2024-07-03 00:00:00-04:00", "start"),
        ("2024-07-03T00:00:00Z", "start"),
        ("2024-07-03T13:30:00Z", "start"),
        ("2024-07-03T17:00:00Z", "end"),
        ("2024-07-04T00:00:00-04:00", "end"),
    ],
)
def test_a_daily_bar_is_the_session_of_its_date_however_the_date_is_written(read, text, label):
    bars = read(with_times(text), "XNYS", "1d", label=label).bars
    assert bars.select("open_time", "close_time").rows() == THIRD


def test_a_daily_bar_of_a_round_the_clock_market_is_its_utc_day(read):
    bars = read(with_times("2024-07-03", "2024-07-04 00:00"), interval="1d").bars
    assert bars["open_time"].to_list() == [utc(2024, 7, 3), utc(2024, 7, 4)]
    ended = read(with_times("2024-07-04 00:00"), interval="1d", label="end").bars
    assert ended["open_time"].to_list() == [utc(2024, 7, 3)]


def test_a_daily_bar_of_a_closed_day_is_not_moved_to_a_neighbouring_session(read):
    bars = read(with_times("2024-07-04"), "XNYS", "1d").bars
    assert bars["open_time"].to_list() == [utc(2024, 7, 4, 4)]


@pytest.mark.parametrize(
    ("times", "zone"),
    [
        (pl.Series([datetime(2024, 1, 2, 9, 30)], dtype=pl.Datetime("ns")), "America/New_York"),
        (pl.Series([datetime(2024, 1, 2, 14, 30)], dtype=pl.Datetime("ms")), None),
        (pl.Series([utc(2024, 1, 2, 14, 30)]).dt.convert_time_zone("Asia/Tokyo"), None),
        (pl.Series([1_704_205_800_000], dtype=pl.UInt64), None),
        (pl.Series([1_704_205_800.0]), None),
        (pl.Series(["2024-01-02T14:30:00Z"]), None),
        (pl.Series(["2024-01-02 14:30:00"], dtype=pl.Categorical), None),
    ],
)
def test_the_types_of_a_parquet_file_s_time_column_are_all_read(tmp_path, times, zone):
    path = tmp_path / "bars"
    numbers = {"open": [1], "high": [2.0], "low": ["0.5"], "close": [None], "volume": [10]}
    pl.DataFrame({"Timestamp": times, **numbers}).write_parquet(path)
    imported = read_bars(path, dataset=dataset(), symbol="A", fetched_at=NOW, options=ImportOptions(time_zone=zone))
    assert opened(imported) == [utc(2024, 1, 2, 14, 30)]
    assert imported.bars.select("open", "low", "close").row(0) == (1.0, 0.5, None)


def test_a_parquet_file_s_bad_rows_are_kept_as_json(tmp_path):
    frame = pl.DataFrame(
        {
            "time": [utc(2024, 1, 2, 14, 30), None],
            "open": [float("inf"), 1.0],
            "high": [1.0, 1.0],
            "low": [1.0, 1.0],
            "close": [float("nan"), 1.0],
            "volume": [1, 1],
            "levels": [[1], [2]],
        }
    )
    frame.write_parquet(tmp_path / "bars")
    imported = read_bars(tmp_path / "bars", dataset=dataset(), symbol="A", fetched_at=NOW)
    assert imported.rejected.select("line", "reason").rows() == [(1, "bad_number: open"), (2, "bad_time")]
    assert '"open":"inf"' in imported.rejected["raw"][0] and '"time":null' in imported.rejected["raw"][1]


@pytest.mark.parametrize("column", ["time", "open"])
def test_a_parquet_column_of_another_kind_is_a_structural_fault(tmp_path, column):
    frame = pl.DataFrame({name: [1_704_205_800] for name in ("time", "open", "high", "low", "close", "volume")})
    frame.with_columns(pl.lit(True).alias(column)).write_parquet(tmp_path / "bars")
    with pytest.raises(StructuralFault, match=f"column {column}.* holds Boolean"):
        read_bars(tmp_path / "bars", dataset=dataset(), symbol="A", fetched_at=NOW)


def test_bars_of_another_interval_are_rejected_whole(read):
    grid = expected_bars("XNYS", "15m", date(2024, 7, 1), date(2024, 7, 2))["open_time"]
    text = with_times(*grid.dt.strftime("%Y-%m-%d %H:%M").to_list())
    with pytest.raises(StructuralFault, match="15m apart or a multiple of that, and the dataset has bars of 5m"):
        read(text, "XNYS", "5m")
    with pytest.raises(StructuralFault, match="52 times in 2 sessions, and the dataset has one bar a session"):
        read(text, "XNYS", "1d")
    assert len(read(text, "XNYS", "15m").bars) == 52


def test_the_shipped_daily_file_comes_back_from_a_csv_as_the_vendor_serves_it(tmp_path):
    aapl = pl.read_parquet(SAMPLE_DATA / "equities_1d.parquet").filter(pl.col("symbol") == "AAPL")
    path: Path = tmp_path / "AAPL.csv"
    aapl.rename({"session": "Date"}).write_csv(path)
    bars = read_bars(path, dataset=dataset("XNYS", "1d"), symbol="AAPL", fetched_at=NOW).bars
    grid = expected_bars("XNYS", "1d", date(2008, 12, 31), date(2019, 2, 22))
    assert bars.select("open_time", "close_time").equals(grid.select("open_time", "close_time"))
    assert bars["close"].equals(aapl["close"])

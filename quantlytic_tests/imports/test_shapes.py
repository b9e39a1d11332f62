"""The shapes of files that people have: each sample, in its true shape with our own rows, gives the bars it holds."""

import gzip
import io
import json
import zipfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from quantlytic_assets.imports.options import ImportOptions, OptionError
from quantlytic_assets.imports.paths import find_files
from quantlytic_assets.imports.symbols import SymbolNames
from quantlytic_assets.imports.tables import ImportedFile, StructuralFault, read_bars
from quantlytic_assets.universe.models import Instrument
from quantlytic_tests.imports.test_tables import HEADER, NOW, dataset, utc
from quantlytic_tests.imports.workbook import workbook

SAMPLES = Path(__file__).parent / "samples"
SYMBOLS = ("AAPL", "MSFT", "BTC-USD")
# The bars that each sample of one symbol holds.
FIRST, SECOND = (10.0, 12.0, 9.0, 11.0, 100.0), (11.0, 13.0, 10.0, 12.0, 110.0)
NUMBERS = ("open", "high", "low", "close", "volume")


def read(path: Path, symbol: str | None, calendar: str, interval: str, **options) -> ImportedFile:
    mine = replace(dataset(calendar, interval), symbols=tuple(map(Instrument, SYMBOLS)))
    return read_bars(path, dataset=mine, symbol=symbol, fetched_at=NOW, options=ImportOptions(**options))


@pytest.fixture
def written(tmp_path):
    def write(content: str | bytes, name: str = "bars.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


OPEN = utc(2024, 1, 2, 14, 30)
BEFORE_MIDNIGHT = utc(2024, 1, 1, 23)


@pytest.mark.parametrize(
    ("name", "symbol", "calendar", "interval", "options", "opens"),
    [
        ("stooq_daily.txt", "AAPL", "XNYS", "1d", {}, OPEN),
        ("stooq_daily.txt", None, "XNYS", "1d", {}, OPEN),
        ("stooq_5m.txt", "AAPL", "XNYS", "5m", {"time_zone": "Europe/Warsaw"}, OPEN),
        ("metatrader.csv", "AAPL", "XNYS", "5m", {}, OPEN),
        ("cryptodatadownload.csv", None, "24/7", "1h", {}, BEFORE_MIDNIGHT),
        ("cryptodatadownload_old.csv", "BTC-USD", "24/7", "1h", {}, BEFORE_MIDNIGHT),
        ("binance_klines_ms.csv", "BTC-USD", "24/7", "1h", {}, BEFORE_MIDNIGHT),
        ("binance_klines_us.csv", "BTC-USD", "24/7", "1h", {}, BEFORE_MIDNIGHT),
        ("yahoo.csv", "AAPL", "XNYS", "1d", {}, OPEN),
        ("date_and_time.csv", "AAPL", "XNYS", "5m", {"time_zone": "America/New_York"}, utc(2024, 12, 31, 14, 30)),
    ],
)
def test_each_sample_gives_its_two_bars(name, symbol, calendar, interval, options, opens):
    imported = read(SAMPLES / name, symbol, calendar, interval, **options)
    assert imported.rejected.is_empty()
    bars = imported.bars.sort("open_time")
    assert bars.select(NUMBERS).rows() == [FIRST, SECOND]
    assert bars["open_time"][0] == opens
    assert set(bars["symbol"]) == {symbol or ("BTC-USD" if name.startswith("crypto") else "AAPL")}


def test_yfinance_s_tickers_side_by_side_become_rows_of_their_own():
    bars = read(SAMPLES / "yfinance.csv", None, "XNYS", "1d").bars
    # MSFT was not traded on the third: no bar, and no bad row either.
    assert bars.group_by("symbol").len().sort("symbol").rows() == [("AAPL", 3), ("MSFT", 2)]
    assert bars.filter(symbol="MSFT").select(NUMBERS).row(1) == (22.0, 24.0, 21.0, 23.0, 220.0)


def test_yfinance_grouped_by_ticker_is_read_and_a_bad_cell_costs_only_its_own_symbol():
    imported = read(SAMPLES / "yfinance_by_ticker.csv", None, "XNYS", "1d")
    assert imported.bars.select("symbol", "close").rows() == [("MSFT", 21.0), ("MSFT", 22.0), ("AAPL", 11.0)]
    assert imported.rejected.select("line", "symbol", "reason").rows() == [(5, "AAPL", "bad_number: volume")]
    assert "--adjustment split" in imported.note


def test_yfinance_s_columns_in_parquet_are_read(written):
    frame = pl.DataFrame(
        {
            "('Close', 'AAPL')": [11.0],
            "('High', 'AAPL')": [12.0],
            "('Low', 'AAPL')": [9.0],
            "('Open', 'AAPL')": [10.0],
            "('Volume', 'AAPL')": [100],
            "Date": [datetime(2024, 1, 2)],
        }
    )
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    assert read(written(buffer.getvalue()), None, "XNYS", "1d").bars.select(NUMBERS).rows() == [FIRST]


def test_a_symbol_that_a_file_contradicts_is_rejected_with_the_option_that_takes_it():
    with pytest.raises(StructuralFault, match="says AAPL, MSFT, and not AAPL; give --symbol-column Ticker"):
        read(SAMPLES / "yfinance.csv", "AAPL", "XNYS", "1d")
    with pytest.raises(StructuralFault, match="says AAPL.US, and not MSFT; if .* give --symbol MSFT=AAPL.US"):
        read(SAMPLES / "stooq_daily.txt", "MSFT", "XNYS", "1d")
    bars = read(SAMPLES / "stooq_daily.txt", "MSFT=AAPL.US", "XNYS", "1d").bars
    assert set(bars["symbol"]) == {"MSFT"}


def test_stooq_s_period_must_be_the_dataset_s_interval(written):
    with pytest.raises(StructuralFault, match="<PER> says 1d, the dataset has bars of 5m"):
        read(SAMPLES / "stooq_daily.txt", "AAPL", "XNYS", "5m")
    weekly = (SAMPLES / "stooq_daily.txt").read_text().replace(",D,", ",W,")
    with pytest.raises(StructuralFault, match="<PER> says W"):
        read(written(weekly), "AAPL", "XNYS", "1d")


@pytest.mark.parametrize("packed", [False, True])
def test_freqtrade_s_json_is_read_and_a_short_row_is_rejected_alone(written, packed):
    content = (SAMPLES / "freqtrade.json").read_bytes()
    path = written(gzip.compress(content) if packed else content)
    imported = read(path, "BTC-USD", "24/7", "1h")
    assert imported.bars.select(NUMBERS).rows() == [FIRST, SECOND]
    assert imported.rejected.select("line", "reason", "raw").rows() == [(3, "wrong_field_count", "[1704157200000, 12]")]


def test_a_json_row_with_text_for_a_number_is_rejected_alone(written):
    rows = [[1704150000000 + 3_600_000 * i, 10, 12, 9, 11, 100] for i in range(3)]
    rows[1][1] = "ten"
    imported = read(written(json.dumps(rows)), "BTC-USD", "24/7", "1h")
    assert imported.rejected.select("line", "reason").rows() == [(2, "bad_number: open")]
    assert '"ten"' in imported.rejected["raw"][0] and len(imported.bars) == 2


def test_freqtrade_s_feather_is_read(written):
    frame = pl.DataFrame(
        {"date": [BEFORE_MIDNIGHT], **{name: [value] for name, value in zip(NUMBERS, FIRST, strict=True)}}
    )
    buffer = io.BytesIO()
    frame.write_ipc(buffer, compression="lz4")
    assert read(written(buffer.getvalue()), "BTC-USD", "24/7", "1h").bars.select(NUMBERS).rows() == [FIRST]


def test_an_excel_workbook_is_read_with_the_sheet_s_own_row_numbers(written):
    times = [datetime(2024, 1, 2, 14, 30) + timedelta(minutes=5 * i) for i in range(3)]
    sheet = [[None], ["Time", "Open", "High", "Low", "Close", "Volume"], *([one, *FIRST] for one in times)]
    sheet[3][1] = "ten"
    imported = read(written(workbook({"Notes": [], "Bars": sheet})), "AAPL", "XNYS", "5m")
    assert imported.bars.select("open_time", *NUMBERS).rows() == [
        (OPEN, *FIRST),
        (OPEN + timedelta(minutes=10), *FIRST),
    ]
    assert imported.rejected.select("line", "reason").rows() == [(4, "bad_number: open")]
    with pytest.raises(StructuralFault, match="its sheets A, B have rows; keep the sheet with the bars"):
        read(written(workbook({"A": sheet, "B": sheet})), "AAPL", "XNYS", "5m")


def test_a_zip_archive_of_one_file_is_looked_into(written):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.write(SAMPLES / "binance_klines_ms.csv", "BTCUSDT-1h-2024-01.csv")
    assert len(read(written(buffer.getvalue()), "BTC-USD", "24/7", "1h").bars) == 2
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("second.csv", "")
    with pytest.raises(StructuralFault, match="a ZIP archive of 2 files; unpack it"):
        read(written(buffer.getvalue()), "BTC-USD", "24/7", "1h")


GERMAN = {
    "decimal": ",",
    "columns": {
        "time": "Datum",
        "open": "Eröffnung",
        "high": "Hoch",
        "low": "Tief",
        "close": "Schluss",
        "volume": "Stück",
    },
}


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16"])
def test_a_european_file_is_read_in_whatever_encoding(written, encoding):
    text = (SAMPLES / "day_first.csv").read_text()
    bars = read(written(text.encode(encoding)), "AAPL", "XNYS", "1d", **GERMAN).bars
    assert bars.select(NUMBERS).row(0) == (1010.5, 1012.0, 1009.0, 1011.25, 1000.0)
    assert bars["open_time"].dt.date().to_list() == [utc(2024, 12, 31).date(), utc(2025, 1, 2).date()]


def test_with_a_decimal_comma_a_point_sets_thousands_apart_and_is_nothing_else(written):
    rows = ["2024-01-02;1,5;2,5;0,5;1.234,5;1 000", "2024-01-03;1.5;2;1;1;1", "2024-01-04;1,2,3;2;1;1;1"]
    imported = read(written(HEADER.replace(",", ";") + "\n".join(rows)), "AAPL", "XNYS", "1d", decimal=",")
    assert imported.bars.select(NUMBERS).rows() == [(1.5, 2.5, 0.5, 1234.5, 1000.0)]
    assert imported.rejected.select("line", "reason").rows() == [(3, "bad_number: open"), (4, "bad_number: open")]


def with_days(*days: str) -> str:
    return HEADER + "".join(f"{day},10,12,9,11,100\n" for day in days)


@pytest.mark.parametrize(
    ("days", "options", "expected"),
    [
        (("02/01/2024", "31/01/2024"), {}, (2, 31)),
        (("01/02/2024", "01/31/2024"), {}, (2, 31)),
        (("2.1.2024", "31.1.2024"), {}, (2, 31)),
        (("02/01/2024",), {"date_format": "%d/%m/%Y"}, (2,)),
        (("01/02/2024",), {"date_format": "%m/%d/%Y"}, (2,)),
        (("02-Jan-24", "31-Jan-24"), {"date_format": "%d-%b-%y"}, (2, 31)),
        (("20240102 09:30", "20240131 09:30"), {"date_format": "%Y%m%d %H:%M"}, (2, 31)),
    ],
)
def test_dates_that_are_not_year_first_are_told_by_the_whole_file_or_by_their_format(written, days, options, expected):
    imported = read(written(with_days(*days)), "AAPL", "XNYS", "1d", **options)
    assert imported.rejected.is_empty()
    assert tuple(imported.bars["open_time"].dt.day()) == expected
    assert set(imported.bars["open_time"].dt.month()) == {1}


def test_dates_that_can_be_read_both_ways_are_never_guessed(written):
    with pytest.raises(
        StructuralFault, match=r"'02/01/2024' \(line 2\); .* --date-format, as '%d/%m/%Y' or '%m/%d/%Y'"
    ):
        read(written(with_days("02/01/2024", "03/01/2024")), "AAPL", "XNYS", "1d")
    with pytest.raises(StructuralFault, match="line 2 has the day first, line 3 the month"):
        read(written(with_days("31/01/2024", "01/31/2024")), "AAPL", "XNYS", "1d")


def test_a_format_with_a_clock_and_an_offset_is_read_and_what_does_not_fit_is_rejected_alone(written):
    text = HEADER + "02/01/2024 09:30 AM -0500,10,12,9,11,100\n2024-01-02,10,12,9,11,100\n"
    imported = read(written(text), "AAPL", "XNYS", "5m", date_format="%d/%m/%Y %I:%M %p %z")
    assert imported.bars["open_time"].to_list() == [OPEN]
    assert imported.rejected.select("line", "reason").rows() == [(3, "bad_time")]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"date_format": "%d/%m"}, "needs day, month and year"),
        ({"date_format": "%Q"}, "write it as"),
        ({"decimal": ";"}, "take one of"),
        ({"header": False, "symbol_column": "symbol"}, "--no-header takes columns by position"),
    ],
)
def test_options_that_make_no_sense_are_rejected(options, expected):
    with pytest.raises(OptionError, match=expected):
        ImportOptions(**options)


def test_without_a_header_columns_are_taken_by_position(written):
    text = "2024-01-02 14:30,10,12,9,11,100,7\n2024-01-02 14:35,11,13,10,12,110,8\n"
    with pytest.raises(StructuralFault, match="give --no-header"):
        read(written(text), "AAPL", "XNYS", "5m")
    imported = read(written(text), "AAPL", "XNYS", "5m", header=False)
    assert imported.bars.select(NUMBERS).rows() == [FIRST, SECOND]
    with pytest.raises(StructuralFault, match="missing columns: volume"):
        read(written("2024-01-02 14:30,10,12,9,11\n"), "AAPL", "XNYS", "5m", header=False)


def test_a_file_s_names_of_symbols_are_found_by_spelling_by_what_vendors_call_them_and_by_the_user_s_word():
    mine = replace(
        dataset(),
        symbols=(Instrument("BTC-USD", names={"binance": "BTCUSDT"}), Instrument("BRK.B"), Instrument("EURUSD=X")),
    )
    names = SymbolNames(mine)
    assert [names.find(one) for one in ("BTC-USD", "btc/usd", "BTCUSDT", "BRK-B", "brk.b.us", "EURUSD=X", "ETH")] == [
        "BTC-USD",
        "BTC-USD",
        "BTC-USD",
        "BRK.B",
        "BRK.B",
        "EURUSD=X",
        None,
    ]
    assert SymbolNames(mine, "EURUSD=X").only == "EURUSD=X"
    assert SymbolNames(mine, "BTC-USD=XBT,BRK.B=BRK").find("XBT") == "BTC-USD"
    with pytest.raises(OptionError, match="XBT is given twice"):
        SymbolNames(mine, "BTC-USD=XBT,BRK.B=XBT")


def test_files_of_folders_and_patterns_are_found_once_with_the_symbol_of_their_path(tmp_path):
    for name in ("bars/AAPL.csv", "bars/MSFT.csv", "bars/2024/AAPL.csv", "bars/.hidden", "AAPL/AAPL_1d.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")

    def found(*wanted: str) -> list[tuple[str, str | None]]:
        files = find_files([f"{tmp_path}/{one}" for one in wanted])
        return [(str(file.path.relative_to(tmp_path)), file.symbol) for file in files]

    assert found("bars") == [("bars/2024/AAPL.csv", None), ("bars/AAPL.csv", None), ("bars/MSFT.csv", None)]
    assert found("bars/{symbol}.csv") == [("bars/AAPL.csv", "AAPL"), ("bars/MSFT.csv", "MSFT")]
    assert found("bars/**/{symbol}.csv")[0] == ("bars/2024/AAPL.csv", "AAPL")
    assert found("{symbol}/{symbol}_1d.csv") == [("AAPL/AAPL_1d.csv", "AAPL")]
    assert found("bars/A*.csv", "bars/AAPL.csv") == [("bars/AAPL.csv", None)]
    with pytest.raises(FileNotFoundError, match="no file matches"):
        found("*.txt")


def test_usual_and_unusual_spellings_of_one_time_give_the_same_moments(written):
    usual = [f"2024-01-02 14:{minute:02d}:00" for minute in range(30, 33)]
    numbers = ",10,12,9,11,100\n"
    expected = [datetime(2024, 1, 2, 14, minute, tzinfo=UTC) for minute in range(30, 33)]
    for times in (usual, [*usual[:2], "2024/01/02 14:32"], [one.replace(" ", "T") + "Z" for one in usual]):
        imported = read(written(HEADER + numbers.join(times) + numbers), "BTC-USD", "24/7", "1m")
        assert imported.bars["open_time"].to_list() == expected
    leap = read(written(HEADER + numbers.join([*usual[:2], "2024-01-02 14:31:60"]) + numbers), "BTC-USD", "24/7", "1m")
    assert leap.rejected["reason"].to_list() == ["bad_time"]

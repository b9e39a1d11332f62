"""Binance's public files: which are asked for, what they say, and what is not used of them."""

import hashlib
import random
from datetime import date, datetime, timedelta

import polars as pl
import pytest

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.vendors.binance_files import BinanceFilesVendor
from quantlytic_assets.vendors.policy import RetryPolicy, fetch_with_policy
from quantlytic_assets.vendors.protocol import BarRequest, VendorError
from quantlytic_tests.frames import utc
from quantlytic_tests.vendors.binance_archive import HEADER, BinanceArchive, kline, zipped
from quantlytic_tests.vendors.loopback import Reply

NOW = utc("2025-03-20T12:00")
DAY, NEXT = utc("2025-01-02"), utc("2025-01-03")
ONE_DAY = "/data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2025-01-02.zip"


@pytest.fixture
def archive():
    with BinanceArchive(["BTCUSDT"], date(2024, 1, 10), date(2025, 3, 18), headers=[date(2025, 1, 2)]) as serving:
        yield serving


@pytest.fixture
def vendor(archive) -> BinanceFilesVendor:
    return BinanceFilesVendor(archive.url + "/", clock=lambda: NOW)


def request(start: datetime = DAY, end: datetime = NEXT, symbol: str = "BTC-USD", interval: str = "1m", **fields):
    return BarRequest("crypto", symbol, interval, "24/7", start, end, **fields)


def asked(archive: BinanceArchive) -> list[str]:
    """The files asked for, without their checksums."""
    return [path.rsplit("/", 1)[-1] for path in archive.paths if not path.endswith(".CHECKSUM")]


def spans(parts: list[BarRequest]) -> list[tuple[str, str]]:
    return [(f"{one.start:%m-%d %H}", f"{one.end:%m-%d %H}") for one in parts]


def test_a_day_is_one_file_and_its_checksum(vendor, archive):
    bars = vendor.fetch(request()).bars
    assert archive.paths == [f"{ONE_DAY}.CHECKSUM", ONE_DAY]
    assert bars.schema == RAW_SCHEMA and len(bars) == 1440
    assert bars["open_time"].to_list() == [DAY + timedelta(minutes=number) for number in range(1440)]
    said = archive.lines("BTCUSDT", "1m", DAY.date())[7].split(",")
    one = bars.row(7, named=True)
    assert [one[name] for name in ("open", "high", "low", "close", "volume")] == [float(word) for word in said[1:6]]
    assert one["trade_count"] == int(said[8]) and one["close_time"] - one["open_time"] == timedelta(minutes=1)
    assert one["vwap"] == pytest.approx(float(said[7]) / float(said[5]))
    assert bars.select("symbol", "vendor", "adjustment").unique().rows() == [("BTC-USD", "binance_files", "none")]


def test_milliseconds_until_2024_and_microseconds_since_mean_times(vendor, archive):
    december, january = utc("2024-12-31"), utc("2025-01-01")
    for day, digits in ((december, 13), (january, 16)):
        assert len(archive.lines("BTCUSDT", "1m", day.date())[0].split(",")[0]) == digits
        bars = vendor.fetch(request(day, day + timedelta(days=1))).bars
        assert (bars["open_time"][0], bars["open_time"][-1], len(bars)) == (day, day + timedelta(minutes=1439), 1440)


def test_a_header_is_none_of_the_bars_and_may_be_missing(vendor, archive):
    archive.headers = {DAY.date()}
    with_header = vendor.fetch(request()).bars
    archive.headers = set()
    assert with_header.drop("fetched_at").equals(vendor.fetch(request()).bars.drop("fetched_at"))


@pytest.mark.parametrize("interval", INTERVALS)
def test_every_interval_has_its_files(vendor, archive, interval):
    bars = vendor.fetch(request(interval=interval)).bars
    assert len(bars) == timedelta(days=1) // INTERVALS[interval]
    assert asked(archive) == [f"BTCUSDT-{interval}-2025-01-02.zip"]


def test_the_vendor_s_name_comes_before_ours(vendor, archive):
    assert vendor.fetch(request(symbol="XBT", name="BTCUSDT")).bars["symbol"].unique().to_list() == ["XBT"]
    vendor.fetch(request(symbol="X/../Y"))
    assert archive.paths[-1].startswith("/data/spot/daily/klines/X/../Y/")


def test_part_of_a_day_is_cut_out_of_its_file(vendor):
    start = DAY + timedelta(hours=3)
    bars = vendor.fetch(request(start, start + timedelta(minutes=10))).bars
    assert bars["open_time"].to_list() == [start + timedelta(minutes=number) for number in range(10)]


def test_whole_months_are_one_file_and_the_days_about_them_one_each(vendor, archive):
    bars = fetch_with_policy(vendor, request(utc("2024-12-30T18:00"), utc("2025-02-02T06:00"))).bars
    assert asked(archive) == [
        "BTCUSDT-1m-2024-12-30.zip",
        "BTCUSDT-1m-2024-12-31.zip",
        "BTCUSDT-1m-2025-01.zip",
        "BTCUSDT-1m-2025-02-01.zip",
        "BTCUSDT-1m-2025-02-02.zip",
    ]
    assert len(bars) == 360 + 1440 + 31 * 1440 + 1440 + 360
    assert bars["open_time"].is_sorted() and bars["open_time"].is_unique().all()


def test_most_of_a_month_is_worth_its_file(vendor):
    assert spans(vendor.parts(request(utc("2025-01-10"), utc("2025-02-01")))) == [("01-10 00", "02-01 00")]
    assert len(vendor.parts(request(utc("2025-01-10"), utc("2025-01-14")))) == 4


def test_a_month_that_is_not_published_for_sure_is_asked_for_by_the_day(archive):
    whole = request(utc("2025-02-01"), utc("2025-03-01"))
    # The first Monday of March 2025 is the 3rd.
    for now, parts in (("2025-03-02", 28), ("2025-03-03T12:00", 28), ("2025-03-05T23:00", 28), ("2025-03-06T00:00", 1)):
        assert len(BinanceFilesVendor(archive.url, clock=lambda now=now: utc(now)).parts(whole)) == parts


def test_parts_of_a_part_are_that_part_and_each_is_one_file(vendor, archive):
    parts = vendor.parts(request(utc("2023-11-28T05:00"), utc("2025-03-19")))
    later = BinanceFilesVendor(archive.url, clock=lambda: NOW + timedelta(days=40))
    for part in parts:
        assert vendor.parts(part) == [part] == later.parts(part)
        assert (part.end - part.start <= timedelta(days=1)) or part.start.month == (part.end - timedelta(1)).month
    assert all(a.end == b.start for a, b in zip(parts, parts[1:], strict=False))


def test_more_than_a_month_at_once_is_rejected(vendor, archive):
    with pytest.raises(VendorError, match="ask for less"):
        vendor.fetch(request(utc("2025-01-31"), utc("2025-02-02")))
    assert archive.paths == []


def test_a_day_that_is_not_over_is_not_asked_for(vendor, archive):
    today = request(utc("2025-03-20"), utc("2025-03-21"))
    assert "2025-03-21 or later" in vendor.unsupported(today)
    assert vendor.unsupported(request(utc("2025-03-19"), utc("2025-03-20"))) is None
    with pytest.raises(VendorError, match="after it"):
        fetch_with_policy(vendor, today)
    assert archive.paths == []


def test_a_file_that_is_not_there_yet_is_an_error_that_another_vendor_may_answer(vendor):
    with pytest.raises(VendorError, match="BTCUSDT-1m-2025-03-19.zip is not published yet") as failed:
        vendor.fetch(request(utc("2025-03-19"), utc("2025-03-20")))
    assert not failed.value.retryable and not failed.value.opens_circuit


@pytest.mark.parametrize(("start", "end"), [("2024-01-09", "2024-01-10"), ("2023-12-01", "2024-01-01")])
def test_an_old_file_that_is_not_there_says_that_there_are_no_bars(vendor, archive, start, end):
    bars = vendor.fetch(request(utc(start), utc(end))).bars
    assert bars.is_empty() and bars.schema == RAW_SCHEMA
    assert len(archive.paths) == 1, "without a checksum the file is not asked for"


def test_a_month_in_which_trading_began_has_the_rest(vendor):
    bars = vendor.fetch(request(utc("2024-01-01"), utc("2024-02-01"))).bars
    assert bars["open_time"].min() == utc("2024-01-10") and len(bars) == 22 * 1440


def test_what_does_not_match_its_checksum_is_not_used_and_asked_for_again(vendor, archive):
    archive.files[f"{ONE_DAY}.CHECKSUM"] = b"0" * 64 + b"  BTCUSDT-1m-2025-01-02.zip\n"
    with pytest.raises(VendorError, match="does not match its checksum, nothing of it is used") as failed:
        vendor.fetch(request())
    assert failed.value.retryable

    def published(seconds: float) -> None:
        archive.files.clear()

    assert len(fetch_with_policy(vendor, request(), RetryPolicy(2, 1.0), sleep=published).bars) == 1440


def test_a_file_published_again_is_the_newer_word(vendor, archive):
    before = vendor.fetch(request()).bars
    archive.versions[DAY.date()] = 1
    after = vendor.fetch(request()).bars
    assert (after["close"] - before["close"]).unique().to_list() == [1.0]
    assert after["fetched_at"].min() > before["fetched_at"].max()


def test_numbers_that_are_none_become_nulls_for_cleaning_to_judge(vendor, archive):
    good, bad = (kline("BTCUSDT", "1m", int(DAY.timestamp()) + at, micro=True).split(",") for at in (0, 60))
    bad = [bad[0], "", "x", *bad[3:8], "1.5", *bad[9:]]
    serve(archive, zipped(("a.csv", "\n".join(map(",".join, (good, bad))))))
    assert vendor.fetch(request()).bars.select(pl.col("open", "high", "low").is_null()).row(1) == (True, True, False)


def test_a_line_that_comes_twice_is_handed_on_twice(vendor, archive):
    line = kline("BTCUSDT", "1m", int(DAY.timestamp()))
    serve(archive, zipped(("a.csv", f"{line}\n{line}\n")))
    assert vendor.fetch(request()).bars["open_time"].to_list() == [DAY, DAY]


def test_a_file_without_lines_has_no_bars(vendor, archive):
    serve(archive, zipped(("a.csv", HEADER + "\n")))
    assert vendor.fetch(request()).bars.is_empty()


def serve(archive: BinanceArchive, content: bytes) -> None:
    archive.files[ONE_DAY] = content
    archive.files[f"{ONE_DAY}.CHECKSUM"] = hashlib.sha256(content).hexdigest().encode()


LINE = kline("BTCUSDT", "1m", int(DAY.timestamp()))
BROKEN = {
    "no zip": (b"<html>", "can't be unpacked: BadZipFile"),
    "cut": (zipped(("a.csv", LINE))[:-30], "can't be unpacked: BadZipFile"),
    "two members": (zipped(("a.csv", LINE), ("b.csv", LINE)), "holds 2 files instead of one"),
    "no member": (zipped(), "holds 0 files instead of one"),
    "another table": (zipped(("a.csv", "1,2,3\n")), "not a table of 12 columns"),
    "a short line": (zipped(("a.csv", f"{LINE}\n{LINE[:40]}")), "not a table of 12 columns"),
    "a long line": (zipped(("a.csv", f"{LINE},7\n{LINE}")), "not a table of 12 columns"),
    "no time": (zipped(("a.csv", f"{LINE}\nyesterday{LINE[13:]}")), "open_time is not always a whole number"),
    "no possible time": (zipped(("a.csv", f"999999{LINE}")), "open_time is not always a whole number"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_is_broken_as_published_is_an_error_that_stays(vendor, archive, case):
    content, said = BROKEN[case]
    serve(archive, content)
    with pytest.raises(VendorError, match=said) as failed:
        vendor.fetch(request())
    assert not failed.value.retryable and "BTCUSDT-1m-2025-01-02.zip" in str(failed.value)


ERRORS = {
    "no checksum in the checksum": ([Reply(200, "soon")], "the checksum of .* is none", True, None),
    "half of a file": ([None, Reply(200, "0123456789", cut=5)], "no answer: ", True, None),
    "busy": ([Reply(429, "slow down", {"Retry-After": "7"})], "HTTP 429: slow down", True, 7.0),
    "down": ([None, Reply(503, "")], "HTTP 503: nothing", True, None),
    "banned": ([Reply(418, "")], "banned", False, None),
    "forbidden": ([Reply(403, "no")], "HTTP 403", False, None),
    "file gone": ([None, Reply(404, "")], "not there, though its checksum is", True, None),
}


@pytest.mark.parametrize("case", ERRORS)
def test_each_error_says_what_it_is_and_whether_it_may_pass(vendor, archive, case):
    replies, said, retryable, after = ERRORS[case]
    if replies[0] is None:
        content = zipped(("a.csv", LINE))
        replies = [Reply(200, hashlib.sha256(content).hexdigest()), *replies[1:]]
    archive.replies += replies
    with pytest.raises(VendorError, match=said) as failed:
        vendor.fetch(request())
    assert (failed.value.retryable, failed.value.retry_after) == (retryable, after)


def test_any_bytes_under_a_right_checksum_are_bars_or_a_vendor_error(vendor, archive):
    chance, outcomes = random.Random("files"), {"served": 0, "rejected": 0}
    text = "\n".join(archive.lines("BTCUSDT", "1m", DAY.date())[:20])
    for _ in range(1000):
        if chance.random() < 0.5:
            content = spoilt(zipped(("a.csv", text)), chance)
        else:
            content = zipped(("a.csv", spoilt(text.encode(), chance).decode("latin-1")))
        serve(archive, content)
        try:
            bars = vendor.fetch(request()).bars
        except VendorError as error:
            assert str(error).strip() and "\n" not in str(error)
            outcomes["rejected"] += 1
        else:
            assert bars.schema == RAW_SCHEMA
            outcomes["served"] += 1
    assert min(outcomes.values()) > 50, outcomes


def spoilt(content: bytes, chance: random.Random) -> bytes:
    """One to three bytes changed, or the end missing."""
    spoiled = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        spoiled[chance.randrange(len(spoiled))] = chance.choice([0, 44, 46, 48, 57, 255, chance.randrange(256)])
    return bytes(spoiled[: chance.randrange(len(spoiled))] if chance.random() < 0.1 else spoiled)

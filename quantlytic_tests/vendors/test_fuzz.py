"""A thousand spoilt answers: each ends in bars, or in an error that says why; none in a crash, none unseen."""

import json
from collections import Counter
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from random import Random

import polars as pl
import pytest
from pydantic import SecretStr

from quantlytic_assets.calendars.partitions import archive_keys, with_partition
from quantlytic_assets.calendars.sessions import session_table
from quantlytic_assets.market_data.actions.reconcile import ACTIONS_SCHEMA
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.market_data.quality.cleaning import clean
from quantlytic_assets.services.ingest import Ingest
from quantlytic_assets.storage.archive import local_archive
from quantlytic_assets.storage.attempts import AttemptLog
from quantlytic_assets.storage.bus import LocalBus
from quantlytic_assets.storage.landing import Lander
from quantlytic_assets.vendors.alpha_vantage import AlphaVantageVendor
from quantlytic_assets.vendors.binance import BinanceVendor
from quantlytic_assets.vendors.coinbase import CoinbaseVendor
from quantlytic_assets.vendors.policy import RetryPolicy
from quantlytic_assets.vendors.protocol import BarRequest, Vendor, VendorError
from quantlytic_assets.vendors.twelve_data import TwelveDataVendor
from quantlytic_assets.vendors.yahoo import YahooVendor
from quantlytic_tests.frames import make_dataset, utc
from quantlytic_tests.vendors.alpha_vantage_server import RECORDINGS
from quantlytic_tests.vendors.bodies import Bodies, spoilt

# The number for each vendor.
BODIES = 300


@dataclass(frozen=True)
class Case:
    """A vendor at an address, a question, and a good answer to it."""

    vendor: object
    request: BarRequest
    recorded: object

    def at(self, url: str) -> Vendor:
        return self.vendor(url)


def klines() -> list:
    begin = int(utc("2024-08-08T00:00").timestamp() * 1000)
    opens = [begin + 60_000 * minute for minute in range(30)]
    return [[at, "1.0", "3.0", "0.5", "2.0", "4.0", at + 59_999, "6.0", 7, "0", "0", "0"] for at in opens]


def candles() -> list:
    begin = int(utc("2024-08-08T00:00").timestamp())
    return [[begin + 60 * minute, 0.5, 3.0, 1.0, 2.0, 4.0] for minute in reversed(range(30))]


MINUTES = BarRequest("fuzzed", "BTC-USD", "1m", "24/7", utc("2024-08-08T00:00"), utc("2024-08-08T00:30"))

DAYS = BarRequest("fuzzed", "AAPL", "1d", "XNYS", utc("2020-08-31T04:00"), utc("2020-11-07T05:00"))


def recorded(name: str) -> object:
    return json.loads((RECORDINGS / f"{name}.json").read_text("utf-8"))


def alpha_vantage(url: str) -> AlphaVantageVendor:
    return AlphaVantageVendor(url, SecretStr("key"), premium=True)


def twelve_data(url: str) -> TwelveDataVendor:
    return TwelveDataVendor(url, SecretStr("key"))


CASES = {
    "binance": Case(partial(BinanceVendor, sleep=lambda seconds: None), MINUTES, klines()),
    "coinbase": Case(CoinbaseVendor, MINUTES, candles()),
    "yahoo": Case(YahooVendor, DAYS, recorded("yahoo_aapl_1d_split")),
    "alpha_vantage": Case(
        alpha_vantage,
        BarRequest("fuzzed", "MSFT", "1d", "XNYS", utc("2019-10-29T04:00"), utc("2019-11-05T05:00")),
        recorded("alpha_vantage_daily_msft"),
    ),
    "twelve_data": Case(
        twelve_data,
        BarRequest("fuzzed", "AAPL", "1d", "XNYS", utc("2024-11-22T04:00"), utc("2024-11-23T05:00")),
        recorded("twelve_data_1day_aapl"),
    ),
}


@pytest.fixture(scope="module")
def server():
    with Bodies().serving() as serving:
        yield serving


@pytest.mark.parametrize("name", CASES)
def test_any_body_is_an_answer_or_a_vendor_error(name, server):
    case, random, outcomes = CASES[name], Random(name), Counter()
    vendor = case.at(server.url)
    server.body = json.dumps(case.recorded).encode()
    good = vendor.fetch(case.request).bars
    assert len(good) > 0
    for turn in range(BODIES):
        server.body = spoilt(case.recorded, random)
        try:
            served = vendor.fetch(case.request)
        except VendorError as error:
            assert str(error).strip() and "\n" not in str(error)
            outcomes["rejected"] += 1
        except Exception as error:
            raise AssertionError(f"turn {turn}: {server.body!r}") from error
        else:
            assert served.bars.schema == RAW_SCHEMA and served.actions.schema == ACTIONS_SCHEMA
            inside = (pl.col("open_time") >= case.request.start) & (pl.col("open_time") < case.request.end)
            assert served.bars.filter(~inside).is_empty()
            outcomes["served"] += 1
    assert min(outcomes["rejected"], outcomes["served"]) > BODIES / 20, outcomes


@pytest.mark.parametrize("name", CASES)
def test_what_spoilt_answers_hold_is_clean_quarantined_or_repeated(name, server, tmp_path):
    """All of it goes the whole way: bus, archive, cleaning. Each archived row has exactly one end."""
    case, random = CASES[name], Random(f"{name} landed")
    day = case.request.start.date()
    dataset = make_dataset(
        case.request.calendar,
        case.request.interval,
        first=day,
        last=(case.request.end - timedelta(seconds=1)).date(),
        symbols=[case.request.symbol],
        name="fuzzed",
    )
    archive = local_archive(str(tmp_path / "archive"))
    lander = Lander(LocalBus(tmp_path / "bus"), archive, "fuzzed", partial(archive_keys, dataset=dataset), 10_000)
    attempts = AttemptLog(f"sqlite:///{tmp_path / 'state.sqlite'}")
    once = RetryPolicy(attempts=1)
    ingest = Ingest(dataset, [case.at(server.url)], archive, attempts, lander, policy=once)
    need = ingest.need(day, dataset.last_session, force=True)
    asked = answered = 0
    for _ in range(40):
        server.body = spoilt(case.recorded, random)
        outcome = ingest.fill(need)
        asked += len(need.ranges)
        answered += len(need.ranges) - len(outcome.errors)
        assert all(error.strip() for error in outcome.errors)
    assert 0 < answered < asked
    raw = archive.read(archive.objects("fuzzed"))
    rejected = archive.read_rejected("fuzzed", archive.rejected_objects("fuzzed"))
    assert rejected["reason"].null_count() == 0
    first, last = raw["open_time"].min().date(), raw["open_time"].max().date()
    table = session_table(dataset.calendar, first - timedelta(days=15), last + timedelta(days=2))
    cleaned = clean(raw, dataset, with_partition(table, dataset))
    assert cleaned.quarantine["reason"].null_count() == 0
    values = ["open", "high", "low", "close", "volume", "vwap", "trade_count", "adjustment"]
    repeated = len(raw) - len(cleaned.bars) - len(cleaned.quarantine)
    # What has no end of its own says the same as a bar that was kept.
    said = ["symbol", "open_time", *values]
    same = raw.join(cleaned.bars.select(said), on=said, nulls_equal=True)
    if dataset.interval != "1d":
        assert 0 <= repeated <= len(same) - len(cleaned.bars)
    assert repeated >= 0 and date(1900, 1, 1) < first

"""The gap sensor with real parts: a day that was cut is mended by a loopback Coinbase, or becomes the vendor's hole."""

import io
import json
import zipfile
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from quantlytic_assets.assets.clean_bars import clean_bars_asset
from quantlytic_assets.assets.coverage import coverage_asset
from quantlytic_assets.assets.partitions import definition
from quantlytic_assets.assets.raw_bars import raw_bars_asset
from quantlytic_assets.automation.gap_sensor import gap_sensor
from quantlytic_assets.resources import make_resources
from quantlytic_assets.services.gaps import decide
from quantlytic_assets.universe.models import Dataset, Instrument, Outage
from quantlytic_tests.feeds.exchange import Exchange
from quantlytic_tests.feeds.recorded import Recorded
from quantlytic_tests.frames import make_bars, make_dataset, minutes, utc
from quantlytic_tests.storage.places import make_settings

DAY = date(2018, 4, 4)
RECORDED = Path(__file__).parent.parent / "data" / "coinbase" / "20180404_trade.zip"
CUT = utc("2018-04-04T16:48")


def recorded_day() -> pl.DataFrame:
    """The bars of the file that is cut, as RAW_SCHEMA."""
    with zipfile.ZipFile(RECORDED) as packed:
        names = ["ms", "open", "high", "low", "close", "volume"]
        rows = pl.read_csv(io.BytesIO(packed.read(packed.namelist()[0])), has_header=False, new_columns=names)
    opens = [utc("2018-04-04T00:00") + timedelta(milliseconds=ms) for ms in rows["ms"]]
    bars = make_bars("BTC-USD", opens, vendor="coinbase")
    return bars.with_columns(rows[name].cast(pl.Float64) for name in names[1:])


def trades(start: datetime, count: int) -> list[Recorded]:
    """One trade in each of so many minutes."""
    first = int(start.timestamp() * 1000)
    return [
        Recorded(i + 1, first + i * 60_000 + 5_000, first + i * 60_000 + 5_001, "6900.5", "0.25", False)
        for i in range(count)
    ]


class Installation:
    """A dataset from raw bars to coverage with its gap sensor, on parts of its own and a loopback Coinbase."""

    def __init__(self, home: Path, exchange: Exchange, instance: dg.DagsterInstance, dataset: Dataset):
        self.resources = make_resources(make_settings("embedded", home, coinbase_rest=exchange.rest))
        self.exchange = exchange
        self.instance = instance
        self.dataset = dataset
        self.cursor: str | None = None
        common = {"partitions_def": definition(dataset), "backfill_policy": dg.BackfillPolicy.multi_run(250)}
        job = dg.define_asset_job(
            f"{dataset.name}_pipeline",
            selection=dg.AssetSelection.all(),
            partitions_def=definition(dataset),
            executor_def=dg.in_process_executor,
        )
        self.definitions = dg.Definitions(
            assets=[
                raw_bars_asset(dataset, common),
                clean_bars_asset(dataset, common),
                coverage_asset(dataset, common),
            ],
            jobs=[job],
            sensors=[gap_sensor(dataset, job, 250)],
            resources={"quantlytic": dg.ResourceDefinition.hardcoded_resource(self.resources)},
        )
        self.job = self.definitions.resolve_job_def(job.name)

    def land(self, bars: pl.DataFrame) -> None:
        """What a feed or an import does."""
        lander = self.resources.lander(self.dataset)
        lander.publish(bars)
        lander.land()

    def run(self, tags: dict[str, str], config: dict | None = None) -> None:
        done = self.job.execute_in_process(instance=self.instance, tags=tags, run_config=config or {})
        assert done.success

    def look(self) -> None:
        """Clean bars and coverage of what is archived, with nobody asked."""
        day = DAY.isoformat()
        tags = {"dagster/asset_partition_range_start": day, "dagster/asset_partition_range_end": day}
        keys = {dg.AssetKey([self.dataset.name, name]) for name in ("clean_bars", "coverage")}
        job = self.job.get_subset(asset_selection=keys)
        assert job.execute_in_process(instance=self.instance, tags=tags).success

    def tick(self, later: timedelta = timedelta(0)) -> dg.RunRequest | str:
        """One turn of the sensor; a run that it asks for is executed. Returns the request, or why there is none."""
        if later:
            self.cursor = _aged(self.cursor, later)
        sensor = self.definitions.resolve_sensor_def(f"{self.dataset.name}_gap_sensor")
        with dg.build_sensor_context(
            self.instance, cursor=self.cursor, resources={"quantlytic": self.resources}, definitions=self.definitions
        ) as context:
            result = sensor.evaluate_tick(context)
        self.cursor = result.cursor or self.cursor
        if not result.run_requests:
            return result.skip_message
        (request,) = result.run_requests
        self.run({**request.tags}, request.run_config)
        return request

    @property
    def asked(self) -> list[tuple[str, str, str]]:
        """What the venue was asked: its name of the symbol, from, to (inclusive)."""
        return [(one["path"].split("/")[2], one["start"], one["end"]) for one in self.exchange.requests]

    def holes(self) -> list[tuple]:
        """(symbol, start, end, cause) of clean.coverage."""
        return self.resources.lake.query(
            'SELECT symbol, hole."start", hole."end", hole.cause FROM '
            "(SELECT symbol, unnest(missing_ranges) AS hole FROM clean.coverage WHERE dataset = ?) ORDER BY 1, 2",
            [self.dataset.name],
        ).rows()


def _aged(cursor: str | None, by: timedelta) -> str:
    """A memory as it is so much later."""
    rows = [[*row[:3], row[3] - by.total_seconds(), row[4]] for row in json.loads(cursor or "[]")]
    return json.dumps(rows)


@pytest.fixture(scope="module")
def instance(tmp_path_factory):
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as found:
        yield found


@pytest.fixture
def venue():
    """Serves a market's trades, all long over."""

    opened = []

    def serve(**markets):
        exchange = Exchange({name.replace("_", "-"): them for name, them in markets.items()}, 1, coinbase=True)
        serving = exchange.serving()
        opened.append(serving)
        serving.__enter__()
        exchange.now = lambda: exchange.end + 10 * 86_400_000
        return exchange

    yield serve
    for serving in opened:
        serving.__exit__(None, None, None)


def cut_dataset(name: str, *symbols: str, **changes) -> Dataset:
    names = {"name": name, "venue": "coinbase", "vendors": ("coinbase",), "symbols": symbols or ("BTC-USD",)}
    return make_dataset("24/7", "1m", first=DAY, last=DAY, **(names | changes))


def test_a_day_that_was_cut_is_mended_by_asking_for_just_the_rest_less_a_known_outage(tmp_path, venue, instance):
    exchange = venue(BTC_USD=trades(CUT, 432))
    evening, midnight = utc("2018-04-04T23:00"), utc("2018-04-05T00:00")
    down = Outage("coinbase", evening, midnight, "their status page")
    mine = Installation(tmp_path, exchange, instance, cut_dataset("mended", outages=(down,)))
    mine.land(recorded_day())
    mine.look()
    quiet = ("BTC-USD", CUT - timedelta(minutes=2), CUT - timedelta(minutes=1), "no_trade")
    outage = ("BTC-USD", evening, midnight, "outage")
    assert mine.holes() == [quiet, ("BTC-USD", CUT, evening, "not_fetched"), outage]
    request = mine.tick()
    assert request.run_config["ops"]["mended__raw_bars"]["config"] == {"symbols": ["BTC-USD"]}
    assert "1 sessions of BTC-USD from 2018-04-04 to 2018-04-04" in request.tags["quantlytic/gaps"]
    # The minute without a trade, and the rest of the day in as many questions as the venue's 300 bars take.
    assert sorted(mine.asked) == [
        ("BTC-USD", "2018-04-04T16:46:00Z", "2018-04-04T16:46:00Z"),
        ("BTC-USD", "2018-04-04T16:48:00Z", "2018-04-04T21:47:00Z"),
        ("BTC-USD", "2018-04-04T21:48:00Z", "2018-04-04T22:59:00Z"),
    ]
    assert mine.holes() == [quiet, outage]
    assert mine.resources.lake.query("SELECT count(*) AS n FROM clean.bars")["n"].item() == 1_379
    assert mine.tick(timedelta(days=9)) == "nothing to ask for"
    assert len(mine.asked) == 3


def test_what_the_vendor_has_not_is_its_hole_after_the_attempts_and_never_asked_for_again(tmp_path, venue, instance):
    exchange = venue(BTC_USD=trades(utc("2018-04-03T00:00"), 3))
    mine = Installation(tmp_path, exchange, instance, cut_dataset("holed"))
    mine.land(recorded_day())
    answered = pl.DataFrame({"symbol": ["BTC-USD"], "session": [DAY], "error": pl.Series([None], dtype=pl.String)})
    mine.resources.attempts.record("holed", answered)
    mine.resources.attempts.record("holed", answered)
    # The third time, after which nothing is asked any more, however long it is.
    assert isinstance(mine.tick(), dg.RunRequest)
    assert len(mine.asked) == 3
    assert [hole[3] for hole in mine.holes()] == ["no_trade", "vendor_hole"]
    assert mine.tick(timedelta(days=9)) == "nothing to ask for"
    assert len(mine.asked) == 3


def test_a_hole_of_all_symbols_is_asked_about_once_and_then_believed(tmp_path, venue, instance):
    start, end = utc("2018-04-04T05:00"), utc("2018-04-04T06:00")
    # The venue has A's first half hour of it: our own feed was away.
    exchange = venue(A_USD=trades(start, 30), B_USD=trades(utc("2018-04-03T00:00"), 1))
    mine = Installation(tmp_path, exchange, instance, cut_dataset("shared", "A-USD", "B-USD"))
    day = [time for time in minutes(utc("2018-04-04T00:00"), 1440) if not start <= time < end]
    mine.land(pl.concat([make_bars(symbol, day, vendor="coinbase") for symbol in ("A-USD", "B-USD")]))
    mine.look()
    assert mine.holes() == [("A-USD", start, end, "outage"), ("B-USD", start, end, "outage")]
    assert isinstance(mine.tick(), dg.RunRequest)
    # Both at a time, in whatever order they arrive there.
    assert sorted(mine.asked) == [
        (symbol, "2018-04-04T05:00:00Z", "2018-04-04T05:59:00Z") for symbol in ("A-USD", "B-USD")
    ]
    half = start + timedelta(minutes=30)
    assert mine.holes() == [
        ("A-USD", half, end, "outage"), ("B-USD", start, half, "no_trade"), ("B-USD", half, end, "outage"),
    ]  # fmt: skip
    assert mine.tick(timedelta(days=9)) == "nothing to ask for"


def test_nothing_is_asked_while_a_run_is_at_work_or_the_vendor_is_closed(tmp_path, venue, instance):
    mine = Installation(tmp_path, venue(BTC_USD=trades(CUT, 432)), instance, cut_dataset("busy"))
    sensor = mine.definitions.resolve_sensor_def("busy_gap_sensor")
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED
    run = instance.create_run_for_job(mine.job, status=dg.DagsterRunStatus.STARTED)
    assert mine.tick() == f"run {run.run_id} is at work"
    instance.report_run_canceled(run)
    # Those of backfills in the UI, of its tables and of its bars.
    every = mine.definitions.resolve_implicit_global_asset_job_def()
    for name in ("coverage", "raw_bars"):
        selected = frozenset({dg.AssetKey(["busy", name])})
        run = instance.create_run_for_job(every, status=dg.DagsterRunStatus.STARTED, asset_selection=selected)
    assert mine.tick() == f"run {run.run_id} is at work"
    # A command's run whose process was killed: nobody holds its lock.
    instance.report_run_canceled(run)
    instance.create_run_for_job(mine.job, status=dg.DagsterRunStatus.STARTED, tags={"quantlytic/lock": "run-gone"})
    mine.resources.budgets.open_circuit("coinbase", 600, "banned")
    assert mine.tick().startswith("no vendor may be asked now: coinbase for ") and "banned" in mine.tick()
    assert mine.asked == []


def test_a_vendor_that_fails_is_asked_again_later_and_the_others_meanwhile(tmp_path, venue, instance):
    dataset = make_dataset(
        "24/7", "1h", first=DAY, last=date(2018, 4, 6), symbols=("A-USD",), vendors=("coinbase",), name="failing"
    )
    exchange = venue(B_USD=trades(CUT, 1))
    mine = Installation(tmp_path, exchange, instance, dataset)
    # Nobody has looked at these sessions: they are asked for in one go. The venue rejects a symbol it doesn't know.
    request = mine.tick()
    assert "3 sessions of A-USD from 2018-04-04 to 2018-04-06" in request.tags["quantlytic/gaps"]
    made = len(mine.asked)
    assert made >= 1 and {hole[3] for hole in mine.holes()} == {"not_fetched"}
    assert mine.tick(timedelta(minutes=14)) == "3 holes wait until they are asked for again"
    assert isinstance(mine.tick(timedelta(minutes=2)), dg.RunRequest)
    assert len(mine.asked) > made
    tried = mine.resources.attempts.read("failing", DAY, date.max).select("attempts", "answered")
    assert tried.unique().rows() == [(2, 0)]


def test_what_lies_beyond_the_vendors_reach_starts_no_run_and_is_said_to(tmp_path, venue, instance):
    today = datetime.now(UTC).date()
    old = make_dataset("24/7", "5m", first=DAY, last=DAY, symbols=("A-USD",), vendors=("yahoo",), name="old")
    mine = Installation(tmp_path, venue(B_USD=trades(CUT, 1)), instance, old)
    assert mine.tick() == "nothing to ask for"
    assert decide(mine.resources, old, datetime.now(UTC))["decision"].to_list() == ["not_served"]
    # Yahoo's 5m bars go back 60 days; of a share that IB knows by its name in the universe any.
    reaching = replace(old, first_session=today - timedelta(days=90), last_session=today - timedelta(days=2))
    told = decide(mine.resources, reaching, datetime.now(UTC))
    asking = told.filter(decision="ask")["session"]
    assert set(told["decision"]) == {"ask", "not_served"} and asking.min() in (
        today - timedelta(days=61), today - timedelta(days=60), today - timedelta(days=59),
    )  # fmt: skip
    assert len(asking) + len(told.filter(decision="not_served")) == 89
    named = Instrument("VOD", names={"ibkr": "STK:VOD/GBP@LSE"})
    share = replace(old, calendar="XLON", vendors=("yahoo", "ibkr"), symbols=(named, Instrument("BP")))
    told = decide(mine.resources, share, datetime.now(UTC)).sort("symbol")
    assert told["decision"].to_list() == ["not_served", "ask"]

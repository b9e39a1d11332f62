"""The alert sensor with real parts: what is wrong reaches a webhook once, and once more when it is mended."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import polars as pl
import pytest

from quantlytic_assets.automation.alerts import (
    alert_sensor,
    closed_with_holes,
    failed_runs,
    halted,
    running_since,
    stale,
)
from quantlytic_assets.market_data.bars import CLEAN_SCHEMA, COVERAGE_SCHEMA
from quantlytic_assets.resources import make_resources
from quantlytic_assets.services.halts import ask_to_halt, ask_to_resume
from quantlytic_tests.frames import make_bars, make_dataset, minutes, utc
from quantlytic_tests.receivers import Webhook
from quantlytic_tests.storage.places import make_settings

LIVE = make_dataset(
    "24/7", "1m", first=date(2025, 3, 1), last=None, symbols=("A", "B"), name="live", stale_after=timedelta(minutes=15)
)
NOW = utc("2025-03-06T12:00")


@pytest.fixture(scope="module")
def webhook():
    with Webhook().serving() as open_one:
        yield open_one


@pytest.fixture(scope="module")
def installed(tmp_path_factory, webhook):
    return make_resources(make_settings("embedded", tmp_path_factory.mktemp("home"), notify=webhook.url))


@pytest.fixture
def resources(installed):
    """With nothing in its tables."""
    yield installed
    installed.lake.replace([(table, "true", [], pl.DataFrame()) for table in ("clean.bars", "clean.coverage")])


def put_bars(resources, dataset, start, count, symbol="A"):
    raw = make_bars(symbol, minutes(start, count), dataset.interval)
    clean = raw.select(
        pl.lit(dataset.name).alias("dataset"), pl.col("open_time").dt.date().alias("session"),
        pl.col("close_time").alias("available_at"), pl.lit([], pl.List(pl.String)).alias("flags"), pl.all(),
    ).select(CLEAN_SCHEMA.names())  # fmt: skip
    resources.lake.replace([("clean.bars", "dataset = ? AND symbol = ?", [dataset.name, symbol], clean)])


def put_coverage(resources, dataset, *rows, checked_at=None):
    """Rows of (symbol, session, cause or None); what has a cause lacks ten minutes."""
    table = pl.DataFrame(
        [
            {
                "dataset": dataset.name, "symbol": symbol, "session": session, "expected_bars": 1440,
                "present_bars": 1440 - 10 * bool(cause), "missing_bars": 10 * bool(cause), "cause": cause,
                "missing_ranges": [hole(session, cause)] if cause else [],
                "attempts": 0, "checked_at": checked_at or at(session) + timedelta(days=1, minutes=5),
            }
            for symbol, session, cause in rows
        ],
        schema=COVERAGE_SCHEMA,
    )  # fmt: skip
    resources.lake.replace([("clean.coverage", "dataset = ?", [dataset.name], table)])


def hole(day, cause):
    return {"start": at(day), "end": at(day) + timedelta(minutes=10), "cause": cause}


def at(day):
    return datetime(day.year, day.month, day.day, 5, tzinfo=UTC)


def complete(dataset, since=date(2025, 2, 20), until=date(2025, 3, 5)):
    days = pl.date_range(since, until, "1d", eager=True)
    return [(symbol, day, None) for day in days for symbol in ("A", "B")]


def test_a_running_session_without_new_bars_is_stale(resources):
    assert [one.key for one in stale(resources, LIVE, NOW)] == ["stale:live"]
    put_bars(resources, LIVE, utc("2025-03-06T11:00"), 45)
    assert stale(resources, LIVE, NOW) == []
    (alert,) = stale(resources, LIVE, NOW + timedelta(seconds=1))
    assert "2025-03-06 11:45 UTC" in alert.body and alert.mended
    # A bar of any symbol counts: a thin symbol does not make the dataset stale.
    put_bars(resources, LIVE, utc("2025-03-06T11:50"), 5, symbol="B")
    assert stale(resources, LIVE, NOW + timedelta(seconds=1)) == []


def test_a_dataset_that_has_ended_or_sleeps_is_not_stale(resources):
    def one(**changes):
        return make_dataset(first=date(2025, 3, 3), last=None, stale_after=timedelta(minutes=15), **changes)

    opened = utc("2025-03-06T14:30")
    for now, count in (
        (opened - timedelta(hours=1), 0), (opened + timedelta(minutes=15), 0), (opened + timedelta(minutes=16), 1),
        (utc("2025-03-06T21:00"), 0), (utc("2025-03-08T15:00"), 0),
    ):  # fmt: skip
        assert len(stale(resources, one(), now)) == count, now
    assert stale(resources, make_dataset(first=date(2025, 3, 3), last=None), opened + timedelta(hours=1)) == []
    ended = make_dataset(first=date(2025, 3, 3), last=date(2025, 3, 5), stale_after=timedelta(minutes=15))
    assert stale(resources, ended, opened + timedelta(hours=1)) == []


def test_a_session_rests_at_lunch():
    hong_kong = make_dataset("XHKG", "5m", first=date(2025, 7, 1), last=None)
    assert running_since(hong_kong, utc("2025-07-03T03:59")) == utc("2025-07-03T01:30")
    assert running_since(hong_kong, utc("2025-07-03T04:30")) is None
    assert running_since(hong_kong, utc("2025-07-03T05:10")) == utc("2025-07-03T05:00")
    assert running_since(hong_kong, utc("2025-07-05T05:10")) is None


def test_a_session_after_the_last_one_of_the_dataset_is_not_running():
    ended = make_dataset("XHKG", "5m", first=date(2025, 7, 1), last=date(2025, 7, 2))
    assert running_since(ended, utc("2025-07-02T03:00")) == utc("2025-07-02T01:30")
    assert running_since(ended, utc("2025-07-03T03:00")) is None


def test_a_session_that_closed_with_holes_is_told_when_the_others_had_their_time(resources):
    rows = complete(LIVE)
    put_coverage(resources, LIVE, *rows)
    assert closed_with_holes(resources, LIVE, NOW) == []
    lacking = [(*row[:2], "not_fetched") if row[:2] == ("B", date(2025, 3, 4)) else row for row in rows]
    put_coverage(resources, LIVE, *lacking)
    (alert,) = closed_with_holes(resources, LIVE, NOW)
    assert alert.key == "holes:live:2025-03-04" and "1 of 2 symbols lack bars: B." in alert.body
    for cause in ("outage", "no_trade"):
        put_coverage(resources, LIVE, *[(*row[:2], cause) if row[2] else row for row in lacking])
        assert closed_with_holes(resources, LIVE, NOW) == []
    # A session that nobody looked at since it closed: the running one is none yet.
    put_coverage(resources, LIVE, *[row for row in rows if row[1] < date(2025, 3, 5)])
    assert closed_with_holes(resources, LIVE, utc("2025-03-06T00:29")) == []
    (alert,) = closed_with_holes(resources, LIVE, utc("2025-03-06T00:30"))
    assert alert.key == "holes:live:2025-03-05" and "Nobody has looked at 2" in alert.body
    put_coverage(resources, LIVE, *rows, checked_at=utc("2025-03-05T23:59"))
    assert closed_with_holes(resources, LIVE, utc("2025-03-06T01:00"))[-1].key == "holes:live:2025-03-05"


@pytest.mark.parametrize(
    ("vendors", "delay", "told_at"),
    [
        (["yahoo"], timedelta(0), "2025-03-05T21:30"),
        (["yahoo"], timedelta(hours=14), "2025-03-05T21:30"),
        (["yahoo"], timedelta(hours=30), "2025-03-06T03:30"),
        ([], timedelta(0), "2025-03-04T21:30"),
    ],
)
def test_a_daily_session_is_told_of_when_its_vendors_should_have_it(resources, vendors, delay, told_at):
    daily = make_dataset("XNYS", "1d", first=date(2025, 3, 4), last=None, vendors=vendors, delay=delay)
    moment = utc(told_at)
    assert closed_with_holes(resources, daily, moment - timedelta(seconds=1)) == []
    assert [one.key for one in closed_with_holes(resources, daily, moment)][:1] == [f"holes:{daily.name}:2025-03-04"]


def test_an_old_session_is_told_of_only_while_its_alert_stands(resources):
    rows = [(*row[:2], "vendor_hole") if row[1] == date(2025, 3, 2) else row for row in complete(LIVE)]
    put_coverage(resources, LIVE, *rows)
    later = utc("2025-03-12T12:00")
    keys = [one.key for one in closed_with_holes(resources, LIVE, later)]
    assert "holes:live:2025-03-02" not in keys and "holes:live:2025-03-06" in keys
    standing = {"holes:live:2025-03-02": "", "stale:live": "", "holes:other:2025-03-03": ""}
    assert "holes:live:2025-03-02" in [one.key for one in closed_with_holes(resources, LIVE, later, standing)]


def test_the_sensor_tells_once_retries_and_says_when_it_is_mended(tmp_path, resources, webhook):
    # New today, so that there is no session of last week to speak of.
    dataset = replace(LIVE, first_session=NOW.date())
    now, cursor = NOW, None
    sensor = alert_sensor([dataset], clock=lambda: now)
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED

    def turn(minutes=0):
        nonlocal now, cursor
        now += timedelta(minutes=minutes)
        with dg.build_sensor_context(instance, cursor=cursor, resources={"quantlytic": resources}) as context:
            result = sensor.evaluate_tick(context)
        assert result.run_requests == []
        cursor = result.cursor
        return result.skip_message

    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        webhook.status = 503
        put_bars(resources, dataset, NOW - timedelta(minutes=20), 1)
        assert turn() == "0 messages sent, 1 wait, 1 alerts stand"
        webhook.status = 200
        job = dg.GraphDefinition("anything").to_job()
        instance.create_run_for_job(job, status=dg.DagsterRunStatus.FAILURE)
        instance.create_run_for_job(job, status=dg.DagsterRunStatus.FAILURE, tags={"dagster/will_retry": "true"})
        turn(minutes=2)
        assert [title for title, _ in webhook.texts] == ["live is stale", "anything failed"]
        put_bars(resources, dataset, now, 1)
        turn(minutes=2)
        assert turn(minutes=2) == "0 messages sent, 0 wait, 0 alerts stand"
        assert [title for title, _ in webhook.texts][2:] == ["live is stale: mended"]


def test_a_halted_strategy_is_told_of_until_it_is_resumed(resources):
    ask_to_halt(resources.accounts, "cross", "anna", "earnings")
    (alert,) = halted(resources, ["cross", "hold"])
    assert (alert.key, alert.title) == ("halted:cross", "cross is halted")
    assert "as anna asked at " in alert.body and "`quantlytic resume cross` lets it go on" in alert.body
    ask_to_resume(resources.accounts, "cross", "anna")
    assert halted(resources, ["cross", "hold"]) == []


def test_without_an_address_it_says_what_to_set(tmp_path):
    resources = make_resources(make_settings("embedded", tmp_path))
    with dg.build_sensor_context(resources={"quantlytic": resources}) as context:
        assert "QUANTLYTIC_NOTIFY" in alert_sensor([LIVE]).evaluate_tick(context).skip_message


def test_a_failed_run_that_is_only_tagged_later_is_not_told_of_again():
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(dg.GraphDefinition("anything").to_job(), status=dg.DagsterRunStatus.STARTED)
        since = datetime.now(UTC).timestamp()
        instance.report_run_failed(run)
        alerts, since = failed_runs(instance, since, NOW)
        assert [alert.key for alert in alerts] == [f"run:{run.run_id}"]
        instance.add_run_tags(run.run_id, {"seen": "by me"})
        assert failed_runs(instance, since, NOW)[0] == []


def test_runs_are_looked_at_from_the_first_turn_on():
    with dg.DagsterInstance.ephemeral() as instance:
        assert failed_runs(instance, 0.0, NOW) == ([], NOW.timestamp())
        assert failed_runs(instance, NOW.timestamp(), NOW) == ([], NOW.timestamp())

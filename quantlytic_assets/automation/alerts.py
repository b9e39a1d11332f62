"""The sensor `alerts`: tells of stale datasets, sessions with holes, failed runs, halts, and declared conditions.

It reads the lake and the instance, and sends by `notify`; what is told when is decided in `alert_plan`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import polars as pl

from quantlytic_assets.automation.alert_plan import Alert, Message, Notified, delivered, due, take_in
from quantlytic_assets.calendars.sessions import session_table
from quantlytic_assets.market_data.quality.fetch_plan import vendors_may_take
from quantlytic_assets.market_data.quality.retention import first_kept
from quantlytic_assets.notify import Notifier, Undelivered
from quantlytic_assets.resources import Resources
from quantlytic_assets.services.broker_trading import newest_differences
from quantlytic_assets.services.gaps import wanted_pairs
from quantlytic_assets.services.halts import standings
from quantlytic_assets.services.thresholds import look
from quantlytic_assets.tables.bars import newest_close
from quantlytic_assets.tables.coverage import lacking
from quantlytic_assets.universe.models import Dataset, Threshold

# Landing, tables and the gap sensor have so long to complete a session, after its close or once vendors must have it.
_TO_COMPLETE = timedelta(minutes=30)
# Sessions that closed longer ago are told of only as long as an alert about them stands.
_LOOK_BACK = timedelta(days=7)
# What nobody can do anything about is no alarm.
_ALARMING = ("not_fetched", "vendor_hole", "unknown")
_MOST_RUNS = 20
# Seconds; Dagster ends a turn after 60, and forgets what it did.
_LONGEST_TURN = 30.0
_SYMBOLS_NAMED = 10


def alert_sensor(
    datasets: Sequence[Dataset],
    strategies: Sequence[str] = (),
    thresholds: Sequence[Threshold] = (),
    brokers: Sequence[str] = (),
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> dg.SensorDefinition:
    """The sensor; it needs QUANTLYTIC_NOTIFY.

    strategies: the names of those with an account that can be halted. thresholds: the alerts that the universe
    declares, on these datasets. brokers: those with an account that is compared with the ledger. `clock` gives the time
    in UTC and is there for tests.
    """

    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Tells the addresses of QUANTLYTIC_NOTIFY when a live dataset goes stale, a session closed with "
        "holes, a run failed, a strategy is halted, a broker's positions differ from the ledger's, or a condition of "
        "the universe's alerts holds; once, and once more when it is over. Cursor: what was notified.",
        required_resource_keys={"quantlytic"},
    )
    def sense(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        resources: Resources = context.resources.quantlytic
        notifier = resources.notifier
        if not len(notifier):
            return dg.SkipReason("set QUANTLYTIC_NOTIFY to say whom to tell")
        now = clock()
        notified = Notified.from_json(context.cursor)
        found: list[Alert] = []
        for dataset in datasets:
            found += stale(resources, dataset, now)
            found += closed_with_holes(resources, dataset, now, notified.standing)
        found += halted(resources, strategies)
        turn = look(resources, thresholds, {one.name: one for one in datasets}, running_since, now)
        found += [Alert(one.key, one.title, one.body) for one in turn.notices]
        found += [alert for broker in brokers for alert in differing(resources, broker)]
        failed, runs_until = failed_runs(context.instance, notified.runs_until, now)
        notified = replace(take_in(notified, [*found, *failed], len(notifier)), runs_until=runs_until)
        sending = due(notified, now.timestamp())
        left = _send(notifier, sending, context.log.warning)
        # Only now: a turn that ends before is done again.
        turn.keep(resources)
        notified, given_up = delivered(notified, left, now.timestamp())
        for message in given_up:
            context.log.error(f"{message.title}: given up, too many messages wait")
        sent, waiting, standing = len(sending) - len(left), len(notified.waiting), len(notified.standing)
        said = f"{sent} messages sent, {waiting} wait, {standing} alerts stand"
        return dg.SensorResult(skip_reason=dg.SkipReason(said), cursor=notified.to_json())

    return sense


def _send(notifier: Notifier, messages: Sequence[Message], warn: Callable[[str], None]) -> dict[int, tuple[int, ...]]:
    """Send each message; by position, the addresses that have not taken it.

    An address that fails once is left alone for this turn, and a turn ends in time to remember what it did.
    """
    left: dict[int, tuple[int, ...]] = {}
    away: dict[int, Undelivered] = {}
    until = time.monotonic() + _LONGEST_TURN
    for at, message in enumerate(messages):
        reachable = [number for number in message.to if number not in away and time.monotonic() < until]
        for one in notifier.send(message.title, message.body, reachable):
            away[one.number] = one
        left_out = tuple(number for number in message.to if number in away or number not in reachable)
        if left_out:
            left[at] = left_out
    if away:
        warn(f"messages not taken by {', '.join(map(str, away.values()))}; they are sent again later")
    return left


def stale(resources: Resources, dataset: Dataset, now: datetime) -> list[Alert]:
    """A dataset that goes on, whose session is running, and whose newest clean bar closed too long ago."""
    if dataset.stale_after is None or (dataset.last_session is not None and dataset.last_session < now.date()):
        return []
    session = running_since(dataset, now)
    if session is None:
        return []
    last = newest_close(resources.lake, dataset.name, now.date() - timedelta(days=7))
    since = max(last, session) if last is not None else session
    if now - since - dataset.delay <= dataset.stale_after:
        return []
    newest = f"The newest bar closed at {last:%Y-%m-%d %H:%M} UTC" if last is not None else "No bar is of this week"
    return [
        Alert(
            f"stale:{dataset.name}",
            f"{dataset.name} is stale",
            f"{newest}, and its session is running. Look at its feed, at {dataset.name}_bus_sensor and at "
            f"{dataset.name}_automation.",
            f"Bars of {dataset.name} come in again, or its session is over.",
        )
    ]


def differing(resources: Resources, broker: str) -> list[Alert]:
    """An alert where positions at a broker were not those of the ledger when somebody looked last."""
    newest = newest_differences(resources.broker_ledger, broker)
    if newest is None or not newest[1]:
        return []
    values, differences = newest
    return [
        Alert(
            f"broker:{broker}",
            f"{broker} and the ledger differ",
            f"{values.account} at {values.at:%Y-%m-%d %H:%M} UTC: {'; '.join(differences)}. `quantlytic broker status` "
            "shows it anew; docs/brokers.md says what to do.",
            f"{broker} and the ledger agree again.",
        )
    ]


def halted(resources: Resources, strategies: Sequence[str]) -> list[Alert]:
    """An alert for each strategy that is halted, by a limit or by hand."""
    return [
        Alert(
            f"halted:{name}",
            f"{name} is halted",
            f"{name}: {standing.said}. `quantlytic resume {name}` lets it go on.",
            f"{name} is not halted any more.",
        )
        for name, standing in (standings(resources.accounts, strategies) if strategies else {}).items()
        if standing.halted
    ]


def running_since(dataset: Dataset, now: datetime) -> datetime | None:
    """When the running stretch of the dataset's session began (its open, or the end of the break); None: closed."""
    around = timedelta(days=2)
    table = session_table(dataset.calendar, (now - around).date(), (now + around).date())
    open_now = table.filter(
        pl.col("open_time") <= now,
        pl.col("close_time") > now,
        pl.col("break_start").is_null() | (pl.col("break_start") > now) | (pl.col("break_end") <= now),
        pl.col("session") >= dataset.first_session,
        pl.col("session") <= (dataset.last_session or now.date() + around),
    )
    if open_now.is_empty():
        return None
    row = open_now.row(0, named=True)
    after_lunch = row["break_end"] is not None and row["break_end"] <= now
    return row["break_end"] if after_lunch else row["open_time"]


def closed_with_holes(
    resources: Resources, dataset: Dataset, now: datetime, standing: Mapping[str, object] = {}
) -> list[Alert]:
    """One alert a session of the last week (or with an alert that stands) that is over and lacks bars it should have.

    It is told half an hour after the close; of daily bars a day later, when vendors should have them.
    `standing`: keys of the alerts that were told and are not mended yet.
    """
    prefix = f"holes:{dataset.name}:"
    open_days = [date.fromisoformat(key.removeprefix(prefix)) for key in standing if key.startswith(prefix)]
    since = max(min([(now - _LOOK_BACK).date(), *open_days]), first_kept(dataset, now.date()))
    if dataset.last_session is not None and dataset.last_session < since:
        return []
    # Intraday bars are there at once, or their feed or vendor is to be looked at; daily ones come late.
    late = vendors_may_take(dataset) if dataset.interval == "1d" and dataset.vendors else timedelta(0)
    grace = _TO_COMPLETE + max(late - dataset.delay, timedelta(0))
    over = wanted_pairs(dataset, now).filter(
        pl.col("session") >= since,
        pl.col("closed_at") + grace <= now,
        pl.col("session").is_in(open_days) | (pl.col("closed_at") >= now - _LOOK_BACK),
    )
    if over.is_empty():
        return []
    covered = lacking(resources.lake, dataset.name, _ALARMING, since)
    holed = (
        over.join(covered, on=["symbol", "session"], how="left")
        .with_columns((pl.col("checked_at") >= pl.col("closed_at")).fill_null(False).alias("looked_at"))
        .filter(~pl.col("looked_at") | (pl.col("lacking") > 0))
        .group_by("session")
        .agg(pl.col("symbol").sort(), (~pl.col("looked_at")).sum().alias("unseen"))
        .sort("session")
    )
    return [_holed(dataset, *row) for row in holed.iter_rows()]


def _holed(dataset: Dataset, session: date, symbols: list[str], unseen: int) -> Alert:
    named = ", ".join(symbols[:_SYMBOLS_NAMED]) + (", …" if len(symbols) > _SYMBOLS_NAMED else "")
    looked = f" Nobody has looked at {unseen} of them since it closed." if unseen else ""
    return Alert(
        f"holes:{dataset.name}:{session.isoformat()}",
        f"{dataset.name} {session} closed with holes",
        f"{len(symbols)} of {len(dataset.symbols)} symbols lack bars: {named}.{looked} "
        f"`quantlytic gaps {dataset.name}` says which and why.",
        f"{dataset.name} {session} is complete now, as far as anybody has its bars.",
    )


def failed_runs(instance: dg.DagsterInstance, since: float, now: datetime) -> tuple[list[Alert], float]:
    """Runs that failed for good since then (s since 1970), and until when that has been looked at.

    At first (0) nothing before now is looked at. Runs that will be tried again are left out.
    """
    if not since:
        return [], now.timestamp()
    after = datetime.fromtimestamp(since, UTC)
    found = instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=after), limit=_MOST_RUNS, ascending=True,
        order_by="update_timestamp",
    )  # fmt: skip
    alerts = [
        Alert(
            f"run:{record.dagster_run.run_id}",
            f"{record.dagster_run.job_name} failed",
            f"Run {record.dagster_run.run_id} of {record.dagster_run.job_name} failed at "
            f"{record.update_timestamp:%H:%M} UTC; its page in the UI says why.",
        )
        for record in found
        if record.dagster_run.tags.get("dagster/will_retry") != "true"
        # A run that was only tagged since then has failed, and been told of, before.
        and (record.end_time is None or record.end_time > since)
    ]
    return alerts, found[-1].update_timestamp.timestamp() if found else since

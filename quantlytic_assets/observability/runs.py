"""Figures of Dagster's runs and daemons. The one place here that reads the Dagster instance."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from dagster import DagsterInstance, RunRecord

# The label of a run's job is `dagster_job`: `job` is what Prometheus calls the place that it reads figures from.
WINDOW = timedelta(hours=24)
_PAGE = 500
# Records written a moment ago by a machine whose clock is a little off are read again.
_OVERLAP = timedelta(minutes=2)
_QUANTILES = (0.5, 0.95, 1.0)


@dataclass(frozen=True)
class _Ended:
    job: str
    status: str
    at: float
    seconds: float


class RunWindow:
    """Runs that ended within the last 24 hours, kept in memory; each reading asks only for what changed since."""

    def __init__(self, instance: DagsterInstance):
        self.instance = instance
        self._ended: dict[str, _Ended] = {}
        self._since: datetime | None = None

    def metrics(self) -> list[Metric]:
        """Counts and durations by job and status, unfinished runs, and the daemons' last signs of life."""
        self._read()
        return [*self._ended_metrics(), *self._unfinished_metrics(), self._daemon_metrics()]

    def _read(self) -> None:
        now = datetime.now(UTC)
        since = self._since or now - WINDOW
        for record in self._pages(since):
            run = record.dagster_run
            if run.is_finished and record.end_time is not None:
                # A run that never started took no time.
                seconds = record.end_time - (record.start_time or record.end_time)
                self._ended[run.run_id] = _Ended(run.job_name, run.status.value, record.end_time, seconds)
        self._since = now - _OVERLAP
        oldest = (now - WINDOW).timestamp()
        self._ended = {run_id: ended for run_id, ended in self._ended.items() if ended.at >= oldest}

    def _pages(self, since: datetime) -> Iterator[RunRecord]:
        from dagster import RunsFilter

        cursor = None
        while True:
            # Newest first: runs that are made while the pages are read don't shift them.
            page = self.instance.get_run_records(RunsFilter(updated_after=since), limit=_PAGE, cursor=cursor)
            yield from page
            if len(page) < _PAGE:
                return
            cursor = page[-1].dagster_run.run_id

    def _ended_metrics(self) -> list[Metric]:
        durations: dict[tuple[str, str], list[float]] = defaultdict(list)
        for ended in self._ended.values():
            durations[ended.job, ended.status].append(ended.seconds)
        count = GaugeMetricFamily(
            "quantlytic_recent_runs", "runs that ended within the last 24 hours", labels=["dagster_job", "status"]
        )
        seconds = GaugeMetricFamily(
            "quantlytic_recent_run_seconds",
            "how long runs that ended within the last 24 hours took",
            labels=["dagster_job", "status", "quantile"],
        )
        for (job, status), took in sorted(durations.items()):
            count.add_metric([job, status], len(took))
            took.sort()
            for quantile in _QUANTILES:
                at = min(len(took) - 1, int(quantile * len(took)))
                seconds.add_metric([job, status, f"{quantile:g}"], took[at])
        return [count, seconds]

    def _unfinished_metrics(self) -> list[Metric]:
        from dagster import RunsFilter

        from quantlytic_assets.run_statuses import UNFINISHED

        records = self.instance.get_run_records(RunsFilter(statuses=UNFINISHED), limit=2 * _PAGE)
        count = GaugeMetricFamily(
            "quantlytic_unfinished_runs", "runs that wait or are under way", labels=["dagster_job", "status"]
        )
        oldest = GaugeMetricFamily(
            "quantlytic_oldest_unfinished_run_seconds",
            "how long ago the oldest run that has not ended was made",
            labels=["dagster_job"],
        )
        for (job, status), runs in sorted(
            Counter((one.dagster_run.job_name, one.dagster_run.status.value) for one in records).items()
        ):
            count.add_metric([job, status], runs)
        made: dict[str, float] = {}
        for one in records:
            job, at = one.dagster_run.job_name, one.create_timestamp.replace(tzinfo=UTC).timestamp()
            made[job] = min(made.get(job, at), at)
        for job, at in sorted(made.items()):
            oldest.add_metric([job], max(0.0, time.time() - at))
        return [count, oldest]

    def _daemon_metrics(self) -> Metric:
        heartbeat = GaugeMetricFamily(
            "quantlytic_daemon_heartbeat_timestamp_seconds",
            "when a part of Dagster's daemon last said that it lives, Unix time",
            labels=["daemon"],
        )
        for name, beat in sorted(self.instance.get_daemon_heartbeats().items()):
            heartbeat.add_metric([name], beat.timestamp)
        return heartbeat

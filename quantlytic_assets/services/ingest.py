"""Getting bars in: find what the archive lacks, ask the vendors for exactly that, publish it and land it.

The one place where vendors and storage meet. Knows nothing of Dagster; the raw_bars asset and the command line call it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

import polars as pl

from quantlytic_assets.calendars.sessions import expected_bars, session_table
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.market_data.quality.fetch_plan import (
    PLAN_SCHEMA,
    asked_of_vendors,
    expected_keys,
    missing_keys,
    outside_outages,
    plan,
    vendors_may_take,
)
from quantlytic_assets.storage.action_archive import ActionArchive
from quantlytic_assets.storage.archive import Archive
from quantlytic_assets.storage.attempts import AttemptLog
from quantlytic_assets.storage.landing import Landed, Lander
from quantlytic_assets.universe.models import Dataset
from quantlytic_assets.vendors.cost import Cost, seconds_for
from quantlytic_assets.vendors.parts import joined
from quantlytic_assets.vendors.policy import (
    DEFAULT_POLICY,
    PATIENCE_WITH_THE_LAST,
    Budget,
    RetryPolicy,
    fetch_with_policy,
    joint_traits,
    whom_to_ask_first,
)
from quantlytic_assets.vendors.protocol import BarRequest, Served, Vendor, VendorError

# Landed while there is more to ask for: bounds what stands on the bus alone, however long it goes on.
_LAND_BARS = 500_000
_LAND_SECONDS = 60.0
# So many questions in a row that failed after all repeats, and the vendor is left alone for a while.
_FAILURES = 3
_LEFT_ALONE = 300.0


@dataclass(frozen=True)
class Need:
    """What a stretch of sessions lacks: the bars expected by now, those missing, and the ranges to ask for.

    `force` says that all of it counts as missing, archived or not.
    """

    expected: pl.DataFrame
    missing: pl.DataFrame
    ranges: pl.DataFrame
    force: bool = False


@dataclass
class Fetched:
    """What came of asking.

    Requests made, bars received, new corporate actions, and the errors of the ranges that nobody answered.
    """

    requests: int = 0
    bars: int = 0
    actions: int = 0
    errors: list[str] = field(default_factory=list)
    landed: Landed = field(default_factory=Landed)


class _Stopped(Exception):
    """Another thread of the same run has failed, or the run was interrupted."""


class Ingest:
    """Fetches and lands one dataset. `vendors` are in order of preference; none means files and feeds only.

    `budget` counts what is asked; without one nobody does. `policy`: how often a question is repeated. `sleep` waits
    for the vendors and is there for tests. As many ranges are asked for at a time as all of the vendors take.
    """

    def __init__(
        self,
        dataset: Dataset,
        vendors: Sequence[Vendor],
        archive: Archive,
        attempts: AttemptLog,
        lander: Lander,
        budget: Budget | None = None,
        policy: RetryPolicy = DEFAULT_POLICY,
        sleep: Callable[[float], None] | None = None,
    ):
        self.dataset = dataset
        self.vendors = list(vendors)
        self.archive = archive
        self.actions = ActionArchive(archive)
        self.attempts = attempts
        self.lander = lander
        self.budget = budget
        self.policy = policy
        self.sleep = sleep or self._pause
        self.at_once = min((vendor.at_once for vendor in self.vendors), default=1)
        self._names = {one.symbol: one.names for one in dataset.symbols}
        self._failures: dict[str, int] = {}
        # What several threads would change, and bus and archive, are for one at a time.
        self._turn = threading.Lock()
        self._stopping = threading.Event()

    def need(self, first: date, last: date, symbols: Sequence[str] = (), force: bool = False) -> Need:
        """What the sessions from `first` to `last` (inclusive) lack; with `force` everything, archived or not."""
        grid = expected_bars(self.dataset.calendar, self.dataset.interval, first, last)
        expected = expected_keys(self.dataset, grid, datetime.now(UTC))
        if symbols:
            expected = expected.filter(pl.col("symbol").is_in(list(symbols)))
        if not self.vendors:
            return Need(expected, expected.clear(), pl.DataFrame(schema=PLAN_SCHEMA))
        if force:
            missing = expected
        else:
            present = self._present(first, last)
            traits = joint_traits(self.vendors, self.dataset.name)
            known = self.attempts.read(self.dataset.name, first, last)
            askable = asked_of_vendors(outside_outages(expected, self.dataset), self.dataset)
            missing = missing_keys(askable, present, known, traits.attempts_before_hole)
        return Need(expected, missing, plan(missing, expected, self.dataset.calendar), force)

    def _present(self, first: date, last: date) -> pl.DataFrame:
        """Usable bars (symbol, open_time) that the archive holds of the partitions of these sessions."""
        # Objects are keyed by partition: the month of `first` begins before it.
        objects = self.archive.objects(self.dataset.name, first.replace(day=1), None)
        return self.archive.usable_keys([stored for stored in objects if stored.partition <= last.isoformat()])

    def _still_missing(self, need: Need) -> pl.DataFrame:
        present = self._present(need.missing["session"].min(), need.missing["session"].max())
        return need.missing.join(present, on=["symbol", "open_time"], how="anti")

    def costs(self, ranges: pl.DataFrame) -> tuple[list[Cost], list[str]]:
        """What asking for ranges (PLAN_SCHEMA) will cost, by vendor, and what no vendor serves, with why. Asks nobody.

        Each part of a range counts for the first vendor that may be asked for it now.
        """
        requests: dict[str, int] = {}
        weights: dict[str, int] = {}
        rejected: list[str] = []
        usable = [one for one in self.vendors if self.budget is None or self.budget.circuit(one.name) is None]
        for row in ranges.iter_rows(named=True):
            pending = [self._request(row["symbol"], row["start"], row["end"])]
            why = "the circuit of every vendor is open" if self.vendors else "no vendor"
            for vendor in usable:
                parts = [part for whole in joined(pending) for part in vendor.parts(whole)]
                called = self._names[row["symbol"]].get(vendor.name)
                reasons = [vendor.unsupported(replace(part, name=called)) for part in parts]
                served = [part for part, reason in zip(parts, reasons, strict=True) if reason is None]
                pending = [part for part, reason in zip(parts, reasons, strict=True) if reason is not None]
                requests[vendor.name] = requests.get(vendor.name, 0) + len(served)
                weights[vendor.name] = weights.get(vendor.name, 0) + sum(map(vendor.weight, served))
                if not pending:
                    break
                why = f"{vendor.name}: {next(reason for reason in reasons if reason is not None)}"
            for part in joined(pending):
                rejected.append(f"{part.symbol} {part.start:%Y-%m-%d} to {part.end:%Y-%m-%d}: {why}")
        costs = []
        for vendor in self.vendors:
            count, weight = requests.get(vendor.name, 0), weights.get(vendor.name, 0)
            full = {limit.seconds: limit.weight for limit in vendor.limits}
            left = self.budget.left(vendor.name, vendor.limits) if self.budget else full
            if count:
                seconds = seconds_for(count, weight, vendor.limits, left, self.at_once)
                costs.append(Cost(vendor.name, count, weight, seconds))
        return costs, rejected

    def _request(self, symbol: str, start: datetime, end: datetime) -> BarRequest:
        return BarRequest(self.dataset.name, symbol, self.dataset.interval, self.dataset.calendar, start, end)

    def fill(self, need: Need, progress: Callable[[int], None] | None = None) -> Fetched:
        """Ask for the ranges of `need`, publish what comes and land it; remember what stayed missing.

        What stands on the bus already (a killed run's, a feed's) is landed first and not asked for again, and each
        answer is published before who got it asks on, so that a run which is killed loses those it was waiting for. A
        range that no vendor answers is left as it is, with its error in the result: the others go on. What a vendor has
        answered without before is asked of the next one first. `progress` is called with the number of ranges done.
        """
        outcome = Fetched(landed=self.lander.land())
        if outcome.landed.rows and len(need.missing) and not need.force:
            missing = self._still_missing(need)
            need = replace(need, missing=missing, ranges=plan(missing, need.expected, self.dataset.calendar))
        answers: list[dict] = []
        on_bus, landed_at, done = 0, time.monotonic(), 0
        turns = self._turns(need)

        def fetch(row: Mapping[str, Any]) -> None:
            nonlocal on_bus, landed_at, done
            whole = self._request(row["symbol"], row["start"], row["end"])
            order = self._order(turns.get((whole.symbol, whole.start), 0))
            for part, served, error in self._ask(whole, order, outcome):
                with self._turn:
                    answers.append({"symbol": part.symbol, "start": part.start, "end": part.end, "error": error})
                    on_bus += self._publish(served, outcome)
                    if on_bus >= _LAND_BARS or (on_bus and time.monotonic() - landed_at > _LAND_SECONDS):
                        outcome.landed.merge(self.lander.land())
                        on_bus, landed_at = 0, time.monotonic()
            with self._turn:
                done += 1
                if progress:
                    progress(done)

        self._for_each(need.ranges.iter_rows(named=True), fetch)
        if on_bus:
            outcome.landed.merge(self.lander.land())
        if answers:
            self._remember(need, answers)
        return outcome

    def _for_each(self, rows: Iterable[Mapping[str, Any]], fetch: Callable[[Mapping[str, Any]], None]) -> None:
        """Fetch each, `at_once` at a time. What one raises stops all: before their next question, or in a wait."""
        if self.at_once == 1:
            for row in rows:
                fetch(row)
            return
        with ThreadPoolExecutor(self.at_once, thread_name_prefix="asking") as askers:
            asked = [askers.submit(fetch, row) for row in rows]
            try:
                for one in as_completed(asked):
                    one.result()
            except BaseException:
                self._stopping.set()
                askers.shutdown(cancel_futures=True)
                raise

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise _Stopped

    def _publish(self, served: Served, outcome: Fetched) -> int:
        """Keep the actions and put finished bars on the bus; returns how many."""
        # First: when it ends here, both are asked for again, and actions that are known already are not kept twice.
        outcome.actions += self.actions.record(self.dataset.name, served.actions)
        finished = served.bars.filter(pl.col("close_time") <= pl.col("fetched_at"))
        if len(finished):
            self.lander.publish(finished)
        outcome.bars += len(finished)
        return len(finished)

    def _turns(self, need: Need) -> dict[tuple[str, datetime], int]:
        """By symbol and start of a range: how often the least answered of its sessions was answered without bars."""
        if len(self.vendors) < 2 or need.missing.is_empty():
            return {}
        known = self.attempts.read(self.dataset.name, need.missing["session"].min(), need.missing["session"].max())
        ranges = need.ranges.select("symbol", "start").sort("start")
        turns = (
            need.missing.join(known.select("symbol", "session", "answered"), on=["symbol", "session"], how="left")
            .sort("close_time")
            .join_asof(ranges, left_on="close_time", right_on="start", by="symbol", check_sortedness=False)
            .group_by("symbol", "start")
            .agg(pl.col("answered").fill_null(0).min())
        )
        return {(symbol, start): answered for symbol, start, answered in turns.iter_rows()}

    def _order(self, turn: int) -> list[Vendor]:
        """Whom to ask first: what one vendor has answered without, the next one is asked for."""
        first = whom_to_ask_first(self.vendors, self.dataset.name, turn) if self.vendors else 0
        return [*self.vendors[first:], *self.vendors[:first]]

    def _ask(
        self, request: BarRequest, vendors: Sequence[Vendor], outcome: Fetched
    ) -> Iterator[tuple[BarRequest, Served, str | None]]:
        """The parts of a range, each from the first vendor that answers it, or with nothing and each one's last error.

        The last vendor is waited for longer than those after which somebody else can be asked.
        """
        symbol, pending = request.symbol, [request]
        errors: dict[str, str] = {}

        def count() -> None:
            if self._stopping.is_set():
                raise _Stopped
            with self._turn:
                outcome.requests += 1

        for vendor in vendors:
            unanswered = []
            for part in (part for whole in joined(pending) for part in vendor.parts(whole)):
                called = replace(part, name=self._names[symbol].get(vendor.name))
                waits = {"patience": PATIENCE_WITH_THE_LAST} if vendor is vendors[-1] else {}
                try:
                    served = fetch_with_policy(
                        vendor, called, self.policy, on_request=count, sleep=self.sleep, budget=self.budget, **waits
                    )
                except VendorError as failure:
                    self._failed(vendor, failure)
                    errors[vendor.name] = f"{vendor.name}: {failure}"
                    unanswered.append(part)
                    continue
                self._failures[vendor.name] = 0
                yield part, served, None
            pending = unanswered
            if not pending:
                return
        nothing, said = Served(pl.DataFrame(schema=RAW_SCHEMA)), "; ".join(errors.values()) or "no vendor"
        for part in pending:
            yield part, nothing, said
        first, last = pending[0].start, pending[-1].end
        outcome.errors.append(f"{symbol} {first:%Y-%m-%d} to {last:%Y-%m-%d}: {said}")

    def _failed(self, vendor: Vendor, failure: VendorError) -> None:
        """Open the circuit of a vendor that fails again and again, so that the next one is asked without delay."""
        if not failure.retryable:
            return
        with self._turn:
            self._failures[vendor.name] = self._failures.get(vendor.name, 0) + 1
            if self.budget is not None and self._failures[vendor.name] >= _FAILURES:
                self.budget.open_circuit(vendor.name, _LEFT_ALONE, f"{_FAILURES} questions in a row failed: {failure}")
                self._failures[vendor.name] = 0

    def _remember(self, need: Need, answers: list[dict]) -> None:
        """Count an attempt for each session that was asked for and still lacks bars.

        An answer counts as the vendor's last word on a session only when the session was over, and the vendor had time
        to publish all of it: bars that are asked for too early would make it a hole for good.
        """
        still = self._still_missing(need)
        asked = pl.DataFrame(answers, schema={**_ANSWER, "error": pl.String}).sort("start")
        late = max(self.dataset.delay, vendors_may_take(self.dataset))
        sessions = session_table(
            self.dataset.calendar, need.missing["session"].min(), need.missing["session"].max()
        ).select("session", (pl.col("close_time") + late <= datetime.now(UTC)).alias("over"))
        holes = (
            still.sort("open_time")
            .join_asof(asked, left_on="open_time", right_on="start", by="symbol", check_sortedness=False)
            .join(sessions, on="session", how="left")
            .with_columns(
                pl.when(pl.col("error").is_null() & ~pl.col("over"))
                .then(pl.lit("asked before the session was over for long enough"))
                .otherwise("error")
                .alias("error")
            )
            .group_by("symbol", "session")
            .agg(pl.col("error").drop_nulls().first())
            .sort("symbol", "session")
        )
        self.attempts.record(self.dataset.name, holes)


_ANSWER = {name: PLAN_SCHEMA[name] for name in ("symbol", "start", "end")}

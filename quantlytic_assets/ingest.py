"""Getting bars in: find what the archive lacks, ask the vendors for exactly that, publish it and land it.

The one place where vendors and storage meet. Knows nothing of Dagster; the raw_bars asset and the command line call it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime

import polars as pl

from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.market_data.fetch_plan import PLAN_SCHEMA, expected_keys, missing_keys, plan
from quantlytic_assets.sessions import expected_bars, session_table
from quantlytic_assets.storage.archive import Archive
from quantlytic_assets.storage.attempts import AttemptLog
from quantlytic_assets.storage.landing import Landed, Lander
from quantlytic_assets.universe import Dataset
from quantlytic_assets.vendors.policy import fetch_with_policy
from quantlytic_assets.vendors.protocol import BarRequest, Vendor, VendorError

# Bars published at once: bounds memory however long the range is.
_BATCH_BARS = 500_000


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
    """What came of asking: requests made, bars received per vendor, and the errors of the ranges nobody answered."""

    requests: int = 0
    bars: int = 0
    errors: list[str] = field(default_factory=list)
    landed: Landed = field(default_factory=Landed)


class Ingest:
    """Fetches and lands one dataset. `vendors` are in order of preference; none means files and feeds only."""

    def __init__(
        self, dataset: Dataset, vendors: Sequence[Vendor], archive: Archive, attempts: AttemptLog, lander: Lander
    ):
        self.dataset = dataset
        self.vendors = list(vendors)
        self.archive = archive
        self.attempts = attempts
        self.lander = lander

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
            traits = self.vendors[0].traits(self.dataset.name)
            known = self.attempts.read(self.dataset.name, first, last)
            missing = missing_keys(expected, present, known, traits.attempts_before_hole)
        return Need(expected, missing, plan(missing, expected, self.dataset.calendar), force)

    def _present(self, first: date, last: date) -> pl.DataFrame:
        """Usable bars (symbol, open_time) that the archive holds of the partitions of these sessions."""
        # Objects are keyed by partition: the month of `first` begins before it.
        objects = self.archive.objects(self.dataset.name, first.replace(day=1), None)
        return self.archive.usable_keys([stored for stored in objects if stored.partition <= last.isoformat()])

    def _still_missing(self, need: Need) -> pl.DataFrame:
        present = self._present(need.missing["session"].min(), need.missing["session"].max())
        return need.missing.join(present, on=["symbol", "open_time"], how="anti")

    def fill(self, need: Need, progress: Callable[[int], None] | None = None) -> Fetched:
        """Ask for the ranges of `need`, publish what comes and land it; remember what stayed missing.

        What stands on the bus already (a killed run's, a feed's) is landed first and not asked for again. A range that
        no vendor answers is left as it is, with its error in the result: the others go on. `progress`
        is called with the number of ranges done.
        """
        outcome = Fetched(landed=self.lander.land())
        if outcome.landed.rows and len(need.missing) and not need.force:
            missing = self._still_missing(need)
            need = replace(need, missing=missing, ranges=plan(missing, need.expected, self.dataset.calendar))
        batch: list[pl.DataFrame] = []
        answers: list[dict] = []
        try:
            for done, row in enumerate(need.ranges.iter_rows(named=True), start=1):
                bars, error = self._ask(row, outcome)
                answers.append({"symbol": row["symbol"], "start": row["start"], "end": row["end"], "error": error})
                if error is not None:
                    outcome.errors.append(f"{row['symbol']} {row['start']:%Y-%m-%d} to {row['end']:%Y-%m-%d}: {error}")
                batch.append(bars)
                if sum(map(len, batch)) >= _BATCH_BARS:
                    self.lander.publish(pl.concat(batch))
                    batch = []
                if progress:
                    progress(done)
        finally:
            # Also when a fault ends it here: what was answered was paid for out of the vendor's rate limit.
            if any(len(bars) for bars in batch):
                self.lander.publish(pl.concat(batch))
        if outcome.bars:
            outcome.landed.merge(self.lander.land())
        if answers:
            self._remember(need, answers)
        return outcome

    def _ask(self, row: dict, outcome: Fetched) -> tuple[pl.DataFrame, str | None]:
        """The bars of one range from the first vendor that answers, or none and the last error."""
        request = BarRequest(
            dataset=self.dataset.name,
            symbol=row["symbol"],
            interval=self.dataset.interval,
            calendar=self.dataset.calendar,
            start=row["start"],
            end=row["end"],
        )
        error = "no vendor"

        def count() -> None:
            outcome.requests += 1

        names = next(one.names for one in self.dataset.symbols if one.symbol == row["symbol"])
        for vendor in self.vendors:
            called = replace(request, name=names.get(vendor.name))
            try:
                bars = fetch_with_policy(vendor, called, on_request=count)
            except VendorError as failure:
                error = f"{vendor.name}: {failure}"
                continue
            finished = bars.filter(pl.col("close_time") <= pl.col("fetched_at"))
            outcome.bars += len(finished)
            return finished.select(RAW_SCHEMA.names()), None
        return pl.DataFrame(schema=RAW_SCHEMA), error

    def _remember(self, need: Need, answers: list[dict]) -> None:
        """Count an attempt for each session that was asked for and still lacks bars.

        An answer counts as the vendor's last word on a session only when the session was over: while it runs, bars
        that are asked for too early would make it a hole for good.
        """
        still = self._still_missing(need)
        asked = pl.DataFrame(answers, schema={**_ANSWER, "error": pl.String}).sort("start")
        sessions = session_table(
            self.dataset.calendar, need.missing["session"].min(), need.missing["session"].max()
        ).select("session", (pl.col("close_time") + self.dataset.delay <= datetime.now(UTC)).alias("over"))
        holes = (
            still.sort("open_time")
            .join_asof(asked, left_on="open_time", right_on="start", by="symbol", check_sortedness=False)
            .join(sessions, on="session", how="left")
            .with_columns(
                pl.when(pl.col("error").is_null() & ~pl.col("over"))
                .then(pl.lit("asked before the session was over"))
                .otherwise("error")
                .alias("error")
            )
            .group_by("symbol", "session")
            .agg(pl.col("error").drop_nulls().first())
            .sort("symbol", "session")
        )
        self.attempts.record(self.dataset.name, holes)


_ANSWER = {name: PLAN_SCHEMA[name] for name in ("symbol", "start", "end")}

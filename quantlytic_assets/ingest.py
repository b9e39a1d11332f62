"""Getting bars in: find what the archive lacks, ask the vendors for exactly that, publish it and land it.

The one place where vendors and storage meet. Knows nothing of Dagster; the raw_bars asset and the command line call it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

import polars as pl

from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.market_data.fetch_plan import PLAN_SCHEMA, expected_keys, missing_keys, plan
from quantlytic_assets.sessions import expected_bars
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
    """What a stretch of sessions lacks: the bars expected by now, those missing, and the ranges to ask for."""

    expected: pl.DataFrame
    missing: pl.DataFrame
    ranges: pl.DataFrame


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
            # Objects are keyed by partition: the month of `first` begins before it.
            objects = self.archive.objects(self.dataset.name, first.replace(day=1), None)
            present = self.archive.usable_keys([o for o in objects if o.partition <= last.isoformat()])
            traits = self.vendors[0].traits(self.dataset.name)
            known = self.attempts.read(self.dataset.name, first, last)
            missing = missing_keys(expected, present, known, traits.attempts_before_hole)
        return Need(expected, missing, plan(missing, expected, self.dataset.calendar))

    def fill(self, need: Need, progress: Callable[[int], None] | None = None) -> Fetched:
        """Ask for the ranges of `need`, publish what comes and land it; remember what stayed missing.

        A range that no vendor answers is left as it is, with its error in the result: the others go on. `progress`
        is called with the number of ranges done.
        """
        outcome = Fetched()
        batch: list[pl.DataFrame] = []
        answers: list[dict] = []
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
        if any(len(bars) for bars in batch):
            self.lander.publish(pl.concat(batch))
        # Also with nothing fetched: what others published and did not land (a killed run) is landed here.
        outcome.landed = self.lander.land()
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
        for vendor in self.vendors:
            try:
                bars = fetch_with_policy(vendor, request)
            except VendorError as failure:
                outcome.requests += 1
                error = f"{vendor.name}: {failure}"
                continue
            outcome.requests += 1
            finished = bars.filter(pl.col("close_time") <= pl.col("fetched_at"))
            outcome.bars += len(finished)
            return finished.select(RAW_SCHEMA.names()), None
        return pl.DataFrame(schema=RAW_SCHEMA), error

    def _remember(self, need: Need, answers: list[dict]) -> None:
        """Count an attempt for each session that was asked for and still lacks bars."""
        first, last = need.missing["session"].min(), need.missing["session"].max()
        objects = self.archive.objects(self.dataset.name, first.replace(day=1), None)
        present = self.archive.usable_keys([o for o in objects if o.partition <= last.isoformat()])
        still = need.missing.join(present, on=["symbol", "open_time"], how="anti")
        asked = pl.DataFrame(answers, schema={**_ANSWER, "error": pl.String}).sort("start")
        holes = (
            still.sort("open_time")
            .join_asof(asked, left_on="open_time", right_on="start", by="symbol", check_sortedness=False)
            .group_by("symbol", "session")
            .agg(pl.col("error").drop_nulls().first())
            .sort("symbol", "session")
        )
        self.attempts.record(self.dataset.name, holes)


_ANSWER = {name: PLAN_SCHEMA[name] for name in ("symbol", "start", "end")}

"""Running the jobs: what a backfill launched in the UI does, in chunks, in this process, without a daemon.

The command with its usage, its plan and what it prints is in `backfilling`, which needs none of the asset graph.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Protocol

import dagster as dg
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from quantlytic_assets.assets.keys import clean_bars_key, raw_bars_key
from quantlytic_assets.calendars import partitions
from quantlytic_assets.commands.installation import CommandError
from quantlytic_assets.commands.lacking import lacking_partitions
from quantlytic_assets.commands.own_runs import own_run
from quantlytic_assets.commands.pending import (
    made_by_other_code,
    newest_by_partition,
    newest_of_all,
    pending_assets,
    pending_in_stages,
)
from quantlytic_assets.commands.recording import record_landing
from quantlytic_assets.commands.training_history import explain_shortage, training_sessions
from quantlytic_assets.dagster_internals import range_tags, runs_of_location
from quantlytic_assets.definitions import (
    dataset_job_name,
    features_key,
    model_job_name,
    performance_job_name,
    strategy_keys,
    trading_job_name,
)
from quantlytic_assets.market_data.quality.retention import first_kept
from quantlytic_assets.settings import CODE_LOCATION
from quantlytic_assets.universe.models import ModelStrategy, PortfolioStrategy

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation
    from quantlytic_assets.universe.models import Dataset, Strategy

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class Outcome:
    """What a backfill did: partitions materialized, vendor requests made, and the runs that failed."""

    partitions: int = 0
    requests: int = 0
    failures: list[str] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Count what another backfill did as well."""
        self.partitions += other.partitions
        self.requests += other.requests
        self.failures += other.failures


class Shown(Protocol):
    """Where runs are shown while they are at work: a `rich` progress bar, so far as it is used here."""

    def add_task(self, description: str, /, *, total: float) -> Any:
        """A new line, and what it goes by."""

    def update(self, task: Any, /, *, description: str) -> None:
        """Say something else in a line."""

    def advance(self, task: Any, /) -> None:
        """Note that a step is done."""


@contextmanager
def shown(console: Console) -> Iterator[Progress]:
    """A progress bar on a console, which stays there when all is done if that is a terminal."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=not console.is_terminal,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as progress:
        yield progress


class Backfill:
    """Runs the jobs of datasets and strategies over partitions, one run a chunk, with a progress bar.

    progress: where it is shown; left out: on a bar of its own, on the console.
    """

    def __init__(self, installation: Installation, console: Console, progress: Shown | None = None):
        self.installation = installation
        self.console = console
        self.progress = progress
        self.outcome = Outcome()
        # Partitions whose bars a run cleaned beside its own, and by dataset the earliest one of all that were.
        self._late: set[str] = set()
        self._also_since: dict[str, str] = {}

    def dataset(
        self,
        dataset: Dataset,
        first: date | None = None,
        last: date | None = None,
        symbols: Sequence[str] = (),
        only_pending: bool = False,
        force: bool = False,
    ) -> None:
        """Raw bars to features of a dataset for the partitions that hold sessions of `first` … `last`.

        Without `first` from what the dataset keeps. `only_pending`: no more than what is missing or out of date in each
        partition. `force`: vendors are asked again for everything. Partitions that were cleaned again because of a
        split or rename that came with others' bars follow.
        """
        keys = partitions.keys_between(dataset, first or first_kept(dataset, datetime.now(UTC).date()), last)
        config: dict[str, Any] = {}
        if symbols or force:
            config = {"ops": {f"{dataset.name}__raw_bars": {"config": {"symbols": list(symbols), "force": force}}}}
        if only_pending:
            self._behind(dataset, keys)
        else:
            self._whole(dataset, dataset.name, keys, config)
        while self._late and not self.outcome.failures:
            late, self._late = self._late, set()
            self._also_since[dataset.name] = min(late | {self._also_since.get(dataset.name, min(late))})
            self._whole(dataset, f"{dataset.name} again", late)

    def pending(self, dataset: Dataset, keys: Sequence[str]) -> dict[str, tuple[dg.AssetKey, ...]]:
        """Those of `keys` in which assets of a dataset are missing or out of date, and which; see `pending_assets`."""
        layer = self.installation.definitions.resolve_job_def(dataset_job_name(dataset)).asset_layer
        graph = self.installation.definitions.resolve_asset_graph()
        assets = [key for key in layer.selected_asset_keys if graph.get(key).is_partitioned]
        return pending_assets(self.installation.instance, graph, assets, keys)

    def missing(self, dataset: Dataset) -> None:
        """Make what is missing or out of date of a dataset, and nothing else.

        What stands on the bus is landed first. A partition is made whole where the archive lacks bars that a vendor may
        still be asked for, and where the lake covers none of a session that was made: somebody deleted it. A partition
        that lacks nothing is made as far as it is behind.
        """
        record_landing(self.installation, dataset, self.installation.resources.lander(dataset).land())
        keys = partitions.keys_between(dataset, first_kept(dataset, datetime.now(UTC).date()), None)
        lacking = lacking_partitions(self.installation, dataset, keys)
        self._whole(dataset, dataset.name, [key for key in keys if key in lacking])
        if not self.outcome.failures:
            self.dataset(dataset, only_pending=True)

    def _whole(
        self, dataset: Dataset, what: str, keys: Collection[str], config: Mapping[str, Any] | None = None
    ) -> None:
        """Run a dataset's job in these partitions, all of its assets."""
        spans = partitions.windows(dataset, keys, self.installation.settings.backfill_chunk)
        self._run_chunks(what, dataset_job_name(dataset), [span.keys for span in spans], config or {})

    def _behind(self, dataset: Dataset, keys: Sequence[str]) -> None:
        """Make the assets of each partition that are behind."""
        pending = self.pending(dataset, keys)
        # Bars that are cleaned may bring actions, and be asked for: then all of it is made.
        first = {raw_bars_key(dataset), clean_bars_key(dataset)}
        self._whole(dataset, dataset.name, [key for key, found in pending.items() if not first.isdisjoint(found)])
        others = {key: found for key, found in pending.items() if first.isdisjoint(found)}
        for only in sorted(set(others.values()), key=len, reverse=True):
            of_these = [key for key, found in others.items() if found == only]
            spans = partitions.windows(dataset, of_these, self.installation.settings.backfill_chunk)
            name = f"{dataset.name} {', '.join(key.path[-1] for key in only)}"
            self._run_chunks(name, dataset_job_name(dataset), [span.keys for span in spans], {}, only)

    def clean(self, dataset: Dataset, keys: Sequence[str]) -> None:
        """Clean these partitions again and make nothing else: what follows is behind until it is backfilled."""
        spans = partitions.windows(dataset, keys, self.installation.settings.backfill_chunk)
        only = [clean_bars_key(dataset)]
        self._run_chunks(f"{dataset.name} clean", dataset_job_name(dataset), [span.keys for span in spans], {}, only)

    def strategy(
        self, strategy: Strategy, first: date | None = None, last: date | None = None, only_pending: bool = False
    ) -> None:
        """Models and predictions where there is a model, signals of a rule, paper trades and report of a strategy.

        For the partitions that have features, and a model or the signals of members where the strategy has these.
        `only_pending`: those that are missing, older than what they are made of, or of another declaration.
        """
        instance = self.installation.instance
        dataset = self.installation.universe.datasets[strategy.dataset]
        first = self._first(dataset, first)
        features = newest_by_partition(instance, features_key(dataset))
        if not features:
            raise CommandError(
                f"{strategy.name} has no features to decide on yet; run: quantlytic backfill {dataset.name}"
            )
        keys = strategy_keys(strategy)
        every = _between(partitions.trading_keys(dataset, strategy), first, last)
        days = [key for key in every if key in features]
        # Days scored by a model of before.
        older: set[str] = set()
        if isinstance(strategy, ModelStrategy):
            self._train(dataset, strategy, features, first, last, only_pending)
            steps = partitions.model_steps(dataset, strategy)
            trained = newest_by_partition(instance, keys["model"])
            scored = newest_by_partition(instance, keys["predictions"])
            by = {key: steps[bisect_right(steps, key) - 1] for key in days}
            days = [key for key in days if by[key] in trained]
            older = {key for key in days if scored.get(key, -1) < trained[by[key]]}
        members = strategy.members if isinstance(strategy, PortfolioStrategy) else ()
        decided = [strategy_keys(member)["signals"] for member in members]
        for key in decided:
            made = newest_by_partition(instance, key)
            days = [day for day in days if day in made]
        if only_pending:
            made_of = [keys[name] for name in ("predictions", "signals", "paper_trades") if name in keys]
            stages = [(features_key(dataset), *decided), *((key,) for key in made_of)]
            behind = {*pending_in_stages(instance, stages, days), *older}
            if "signals" in keys:
                version = self._code_version(trading_job_name(strategy), keys["signals"])
                behind.update(made_by_other_code(instance, keys["signals"], version, days))
            days = [key for key in days if key in behind]
        self._trade(strategy, days, every)
        self._report(strategy, keys, only_pending)

    def _train(
        self,
        dataset: Dataset,
        strategy: ModelStrategy,
        features: Mapping[str, int],
        first: date | None,
        last: date | None,
        only_pending: bool,
    ) -> None:
        """Train the models of the steps that have enough to learn from, and say what the others lack."""
        steps = _between(partitions.model_steps(dataset, strategy), first, last)
        if only_pending:
            instance, model = self.installation.instance, strategy_keys(strategy)["model"]
            models = newest_by_partition(instance, model)
            version = self._code_version(model_job_name(strategy), model)
            other = made_by_other_code(instance, model, version, steps)
            steps = [
                step
                for step in steps
                if step not in models
                or step in other
                or any(step > key and features[key] > models[step] for key in features)
            ]
        lake = self.installation.resources.lake
        history = training_sessions(lake, dataset, strategy, steps)
        short = {step: count for step, count in history.items() if count < max(1, strategy.min_train_sessions)}
        if short:
            for line in explain_shortage(lake, dataset, strategy, short, features):
                self.console.print(line, highlight=False, soft_wrap=True)
        runnable = [step for step in steps if step not in short]
        self._run_chunks(strategy.name, model_job_name(strategy), _neighbours(runnable, steps), {})

    def _code_version(self, job_name: str, key: dg.AssetKey) -> str | None:
        """The code version of an asset as it is declared now."""
        return self.installation.definitions.resolve_job_def(job_name).asset_layer.get(key).code_version

    def _first(self, dataset: Dataset, first: date | None) -> date | None:
        """`first`, or what was cleaned again beside it, where that is earlier."""
        late = self._also_since.get(dataset.name)
        return min(first, date.fromisoformat(late)) if first and late else first

    def _trade(self, strategy: Strategy, days: Sequence[str], every: Sequence[str]) -> None:
        """Run the trading job of a strategy over these of all its partitions."""
        chunk = self.installation.settings.backfill_chunk
        runs = [run[i : i + chunk] for run in _neighbours(days, every) for i in range(0, len(run), chunk)]
        self._run_chunks(strategy.name, trading_job_name(strategy), runs, {})

    def _report(self, strategy: Strategy, keys: Mapping[str, dg.AssetKey], only_pending: bool) -> None:
        """Make the performance of an account that has traded since its last report."""
        instance = self.installation.instance
        report = min(newest_of_all(instance, keys[name]) for name in ("performance", "published"))
        trades = newest_of_all(instance, keys["paper_trades"])
        if trades and (not only_pending or report < trades):
            self._run_chunks(strategy.name, performance_job_name(strategy), [()], {})

    def _run_chunks(
        self,
        what: str,
        job_name: str,
        chunks: Sequence[Sequence[str]],
        config: Mapping[str, Any],
        only: Sequence[dg.AssetKey] | None = None,
    ) -> None:
        if not chunks:
            return
        with shown(self.console) if self.progress is None else nullcontext(self.progress) as progress:
            job = self.installation.definitions.resolve_job_def(job_name)
            steps = len(only or job.nodes)
            task = progress.add_task(what, total=steps * len(chunks))
            for chunk in chunks:
                label = f"{what} {chunk[0]} … {chunk[-1]}" if len(chunk) > 1 else f"{what} {''.join(chunk)}"
                progress.update(task, description=label)
                self._run(job, chunk, config, lambda: progress.advance(task), only)

    def _run(
        self,
        job: dg.JobDefinition,
        keys: Sequence[str],
        config: Mapping[str, Any],
        advance: Callable[[], None],
        only: Sequence[dg.AssetKey] | None = None,
    ) -> None:
        @dg.success_hook(name="advance_progress")
        def advance_progress(_context: dg.HookContext) -> None:
            advance()

        tags = {"quantlytic/command": "backfill"}
        if keys:
            tags |= range_tags(keys[0], keys[-1])
        # dbt and others write to standard output; here that belongs to the progress bar and the result.
        log_path = self.installation.settings.directory("logs") / "backfill.log"
        instance, resources = self.installation.instance, self.installation.resources
        with (
            log_path.open("a") as log,
            redirect_stdout(log),
            redirect_stderr(log),
            own_run(resources) as lock,
            runs_of_location(instance, "quantlytic_assets.definitions", CODE_LOCATION) as shown,
        ):
            result = job.with_hooks({advance_progress}).execute_in_process(
                instance=instance,
                tags=tags | lock | shown,
                run_config={**config, **_QUIET},
                raise_on_error=False,
                asset_selection=only,
            )
        made = result.get_asset_materialization_events()
        counts = [event.materialization.metadata.get("requests") for event in made]
        asked = [count.value or 0 for count in counts if isinstance(count, dg.IntMetadataValue)]
        cleaned = [event.partition for event in made if event.asset_key and event.asset_key.path[-1] == "clean_bars"]
        self._late |= {partition for partition in cleaned if partition is not None} - set(keys)
        # A range run repeats the run's own figures on each of its partitions.
        self.outcome.requests += max(asked, default=0)
        self.outcome.partitions += max(1, len(keys))
        failed = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
        self.outcome.failures += [f"{event.step_key}: {_cause(event)} (run {result.run_id})" for event in failed]


def _between(keys: Sequence[str], first: date | None, last: date | None) -> list[str]:
    """Keys from the one that holds `first` to the one that holds `last`, each as far as it is given."""
    kept = [key for key in keys if last is None or key <= last.isoformat()]
    if first is None or not kept:
        return kept
    # What holds `first` starts at or before it.
    begin = max([key for key in kept if key <= first.isoformat()], default=kept[0])
    return [key for key in kept if key >= begin]


def _cause(event: dg.DagsterEvent) -> str:
    data = event.step_failure_data
    if data.user_failure_data and data.user_failure_data.description:
        return data.user_failure_data.description
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error else str(event.message)


def _neighbours(keys: Sequence[str], all_keys: Sequence[str]) -> list[list[str]]:
    """Keys gathered into runs without a gap."""
    at = {key: i for i, key in enumerate(all_keys)}
    runs: list[list[str]] = []
    for key in keys:
        if runs and at[key] == at[runs[-1][-1]] + 1:
            runs[-1].append(key)
        else:
            runs.append([key])
    return runs

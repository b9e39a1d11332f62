"""One sensor a dataset with vendors: asks for exactly the sessions and symbols that are missing, oldest first.

It reads coverage, attempts and budgets only; what is worth asking is decided in `services.gaps`, and asking is the
job's business: `raw_bars` looks for itself what the archive lacks and asks for no more than that.
"""

from datetime import UTC, date, datetime
from functools import partial

import dagster as dg

from quantlytic_assets.automation.coverage_memory import CoverageMemory
from quantlytic_assets.automation.gap_plan import Asked, next_request
from quantlytic_assets.calendars.partitions import known_keys, with_partition
from quantlytic_assets.dagster_internals import UnresolvedAssetJobDefinition, range_tags
from quantlytic_assets.resources import Resources
from quantlytic_assets.run_statuses import UNFINISHED
from quantlytic_assets.services.gaps import decide, session_request
from quantlytic_assets.storage.postgres import Held
from quantlytic_assets.universe.models import Dataset
from quantlytic_assets.vendors.protocol import Vendor

# A limit of a longer window is a quota that a run can use up; a shorter one only makes it wait.
_QUOTA_SECONDS = 600


def gap_sensor(
    dataset: Dataset, job: dg.JobDefinition | UnresolvedAssetJobDefinition, most_partitions: int
) -> dg.SensorDefinition:
    """The sensor that launches `job`, raw bars to features, on the oldest holes of `dataset`.

    `most_partitions` bounds one run.
    """
    memory = CoverageMemory(dataset.name)

    @dg.sensor(
        name=f"{dataset.name}_gap_sensor",
        job=job,
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=f"Asks the vendors of {dataset.name} for the sessions and symbols that coverage finds missing, "
        "oldest first. Cursor: which holes were asked for when, of those that are still there.",
        required_resource_keys={"quantlytic"},
    )
    def sense(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        resources: Resources = context.resources.quantlytic
        at_work = _at_work(context.instance, resources, job.name, dg.AssetKey([dataset.name, "raw_bars"]))
        if at_work is not None:
            return dg.SkipReason(f"run {at_work} is at work")
        now = datetime.now(UTC)
        vendors = [resources.vendor(name) for name in dataset.vendors]
        usable, allowance = room(resources, vendors)
        if not usable:
            return dg.SkipReason(f"no vendor may be asked now: {_why_not(resources, vendors)}")
        decided = with_partition(decide(resources, dataset, now, memory.read(resources.lake, now)), dataset)
        request, asked = next_request(
            Asked.from_json(context.cursor),
            decided,
            known_keys(dataset, now),
            now.timestamp(),
            partial(_weight, dataset, next(one for one in vendors if one.name == usable[0])),
            allowance,
            most_partitions,
        )
        if request is None:
            left = len(decided.filter(decision="ask"))
            reason = f"{left} holes wait until they are asked for again" if left else "nothing to ask for"
            return dg.SensorResult(skip_reason=dg.SkipReason(reason), cursor=asked.to_json())
        asks_for = (
            f"{request.pairs} sessions of {', '.join(request.symbols[:5])}{', …' if len(request.symbols) > 5 else ''} "
            f"from {request.first} to {request.last}, weight about {request.weight}"
        )
        context.log.info(asks_for)
        run = dg.RunRequest(
            run_key=f"{dataset.name}:{request.first}-{request.last}@{now.timestamp():.0f}",
            run_config={"ops": {f"{dataset.name}__raw_bars": {"config": {"symbols": list(request.symbols)}}}},
            tags={
                **range_tags(request.first, request.last),
                "quantlytic/gaps": asks_for,
                # Behind what people ask for.
                "dagster/priority": "-5",
            },
        )
        return dg.SensorResult(run_requests=[run], cursor=asked.to_json())

    return sense


def room(resources: Resources, vendors: list[Vendor]) -> tuple[list[str], int | None]:
    """Vendors that may be asked now, in order, and the weight that their quotas have room for (None: no quota)."""
    usable: list[str] = []
    allowances: list[int | None] = []
    for vendor in vendors:
        left = resources.budgets.left(vendor.name, vendor.limits)
        quotas = [count for seconds, count in left.items() if seconds >= _QUOTA_SECONDS]
        if resources.budgets.circuit(vendor.name) is None and all(quotas):
            usable.append(vendor.name)
            allowances.append(min(quotas, default=None))
    known = [allowance for allowance in allowances if allowance is not None]
    return usable, sum(known) if len(known) == len(allowances) else None


def _weight(dataset: Dataset, vendor: Vendor, symbol: str, first: date, last: date) -> int:
    """What asking for a symbol's sessions in one go counts against the vendor's limits, about."""
    return sum(vendor.weight(part) for part in vendor.parts(session_request(dataset, symbol, first, last)))


def _why_not(resources: Resources, vendors: list[Vendor]) -> str:
    reasons = []
    for vendor in vendors:
        shut = resources.budgets.circuit(vendor.name)
        reasons.append(f"{vendor.name} {f'for {shut[0]:.0f} s more ({shut[1]})' if shut else 'has no calls left'}")
    return ", ".join(reasons)


def _at_work(instance: dg.DagsterInstance, resources: Resources, job_name: str, asking: dg.AssetKey) -> str | None:
    """A run of the dataset's job that is under way, or one of a backfill in the UI that asks for its bars, if any."""
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        if run.job_name != job_name and asking not in (run.asset_selection or ()):
            continue
        # A command's run holds a lock as long as its process lives; nobody else says that it was killed.
        lock = run.tags.get("quantlytic/lock")
        if lock is None:
            return run.run_id
        try:
            with resources.lock(lock, wait=False):
                continue
        except Held:
            return run.run_id
    return None

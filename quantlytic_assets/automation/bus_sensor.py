"""One sensor a dataset: compares the bus's end offsets with its cursor and asks for one landing run per offset range.

It reads watermarks and claims only, never records; landing is the job's business.
"""

import json

import dagster as dg

from quantlytic_assets.resources import Resources
from quantlytic_assets.universe import Dataset


def bus_sensor(dataset: Dataset, job: dg.JobDefinition, batch_records: int) -> dg.SensorDefinition:
    """The sensor that lands what is published on `dataset`'s topic. `batch_records` bounds one run's range."""

    @dg.sensor(
        name=f"{dataset.name}_bus_sensor",
        job=job,
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=f"Lands new records of bars.{dataset.name}. Cursor: the offset each bus partition was asked up to.",
        required_resource_keys={"quantlytic"},
    )
    def sense(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        resources: Resources = context.resources.quantlytic
        lander = resources.lander(dataset)
        cursor: dict[str, int] = json.loads(context.cursor) if context.cursor else {}
        requests = []
        for partition, (first, end) in sorted(resources.bus.watermarks(lander.topic).items()):
            # What a backfill or an import has landed by itself needs no run.
            start = lander.landed_through(partition, max(first, cursor.get(str(partition), 0)))
            while start < end:
                stop = min(end, start + batch_records)
                requests.append(
                    dg.RunRequest(
                        run_key=f"{lander.topic}:{partition}:{start}-{stop}",
                        run_config={
                            "ops": {f"{dataset.name}_land": {"config": {"ranges": {str(partition): [start, stop]}}}}
                        },
                        tags={"quantlytic/offsets": f"{partition}:{start}-{stop}"},
                    )
                )
                start = stop
            cursor[str(partition)] = max(start, end)
        if not requests:
            return dg.SensorResult(
                skip_reason=dg.SkipReason(f"nothing new on {lander.topic}"), cursor=json.dumps(cursor, sort_keys=True)
            )
        return dg.SensorResult(run_requests=requests, cursor=json.dumps(cursor, sort_keys=True))

    return sense

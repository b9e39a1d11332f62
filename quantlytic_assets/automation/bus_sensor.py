"""One sensor a dataset: compares the bus's end offsets with what is landed and asks for a run over what is new.

It reads watermarks and claims only, never records; landing is the job's business.
"""

import json
import math
import time

import dagster as dg

from quantlytic_assets.automation.landing_plan import Asked, Request, Wait, next_request
from quantlytic_assets.resources import Resources
from quantlytic_assets.run_statuses import UNFINISHED
from quantlytic_assets.universe.models import Dataset


def bus_sensor(dataset: Dataset, job: dg.JobDefinition, batch_records: int) -> dg.SensorDefinition:
    """The sensor that lands what is published on `dataset`'s topic.

    `batch_records` bounds what one run is asked to land of each bus partition.
    """

    @dg.sensor(
        name=f"{dataset.name}_bus_sensor",
        job=job,
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=f"Lands new records of bars.{dataset.name}. Cursor: what it last asked for of each bus partition.",
        required_resource_keys={"quantlytic"},
    )
    def sense(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        resources: Resources = context.resources.quantlytic
        lander = resources.lander(dataset)
        source = lander.source()
        if source is None:
            return dg.SkipReason(f"there is no topic {lander.topic} yet")
        running = context.instance.get_runs(dg.RunsFilter(job_name=job.name, statuses=UNFINISHED), limit=1)
        if running:
            return dg.SkipReason(f"landing run {running[0].run_id} is at work")
        asked = Asked.from_json(context.cursor)
        # Where the topic was made anew, what was seen of the old one comes first: it is landed, or recorded as lost.
        life = asked.life or source.life
        if life != source.life:
            context.log.warning(
                f"{lander.topic} was deleted and made anew; it is archived as {source.life} from now on"
            )
        seen = asked.seen if life != source.life else {p: end for p, (_, end) in source.marks.items()}
        landed = {partition: lander.landed_through(life, partition) for partition in seen}
        request, asked = next_request(asked, life, landed, seen, batch_records, time.time())
        if life != source.life and all(landed[partition] >= end for partition, end in seen.items()):
            asked = Asked(life=source.life)
        if not isinstance(request, Request):
            return dg.SensorResult(skip_reason=_skip_reason(lander.topic, request), cursor=asked.to_json())
        ranges = {str(partition): list(span) for partition, span in request.ranges.items()}
        run = dg.RunRequest(
            run_key=request.key,
            run_config={"ops": {f"{dataset.name}_land": {"config": {"ranges": ranges, "life": life}}}},
            # Ahead of what waits in the queue: it is short, and others wait for what it lands.
            tags={"quantlytic/offsets": json.dumps(ranges), "dagster/priority": "10"},
        )
        return dg.SensorResult(run_requests=[run], cursor=asked.to_json())

    return sense


def _skip_reason(topic: str, wait: Wait | None) -> dg.SkipReason:
    if wait is None:
        return dg.SkipReason(f"nothing new on {topic}")
    return dg.SkipReason(
        f"the last landing run has failed; what it left of {topic} (records: {wait.records}) is asked for again "
        f"in {math.ceil(wait.seconds)} seconds"
    )

"""When work happens that no data asks for: the maintenance, once a day."""

import dagster as dg

from quantlytic_assets.run_statuses import UNFINISHED


def daily_maintenance(group: str) -> dg.Definitions:
    """A job over the assets of a group, and the schedule that launches it at 03:30 UTC unless it still runs.

    The schedule is off until somebody switches it on, as is everything here that would start by itself.
    """
    job = dg.define_asset_job(
        "maintenance",
        selection=dg.AssetSelection.groups(group),
        description="Merges small objects and files, expires old snapshots, forgets old runs.",
        executor_def=dg.in_process_executor,
    )

    @dg.schedule(
        name="daily_maintenance",
        job=job,
        cron_schedule="30 3 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Keeps the archive, the lake and Dagster's own database small.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if context.instance.get_runs_count(dg.RunsFilter(job_name=job.name, statuses=UNFINISHED)):
            return dg.SkipReason("the last maintenance is still running")
        return dg.RunRequest()

    return dg.Definitions(jobs=[job], schedules=[schedule])

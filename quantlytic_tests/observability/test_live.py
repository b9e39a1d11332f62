"""Figures of live paths."""

from quantlytic_assets.live.stages import BOUNDS, Stages
from quantlytic_assets.observability.live import live_metrics


def test_what_a_live_path_tells_of_itself_are_figures():
    stages = Stages()
    for seconds in (0.0004, 0.02, 0.03, 99.0):
        stages.reached("signals", seconds)
    health = {"at": "2026-01-02T00:00:00+00:00", "behind": 7, "records": 12, "late": 2, "stages": stages.told()}
    found = {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in live_metrics({"crypto_1m": health})
        for one in family.samples
    }
    dataset = ("dataset", "crypto_1m")
    assert found["quantlytic_live_behind_records", (dataset,)] == 7
    assert found["quantlytic_live_events_total", (dataset, ("kind", "late"))] == 2
    assert found["quantlytic_live_events_total", (dataset, ("kind", "lost"))] == 0
    stage = ("stage", "signals")
    bucket = [found["quantlytic_live_stage_seconds_bucket", (dataset, ("le", str(one)), stage)] for one in BOUNDS]
    assert bucket == [1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3]
    assert found["quantlytic_live_stage_seconds_count", (dataset, stage)] == 4
    assert live_metrics({})[0].samples == []

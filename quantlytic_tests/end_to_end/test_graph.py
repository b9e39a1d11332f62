"""The asset graph as Dagster sees it: what is declared, what runs report, what sensors and conditions ask for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from quantlytic_assets.dagster_internals import range_tags
from quantlytic_assets.definitions import build_definitions
from quantlytic_assets.resources import Resources, make_resources
from quantlytic_assets.services.scoring import scorer
from quantlytic_assets.settings import Settings
from quantlytic_assets.strategies.spec import BASE_COLUMNS
from quantlytic_assets.tables.features import indicators
from quantlytic_assets.tables.predictions import scores
from quantlytic_assets.universe.loading import load_universe
from quantlytic_tests.end_to_end.installations import Installed, dagster_instance
from quantlytic_tests.end_to_end.scenarios import bar, publish
from quantlytic_tests.end_to_end.universes import EQUITIES_5M, universe

SESSIONS = ["2025-06-30", "2025-07-01", "2025-07-02", "2025-07-03", "2025-07-07", "2025-07-08"]
MONTHS = [f"{year}-{month:02d}-01" for year, months in ((2017, 12), (2018, 2)) for month in range(1, months + 1)]
FAMILIES = ["trend", "momentum", "volatility"]
CHAIN = ["clean_bars", "coverage", "bars", "closes", *FAMILIES, "indicators", "labels"]


@pytest.fixture(scope="module", autouse=True)
def _environment() -> Iterator[None]:
    """Runs in this process leave what they tell dbt in the environment; other tests shall not see it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def definitions(base: Installed) -> dg.Definitions:
    """The graph of the universe that `base` works on."""
    return build_definitions(base.settings())


@pytest.fixture(scope="module")
def history(base: Installed) -> Iterator[dg.DagsterInstance]:
    """What Dagster knows of how `base` was built: two range runs and a strategy's."""
    with dagster_instance(base.home) as instance:
        yield instance


@pytest.fixture
def touched(base: Installed, tmp_path: Path) -> Installed:
    """A copy of `base` that a test may change."""
    return base.copied_to(tmp_path, with_lake=True, universe=universe(equities_5m=EQUITIES_5M))


def graph(definitions: dg.Definitions):
    """The asset graph of the definitions."""
    return definitions.get_repository_def().asset_graph


def materialized(instance: dg.DagsterInstance, *key: str) -> dict[str, dg.AssetMaterialization]:
    """Partition to its newest materialization."""
    records = instance.fetch_materializations(dg.AssetKey(key), limit=1000, ascending=True).records
    return {record.partition_key: record.asset_materialization for record in records}


def test_the_universe_makes_one_set_of_assets_a_dataset_and_a_strategy(definitions: dg.Definitions):
    found = {key.to_user_string() for key in graph(definitions).materializable_asset_keys}
    parts = ("raw_bars", *CHAIN, "corporate_actions", "adjusted_bars", "published")
    datasets = {f"{name}/{asset}" for name in ("equities_5m", "equities_1d") for asset in parts}
    named = ("model", "predictions", "signals", "paper_trades", "performance", "published")
    strategy = {f"momentum_1d/{asset}" for asset in named}
    upkeep = {"equities_5m/archive_maintenance", "equities_1d/archive_maintenance"}
    upkeep |= {"lake_maintenance", "instance_maintenance"}
    assert found == datasets | strategy | upkeep
    for key in graph(definitions).materializable_asset_keys:
        wanted = "maintenance" if key.to_user_string() in upkeep else key.path[0]
        assert graph(definitions).get(key).group_name == wanted


def test_every_asset_is_described_owned_and_of_a_kind(definitions: dg.Definitions):
    for key in graph(definitions).materializable_asset_keys:
        node = graph(definitions).get(key)
        assert len(node.description) > 30, key
        assert node.owners == ["team:quantlytic"], key
        assert node.kinds, key
        if node.group_name != "maintenance" and key.path[-1] not in ("model", "performance", "published"):
            assert "dagster/table_name" in node.metadata or key.path[-1] == "raw_bars", key


def test_every_asset_shows_its_columns_with_types_and_meanings(definitions: dg.Definitions):
    for key in graph(definitions).materializable_asset_keys:
        node = graph(definitions).get(key)
        if node.group_name != "maintenance":
            shown = node.metadata["dagster/column_schema"]
            assert shown.columns and all(column.type and column.description for column in shown.columns), key
    model = graph(definitions).get(dg.AssetKey(["momentum_1d", "model"])).metadata["dagster/column_schema"]
    assert [column.name for column in model.columns][-2:] == ["forward_return", "label"]
    trades = graph(definitions).get(dg.AssetKey(["momentum_1d", "paper_trades"])).metadata
    assert {"trading.orders", "trading.positions", "trading.equity"} <= trades.keys()


def test_partitions_are_sessions_for_intraday_data_and_months_for_daily_data(definitions: dg.Definitions):
    for asset in ("raw_bars", *CHAIN):
        intraday = graph(definitions).get(dg.AssetKey(["equities_5m", asset])).partitions_def
        daily = graph(definitions).get(dg.AssetKey(["equities_1d", asset])).partitions_def
        assert list(intraday.get_partition_keys()) == SESSIONS
        assert list(daily.get_partition_keys()) == MONTHS
    for asset in ("model", "predictions", "paper_trades"):
        steps = graph(definitions).get(dg.AssetKey(["momentum_1d", asset])).partitions_def
        assert list(steps.get_partition_keys()) == ["2018-01-01", "2018-02-01"]
    assert graph(definitions).get(dg.AssetKey(["momentum_1d", "performance"])).partitions_def is None


def test_data_flows_in_the_order_of_the_design(definitions: dg.Definitions):
    parents = {
        key.to_user_string(): {parent.path[-1] for parent in graph(definitions).get(key).parent_keys}
        for key in graph(definitions).materializable_asset_keys
    }
    assert parents["equities_5m/raw_bars"] == set()
    assert parents["equities_5m/clean_bars"] == {"raw_bars"}
    assert parents["equities_5m/coverage"] == {"clean_bars"}
    assert parents["equities_5m/corporate_actions"] == {"raw_bars"}
    assert parents["equities_5m/adjusted_bars"] == {"clean_bars", "corporate_actions"}
    assert "clean_bars" in parents["equities_5m/bars"]
    families = set(FAMILIES)
    assert parents["equities_5m/closes"] == {"bars"}
    assert all(parents[f"equities_5m/{family}"] == {"bars", "closes"} for family in families)
    assert parents["equities_5m/indicators"] == {"closes", *families}
    assert not any(key.path[-1] in {"alpha158", "candles"} for key in graph(definitions).get_all_asset_keys())
    assert parents["equities_5m/labels"] == {"bars"}
    assert parents["equities_5m/published"] == {"coverage", "indicators"}
    assert parents["momentum_1d/published"] == {"paper_trades"}
    assert parents["momentum_1d/model"] == {"indicators", "labels"}
    assert parents["momentum_1d/predictions"] == {"model", "indicators"}
    assert parents["momentum_1d/signals"] == {"predictions", "indicators"}
    assert parents["momentum_1d/paper_trades"] == {"signals", "corporate_actions"}
    assert parents["momentum_1d/performance"] == {"paper_trades"}


def test_sensors_are_there_and_switched_off_until_somebody_wants_them(definitions: dg.Definitions):
    sensors = {sensor.name: sensor for sensor in definitions.get_repository_def().sensor_defs}
    assert {"equities_5m_bus_sensor", "equities_5m_automation", "momentum_1d_automation"} <= set(sensors)
    assert {sensor.default_status for sensor in sensors.values()} == {dg.DefaultSensorStatus.STOPPED}


@pytest.mark.parametrize("asset", ["raw_bars", *CHAIN])
def test_a_range_run_reports_one_materialization_a_partition(history: dg.DagsterInstance, asset: str):
    key = dg.AssetKey(["equities_5m", asset])
    records = history.fetch_materializations(key, limit=100).records
    assert sorted(record.partition_key for record in records) == SESSIONS


def test_each_partition_of_a_range_run_has_its_own_figures(base: Installed, history: dg.DagsterInstance):
    tables = {"clean_bars": "clean.bars", "coverage": "clean.coverage"}
    for asset, table in {**tables, "bars": "features.bars", "indicators": "features.indicators"}.items():
        rows = base.rows(f"SELECT session, count(*) FROM {table} WHERE dataset = 'equities_5m' GROUP BY ALL").rows()
        wanted = {session.isoformat(): count for session, count in rows}
        events = materialized(history, "equities_5m", asset)
        assert {k: e.metadata["dagster/partition_row_count"].value for k, e in events.items()} == wanted, asset
    # Two bars of one symbol are missing on the half day, and nothing else.
    missing = {k: e.metadata["missing_bars"].value for k, e in materialized(history, "equities_5m", "coverage").items()}
    assert missing == {session: 2 if session == "2025-07-03" else 0 for session in SESSIONS}
    stored = materialized(history, "equities_5m", "raw_bars")
    assert all(event.metadata["bytes"].value > 0 and event.metadata["objects"].value == 1 for event in stored.values())


def test_every_partition_of_a_range_run_has_its_rows_its_chart_and_its_page(history: dg.DagsterInstance):
    pages = "http://127.0.0.1:3002"
    drawn = {"raw_bars": "coverage", "clean_bars": "bars", "coverage": "coverage", "bars": "features"}
    drawn |= {"indicators": "features", "labels": "labels"}
    for asset, name in drawn.items():
        events = materialized(history, "equities_5m", asset)
        assert sorted(events) == SESSIONS
        for session, event in events.items():
            page = f"{pages}/datasets/equities_5m/{session}"
            assert event.metadata["chart"].value == f"[![chart]({page}/{name}.png?size=small)]({page})"
            assert event.metadata["page"].value == page
            assert event.metadata["dagster/partition_row_count"].value > 0
    for family in FAMILIES:
        for session, event in materialized(history, "equities_5m", family).items():
            assert f"/datasets/equities_5m/{session}/families/{family}.png" in event.metadata["chart"].value
            assert event.metadata["ms_per_column"].value >= 0 and event.metadata["bytes_per_column"].value > 0
    for asset, name in {"predictions": "predictions", "paper_trades": "trades"}.items():
        for month, event in materialized(history, "momentum_1d", asset).items():
            assert f"/strategies/momentum_1d/{month}/{name}.png" in event.metadata["chart"].value
            assert "dagster/partition_row_count" in event.metadata
    for step, event in materialized(history, "momentum_1d", "model").items():
        assert f"/strategies/momentum_1d/models/{step}/evaluation.png" in event.metadata["chart"].value
        version = event.metadata["model_version"].value
        assert event.metadata["mlflow"].value == f"{pages}/mlflow/models/momentum_1d/{version}"
    (report,) = history.fetch_materializations(dg.AssetKey(["momentum_1d", "performance"]), limit=1).records
    assert report.asset_materialization.metadata["report"].value == f"{pages}/strategies/momentum_1d/report"


def test_raw_bars_counts_the_rows_of_the_archive(base: Installed, history: dg.DagsterInstance):
    archive = Resources(base.settings()).archive
    counts: dict[str, int] = {}
    for stored in archive.objects("equities_5m"):
        counts[stored.partition] = counts.get(stored.partition, 0) + len(archive.read([stored]))
    events = materialized(history, "equities_5m", "raw_bars")
    assert {key: event.metadata["dagster/partition_row_count"].value for key, event in events.items()} == counts


def test_every_asset_links_to_its_page(definitions: dg.Definitions):
    for key in graph(definitions).materializable_asset_keys:
        node = graph(definitions).get(key)
        if node.group_name != "maintenance":
            kind = "strategies" if node.group_name == "momentum_1d" else "datasets"
            assert node.metadata["page"].value == f"http://127.0.0.1:3002/{kind}/{node.group_name}"
            dashboard = node.metadata["dashboard"].value
            assert dashboard.startswith("http://127.0.0.1:8000/#dataset=")
            assert node.group_name in dashboard


@pytest.mark.parametrize("asset", ["raw_bars", "clean_bars", "coverage"])
def test_a_range_run_reports_one_evaluation_a_partition_of_the_check(history: dg.DagsterInstance, asset: str):
    key = dg.AssetCheckKey(dg.AssetKey(["equities_5m", asset]), f"{asset}_schema")
    records = history.event_log_storage.get_asset_check_execution_history(key, limit=100)
    checked = {record.partition: record.event.dagster_event.event_specific_data for record in records}
    assert sorted(filter(None, checked)) == SESSIONS
    newest = history.get_latest_storage_id_by_partition(key.asset_key, dg.DagsterEventType.ASSET_MATERIALIZATION)
    for session in SESSIONS:
        assert checked[session].passed
        assert checked[session].target_materialization_data.storage_id == newest[session]


def test_what_a_strategy_wrote_is_checked_too(history: dg.DagsterInstance):
    checks = {"model": "model_schema", "predictions": "predictions_schema", "paper_trades": "paper_trades_schema"}
    for asset, name in {**checks, "performance": "account_adds_up"}.items():
        key = dg.AssetCheckKey(dg.AssetKey(["momentum_1d", asset]), name)
        records = history.event_log_storage.get_asset_check_execution_history(key, limit=10)
        assert records, name
        evaluations = [record.event.dagster_event.event_specific_data for record in records if record.event]
        assert all(one.passed for one in evaluations), (name, evaluations)


def test_the_same_range_can_be_run_and_checked_again(touched: Installed):
    definitions = build_definitions(touched.settings())
    job = definitions.resolve_job_def("equities_5m_pipeline")
    selection = [dg.AssetKey(["equities_5m", "clean_bars"])]
    with dagster_instance(touched.home) as instance:
        for _ in range(2):
            done = job.execute_in_process(
                instance=instance, tags=range_tags(SESSIONS[0], SESSIONS[-1]), asset_selection=selection
            )
            assert done.success
        key = dg.AssetCheckKey(selection[0], "clean_bars_schema")
        records = instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
    assert sorted(filter(None, (record.partition for record in records))) == sorted(3 * SESSIONS)


def test_one_bad_partition_costs_only_itself_and_is_named(touched: Installed):
    bad = "2025-07-02"
    (stored,) = (touched.home / "archive" / "equities_5m" / f"partition={bad}").glob("*.parquet")
    stored.chmod(0o644)
    stored.write_bytes(b"PAR1 this is no Parquet file PAR1")
    job = build_definitions(touched.settings()).resolve_job_def("equities_5m_pipeline")
    with dg.DagsterInstance.ephemeral() as instance:
        done = job.execute_in_process(
            instance=instance,
            tags=range_tags(SESSIONS[0], SESSIONS[-1]),
            asset_selection=[dg.AssetKey(["equities_5m", "clean_bars"])],
            raise_on_error=False,
        )
        good = materialized(instance, "equities_5m", "clean_bars")
    assert not done.success
    (failure,) = [event for event in done.all_events if event.event_type_value == "STEP_FAILURE"]
    said = failure.step_failure_data.user_failure_data
    assert bad in said.description and said.metadata["failed_partitions"].value == [bad]
    assert sorted(good) == [session for session in SESSIONS if session != bad]
    assert all(event.metadata["dagster/partition_row_count"].value > 0 for event in good.values())
    # The bad session's rows stand as they were.
    assert touched.rows(f"SELECT * FROM clean.bars WHERE session = DATE '{bad}'").height == 156


def tick(settings: Settings, instance: dg.DagsterInstance, cursor: str | None) -> dg.SensorResult:
    """One tick of the bus sensor."""
    repository = build_definitions(settings).get_repository_def()
    with dg.build_sensor_context(
        instance=instance,
        cursor=cursor,
        repository_def=repository,
        resources={"quantlytic": Resources(settings)},
    ) as context:
        return repository.get_sensor_def("equities_5m_bus_sensor").evaluate_tick(context)


def test_a_sensor_tick_asks_for_one_run_a_range_of_offsets_which_lands_the_sessions_touched(touched: Installed):
    settings = touched.settings()
    tuesday, monday = datetime(2025, 7, 1, 14, 0, tzinfo=UTC), datetime(2025, 7, 7, 14, 0, tzinfo=UTC)
    job = build_definitions(settings).resolve_job_def("equities_5m_landing")
    with dg.DagsterInstance.ephemeral() as instance:
        quiet = tick(settings, instance, None)
        assert not quiet.run_requests and quiet.skip_message

        publish(touched, [bar("AAPL", tuesday, 208.0), bar("AAPL", monday, 210.0), bar("SPY", monday, 620.0)])
        busy = tick(settings, instance, quiet.cursor)
        (request,) = busy.run_requests
        assert job.execute_in_process(run_config=request.run_config, instance=instance).success
        landed = materialized(instance, "equities_5m", "raw_bars")
        assert {key: event.metadata["rows_landed"].value for key, event in landed.items()} == {
            "2025-07-01": 1,
            "2025-07-07": 2,
        }
        assert not tick(settings, instance, busy.cursor).run_requests
        # A sensor that was switched off and has forgotten everything finds it landed all the same.
        assert not tick(settings, instance, None).run_requests


def test_a_repeated_landing_run_writes_nothing_and_reports_the_same(touched: Installed):
    settings = touched.settings()
    job = build_definitions(settings).resolve_job_def("equities_5m_landing")
    with dg.DagsterInstance.ephemeral() as instance:
        publish(touched, [bar("AAPL", datetime(2025, 7, 1, 14, 0, tzinfo=UTC), 208.0)])
        (request,) = tick(settings, instance, None).run_requests
        reported = []
        stored = []
        for _ in range(2):
            done = job.execute_in_process(run_config=request.run_config, instance=instance)
            events = [event.materialization for event in done.get_asset_materialization_events()]
            reported.append([(event.partition, event.metadata["rows_landed"].value) for event in events])
            stored.append(touched.fingerprint("archive"))
    assert reported[0] == reported[1] == [("2025-07-01", 1)]
    assert stored[0] == stored[1]


def test_a_long_backlog_is_landed_in_runs_of_a_bounded_size(touched: Installed):
    settings = Settings(universe=touched.universe_path, home=touched.home, claim_records=1)
    opens = datetime(2025, 7, 7, 14, 0, tzinfo=UTC)
    before = Resources(settings).bus.watermarks("bars.equities_5m")[0][1]
    publish(touched, [bar("AAPL", opens.replace(minute=5 * i), 210.0 + i) for i in range(8)])
    job = build_definitions(settings).resolve_job_def("equities_5m_landing")
    ranges, cursor = [], None
    with dg.DagsterInstance.ephemeral() as instance:
        while (told := tick(settings, instance, cursor)).run_requests:
            (request,) = told.run_requests
            ranges.append(request.run_config["ops"]["equities_5m_land"]["config"]["ranges"]["0"])
            assert job.execute_in_process(run_config=request.run_config, instance=instance).success
            cursor = told.cursor
    assert ranges == [[before, before + 5], [before + 5, before + 8]]


def test_a_sensor_waits_for_a_landing_run_at_work_and_asks_again_for_what_a_failed_one_left(touched: Installed):
    settings = touched.settings()
    job = build_definitions(settings).resolve_job_def("equities_5m_landing")
    with dg.DagsterInstance.ephemeral() as instance:
        publish(touched, [bar("AAPL", datetime(2025, 7, 1, 14, 0, tzinfo=UTC), 208.0)])
        asked = tick(settings, instance, None)
        (request,) = asked.run_requests
        run = instance.create_run_for_job(job, run_config=request.run_config, status=dg.DagsterRunStatus.STARTED)
        waiting = tick(settings, instance, asked.cursor)
        assert not waiting.run_requests and run.run_id in waiting.skip_message
        instance.report_run_failed(run)
        # It is asked for again after a while, and the sensor does not say that there is nothing to land.
        left = tick(settings, instance, asked.cursor)
        assert not left.run_requests
        assert "what it left of bars.equities_5m (records: 1) is asked for again in" in left.skip_message
        memory = json.loads(asked.cursor)
        later = json.dumps(memory | {"at": memory["at"] - 60})
        (again,) = tick(settings, instance, later).run_requests
        assert again.run_config == request.run_config and again.run_key != request.run_key


def test_a_sensor_notices_a_topic_made_anew_and_records_what_the_old_one_had_left(touched: Installed):
    settings = touched.settings()
    bus = Resources(settings).bus
    job = build_definitions(settings).resolve_job_def("equities_5m_landing")
    with dg.DagsterInstance.ephemeral() as instance:
        publish(touched, [bar("AAPL", datetime(2025, 7, 1, 14, 0, tzinfo=UTC), 208.0)])
        seen = tick(settings, instance, None)
        for path in bus.root.glob("bars.equities_5m.sqlite*"):
            path.unlink()
        publish(touched, [bar("AAPL", datetime(2025, 7, 7, 14, 0, tzinfo=UTC), 210.0)])
        # The run that was asked for starts when its topic is gone.
        (request,) = seen.run_requests
        assert request.run_config["ops"]["equities_5m_land"]["config"]["life"] == "bars.equities_5m"
        assert job.execute_in_process(run_config=request.run_config, instance=instance).success
        (told,) = instance.fetch_observations(dg.AssetKey(["equities_5m", "raw_bars"]), limit=5).records
        assert told.asset_observation.metadata["lost_records"].value == 1
        over = tick(settings, instance, seen.cursor)
        assert not over.run_requests
        (request,) = tick(settings, instance, over.cursor).run_requests
        config = request.run_config["ops"]["equities_5m_land"]["config"]
        assert config == {"ranges": {"0": [0, 1]}, "life": "bars.equities_5m@1"}
        assert job.execute_in_process(run_config=request.run_config, instance=instance).success
        assert set(materialized(instance, "equities_5m", "raw_bars")) == {"2025-07-07"}


def report_all(instance: dg.DagsterInstance, assets: list[str], partitions: list[str]) -> None:
    """Say of these assets' partitions that they have been materialized now."""
    for asset in assets:
        for partition in partitions:
            event = dg.AssetMaterialization(dg.AssetKey(["equities_5m", asset]), partition=partition)
            instance.report_runless_asset_event(event)


def test_late_data_of_an_old_session_is_followed_downstream_in_that_session_alone(definitions: dg.Definitions):
    selection = dg.AssetSelection.groups("equities_5m")
    with dg.DagsterInstance.ephemeral() as instance:
        everything = [*CHAIN, "adjusted_bars", "published"]
        report_all(instance, ["raw_bars", *everything], SESSIONS)

        def tick(second: int, cursor: Any) -> dg.EvaluateAutomationConditionsResult:
            # Within one hour, for each new one has its own work.
            now = datetime(2026, 1, 5, 12, 30, second, tzinfo=UTC)
            return dg.evaluate_automation_conditions(
                definitions, instance, selection, cursor=cursor, evaluation_time=now
            )

        first = tick(0, None)
        assert first.total_requested == 0
        report_all(instance, ["raw_bars"], ["2025-07-01"])
        second = tick(10, first.cursor)
        asked = {asset: second.get_requested_partitions(dg.AssetKey(["equities_5m", asset])) for asset in everything}
        assert asked == {asset: {"2025-07-01"} for asset in everything}
        assert second.get_requested_partitions(dg.AssetKey(["equities_5m", "raw_bars"])) == set()
        report_all(instance, everything, ["2025-07-01"])
        third = tick(20, second.cursor)
        assert third.total_requested == 0


def test_a_dataset_that_goes_on_has_the_running_session_among_its_partitions(tmp_path: Path):
    today = datetime.now(UTC).date()
    live = {
        "calendar": "24/7",
        "interval": "1h",
        "first_session": (today - timedelta(days=2)).isoformat(),
        "vendors": [],
        "symbols": ["BTC-USD"],
    }
    installed = Installed(tmp_path, universe(live_1h=live))
    keys = graph(build_definitions(installed.settings())).get(dg.AssetKey(["live_1h", "clean_bars"])).partitions_def
    # Midnight may pass between the two looks at the clock.
    assert list(keys.get_partition_keys())[-1] in {today.isoformat(), (today + timedelta(days=1)).isoformat()}


def test_a_rule_has_assets_of_its_signals_and_its_account(tmp_path: Path):
    rule = {"dataset": "equities_5m", "interval": "1h", "rule": {"ma_cross": {"fast": 10}}}

    def built(**changes: Any) -> dg.Definitions:
        declared = universe(equities_5m=EQUITIES_5M) | {"strategies": {"cross_1h": rule | changes}}
        return build_definitions(Installed(tmp_path, declared).settings())

    definitions, key = built(), dg.AssetKey(["cross_1h", "signals"])
    node = graph(definitions).get(key)
    assert list(node.partitions_def.get_partition_keys()) == SESSIONS
    assert node.parent_keys == {dg.AssetKey(["equities_5m", "indicators"])}
    assert (node.group_name, node.owners) == ("cross_1h", ["team:quantlytic"])
    assert node.metadata["dagster/table_name"] == "trading.signals"
    assert node.metadata["rule"] == "ma_cross(fast=10, slow=50, kind=sma, short=False)"
    shown = node.metadata["dagster/column_schema"]
    assert [column.name for column in shown.columns][-4:] == ["signal", "strength", "target", "reason"]
    assert all(column.description for column in shown.columns)
    assert node.metadata["page"].value == "http://127.0.0.1:3002/strategies/cross_1h"
    assert node.automation_condition.get_label() == "follow_upstream"
    assert dg.AssetCheckKey(key, "signals_schema") in graph(definitions).asset_check_keys
    trades = graph(definitions).get(dg.AssetKey(["cross_1h", "paper_trades"]))
    assert trades.parent_keys == {key, dg.AssetKey(["equities_5m", "corporate_actions"])}
    assert trades.metadata["dagster/table_name"] == "trading.events"
    checks = {(one.asset_key.path[-1], one.name) for one in graph(definitions).asset_check_keys}
    assert {("paper_trades", "paper_trades_schema"), ("performance", "account_adds_up")} <= checks
    # What the rule reads is declared for the dataset by itself.
    columns = graph(definitions).get(dg.AssetKey(["equities_5m", "trend"])).code_version
    repository = definitions.get_repository_def()
    assert {"cross_1h_trading", "cross_1h_reporting"} <= {job.name for job in repository.get_all_jobs()}
    sensors = {sensor.name: sensor for sensor in repository.sensor_defs}
    assert sensors["cross_1h_automation"].default_status == dg.DefaultSensorStatus.STOPPED
    # Another rule makes the signals stale; another account does not.
    assert graph(built(account={"capital": 5})).get(key).code_version == node.code_version
    other = graph(built(rule={"ma_cross": {"fast": 11}}))
    assert other.get(key).code_version != node.code_version
    assert other.get(dg.AssetKey(["equities_5m", "trend"])).code_version != columns


def test_rows_that_are_scored_outside_the_graph_have_its_scores(base: Installed):
    loaded = load_universe(base.universe_path)
    dataset, strategy = loaded.datasets["equities_1d"], loaded.models["momentum_1d"]
    resources = make_resources(base.settings())
    columns = [*BASE_COLUMNS, "ret_1", *(one for one in strategy.features or () if one != "ret_1")]
    rows = indicators(resources.lake, dataset.name, "1d", columns)
    found = scorer(resources.models, dataset, strategy, lambda _: None)(rows)
    wanted = scores(resources.lake, strategy.name).sort("symbol", "open_time")
    keys = ["symbol", "open_time"]
    assert len(wanted) > 50 and wanted.equals(found.join(wanted.select(keys), on=keys, how="semi").sort(keys))

"""The promises between the parts: rebuilt, repeated, killed, doubled, late or malformed, the right rows come of it."""

from __future__ import annotations

import dagster as dg
import polars as pl
import pytest

from quantlytic_tests.end_to_end.installations import Installed, assert_close, assert_same, dagster_instance
from quantlytic_tests.end_to_end.scenarios import (
    AFTER_THE_LAST,
    BEFORE_THE_FIRST,
    FED,
    FED_CLOSE,
    LATE_CLOSE,
    LATE_SESSION,
    RUBBISH,
    THIRD_SESSION,
    Outcome,
)

CLEAN = ["clean.bars", "clean.quarantine", "clean.coverage", "clean.sessions"]
FEATURES = ["features.bars", "features.indicators", "features.labels"]
TRADING = ["ml.predictions", "trading.orders", "trading.fills", "trading.positions", "trading.equity"]
KEYS = {
    "features.bars": ["symbol", "interval", "open_time"],
    "features.indicators": ["symbol", "interval", "open_time"],
    "features.labels": ["symbol", "interval", "horizon", "open_time"],
}


def daily(tables: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """What an installation without the intraday dataset has of these tables."""
    return {
        name: frame.filter(pl.col("dataset") == "equities_1d") if "dataset" in frame.columns else frame
        for name, frame in tables.items()
    }


def test_a_deleted_lake_comes_back_with_the_same_rows(base: Installed, rebuilt: Outcome):
    for done in rebuilt.done.values():
        done.expect(0)
    assert_same(rebuilt.installed.tables(), base.tables(), [*CLEAN, *FEATURES, *TRADING])


def test_even_the_archive_rows_behind_the_bars_are_the_same_after_a_rebuild(base: Installed, rebuilt: Outcome):
    queries = [
        "SELECT * FROM clean.bars ORDER BY ALL",
        "SELECT * FROM clean.quarantine ORDER BY ALL",
        "SELECT * EXCLUDE (checked_at) FROM clean.coverage ORDER BY dataset, symbol, session",
        "SELECT * FROM trading.orders ORDER BY order_ref",
    ]
    for query in queries:
        assert rebuilt.installed.rows(query).equals(base.rows(query)), query


def test_a_repeat_with_nothing_missing_asks_nobody_and_leaves_bus_and_archive_as_they_are(rebuilt: Outcome):
    for done in rebuilt.done.values():
        assert "0 vendor requests" in done.expect(0).out
    assert rebuilt.noted["before"]
    assert rebuilt.noted["after"] == rebuilt.noted["before"]


@pytest.mark.parametrize("table", FEATURES)
def test_sessions_one_by_one_in_any_order_give_the_features_of_one_full_run(
    base: Installed, session_by_session: Outcome, table: str
):
    session_by_session.done["all"].expect(0)
    last = "label_session" if table == "features.labels" else "session"
    wanted = base.rows(f"SELECT * FROM {table} WHERE dataset = 'equities_5m' AND {last} <= DATE '{THIRD_SESSION}'")
    if table == "features.labels":
        # Labels carry no price to measure smallness by; a return of a hundred percent is as good a measure.
        wanted = wanted.with_columns(close=pl.lit(1.0))
        found = session_by_session.installed.rows(f"SELECT *, 1.0 AS close FROM {table}")
    else:
        found = session_by_session.installed.rows(f"SELECT * FROM {table}")
    assert_close(found, wanted, KEYS[table])


def test_sessions_one_by_one_are_asked_for_once_each(session_by_session: Outcome):
    paths = (session_by_session.installed.home / "archive").rglob("partition=*/*.parquet")
    archived = pl.concat(pl.read_parquet(path, columns=["symbol", "open_time"]) for path in paths)
    assert len(archived) > 0 and not archived.is_duplicated().any()


def test_a_backfill_was_killed_in_every_layer(killed: Outcome):
    assert killed.noted["killed in"] == [
        "equities_1d__raw_bars",
        "equities_1d__clean_bars",
        "equities_1d__coverage",
        "equities_1d__features",
        "momentum_1d__model",
        "momentum_1d__predictions",
        "momentum_1d__paper_trades",
    ]


def test_a_backfill_killed_anywhere_and_run_again_gives_the_rows_of_an_undisturbed_one(
    base: Installed, killed: Outcome
):
    assert "buy and hold" in killed.done["again"].expect(0).out
    # These daily bars have no row that is rejected.
    tables = [table for table in [*CLEAN, *FEATURES, *TRADING] if table != "clean.quarantine"]
    found = killed.installed.tables()
    assert_same(found, daily(base.tables()), tables)
    assert found["clean.quarantine"].is_empty()


def test_each_bus_record_is_archived_once_after_kills(killed: Outcome):
    paths = list((killed.installed.home / "archive").rglob("partition=*/*.parquet"))
    offsets = pl.concat(pl.read_parquet(path, columns=["bus_offset"]) for path in paths)["bus_offset"].sort()
    assert offsets.to_list() == list(range(len(offsets)))


def statuses(installed: Installed) -> list[dg.DagsterRunStatus]:
    """How Dagster says that each run ended, oldest first."""
    with dagster_instance(installed.home) as instance:
        return [run.status for run in reversed(instance.get_runs())]


def test_a_killed_run_does_not_count_as_running_for_good(killed: Outcome):
    found = statuses(killed.installed)
    assert found.count(dg.DagsterRunStatus.FAILURE) == len(killed.noted["killed in"])
    assert set(found) == {dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS}


def test_a_command_takes_no_living_run_of_another_one_for_killed(twice_at_once: Outcome):
    found = statuses(twice_at_once.installed)
    # Each makes what is behind when it looks, in one run or in several.
    assert len(found) >= 2 and set(found) == {dg.DagsterRunStatus.SUCCESS}


def test_two_backfills_of_the_same_sessions_at_once_corrupt_nothing(base: Installed, twice_at_once: Outcome):
    for done in twice_at_once.done.values():
        done.expect(0)
    wanted = base.tables("dataset = 'equities_5m'")
    found = twice_at_once.installed.tables()
    assert_same(found, wanted, ["clean.bars", "clean.coverage", "clean.sessions", *FEATURES])
    # Both may have asked before either had landed; then a rejected row is archived, and quarantined, twice.
    assert found["clean.quarantine"].unique().sort(pl.all()).equals(wanted["clean.quarantine"].unique().sort(pl.all()))


def test_rubbish_on_the_bus_is_quarantined_with_reason_and_text_and_stops_nobody(fed: Outcome):
    fed.done["equities_5m"].expect(0)
    rejected = fed.installed.rows("SELECT * FROM clean.quarantine WHERE source_object LIKE '%/refused/%'")
    assert len(rejected) == len(RUBBISH)
    assert all(reason.startswith("malformed") for reason in rejected["reason"])
    texts = set(rejected["raw"])
    assert {"not json at all", "[1, 2, 3]", '{"symbol": "AAPL", "open": "dear"}'} <= texts
    assert rejected["source_row"].is_not_null().all()


def test_good_records_beside_rubbish_land_and_are_cleaned(fed: Outcome):
    bar = fed.installed.rows(
        f"SELECT close, vendor FROM clean.bars WHERE symbol = 'AAPL' AND open_time = TIMESTAMPTZ '{FED}'"
    )
    assert bar.rows() == [(FED_CLOSE, "feed")]


@pytest.mark.parametrize("moment", [BEFORE_THE_FIRST, AFTER_THE_LAST])
def test_records_of_sessions_outside_the_dataset_are_quarantined_as_not_in_universe(fed: Outcome, moment):
    rows = fed.installed.rows(
        f"SELECT reason, session FROM clean.quarantine WHERE symbol = 'AAPL' AND open_time = TIMESTAMPTZ '{moment}'"
    )
    assert rows.rows() == [("not_in_universe", moment.date())]


def test_a_symbol_added_to_the_universe_file_is_filled_by_the_next_backfill(fed: Outcome):
    done = fed.done["equities_5m"].expect(0)
    assert "1 vendor requests" in done.out
    counts = fed.installed.rows(
        "SELECT symbol, count(DISTINCT session) AS sessions FROM features.indicators WHERE dataset = 'equities_5m' "
        "GROUP BY ALL ORDER BY ALL"
    )
    assert counts.rows() == [("AAPL", 6), ("MSFT", 6), ("SPY", 6)]


def test_a_dataset_added_to_the_universe_file_is_filled_by_the_next_backfill(fed: Outcome):
    fed.done["crypto_1m"].expect(0)
    minutes = fed.installed.rows(
        "SELECT session, count(*) AS bars FROM clean.bars WHERE dataset = 'crypto_1m' GROUP BY ALL ORDER BY 1"
    )
    assert minutes["bars"].to_list() == [1440, 1440]
    hours = fed.installed.rows("SELECT * FROM features.indicators WHERE dataset = 'crypto_1m'")
    assert len(hours) == 48 and hours["interval"].unique().to_list() == ["1h"]


def test_a_late_better_bar_replaces_the_old_one_which_goes_to_quarantine(late: Outcome):
    assert "1 read, 1 accepted, 0 refused" in late.done["import"].expect(0).out
    late.done["backfill"].expect(0)
    moment = pl.lit(f"{LATE_SESSION}T14:00:00").str.to_datetime(time_zone="UTC", time_unit="us")
    changed = pl.col("symbol").eq("AAPL") & pl.col("open_time").eq(moment)
    bars = late.noted["mended"]["clean.bars"].filter(changed)
    assert bars.select("close", "vendor").rows() == [(LATE_CLOSE, "import")]
    assert late.noted["mended"]["clean.quarantine"].filter(changed)["reason"].to_list() == ["superseded"]
    # No other bar has changed.
    old = late.noted["untouched"]["clean.bars"]
    assert late.noted["mended"]["clean.bars"].filter(~changed).equals(old.filter(~changed))


@pytest.mark.parametrize("table", FEATURES)
def test_features_of_later_sessions_are_mended_by_backfilling_the_late_session_alone(late: Outcome, table: str):
    late.done["rebuild"].expect(0)
    mended, rebuilt = late.noted["mended"][table], late.noted["rebuilt"][table]
    if table == "features.labels":
        mended, rebuilt = (frame.with_columns(close=pl.lit(1.0)) for frame in (mended, rebuilt))
    assert_close(mended, rebuilt, KEYS[table])


def test_the_late_bar_did_change_features_of_later_sessions(late: Outcome):
    after = pl.col("session") > pl.lit(LATE_SESSION).str.to_date()
    old = late.noted["untouched"]["features.indicators"].filter(after)
    assert not late.noted["mended"]["features.indicators"].filter(after).equals(old)

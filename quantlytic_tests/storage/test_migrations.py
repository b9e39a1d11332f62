"""Layouts: what is older is migrated once, whole and in one go whatever is killed; what is newer is left alone."""

import os
import signal
from datetime import UTC, date, datetime
from types import ModuleType

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from quantlytic_assets.resources import make_resources
from quantlytic_assets.services.migrations import Change, migrate, open_up_to_date, pending_changes
from quantlytic_assets.storage.accounts import Accounts
from quantlytic_assets.storage.attempts import AttemptLog
from quantlytic_assets.storage.migrations import lake as lake_layout
from quantlytic_assets.storage.migrations import state as state_layout
from quantlytic_assets.storage.migrations.layout import NewLayout, OldLayout
from quantlytic_assets.storage.migrations.state import state_revisions, upgrade_state
from quantlytic_assets.storage.migrations.tables import add_column, rename_column, rename_table
from quantlytic_assets.storage.state import METADATA, open_state, state_engine
from quantlytic_tests.storage.places import Place
from quantlytic_tests.storage.processes import replace_session, start, together

DAY = date(2025, 3, 3)


def step(name: str, title: str, apply) -> ModuleType:
    """A step as a module of its own would be."""
    module = ModuleType(f"steps.{name}", f"{title}.\n\nWhy it is done.")
    module.apply = apply
    return module


def rename_coverage(connection, _place) -> None:
    rename_table(connection, "clean.coverage", "clean.completeness")
    rename_column(connection, "clean.completeness", "present_bars", "bars_present")
    add_column(connection, "clean.completeness", "judged_by", "VARCHAR")


def rename_coverage_and_die(connection, place) -> None:
    rename_coverage(connection, place)
    os.kill(os.getpid(), signal.SIGKILL)


RENAMED = step("rename_coverage", "Coverage is called completeness", rename_coverage)


@pytest.fixture
def old(place):
    """A lake with a row of coverage and a view on it, whose layout lacks what a test declares further."""
    lake = place.resources.lake
    replace_session(lake, 1, "A", DAY, 10)
    connection = lake.connect()
    connection.execute("INSERT INTO clean.coverage (dataset, symbol, present_bars) VALUES ('d', 'A', 7)")
    connection.execute('CREATE VIEW features.seen AS SELECT symbol, clean.coverage."cause" FROM lake.clean.coverage')
    return place


def declare(monkeypatch, *steps) -> None:
    """Have the code know these steps beside its own, and no table that they rename away."""
    monkeypatch.setattr(lake_layout, "LAKE_STEPS", (*lake_layout.LAKE_STEPS, *steps))


def migrate_and_die(place: Place) -> None:
    """What a process does that is killed amid a step."""
    lake_layout.LAKE_STEPS = (
        *lake_layout.LAKE_STEPS,
        step("rename_coverage", "Coverage is called completeness", rename_coverage_and_die),
    )
    migrate(place.resources)


def migrate_at_once(barrier, place: Place) -> None:
    lake_layout.LAKE_STEPS = (*lake_layout.LAKE_STEPS, RENAMED)
    resources = make_resources(place.settings)
    barrier.wait(60)
    migrate(resources)


def renamed_rows(place: Place) -> list[tuple]:
    """Read past the layout's check, as the code of that layout would."""
    connection = make_resources(place.settings).lake._open("READ_ONLY")
    try:
        assert connection.execute("SELECT symbol FROM features.seen").fetchall() == [("A",)]
        return connection.execute("SELECT symbol, bars_present, judged_by FROM clean.completeness").fetchall()
    finally:
        connection.close()


def applied(place: Place) -> list[str]:
    connection = make_resources(place.settings).lake._open("READ_ONLY")
    try:
        return [name for (name,) in connection.execute("SELECT step FROM meta.layout_steps ORDER BY ALL").fetchall()]
    finally:
        connection.close()


def test_a_new_lake_has_the_current_layout(place):
    resources = place.resources
    resources.lake.connect()
    assert pending_changes(resources) == []
    assert applied(place) == sorted(lake_layout.step_name(one) for one in lake_layout.LAKE_STEPS)


def test_an_older_lake_is_refused_to_readers_and_writers_until_it_is_migrated(old, monkeypatch):
    declare(monkeypatch, RENAMED)
    resources = make_resources(old.settings)
    for access in (resources.lake.reader, resources.lake.connect):
        with pytest.raises(
            OldLayout, match=r"the lake has the layout of an older version, one step .*`quantlytic migrate`"
        ):
            access()
    wanted = [Change("lake", "Coverage is called completeness")]
    assert pending_changes(resources) == wanted
    assert "rename_coverage" not in applied(old)
    assert migrate(resources) == wanted
    assert migrate(resources) == [] == pending_changes(resources)
    assert renamed_rows(old) == [("A", 7, None)]


def test_whoever_opens_for_writing_migrates_first(old, monkeypatch):
    declare(monkeypatch, RENAMED)
    assert open_up_to_date(make_resources(old.settings)) == [Change("lake", "Coverage is called completeness")]
    assert open_up_to_date(make_resources(old.settings)) == []


def test_a_migration_that_is_killed_amid_a_step_leaves_the_old_layout_and_is_done_again(old, monkeypatch):
    before = applied(old)
    process = start(migrate_and_die, old)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert applied(old) == before
    assert make_resources(old.settings).lake.query("SELECT present_bars FROM clean.coverage").rows() == [(7,)]
    declare(monkeypatch, RENAMED)
    migrate(make_resources(old.settings))
    assert renamed_rows(old) == [("A", 7, None)]


def test_a_step_that_was_done_but_not_recorded_may_be_done_again(old, monkeypatch):
    rename_coverage(old.resources.lake.connect(), None)
    declare(monkeypatch, RENAMED)
    migrate(make_resources(old.settings))
    assert renamed_rows(old) == [("A", 7, None)]


@pytest.mark.parametrize("one", lake_layout.LAKE_STEPS, ids=lake_layout.step_name)
def test_a_step_applied_to_the_current_layout_changes_nothing(place, one):
    lake = place.resources.lake
    tables = "SELECT schema_name, table_name, column_name, data_type FROM duckdb_columns() WHERE database_name = 'lake'"
    before = lake.query(f"{tables} ORDER BY ALL").rows()
    one.apply(lake.connect(), lake.place)
    assert lake.query(f"{tables} ORDER BY ALL").rows() == before


def test_migrations_at_once_apply_each_step_once(old):
    together(migrate_at_once, [(old,), (old,), (old,)])
    assert applied(old).count("rename_coverage") == 1
    assert renamed_rows(old) == [("A", 7, None)]


def test_a_newer_lake_is_refused_and_left_as_it_is(place):
    connection = place.resources.lake.connect()
    connection.execute("INSERT INTO meta.layout_steps VALUES ('of_tomorrow', now())")
    resources = make_resources(place.settings)
    for access in (resources.lake.reader, resources.lake.connect, lambda: pending_changes(resources)):
        with pytest.raises(NewLayout, match=r"newer version .*step of_tomorrow"):
            access()
    snapshot = place.resources.lake.snapshot()
    with pytest.raises(NewLayout):
        migrate(resources)
    assert place.resources.lake.snapshot() == snapshot


def test_the_revisions_make_what_is_declared(place):
    engine = open_state(place.resources.state_url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def unversioned(place: Place) -> sa.Engine:
    """A state database as it was before revisions: only the parts that had been used have tables."""
    engine = state_engine(place.resources.state_url)
    with engine.begin() as connection:
        METADATA.tables["vendor_attempts"].create(connection)
        connection.execute(
            sa.text("INSERT INTO vendor_attempts VALUES ('d', 'A', '2025-03-03', 2, 1, NULL, '2025-03-04 00:00:00')")
        )
    return engine


def test_a_state_database_from_before_revisions_is_migrated_and_keeps_its_rows(place):
    engine = unversioned(place)
    with pytest.raises(OldLayout, match=r"the state database .*quantlytic migrate"):
        AttemptLog(place.resources.state_url)
    resources = make_resources(place.settings)
    resources.lake.connect()
    assert {change.part for change in migrate(resources)} == {"state"}
    assert resources.attempts.read("d", DAY, DAY).rows() == [("A", DAY, 2, 1)]
    assert set(METADATA.tables) <= set(sa.inspect(engine).get_table_names())
    assert pending_changes(resources) == []


def test_a_state_database_of_a_newer_version_is_refused(place):
    engine = open_state(place.resources.state_url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    for access in (lambda: AttemptLog(place.resources.state_url), lambda: migrate(place.resources)):
        with pytest.raises(NewLayout, match="revision 9999"):
            access()


def test_a_state_database_that_another_process_makes_while_it_is_looked_at_is_no_older_one(place, monkeypatch):
    engine, is_empty = state_engine(place.resources.state_url), state_layout.is_empty

    def too_late(engine):
        upgrade_state(engine)
        return is_empty(engine)

    monkeypatch.setattr(state_layout, "is_empty", too_late)
    state_layout.check_state(engine)
    assert state_layout.pending_revisions(engine) == []


def test_revisions_are_numbered_without_a_hole():
    assert list(state_revisions()) == [f"{number:04}" for number in range(1, len(state_revisions()) + 1)]


def test_an_account_that_a_limit_had_halted_is_marked_when_it_is_migrated(tmp_path):
    url = f"sqlite:///{tmp_path / 'state.sqlite'}"
    upgrade_state(state_engine(url), "0004")
    now, turns = "2025-03-03 21:00:00", {"gone_on": ["halt", "resume"], "halted": ["halt", "resume", "halt", "fill"]}
    with state_engine(url).begin() as connection:
        for strategy, kinds in turns.items():
            connection.execute(
                sa.text("INSERT INTO account_states VALUES (:strategy, :now, '2025-03-03', '2025-03-03', 4, '[]', '')"),
                {"strategy": strategy, "now": now},
            )
            for number, kind in enumerate(kinds):
                connection.execute(
                    sa.text("INSERT INTO account_events VALUES (:s, :n, :day, :at, :kind, NULL, NULL, :p, :at)"),
                    {"s": strategy, "n": number, "day": f"2025-03-0{number + 1}", "kind": kind,
                     "at": f"2025-03-0{number + 1} 21:00:00", "p": '{"reason":"max_drawdown"}'},
                )  # fmt: skip
    upgrade_state(state_engine(url))
    accounts = Accounts(url).every()
    since = datetime(2025, 3, 3, 21, tzinfo=UTC)
    assert (accounts["halted"].halted, accounts["halted"].halted_since) == ("max_drawdown", since)
    assert (accounts["gone_on"].halted, accounts["gone_on"].halted_since) == (None, None)

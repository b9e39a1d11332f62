"""The profile `services` end to end: the same rows as embedded from the real servers, and no secret left anywhere."""

from __future__ import annotations

import sqlalchemy as sa

from quantlytic_tests.end_to_end.installations import RUN_COLUMNS, Installed, assert_close, assert_same

# Their numbers come out of libraries that may add up in another order.
_TO_NINE_DIGITS = {"features.indicators": ["symbol", "interval", "open_time"]}


def test_both_profiles_have_the_same_rows_in_every_table(base: Installed, served: Installed) -> None:
    embedded, services = base.tables(), served.tables()
    assert set(services) == set(embedded) == set(RUN_COLUMNS)
    exact = [table for table in RUN_COLUMNS if table not in _TO_NINE_DIGITS and len(embedded[table])]
    assert_same(services, embedded, exact)
    for table, keys in _TO_NINE_DIGITS.items():
        assert_close(services[table], embedded[table], keys)


def test_nothing_of_it_lies_on_this_machine_but_logs_and_what_can_be_made_again(served: Installed) -> None:
    parts = {path.relative_to(served.home).parts[0] for path in served.home.rglob("*") if path.is_file()}
    assert parts <= {"cache", "dagster", "dbt", "hot", "lake", "reports", "state", "logs"}
    assert not [path for path in (served.home / "lake").rglob("*.parquet")]
    assert not [path for path in served.home.rglob("*.db")] + [path for path in served.home.rglob("*.sqlite")]


def test_no_secret_is_in_files_runs_or_models(served: Installed) -> None:
    settings = served.settings()
    secrets = [settings.s3_secret_key.get_secret_value(), settings.postgres_password.get_secret_value()]
    for path in served.home.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not [secret for secret in secrets if secret.encode() in content], path
    looked_at = 0
    for part in ("dagster", "mlflow", "lake", "state"):
        engine = sa.create_engine(settings.postgres_url(part))
        with engine.connect() as connection:
            for table in sa.inspect(engine).get_table_names():
                rows = connection.execute(sa.text(f'SELECT CAST(t AS text) FROM "{table}" AS t')).scalars().all()
                looked_at += len(rows)
                assert not [row for row in rows for secret in secrets if secret in row], table
        engine.dispose()
    assert looked_at > 1_000
    store = served_objects(served)
    assert store, "runs have left no logs in the bucket"
    assert not [path for path, content in store.items() for secret in secrets if secret.encode() in content]


def served_objects(served: Installed) -> dict[str, bytes]:
    """What Dagster and MLflow have put into the bucket, by path."""
    import obstore

    from quantlytic_assets.resources import make_resources

    store = make_resources(served.settings()).bucket.store("")
    paths = [item["path"] for batch in obstore.list(store) for item in batch]
    wanted = [path for path in paths if path.startswith(("dagster-logs/", "mlflow/"))]
    return {path: bytes(obstore.get(store, path).bytes()) for path in wanted}


def test_a_second_backfill_on_the_servers_finds_nothing_to_do(served: Installed) -> None:
    done = served.run("backfill", "equities_5m").expect(0)
    assert "0 vendor requests" in done.out

"""Readers return the declared columns of the rows that were asked for, whatever is written in the names."""

from datetime import date, datetime, timedelta

import polars as pl
import pytest

from quantlytic_assets.features.columns import with_core
from quantlytic_assets.schemas import clean, features, ml, trading
from quantlytic_assets.storage.lake import local_lake
from quantlytic_assets.tables import actions, bars, coverage, files, predictions
from quantlytic_assets.tables import features as feature_tables
from quantlytic_assets.tables import trading as trading_tables
from quantlytic_assets.tables.select import equal, select, sessions
from quantlytic_tests.frames import utc

DAYS = [date(2025, 3, 3) + timedelta(days=i) for i in range(4)]
# A name that would end a SQL text, were it ever put into one.
ODD = "it's; DROP TABLE clean.bars --"


def at(day: date, hour: int) -> datetime:
    return utc(f"{day}T{hour:02}:00")


def bar(dataset: str, symbol: str, day: date, hour: int, **changes: object) -> dict[str, object]:
    price = {"open": 10.0, "high": 11.0, "low": 9.0, "close": 10.0, "volume": 5.0}
    times = {"open_time": at(day, hour), "close_time": at(day, hour + 1), "available_at": at(day, hour + 1)}
    told = {"vendor": "v", "fetched_at": at(day, 23), "adjustment": "none", "flags": []}
    return {"dataset": dataset, "symbol": symbol, "session": day, **price, **times, **told} | changes


def covered(dataset: str, symbol: str, day: date, missing: int, cause: str | None) -> dict[str, object]:
    ranges = [{"start": at(day, 10), "end": at(day, 10) + timedelta(minutes=missing), "cause": cause}]
    return {
        "dataset": dataset,
        "symbol": symbol,
        "session": day,
        "expected_bars": 10,
        "present_bars": 10 - missing,
        "missing_bars": missing,
        "cause": cause,
        "missing_ranges": ranges if missing else [],
        "attempts": 0,
        "checked_at": at(day, 23),
    }


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    lake = local_lake(tmp_path_factory.mktemp("lake"), threads=1)
    frames = {
        clean.BARS: [bar("d", symbol, day, hour) for symbol in ("A", ODD) for day in DAYS for hour in (10, 11)]
        + [bar(ODD, "A", DAYS[0], 12)],
        clean.COVERAGE: [covered("d", "A", day, i, "outage" if i else None) for i, day in enumerate(DAYS)]
        + [covered("d", "B", DAYS[2], 4, "no_trade"), covered(ODD, "A", DAYS[0], 1, None)],
        clean.QUARANTINE: [
            {"dataset": "d", "reason": "r", "raw": "{}", "source_object": name}
            for name in ("d/refused/1.parquet", "d/refused/1.parquet", "d/other.parquet")
        ],
        clean.SPLIT_FACTORS: [
            {"dataset": "d", "symbol": "A", "since": day, "listing": "A", "company": "A", "shares": shares}
            for day, shares in ((DAYS[2], 4.0), (DAYS[0], 2.0))
        ],
        clean.CORPORATE_ACTIONS: [
            {"dataset": "d", "symbol": "A", "session": DAYS[1], "kind": kind, "value": 2.0, "known_on": DAYS[1]}
            for kind in ("split", "dividend")
        ],
        ml.PREDICTIONS: [
            {"strategy": "s", "symbol": "A", "session": day, "open_time": at(day, 10), "available_at": at(day, 11)}
            | {"score": 0.6, "prediction": 1, "model_version": "1", "trained_through": at(DAYS[0], 0)}
            for day in reversed(DAYS)
        ],
        trading.EQUITY: [
            {"strategy": "s", "session": day, "equity": 100.0 + i, "cash": 50.0, "gross_exposure": 50.0 + i}
            | {"costs_to_date": float(i)}
            for i, day in enumerate(DAYS)
        ],
        trading.ORDERS: [
            {"strategy": "s", "session": DAYS[1], "symbol": symbol, "order_ref": symbol, "status": status}
            for symbol, status in (("A", "filled"), ("B", "rejected"), ("C", "open"))
        ],
        trading.POSITIONS: [
            {"strategy": "s", "session": DAYS[i], "symbol": symbol, "market_value": value}
            for i, symbol, value in ((0, "A", 50.0), (1, "A", 30.0), (1, "B", 21.0), (3, "A", 60.0))
        ],
        trading.FILLS: [{"strategy": "s", "session": DAYS[1], "symbol": "A", "order_ref": "A"}],
    }
    lake.replace(
        [(table.name, "true", [], pl.DataFrame(rows, with_core(table).polars)) for table, rows in frames.items()]
    )
    with lake.transaction() as connection:
        for table in features.TABLES:
            connection.execute(f"CREATE TABLE {table.name} ({with_core(table).ddl})")
    made = {
        features.BARS: [
            {"dataset": "d", "symbol": symbol, "session": day, "interval": interval, "open_time": at(day, 10)}
            | {"close": None if day == DAYS[1] and interval == "1h" else 10.0, "complete": day != DAYS[2]}
            for symbol in ("B", "A", ODD)
            for day in DAYS
            for interval in ("1h", "1d")
        ],
        features.INDICATORS: [
            {"dataset": "d", "symbol": "A", "session": day, "interval": "1d", "open_time": at(day, 10)}
            | {"close": 10.0 if i != 1 else None, "sma_200": 1.0 if i > 1 else None, "history_bars": 7}
            for i, day in enumerate(DAYS)
        ],
        features.LABELS: [
            {"dataset": "d", "symbol": "A", "session": day, "interval": "1d", "horizon": horizon, "label": 1}
            | {"label_session": day + timedelta(days=horizon), "open_time": at(day, 10)}
            for day in DAYS
            for horizon in (1, 2)
        ],
    }
    lake.replace(
        [(table.name, "true", [], pl.DataFrame(rows, with_core(table).polars)) for table, rows in made.items()]
    )
    return lake


def test_bars_are_those_of_the_sessions_and_symbols_with_the_columns_asked_for(lake):
    found = bars.clean_bars(lake, "d", ["symbol", "open_time"], since=DAYS[1], before=DAYS[3], symbols=["A"])
    assert found.schema == clean.BARS.schema(["symbol", "open_time"])
    assert sorted(found["open_time"]) == [at(day, hour) for day in DAYS[1:3] for hour in (10, 11)]
    assert len(bars.clean_bars(lake, "d", ["symbol"])) == 16
    assert bars.clean_bars(lake, "d", ["symbol"], symbols=[]).is_empty()


def test_a_name_is_never_sql(lake):
    assert len(bars.clean_bars(lake, ODD, ["symbol"])) == 1
    assert set(bars.clean_bars(lake, "d", ["symbol"], symbols=[ODD])["symbol"]) == {ODD}
    assert len(feature_tables.usable_bars(lake, "d", "1d", ["open_time"], incomplete=True, symbols=[ODD])) == 4
    assert coverage.last_sessions(lake, ODD, ["symbol"], DAYS[3], 5).height == 1
    assert len(bars.clean_bars(lake, "d", ["symbol"])) == 16


def test_an_undeclared_column_is_an_error_that_names_the_table(lake):
    with pytest.raises(KeyError, match=r"clean\.bars has no column price"):
        bars.clean_bars(lake, "d", ["price"])


def test_types_are_the_declared_ones_also_without_rows(lake):
    for table in (*clean.TABLES, *ml.TABLES, *trading.TABLES, features.BARS, features.INDICATORS, features.LABELS):
        names = table.polars.names()
        key = names[0]
        assert select(lake, table, names, equal(key, "nobody")).schema == table.polars, table.name


def test_what_is_told_of_bars_as_a_whole(lake):
    assert bars.sessions_with_bars(lake, "d", DAYS[2])["session"].sort().to_list() == DAYS[2:]
    assert bars.newest_close(lake, "d", DAYS[0]) == at(DAYS[3], 12)
    assert bars.newest_close(lake, "d", DAYS[3] + timedelta(days=1)) is None
    told = bars.summary(lake).sort("bars")
    assert told.schema == bars.SUMMARY_SCHEMA
    assert told.rows() == [(ODD, 1, at(DAYS[0], 12), at(DAYS[0], 13)), ("d", 16, at(DAYS[3], 11), at(DAYS[3], 12))]
    assert bars.bases(lake, "d", ["A"]).sort("session").select("session", "fetched_at").rows() == [
        (day, at(day, 23)) for day in DAYS
    ]
    assert bars.quarantined_objects(lake, "d", "%/refused/%") == ["d/refused/1.parquet"]
    assert bars.vendor_differences(lake, "d").schema == clean.VENDOR_DIFFERENCES.polars


def test_coverage_by_session_and_symbol(lake):
    found = coverage.coverage(lake, "d", ["session", "symbol"], since=DAYS[1])
    assert found.rows() == [(DAYS[1], "A"), (DAYS[2], "A"), (DAYS[2], "B"), (DAYS[3], "A")]
    last = coverage.last_sessions(lake, "d", ["session", "symbol"], DAYS[3], 2)
    assert last.rows() == [(DAYS[1], "A"), (DAYS[2], "A"), (DAYS[2], "B")]
    assert coverage.coverage(lake, "d", ["symbol"], after_snapshot=lake.snapshot()).is_empty()
    assert len(coverage.coverage(lake, "d", ["symbol"], after_snapshot=0)) == 5


def test_holes_are_summed_by_cause(lake):
    found = coverage.holes(lake, "d", DAYS[0], DAYS[3])
    assert found.schema == coverage.HOLES_SCHEMA
    assert found.rows() == [("A", "outage", 2, 3), ("B", "no_trade", 1, 4)]
    assert coverage.holes(lake, "d", None, None).rows()[0] == ("A", "outage", 3, 6)
    lacking = coverage.lacking(lake, "d", ["outage"], DAYS[2]).sort("session", "symbol")
    assert lacking.select("symbol", "lacking").rows() == [("A", 120.0), ("B", None), ("A", 180.0)]
    told = coverage.summary(lake).sort("missing_bars")
    assert told.rows() == [(ODD, 1, 1, 1), ("d", 4, 4, 10)] and told.schema == coverage.SUMMARY_SCHEMA
    of_a = coverage.holes_by_cause(lake, "d", ["A"], DAYS[3])
    assert of_a.rows() == [("outage", 3, 2, DAYS[1], DAYS[2], "A")] and of_a.schema == coverage.HOLES_BY_CAUSE_SCHEMA
    causes = coverage.missing_by_cause(lake).sort("bars")
    assert causes.rows() == [(ODD, "unknown", 1), ("d", "no_trade", 4), ("d", "outage", 6)]


def test_split_factors_by_time_and_dividends_alone(lake):
    assert actions.split_factors(lake, "d", ["since", "shares"]).rows() == [(DAYS[0], 2.0), (DAYS[2], 4.0)]
    assert actions.dividends(lake, "d").rows() == [("A", DAYS[1], 2.0)]


def test_usable_bars_of_one_interval_by_symbol_and_time(lake):
    def read(incomplete):
        columns, symbols = ["symbol", "session"], ["A", "B"]
        found = feature_tables.usable_bars(
            lake, "d", "1h", columns, incomplete=incomplete, since=DAYS[1], symbols=symbols
        )
        return found.rows()

    # No price on the second day, incomplete on the third.
    assert read(True) == [("A", DAYS[2]), ("A", DAYS[3]), ("B", DAYS[2]), ("B", DAYS[3])]
    assert read(False) == [("A", DAYS[3]), ("B", DAYS[3])]


def test_indicators_and_labels_by_what_was_known(lake):
    found = feature_tables.indicators(lake, "d", "1d", ["session", "history_bars"], before=DAYS[2])
    assert found.rows() == [(DAYS[0], 7)]
    assert found.schema == features.INDICATORS.schema(["session", "history_bars"])
    known = feature_tables.labels(lake, "d", "1d", 2, ["session", "label"], known_before=DAYS[3])
    assert known["session"].to_list() == [DAYS[0]]
    trainable = feature_tables.trainable_sessions(lake, "d", "1d", 1, ["sma_200"], symbols=["A"])
    assert trainable.schema == feature_tables.TRAINABLE_SCHEMA
    assert trainable["session"].sort().to_list() == DAYS[2:]
    assert feature_tables.trainable_sessions(lake, "d", "1d", 3, ["sma_200"], symbols=["A"]).is_empty()
    counts = feature_tables.counts(lake, features.LABELS, "d", since=DAYS[1], before=DAYS[3]).sort("session")
    assert counts.rows() == [(DAYS[1], 1, 1), (DAYS[2], 2, 1)]


def test_predictions_and_what_is_told_of_them(lake):
    found = predictions.predictions(lake, "s", ["session", "score"], since=DAYS[1], before=DAYS[2])
    assert found.rows() == [(DAYS[1], 0.6)]
    assert predictions.scores(lake, "s", before=DAYS[1]).columns == ["symbol", "open_time", "score"]
    assert predictions.first_predicted(lake, "s") == DAYS[0]
    assert predictions.predicted_through(lake, "s", DAYS[2]).date() == DAYS[1]
    assert predictions.predicted_through(lake, "nobody", DAYS[2]) is predictions.first_predicted(lake, "nobody") is None


def test_the_account_with_what_became_of_each_session_s_orders(lake):
    assert trading_tables.equity(lake, "s", ["session"], since=DAYS[1])["session"].to_list() == DAYS[1:]
    counts = trading_tables.session_counts(lake, "s", since=DAYS[0], before=DAYS[2])
    assert counts.schema == trading_tables.COUNTS_SCHEMA
    assert counts.rows() == [(DAYS[0], 100.0, 0.0, 0, 0, 0, 0), (DAYS[1], 101.0, 1.0, 3, 1, 1, 1)]


def test_an_account_that_does_not_add_up_is_told_by_session(lake):
    apart = trading_tables.account_differences(lake, "s")
    assert apart.schema == trading_tables.DIFFERENCES_SCHEMA
    # Nothing is held on the third day, and too much on the fourth.
    assert apart.rows() == [(DAYS[2], 102.0, 50.0, 0.0), (DAYS[3], 103.0, 50.0, 60.0)]


def test_files_are_counted_by_table(lake):
    found = files.table_files(lake)
    assert found.schema == files.FILES_SCHEMA and "clean.bars" in found["table"].to_list()


def test_no_session_limit_is_no_condition():
    assert sessions(None, None) is None

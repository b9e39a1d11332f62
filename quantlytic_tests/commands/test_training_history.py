"""What a strategy is told whose model has too little history: how much there is, what lacks, and what would help."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import numpy as np
import polars as pl
import pytest
import yaml
from rich.console import Console

from quantlytic_assets.calendars.sessions import expected_bars
from quantlytic_assets.commands.backfill import Backfill
from quantlytic_assets.commands.installation import Installation
from quantlytic_assets.commands.training_history import training_sessions
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_tests.storage.places import close_all

FIRST, LAST, STEP = date(2025, 1, 1), date(2025, 2, 10), "2025-02-01"
UNIVERSE = {
    "datasets": {
        "hourly": {
            "calendar": "24/7",
            "interval": "1h",
            "first_session": FIRST,
            "last_session": LAST,
            "vendors": [],
            "symbols": ["AAA"],
        }
    },
    "strategies": {
        "young": {
            "dataset": "hourly",
            "interval": "1h",
            "model": "logistic_regression",
            "retrain": "monthly",
            "min_train_sessions": 22,
            "embargo_sessions": 0,
        }
    },
}


def hours(begin: datetime) -> pl.DataFrame:
    """Raw bars of AAA from `begin` on."""
    grid = expected_bars("24/7", "1h", FIRST, LAST).filter(pl.col("open_time") >= begin)
    close = 100 * np.exp(np.cumsum(np.random.default_rng(3).normal(0, 0.01, len(grid))))
    values = {"symbol": "AAA", "vendor": "file", "adjustment": "none", "volume": 1.0, "vwap": None, "trade_count": None}
    return grid.with_columns(
        *(pl.lit(value).alias(name) for name, value in values.items()),
        pl.Series("open", close),
        pl.Series("high", close * 1.001),
        pl.Series("low", close * 0.999),
        pl.Series("close", close),
        (pl.col("close_time") + timedelta(minutes=1)).alias("fetched_at"),
    ).select(pl.col(name).cast(kind) for name, kind in RAW_SCHEMA.items())


@pytest.fixture
def installation(tmp_path, monkeypatch):
    path = tmp_path / "universe.yaml"
    path.write_text(yaml.safe_dump(UNIVERSE))
    monkeypatch.setenv("QUANTLYTIC_UNIVERSE", str(path))
    monkeypatch.setenv("QUANTLYTIC_HOME", str(tmp_path / "home"))
    # The environment of dbt is set by the run.
    monkeypatch.setattr(os, "environ", os.environ.copy())
    made = Installation()
    with dg.DagsterInstance.ephemeral() as instance:
        made.__dict__["instance"] = instance
        yield made
    close_all()


def backfilled(installation: Installation, begin: datetime, first: date = FIRST) -> tuple[Backfill, io.StringIO]:
    dataset = installation.dataset("hourly")
    lander = installation.resources.lander(dataset)
    lander.publish(hours(begin))
    lander.land()
    said = io.StringIO()
    backfill = Backfill(installation, Console(file=said, width=60))
    backfill.dataset(dataset, first=first)
    assert backfill.outcome.failures == []
    return backfill, said


def test_a_partial_first_session_is_no_reason_to_have_no_model(installation):
    backfilled(installation, datetime(2025, 1, 1, 12, tzinfo=UTC))
    lake, dataset = installation.resources.lake, installation.dataset("hourly")
    strategy = installation.universe.strategies["young"]
    assert training_sessions(lake, dataset, strategy, [STEP]) == {STEP: 23}
    # Features that are defined early are not judged by those that are not used.
    early = replace(strategy, features=("ret_1", "rsi_14"), embargo_sessions=5)
    assert training_sessions(lake, dataset, early, [STEP]) == {STEP: 26}


def test_what_is_missing_is_said_with_the_command_that_would_help(installation):
    backfill, said = backfilled(installation, datetime(2025, 1, 5, 12, tzinfo=UTC), first=date(2025, 1, 3))
    backfill.strategy(installation.universe.strategies["young"])
    assert said.getvalue().strip().splitlines() == [
        "young: too few training sessions for a model of 2025-02-01 (19 of 22)",
        "  features of 2 partitions, 2025-01-01 to 2025-01-02, are not materialized; run: quantlytic backfill hourly "
        "--from 2025-01-01 --to 2025-01-02",
        "  60 bars of hourly are missing in 3 sessions, 2025-01-03 to 2025-01-05 (unknown); run: quantlytic import "
        "PATH --dataset hourly --symbol AAA",
        "  the first session to learn from is 2025-01-13: not all features of the strategy are defined before",
        "  or set strategies.young.min_train_sessions to 19 or less",
    ]

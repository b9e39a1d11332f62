"""`quantlytic replay`: sessions that the universe leaves for it are asked of nobody, and it says what it published."""

import io
from datetime import UTC, date, datetime

import polars as pl
import pytest
import yaml
from rich.console import Console

from quantlytic_assets.commands.installation import Installation
from quantlytic_assets.commands.replay import run_replay
from quantlytic_assets.services.gaps import DECISIONS, decide

FIRST, LEFT, LAST = date(2025, 5, 28), date(2025, 5, 30), date(2025, 5, 31)
UNIVERSE = {
    "datasets": {
        "crypto_1m": {
            "calendar": "24/7", "interval": "1m", "first_session": FIRST, "last_session": LAST, "vendors": ["sample"],
            "replay_from": LEFT, "symbols": ["BTC-USD", "ETH-USD"],
        }
    }
}  # fmt: skip
SESSION = 2 * 1440


@pytest.fixture
def installation(tmp_path, monkeypatch):
    path = tmp_path / "universe.yaml"
    path.write_text(yaml.safe_dump(UNIVERSE))
    monkeypatch.setenv("QUANTLYTIC_UNIVERSE", str(path))
    monkeypatch.setenv("QUANTLYTIC_HOME", str(tmp_path / "home"))
    return Installation()


@pytest.fixture
def ingest(installation):
    return installation.resources.ingest(installation.dataset("crypto_1m"))


def archived(installation):
    archive = installation.resources.archive
    rows = archive.read(archive.objects("crypto_1m"))
    days = rows.group_by(pl.col("open_time").dt.date().alias("day"), "vendor").len()
    return {(day, vendor): count for day, vendor, count in days.iter_rows()}


def replay(installation, speed, first=None, last=None):
    out = io.StringIO()
    run_replay(installation, Console(file=out, width=200), "crypto_1m", speed, first, last)
    return out.getvalue()


def test_vendors_are_not_asked_for_what_is_left_for_a_replay_unless_they_must(installation, ingest):
    need = ingest.need(FIRST, LAST)
    # All of it is expected, so that coverage tells the truth.
    assert len(need.expected) == 4 * SESSION
    assert len(need.missing) == 2 * SESSION and need.missing["session"].max() < LEFT
    ingest.fill(need)
    assert archived(installation) == {(FIRST, "sample"): SESSION, (date(2025, 5, 29), "sample"): SESSION}
    assert ingest.need(FIRST, LAST).missing.is_empty()
    assert len(ingest.need(LEFT, LAST, force=True).missing) == 2 * SESSION


def test_the_gap_sensor_leaves_it_alone_and_gaps_says_what_brings_it(installation):
    decided = decide(installation.resources, installation.dataset("crypto_1m"), datetime.now(UTC))
    by_session = dict(decided.select("session", "decision").unique().iter_rows())
    assert by_session == {FIRST: "ask", date(2025, 5, 29): "ask", LEFT: "replay", LAST: "replay"}
    assert "`quantlytic replay {dataset}`" in DECISIONS["replay"]


def test_a_replay_publishes_what_is_left_and_says_so(installation):
    said = replay(installation, speed=1e9)
    assert "replaying 2025-05-30 00:01 to 2025-06-01 00:00 UTC" in said
    assert f"{2 * SESSION} bars of 2 symbols, 2025-05-30 00:01 to 2025-06-01 00:00 UTC" in said
    assert "crypto_1m_bus_sensor lands them" in said
    installation.resources.lander(installation.dataset("crypto_1m")).land()
    assert archived(installation) == {(LEFT, "replay"): SESSION, (LAST, "replay"): SESSION}


def test_a_replay_that_is_interrupted_says_what_it_had_published(installation, monkeypatch):
    lander = installation.resources.lander(installation.dataset("crypto_1m"))
    batches = []

    def publish(bars):
        if batches:
            raise KeyboardInterrupt
        batches.append(bars)

    monkeypatch.setattr(type(lander), "publish", lambda self, bars: publish(bars))
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        run_replay(installation, Console(file=out, width=200), "crypto_1m", 100_000.0, LEFT, LEFT)
    assert f"{len(batches[0])} bars of 2 symbols, 2025-05-30 00:01 to" in out.getvalue()


def test_without_sessions_left_for_it_the_last_one_is_played(tmp_path, monkeypatch):
    plain = {name: value for name, value in UNIVERSE["datasets"]["crypto_1m"].items() if name != "replay_from"}
    path = tmp_path / "universe.yaml"
    path.write_text(yaml.safe_dump({"datasets": {"crypto_1m": plain}}))
    monkeypatch.setenv("QUANTLYTIC_UNIVERSE", str(path))
    monkeypatch.setenv("QUANTLYTIC_HOME", str(tmp_path / "home"))
    assert "replaying 2025-05-31 00:01 to 2025-06-01 00:00 UTC" in replay(Installation(), speed=1e9)

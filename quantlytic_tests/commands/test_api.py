"""`quantlytic keys`, `publish` and `bench-queries` on a small installation, as people run them."""

from __future__ import annotations

import io
import json
import socket

import pytest
from rich.console import Console

from quantlytic_assets.commands.bench_queries import questions, run_bench
from quantlytic_assets.commands.installation import Installation, UsageError
from quantlytic_assets.commands.keys import add_key, list_keys, make_token, revoke_key
from quantlytic_assets.commands.publishing import run_publish
from quantlytic_assets.universe.loading import load_universe
from quantlytic_tests.api.desk import Desk, make_desk, serving


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return make_desk(tmp_path_factory.mktemp("commands"), minutes=2, published=False)


@pytest.fixture
def installation(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Installation:
    monkeypatch.setenv("QUANTLYTIC_HOME", str(desk.chosen.data))
    monkeypatch.setenv("QUANTLYTIC_UNIVERSE", str(desk.chosen.universe))
    monkeypatch.setenv("QUANTLYTIC_API_PORT", str(free_port()))
    monkeypatch.setenv("QUANTLYTIC_API_SECRET", "s" * 40)
    return Installation()


def said(command, installation: Installation, *arguments) -> str:
    out = io.StringIO()
    command(installation, Console(file=out, width=300), *arguments)
    return out.getvalue()


def test_a_key_is_made_listed_and_revoked(installation: Installation, capsys: pytest.CaptureFixture):
    made = said(add_key, installation, "desk", "market:read,trading:read", 30, "5/second", 100)
    key = next(line for line in made.splitlines() if line.startswith("ql_"))
    number = key.split("_")[1]
    assert "shown once" in made and number in said(list_keys, installation, False)
    said(list_keys, installation, True)
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["state"], row["rate"], row["daily_quota"], row["scopes"]) == (
        "valid", "5/second", 100, ["market:read", "trading:read"],
    )  # fmt: skip
    assert key not in json.dumps(row)
    token = said(make_token, installation, number, "market:read", 5).strip()
    with serving(installation.resources) as api:
        assert api.get("/prices/BTC-USX", authorization=f"Bearer {token}").status in (404, 503)
        assert api.get("/orders", authorization=f"Bearer {token}").status == 403
    assert "revoked; it opens nothing" in said(revoke_key, installation, key)
    assert "was revoked before" in said(revoke_key, installation, number)
    with pytest.raises(UsageError, match="no valid key"):
        said(make_token, installation, number, "", 5)


@pytest.mark.parametrize(
    ("command", "arguments", "says"),
    [
        (add_key, ("x", "market:write", None, None, None), "market:read, trading:read, admin"),
        (add_key, ("x", "admin", None, "often", None), "100/second"),
        (revoke_key, ("nobody",), "there is no key nobody"),
        (make_token, ("nobody", "", 5), "no valid key"),
    ],
)
def test_what_makes_no_sense_is_told(installation: Installation, command, arguments, says: str):
    with pytest.raises(UsageError, match=says):
        said(command, installation, *arguments)


def test_a_dataset_is_published_by_name(installation: Installation):
    told = said(run_publish, installation, "stocks_5m")
    assert "stocks_5m: 390 rows read" in told and "crypto_1m" not in told
    with pytest.raises(UsageError, match="no dataset"):
        run_publish(installation, Console(file=io.StringIO()), "stocks")


def test_questions_are_the_same_ones_each_time_and_of_all_routes(desk: Desk):
    universe = load_universe(desk.chosen.universe)
    asked = questions(universe, 1000)
    assert asked == questions(universe, 1000)
    assert len({one.route for one in asked}) == 12


def test_questions_are_asked_and_timed_and_the_api_is_started_for_it(
    installation: Installation, capsys: pytest.CaptureFixture
):
    run_bench(installation, Console(file=io.StringIO()), 150, 4, None, True)
    told = json.loads(capsys.readouterr().out)
    assert told["failed"] == 0 and told["routes"][-1]["requests"] == 150
    assert all(row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] for row in told["routes"])
    # Nobody listens any more.
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", installation.settings.api_port)) != 0

"""`quantlytic halt` and `resume`: what they say, what they refuse, and how the accounts stand afterwards."""

from __future__ import annotations

import json

import pytest
import yaml
from typer.testing import CliRunner

from quantlytic_assets import cli
from quantlytic_assets.commands.installation import CommandError, Installation, UsageError

DATASET = {"calendar": "XNYS", "interval": "1d", "first_session": "2011-01-03", "vendors": [], "symbols": ["AAPL"]}
STRATEGY = {"dataset": "daily", "interval": "1d"}
UNIVERSE = {
    "datasets": {"daily": DATASET},
    "strategies": {
        "cross": STRATEGY | {"rule": "ma_cross"},
        "hold": STRATEGY | {"rule": "buy_and_hold"},
        "model": STRATEGY | {"model": "logistic_regression", "min_train_sessions": 100},
    },
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The command in this process, on an installation that has traded nothing."""
    (tmp_path / "universe.yaml").write_text(yaml.safe_dump(UNIVERSE))
    monkeypatch.setenv("QUANTLYTIC_UNIVERSE", str(tmp_path / "universe.yaml"))
    monkeypatch.setenv("QUANTLYTIC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOGNAME", "anna")
    monkeypatch.setattr(cli, "_installation", Installation())

    def command(*arguments: str) -> str:
        done = CliRunner().invoke(cli.app, arguments)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return " ".join(done.output.split())

    # Its output goes where the runner looks.
    monkeypatch.setattr(cli, "out", cli.Console(width=1000))
    return command


def test_a_strategy_is_halted_before_it_has_traded_and_resumed(run):
    assert "cross" in run("halt") and "has not traded yet" in run("halt")
    said = run("halt", "cross", "--reason", "a  strange\nquote", "--keep")
    assert said.startswith("cross: halted, as anna asked at ") and "a strange quote; takes effect with the next" in said
    assert "is kept, with its stops" in said and "`quantlytic resume cross` lets it go on" in said
    listed = {row["strategy"]: row for row in json.loads(run("halt", "--json"))}
    assert list(listed) == ["cross", "hold", "model"] and listed["hold"]["halted"] is None
    own = listed["cross"]
    assert (own["halted"], own["requested_by"], own["reason"], own["takes_effect_with_next_bar"]) == (
        "by_hand", "anna", "a strange quote", True,
    )  # fmt: skip
    status = run("status")
    assert "cross: halted, as anna asked" in status and "hold" not in status
    assert run("resume", "cross").startswith("cross: trading again, as anna asked at ")
    assert "halted" not in run("status")


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (("halt", "cros"), UsageError, "no strategy 'cros' in .*; did you mean 'cross'"),
        (("resume", "nothing_like_it"), UsageError, "take one of cross, hold, model"),
        (("halt", "--keep"), UsageError, "say which strategy is to be halted"),
        (("halt", "cross", "--json"), UsageError, "--json goes with the list"),
        (("resume", "cross"), CommandError, "cross is not halted, so there is nothing to resume"),
    ],
)
def test_what_makes_no_sense_says_why_and_is_not_kept(run, arguments, error, said):
    with pytest.raises(error, match=said) as raised:
        run(*arguments)
    assert type(raised.value) is error
    assert cli._installation.resources.accounts.requests() == []

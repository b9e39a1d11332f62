"""What CI says of tests that fail once."""

import subprocess
import sys

import pytest

from quantlytic_tests.flaky import MOST, flaky, last_failed, main

SUITE = """
from pathlib import Path

def test_fails_the_first_time():
    seen = Path("seen")
    first = not seen.exists()
    seen.touch()
    assert not first

def test_always_fails():
    assert False

def test_passes():
    assert True
"""


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """A directory with a suite of three tests, one of them flaky."""
    (tmp_path / "test_suite.py").write_text(SUITE)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", *arguments]
        return subprocess.run(command, capture_output=True, text=True).returncode

    return run


def test_a_test_that_passes_when_repeated_is_flaky_and_one_that_fails_again_is_not(suite, capsys):
    assert suite() == 1
    assert main(["failed"]) == 0
    failed = capsys.readouterr().out
    assert failed.split() == ["test_suite.py::test_always_fails", "test_suite.py::test_fails_the_first_time"]
    assert suite("--last-failed") == 1
    main(["compare", failed])
    told = capsys.readouterr().out
    assert "test_fails_the_first_time" in told and "test_always_fails" not in told


def test_nothing_is_said_where_all_passed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert last_failed() == []
    main(["failed"])
    assert capsys.readouterr().out.strip() == ""


def test_a_file_that_cannot_be_collected_again_is_not_flaky():
    assert flaky(["a.py::test_one", "b.py::test_two"], ["a.py"]) == ["b.py::test_two"]


def test_many_failures_are_not_repeated(tmp_path, monkeypatch, capsys):
    cache = tmp_path / ".pytest_cache" / "v" / "cache"
    cache.mkdir(parents=True)
    (cache / "lastfailed").write_text("{" + ",".join(f'"test_{i}": true' for i in range(MOST + 1)) + "}")
    monkeypatch.chdir(tmp_path)
    main(["failed"])
    assert capsys.readouterr().out.strip() == ""

"""A forked program can't be told from a started one by what it is given, how it ends and what ends it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from quantlytic_assets import settings


def python(code: str, *arguments: str, **options) -> subprocess.Popen:
    command = [settings.PROGRAMS / "python", "-c", code, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_it_has_the_arguments_environment_directory_and_streams_of_its_start(tmp_path):
    code = "import os, sys; print(sys.argv[1:], dict(os.environ), os.getcwd(), input()); print('so', file=sys.stderr)"
    running = python(code, "one", "ä", env={"LC_ALL": "C.UTF-8"}, cwd=tmp_path, stdin=subprocess.PIPE)
    assert running.communicate("in\n") == (f"['one', 'ä'] {{'LC_ALL': 'C.UTF-8'}} {tmp_path} in\n", "so\n")


@pytest.mark.parametrize(
    ("code", "ending", "said"),
    [
        ("pass", 0, ""),
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit('wrong')", 1, "wrong\n"),
        ("raise ValueError('no')", 1, "ValueError: no\n"),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL, ""),
    ],
)
def test_its_end_is_the_end_of_what_was_started(code, ending, said):
    running = python(code)
    _, errors = running.communicate()
    assert (running.returncode, errors.endswith(said)) == (ending, True)


def test_what_is_done_at_the_exit_is_done():
    code = "import atexit, threading\natexit.register(print, 'last')\nthreading.Timer(0.1, print, ['first']).start()"
    assert python(code).communicate()[0] == "first\nlast\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_it(number):
    code = f"import signal\nsignal.signal({number:d}, lambda *_: exit(7))\nprint('ready', flush=True)\nsignal.pause()"
    running = python(code)
    assert running.stdout.readline() == "ready\n"
    running.send_signal(number)
    running.communicate()
    assert running.returncode == 7


def test_killed_it_ends_with_all_that_it_has_started():
    # The streams end when nobody has them open any more.
    # It waits for nobody: at the end of its input it would begin to say so before it is killed.
    code = "import subprocess, time; subprocess.Popen(['sleep', '600']); print('ready', flush=True); time.sleep(600)"
    running = python(code, stdin=subprocess.PIPE, start_new_session=True)
    assert running.stdout.readline() == "ready\n"
    os.killpg(running.pid, signal.SIGKILL)
    assert running.communicate() == ("", "")
    assert running.returncode == -signal.SIGKILL


def test_files_that_are_left_open_for_it_have_their_numbers():
    reading, writing = os.pipe()
    other, _ = os.pipe()
    code = "import os, sys; os.write(int(sys.argv[1]), b'told'); os.fstat(int(sys.argv[2]))"
    running = python(code, str(writing), str(other), pass_fds=[writing, other])
    assert (running.communicate(), running.returncode) == (("", ""), 0)
    os.close(writing)
    assert (os.read(reading, 9), os.read(reading, 9)) == (b"told", b"")
    assert "Bad file descriptor" in python(code, str(other), str(other)).communicate()[1]


def test_a_module_is_run_as_python_runs_it():
    command = [settings.PROGRAMS / "python", "-u", "-m", "platform", "terse"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("Linux-")


def test_what_it_starts_is_forked_too_and_anything_unusual_is_left_to_a_new_interpreter():
    code = (
        "import subprocess, sys; at = sys.argv[1:]\n"
        "print(subprocess.run([sys.executable, *at], capture_output=True, text=True).stdout)"
    )
    loaded = "import sys; print('dbt.cli.main' in sys.modules)"
    assert python(code, "-c", loaded).communicate()[0].strip() == "True"
    assert python(code, "-I", "-c", loaded).communicate()[0].strip() == "False"


def test_dbt_and_the_command_are_there(tmp_path: Path):
    for name, said in (("dbt", "Core:"), ("quantlytic", "quantlytic ")):
        done = subprocess.run([settings.PROGRAMS / name, "--version"], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0 and said in done.stdout

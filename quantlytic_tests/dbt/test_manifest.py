"""What dbt makes of the project is there whole, or not at all, for all that start at the same moment."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from quantlytic_assets import settings
from quantlytic_assets.assets import features

_START = """
import sys
from pathlib import Path
from quantlytic_assets.assets import features
features.DBT_PROJECT = Path(sys.argv[1])
manifest = features.dbt_manifest()
print(manifest["metadata"]["invocation_id"], len(manifest["nodes"]))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the dbt project that was never parsed."""
    return shutil.copytree(
        features.DBT_PROJECT, tmp_path / "dbt_project", ignore=shutil.ignore_patterns("target", "logs")
    )


def start(project: Path) -> subprocess.Popen:
    """A process that wants the manifest, and says which dbt run made it and how many nodes it has."""
    return subprocess.Popen(
        [str(settings.PROGRAMS / "python"), "-c", _START, str(project)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def found(process: subprocess.Popen) -> tuple[str, int]:
    """What a process found, which must end well."""
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    made_by, nodes = out.split()
    return made_by, int(nodes)


def test_processes_that_start_together_parse_once_and_all_find_a_whole_manifest(project):
    assert len({found(process) for process in [start(project) for _ in range(4)]}) == 1


def test_one_that_is_killed_while_dbt_writes_leaves_no_half_manifest(project):
    killed = start(project)
    deadline = time.monotonic() + 120
    while not list(project.glob("target/**/manifest.json")):
        assert killed.poll() is None and time.monotonic() < deadline
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert found(start(project))[1] > 0


def test_a_changed_file_makes_the_next_one_parse_anew(project):
    before = found(start(project))
    model = project / "models" / "features" / "one_more.sql"
    model.write_text("SELECT 1 AS one")
    newer = (project / "target" / "manifest.json").stat().st_mtime + 1
    os.utime(model, (newer, newer))
    after = found(start(project))
    assert after[0] != before[0] and after[1] == before[1] + 1


def test_the_docs_open_with_a_page_that_names_tables_there_are():
    manifest = features.dbt_manifest()
    overview = manifest["docs"]["doc.quantlytic.__overview__"]["block_contents"]
    tables = set(features.feature_models(manifest).values())
    tables |= {f"{source['schema']}.{source['name']}" for source in manifest["sources"].values()}
    named = set(re.findall(r"\b(?:clean|features)\.[a-z_]+", overview))
    assert {"clean.bars", "clean.coverage", "features.adjusted_bars"} <= named <= tables
    assert "quantlytic sql" in overview

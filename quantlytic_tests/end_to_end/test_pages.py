"""The pages of an installation: each address, what is no address, and that looking changes nothing."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from quantlytic_assets import settings
from quantlytic_tests.end_to_end.browser import wait_for
from quantlytic_tests.end_to_end.installations import COMMAND, Installed

PNG = b"\x89PNG\r\n\x1a\n"
SESSION, MONTH, STEP = "2025-07-03", "2018-02-01", "2018-01-01"

PAGES = {
    "/": ["equities_5m", "momentum_1d"],
    "/datasets/equities_5m": [SESSION, "coverage.png"],
    f"/datasets/equities_5m/{SESSION}": ["AAPL", "bars.png", "features.png", "labels.png"],
    f"/datasets/equities_5m/{SESSION}?symbol=SPY": ["interval=1h", "interval=5m"],
    f"/datasets/equities_1d/{MONTH}": ["MSFT"],
    "/strategies/momentum_1d": ["buy and hold", MONTH, "evaluation.png", "/mlflow/models/momentum_1d/"],
    "/strategies/momentum_1d/report": ["/strategies/momentum_1d"],
}
CHARTS = [
    "/datasets/equities_5m/coverage.png",
    *(f"/datasets/equities_5m/{SESSION}/{name}.png" for name in ("bars", "coverage", "features", "labels")),
    *(f"/datasets/equities_1d/{MONTH}/{name}.png" for name in ("bars", "coverage", "features", "labels")),
    *(f"/datasets/equities_1d/{MONTH}/families/{name}.png" for name in ("trend", "momentum", "volatility")),
    "/strategies/momentum_1d/equity.png",
    *(f"/strategies/momentum_1d/{MONTH}/{name}.png" for name in ("predictions", "trades")),
    f"/strategies/momentum_1d/models/{STEP}/evaluation.png",
]
UNKNOWN = {
    "/nothing": "no such page",
    "/datasets/nobody": "equities_5m",
    "/datasets/equities_5m/2025-07-04": "has no session 2025-07-04",
    "/datasets/equities_5m/2025-13-01": "no partition key",
    "/datasets/equities_5m/2031-01-02/bars.png": "2025-07-08",
    "/datasets/equities_1d/2018-02-02": "has no month 2018-02-02",
    f"/datasets/equities_5m/{SESSION}?symbol=NOBODY": "NOBODY",
    f"/datasets/equities_5m/{SESSION}/bars.png?symbol=NOBODY": "NOBODY",
    f"/datasets/equities_5m/{SESSION}/features.png?interval=3m": "5m, 1h",
    "/strategies/nobody": "momentum_1d",
    "/strategies/nobody/report": "momentum_1d",
    "/strategies/momentum_1d/models/1999-01-01/evaluation.png": "materialize its model partition 1999-01-01",
    "/mlflow/models/momentum_1d/newest": "no model version",
    "/datasets/..%2f..%2funiverse.yaml": "no such page",
    "/datasets/%3Cscript%3E": "&lt;script&gt;",
}


@dataclass(frozen=True)
class Answer:
    """What a browser got."""

    status: int
    type: str
    body: bytes
    location: str | None

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass(frozen=True)
class Site:
    """The pages on a port of 127.0.0.1."""

    port: int

    def get(self, path: str, host: str | None = None, method: str = "GET") -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            connection.request(method, path, headers={"host": host or f"127.0.0.1:{self.port}"})
            response = connection.getresponse()
            location = response.getheader("location")
            return Answer(response.status, response.getheader("content-type", ""), response.read(), location)
        finally:
            connection.close()

    def answers(self) -> bool:
        try:
            return self.get("/healthz").status == 200
        except OSError:
            return False


@pytest.fixture(scope="module")
def site(base: Installed) -> Iterator[Site]:
    """`quantlytic pages` on a free port, ended as a supervisor ends it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serving = base.start("pages", "--port", str(port))
    pages = Site(port)
    try:
        wait_for(lambda: serving.poll() is not None or pages.answers())
        assert serving.poll() is None, serving.communicate()
        yield pages
    finally:
        os.kill(serving.pid, signal.SIGTERM)
        try:
            serving.communicate(timeout=60)
        finally:
            if serving.poll() is None:
                os.killpg(serving.pid, signal.SIGKILL)
                serving.communicate()


@pytest.mark.parametrize("path", PAGES)
def test_a_page_shows_what_it_is_of(site: Site, path: str):
    answer = site.get(path)
    assert answer.status == 200 and answer.type.startswith("text/html")
    for text in PAGES[path]:
        assert text in answer.text, text


@pytest.mark.parametrize("path", CHARTS)
def test_a_chart_is_drawn(site: Site, path: str):
    answer = site.get(path)
    assert answer.status == 200 and answer.type == "image/png"
    # A line of text on white would be far smaller.
    assert answer.body.startswith(PNG) and len(answer.body) > 5_000


def test_all_that_pages_link_to_is_there(site: Site):
    seen, left = set(), ["/"]
    while left:
        page = site.get(left.pop())
        for found in re.findall(r'(?:href|src)="(/[^"]*)"', page.text):
            address = found.replace("&amp;", "&")
            # The docs are not built here, and MLflow has a test of its own.
            if address in seen or address.startswith(("/docs", "/mlflow")):
                continue
            seen.add(address)
            if address.partition("?")[0].endswith(".png"):
                continue
            if len(re.findall(r"/\d{4}-\d{2}-\d{2}", address)) == 0 or address.endswith((SESSION, MONTH)):
                left.append(address)
    assert {"/datasets/equities_5m", f"/datasets/equities_5m/{SESSION}", "/strategies/momentum_1d/report"} <= seen
    of_one = [address for address in seen if f"/equities_5m/{SESSION}" in address and ".png" in address]
    assert len(of_one) >= 6
    assert [address for address in of_one if site.get(address).status != 200] == []


def test_charts_are_of_the_symbol_and_partition_asked_for(site: Site):
    address = "/datasets/equities_5m/{}/bars.png?symbol={}"
    asked = [(SESSION, "AAPL"), (SESSION, "SPY"), ("2025-07-07", "AAPL")]
    assert len({site.get(address.format(*one)).body for one in asked}) == 3


@pytest.mark.parametrize("path", UNKNOWN)
def test_what_is_not_there_is_a_page_that_says_so(site: Site, path: str):
    answer = site.get(path)
    assert answer.status == 404 and answer.type.startswith("text/html")
    assert UNKNOWN[path] in answer.text
    assert "Traceback" not in answer.text and "<script" not in answer.text


def test_nothing_outside_of_the_docs_is_served(base: Installed, site: Site):
    docs = base.home / "dbt" / "docs"
    docs.mkdir(parents=True, exist_ok=True)
    # Another module's test may have built them.
    built = (docs / "index.html").exists()
    if not built:
        (docs / "index.html").write_text("<html>the docs</html>")
    try:
        assert site.get("/docs/").body == (docs / "index.html").read_bytes()
        secret = Path(base.universe_path).read_text()
        for path in (
            "/docs/../../../universe.yaml",
            "/docs/..%2f..%2f..%2funiverse.yaml",
            "/docs/%2e%2e/%2e%2e/universe.yaml",
            "/docs/" + quote(str(base.universe_path), safe=""),
        ):
            answer = site.get(path)
            assert answer.status in (400, 404) and secret not in answer.text, path
    finally:
        if not built:
            (docs / "index.html").unlink()


def test_only_this_machine_is_answered_and_only_by_reading(site: Site):
    assert site.get("/", host="evil.example").status == 400
    assert site.get("/datasets/equities_5m", method="POST").status == 405


def test_looking_changes_nothing(base: Installed, site: Site):
    before = base.fingerprint("archive", "lake", "state", "mlflow", "dagster")
    for path in (*PAGES, *CHARTS):
        assert site.get(path).status == 200
    assert base.fingerprint("archive", "lake", "state", "mlflow", "dagster") == before


def test_before_anything_is_materialized_pages_say_what_to_run(tmp_path: Path, base: Installed):
    fresh = Installed(tmp_path, base.universe)
    script = (
        "import asyncio, json, sys\n"
        "from quantlytic_assets.pages.app import make_app\n"
        "from quantlytic_assets.resources import make_resources\n"
        "from quantlytic_assets.settings import load_settings\n"
        "app = make_app(make_resources(load_settings()))\n"
        "async def get(path):\n"
        "    said = []\n"
        "    async def receive(): return {'type': 'http.request', 'body': b''}\n"
        "    async def send(message): said.append(message)\n"
        "    scope = {'type': 'http', 'method': 'GET', 'path': path, 'query_string': b'', 'raw_path': path.encode(),\n"
        "             'headers': [(b'host', b'127.0.0.1')], 'http_version': '1.1', 'scheme': 'http'}\n"
        "    await app(scope, receive, send)\n"
        "    return said[0]['status'], b''.join(m.get('body', b'') for m in said[1:]).decode('latin-1')\n"
        "print(json.dumps([asyncio.run(get(path)) for path in sys.argv[1:]]))\n"
    )
    paths = ["/", "/datasets/equities_5m", f"/datasets/equities_5m/{SESSION}"]
    paths += [f"/datasets/equities_5m/{SESSION}/bars.png", "/strategies/momentum_1d", "/strategies/momentum_1d/report"]
    paths += ["/mlflow", "/docs/"]
    done = subprocess.run(
        [str(settings.PROGRAMS / "python"), "-c", script, *paths],
        env=fresh.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = dict(zip(paths, json.loads(done.stdout), strict=True))
    assert [status for status, _ in answers.values()] == [200, 200, 200, 200, 200, 404, 503, 404]
    assert "quantlytic backfill equities_5m" in answers["/datasets/equities_5m"][1]
    assert f"--from {SESSION} --to {SESSION}" in answers[f"/datasets/equities_5m/{SESSION}"][1]
    assert "quantlytic backfill momentum_1d" in answers["/strategies/momentum_1d/report"][1]
    assert "no models yet" in answers["/mlflow"][1]
    assert "quantlytic docs --no-serve" in answers["/docs/"][1]
    made = {path.relative_to(fresh.home).parts[0] for path in fresh.home.rglob("*") if path.is_file()}
    assert made <= {"lake"} and not (fresh.home / "lake" / "catalog.sqlite").exists()


def test_the_way_to_a_model_leads_to_the_mlflow_ui(site: Site):
    path = "/mlflow/models/momentum_1d/1"
    first = site.get(path)
    assert first.status == 202 and "MLflow is starting" in first.text
    led = wait_for(lambda: found if (found := site.get(path)).status == 307 else None)
    port, _, fragment = led.location.removeprefix("http://127.0.0.1:").partition("/")
    assert fragment == "#/models/momentum_1d/versions/1"
    assert Site(int(port)).get("/health").status == 200


def test_another_mlflow_is_linked_where_one_is_named(base: Installed):
    from quantlytic_assets.pages.mlflow_ui import MlflowUi
    from quantlytic_assets.resources import make_resources

    found = MlflowUi(make_resources(base.settings()).models, "http://mlflow.example:5000/", base.root / "unused.log")
    assert found.address() == "http://mlflow.example:5000"
    assert not (base.root / "unused.log").exists()


def test_a_port_that_is_taken_is_told(base: Installed):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [str(COMMAND), "pages", "--port", port], env=base.environment(), capture_output=True, text=True, timeout=300
        )
    assert done.returncode == 1
    assert port in done.stderr and "QUANTLYTIC_PAGES_PORT" in done.stderr


# Runs as sensors launch them, without a training, which keeps its chart with the model.
_LIVE = """
import sys
import dagster as dg
from quantlytic_assets.dagster_internals import range_tags
from quantlytic_assets.definitions import build_definitions
from quantlytic_assets.settings import load_settings

definitions = build_definitions(load_settings())
with dg.DagsterInstance.ephemeral() as instance:
    for job, keys in (
        ("equities_5m_pipeline", ("2025-07-07", "2025-07-08")),
        ("momentum_1d_trading", ("2018-02-01", "2018-02-01")),
        ("momentum_1d_reporting", None),
    ):
        tags = range_tags(*keys) if keys else {}
        assert definitions.resolve_job_def(job).execute_in_process(instance=instance, tags=tags).success, job
print(sorted(name for name in ("matplotlib", "quantstats", "seaborn") if name in sys.modules))
"""


def test_no_live_run_loads_what_draws(base: Installed, tmp_path: Path):
    mine = base.copied_to(tmp_path, with_lake=True)
    done = subprocess.run(
        [sys.executable, "-c", _LIVE],
        env=mine.environment(),
        cwd=mine.root,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "[]"

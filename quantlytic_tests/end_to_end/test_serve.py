"""`quantlytic serve` as a person uses it: a backfill launched in the UI, sensors that bring live bars to the tables.

The real webserver, daemon and code location run; what the browser would send goes over the same GraphQL interface.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from quantlytic_assets.settings import Settings
from quantlytic_tests.end_to_end.browser import Browser, wait_for
from quantlytic_tests.end_to_end.installations import Installed
from quantlytic_tests.end_to_end.universes import CRYPTO_1M, universe

_FEATURES = ("bars", "closes", "trend", "momentum", "volatility", "indicators", "labels")
_ASSETS = ("raw_bars", "clean_bars", "coverage", *_FEATURES)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Two sessions of a symbol, nothing materialized yet."""
    return Installed(tmp_path_factory.mktemp("served"), universe(crypto_1m=CRYPTO_1M))


@dataclass(frozen=True)
class Serving:
    """`quantlytic serve` at work on a port."""

    process: subprocess.Popen
    port: int

    def until_it_says(self, words: str) -> None:
        """Return with the next line that has these words."""
        for line in self.process.stdout:
            if words in line:
                return
        raise AssertionError(f"it has ended without a word of {words!r}: {self.process.communicate()}")


@pytest.fixture(scope="module")
def serving(installed: Installed) -> Iterator[Serving]:
    """`quantlytic serve` on a free port, ended as Ctrl-C ends it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = installed.start("serve", QUANTLYTIC_PORT=str(port))
    try:
        yield Serving(process, port)
    finally:
        os.kill(process.pid, signal.SIGINT)
        try:
            process.communicate(timeout=60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()


@pytest.fixture(scope="module")
def browser(serving: Serving) -> Browser:
    """A browser of the UI, which is there."""
    serving.until_it_says(f"UI: http://127.0.0.1:{serving.port}")
    page = Browser(serving.port)
    page.wait_until_loaded(serving.process)
    return page


def test_a_backfill_launched_in_the_ui_materializes_every_partition(installed: Installed, browser: Browser) -> None:
    keys = ["2025-05-10", "2025-05-11"]
    launched = browser.ask(
        "mutation($params: LaunchBackfillParams!){launchPartitionBackfill(backfillParams: $params){__typename "
        "... on LaunchBackfillSuccess{backfillId} ... on PythonError{message}}}",
        params={
            "partitionNames": keys,
            "assetSelection": [{"path": ["crypto_1m", asset]} for asset in _ASSETS],
        },
    )["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched

    def ended() -> str | None:
        status = browser.ask(
            "query($id: String!){partitionBackfillOrError(backfillId: $id){... on PartitionBackfill{status}}}",
            id=launched["backfillId"],
        )["partitionBackfillOrError"]["status"]
        return status if status.startswith(("COMPLETED", "FAILED", "CANCELED")) else None

    assert wait_for(ended) == "COMPLETED_SUCCESS"
    assert {asset: browser.partitions_of(asset) for asset in _ASSETS} == dict.fromkeys(_ASSETS, 2)
    bars = installed.rows("SELECT session, count(*) AS bars FROM clean.bars GROUP BY ALL ORDER BY session")
    assert bars["bars"].to_list() == [1440, 1440]


def test_with_sensors_on_live_bars_become_rows_of_their_session(installed: Installed, browser: Browser) -> None:
    for sensor in ("crypto_1m_bus_sensor", "crypto_1m_automation"):
        browser.start_sensor(sensor)
    installed.run("replay", "crypto_1m", "--speed", "20000", "--from", "2025-05-11", "--to", "2025-05-11").expect(0)

    def replayed() -> bool:
        rows = installed.rows("SELECT session, vendor, count(*) AS bars FROM clean.bars GROUP BY ALL ORDER BY session")
        return [(str(s), v, n) for s, v, n in rows.rows()] == [
            ("2025-05-10", "sample", 1440),
            ("2025-05-11", "replay", 1440),
        ]

    wait_for(replayed)
    runs = browser.ask("{runsOrError(limit: 20){... on Runs{results{jobName status tags{key value}}}}}")["runsOrError"][
        "results"
    ]
    offsets = [tag["value"] for run in runs for tag in run["tags"] if tag["key"] == "quantlytic/offsets"]
    assert offsets, "no landing run was asked for"
    assert len(set(offsets)) == len(offsets), "a range of offsets was asked for twice"
    assert not [run for run in runs if run["status"] == "FAILURE"]


def test_the_pages_run_beside_the_ui_and_know_its_port(browser: Browser) -> None:
    wait_for(lambda: pages_beside(browser))
    page = pages_beside(browser)
    assert "crypto_1m" in page and browser.url.removesuffix("/graphql") in page


def test_the_api_runs_beside_the_ui_and_the_link_of_each_dataset_leads_to_its_dashboard(
    installed: Installed, browser: Browser
) -> None:
    found = browser.ask(
        "query($key: AssetKeyInput!){assetNodeOrError(assetKey: $key){... on AssetNode{"
        "metadataEntries{label ... on UrlMetadataEntry{url}}}}}",
        key={"path": ["crypto_1m", "clean_bars"]},
    )["assetNodeOrError"]["metadataEntries"]
    (link,) = (entry["url"] for entry in found if entry["label"] == "dashboard")
    address = urllib.parse.urlsplit(link)
    chosen = Settings(port=urllib.parse.urlsplit(browser.url).port, universe=installed.universe_path)
    assert (address.hostname, address.port) == ("127.0.0.1", chosen.api_port)
    assert "dataset=crypto_1m" in address.fragment
    page = wait_for(lambda: answer_of(link))
    assert '<script type="module"' in page
    health = json.loads(wait_for(lambda: answer_of(f"http://{address.netloc}/healthz")))
    assert health["status"] == "ok" and set(health["datasets"]) == {"crypto_1m"}


def test_an_api_whose_port_is_taken_is_left_out(tmp_path: Path) -> None:
    installed = Installed(tmp_path, universe(crypto_1m=CRYPTO_1M))
    with socket.socket() as taken, socket.socket() as probe:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        probe.bind(("127.0.0.1", 0))
        free = str(probe.getsockname()[1])
        probe.close()
        serving = installed.start("serve", QUANTLYTIC_PORT=free, QUANTLYTIC_API_PORT=port)
        try:
            assert serving.stdout is not None
            said = serving.stdout.readline()
        finally:
            os.kill(serving.pid, signal.SIGINT)
            serving.communicate(timeout=60)
    assert f"port {port}" in said and "the API is left out" in said and "QUANTLYTIC_API_PORT" in said


def answer_of(address: str) -> str:
    """What an address answers; empty while nobody does, or not with success."""
    try:
        with urllib.request.urlopen(address, timeout=60) as response:
            return response.read().decode()
    except urllib.error.URLError:
        return ""


def pages_beside(browser: Browser) -> str:
    """The first of the pages, two ports after the UI; empty while they start."""
    return answer_of(f"http://127.0.0.1:{urllib.parse.urlsplit(browser.url).port + 2}/")


def test_a_changed_universe_is_loaded_by_the_running_ui_and_one_with_mistakes_is_not(
    installed: Installed, serving: Serving, browser: Browser
) -> None:
    def datasets() -> set[str]:
        nodes = browser.ask("{assetNodes{assetKey{path}}}")["assetNodes"]
        return {node["assetKey"]["path"][0] for node in nodes if len(node["assetKey"]["path"]) == 2}

    other = {**CRYPTO_1M, "symbols": ["ETH-USD"]}
    installed.declare(universe(crypto_1m=CRYPTO_1M, other_1m={**other, "interval": "7m"}))
    serving.until_it_says("has mistakes")
    assert "datasets.other_1m.interval" in pages_beside(browser)
    assert datasets() == {"crypto_1m"}
    # One that comes and one that goes, in one: to load it takes many seconds.
    installed.declare(universe(other_1m=other))
    serving.until_it_says("the UI has loaded it again")
    assert datasets() == {"other_1m"}


def test_serve_says_that_its_port_is_taken(installed: Installed) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = installed.run("serve", QUANTLYTIC_PORT=port).expect(1)
    assert f"port {port}" in done.err and "QUANTLYTIC_PORT" in done.err

"""What a browser asks of `quantlytic serve`'s webserver, over the same GraphQL interface."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

_PATIENCE = 240
_LOCATION = {"repositoryName": "__repository__", "repositoryLocationName": "quantlytic"}


class Browser:
    """Talks to the webserver on a port of 127.0.0.1."""

    def __init__(self, port: int):
        self.url = f"http://127.0.0.1:{port}/graphql"

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of one GraphQL request; an error in the answer fails the test."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self.url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        return answer["data"]

    def location_loaded(self) -> bool:
        """Whether the code location is there; its error fails the test."""
        try:
            found = self.ask(
                "{workspaceOrError{... on Workspace{locationEntries{loadStatus locationOrLoadError{__typename "
                "... on PythonError{message}}}}}}"
            )["workspaceOrError"]["locationEntries"]
        except (urllib.error.URLError, ConnectionError):
            return False
        loaded = [entry for entry in found if entry["loadStatus"] == "LOADED"]
        assert all(entry["locationOrLoadError"]["__typename"] == "RepositoryLocation" for entry in loaded), loaded
        return bool(loaded)

    def wait_until_loaded(self, serving: subprocess.Popen) -> None:
        """Return when the code location is there; fails with what `serving` said where it ended before."""
        wait_for(lambda: serving.poll() is not None or self.location_loaded())
        assert serving.poll() is None, serving.communicate()

    def start_sensor(self, name: str) -> None:
        """Switch a sensor on."""
        started = self.ask(
            "mutation($s: SensorSelector!){startSensor(sensorSelector: $s){__typename}}",
            s={**_LOCATION, "sensorName": name},
        )
        assert started["startSensor"]["__typename"] == "Sensor", started

    def partitions_of(self, asset: str) -> int:
        """How many partitions of an asset of crypto_1m are materialized."""
        node = self.ask(
            "query($key: AssetKeyInput!){assetNodeOrError(assetKey: $key){... on AssetNode{"
            "partitionStats{numMaterialized}}}}",
            key={"path": ["crypto_1m", asset]},
        )
        return node["assetNodeOrError"]["partitionStats"]["numMaterialized"]


def wait_for(what: Callable[[], Any]) -> Any:
    """What `what` returns, once that is something.

    It is asked once a second: answers cost the processor that what is waited for needs.
    """
    deadline = time.monotonic() + _PATIENCE
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(1)
    return found

"""Keys at the websockets of a running API: what each may subscribe to, and what becomes of one that is revoked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from quantlytic_assets.api.app import make_app
from quantlytic_assets.resources import Resources, make_resources
from quantlytic_assets.settings import Settings
from quantlytic_tests.push.desk import ask, serving, told
from quantlytic_tests.push.test_alpaca import UNIVERSE


@pytest.fixture
def resources(tmp_path: Path) -> Resources:
    (tmp_path / "universe.yaml").write_text(UNIVERSE)
    made = make_resources(Settings(universe=tmp_path / "universe.yaml", home=tmp_path, api_auth="on"))
    with made.hot.write() as to:
        for name in ("crypto_1m", "equities_1m", "equities_1d"):
            to.put_fact(b"{}", "dataset", name)
    return made


@pytest.fixture
def api(resources: Resources) -> Iterator[str]:
    with serving(make_app(resources)) as (port, _):
        yield f"ws://127.0.0.1:{port}"


def new_key(resources: Resources, *scopes: str) -> str:
    key, _ = resources.api_keys.add("tests", list(scopes))
    return key


def test_a_key_as_header_and_as_message(api: str, resources: Resources):
    key = new_key(resources, "market:read")
    with connect(f"{api}/stream") as client:
        assert "auth" in told(client)
        ask(client, action="subscribe", dataset="crypto_1m", symbols="*")
        assert told(client, "error")["code"] == "unauthenticated"
        ask(client, action="auth", key=f"{key}x")
        assert told(client, "error")["code"] == "auth"
        ask(client, action="auth", key=key)
        assert told(client, "authenticated")["scopes"] == ["market:read"]
        ask(client, action="subscribe", dataset="crypto_1m", symbols="*")
        assert told(client, "snapshot")["items"]
    for header in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
        with connect(f"{api}/ws", additional_headers=header) as client:
            assert told(client)["scopes"] == ["market:read"]


def test_alpacas_two_headers_and_its_message(api: str, resources: Resources):
    key = new_key(resources, "market:read")
    headers = {"APCA-API-KEY-ID": "any", "APCA-API-SECRET-KEY": key}
    with connect(f"{api}/v2/iex", additional_headers=headers) as client:
        assert [orjson.loads(client.recv(timeout=10))[0]["msg"] for _ in range(2)] == ["connected", "authenticated"]
    other = new_key(resources, "trading:read")
    with connect(f"{api}/v1beta3/crypto/us") as client:
        client.recv(timeout=10)
        for secret, code in (("nonsense", 402), (other, 409)):
            ask(client, action="auth", key="any", secret=secret)
            assert orjson.loads(client.recv(timeout=10))[0]["code"] == code


def test_pages_of_other_origins_are_refused(api: str):
    with pytest.raises(InvalidStatus, match="403"):
        connect(f"{api}/stream", origin="https://elsewhere.example")

"""Who may ask what: every route, with every kind of credential that is none, and the limits of those that are."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from pydantic import SecretStr, ValidationError

from quantlytic_assets.api.access import ADMIN, MARKET, SCOPES, TRADING, token_of
from quantlytic_assets.api.gate import PUBLIC
from quantlytic_assets.settings import Settings
from quantlytic_assets.storage.api_keys import ApiKeys
from quantlytic_tests.api.desk import Answer, Client, Desk, make_desk, serving

SECRET = "a secret of more than thirty-two characters"
EXAMPLES = {
    "symbol": "BTC-USD", "strategy": "cross_1d", "name": "cross_1d", "dataset": "crypto_1m", "order_id": "cross_1d:x:y",
    "loc": "us", "ticker": "AAPL", "multiplier": "1", "timespan": "day", "start": "2020-01-02", "end": "2020-02-03",
}  # fmt: skip


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return make_desk(tmp_path_factory.mktemp("access"), minutes=2, api_auth="on", api_secret=SecretStr(SECRET))


@pytest.fixture(scope="module")
def api(desk: Desk) -> Iterator[Client]:
    with serving(desk.resources) as client:
        yield client


@pytest.fixture(scope="module")
def keys(desk: Desk) -> ApiKeys:
    return desk.resources.api_keys


@pytest.fixture(scope="module")
def routes(api: Client) -> list[tuple[str, str, str]]:
    """Method, address and needed scope of every route of the OpenAPI document that is not for anybody."""
    document = api.get("/openapi.json").json
    return [
        (method.upper(), re.sub(r"{(\w+)}", lambda found: EXAMPLES[found[1]], path), operation["x-scope"])
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if path not in PUBLIC
    ]


def ask(api: Client, method: str, path: str, credential: str | None) -> Answer:
    headers = {} if credential is None else {"authorization": f"Bearer {credential}"}
    return api.ask(method, path, None, **headers)


def test_every_route_needs_a_scope_and_says_which(routes: list[tuple[str, str, str]]):
    assert len(routes) > 20
    assert {scope for _, _, scope in routes} == set(SCOPES)
    assert {path for method, path, scope in routes if scope == ADMIN} == {
        "/strategies/cross_1d/halt", "/strategies/cross_1d/resume",
    }  # fmt: skip


def test_no_route_answers_what_is_no_credential(desk: Desk, keys: ApiKeys, routes: list[tuple[str, str, str]]):
    now = datetime.now(UTC)
    expired, _ = keys.add("expired", SCOPES, expires_at=now - timedelta(seconds=1))
    revoked, gone = keys.add("revoked", SCOPES)
    keys.revoke(gone.id)
    valid, key = keys.add("valid", SCOPES)
    claims = {"iss": "quantlytic", "sub": key.id, "scopes": list(SCOPES), "exp": now + timedelta(minutes=5)}
    wrong = {
        "missing": None,
        "expired": expired,
        "revoked": revoked,
        "another secret": valid[:-1] + ("A" if valid[-1] != "A" else "B"),
        "no key of ours": "ql_000000000000_" + "x" * 43,
        "expired token": token_of(key, SCOPES, SECRET, now - timedelta(hours=1)),
        "token of a revoked key": token_of(gone, SCOPES, SECRET, now),
        "signed by somebody else": token_of(key, SCOPES, SECRET[::-1], now),
        "not signed": jwt.encode(claims, None, algorithm="none"),
        "without an end": jwt.encode({k: claims[k] for k in ("iss", "sub", "scopes")}, SECRET, algorithm="HS256"),
    }  # fmt: skip
    for name, credential in wrong.items():
        # A server of its own each: it counts wrong credentials.
        with serving(desk.resources) as fresh:
            statuses = {path: ask(fresh, method, path, credential).status for method, path, _ in routes}
        assert set(statuses.values()) <= {401, 429} and 401 in statuses.values(), (name, statuses)


def test_no_route_answers_another_scope(api: Client, keys: ApiKeys, routes: list[tuple[str, str, str]]):
    made = {scope: keys.add(scope, [scope], rate="10000/second") for scope in SCOPES}
    every, whole = keys.add("every scope", SCOPES, rate="10000/second")
    for method, path, needed in routes:
        for scope, (key, kept) in made.items():
            right = scope == needed
            said = ask(api, method, path, key)
            assert (said.status not in (401, 403)) == right, (path, scope, said.status)
            by_token = ask(api, method, path, token_of(kept, [scope], SECRET, datetime.now(UTC)))
            assert (by_token.status not in (401, 403)) == right, (path, scope, by_token.status)
            if not right:
                assert needed in said.json["detail"]
        narrow = token_of(whole, [one for one in SCOPES if one != needed], SECRET, datetime.now(UTC))
        assert ask(api, method, path, narrow).status == 403
        assert ask(api, method, path, every).status < 500


def test_a_token_has_no_more_than_its_key(api: Client, keys: ApiKeys):
    _, kept = keys.add("market", [MARKET])
    greedy = token_of(kept, SCOPES, SECRET, datetime.now(UTC))
    assert ask(api, "GET", "/positions", greedy).status == 403
    assert ask(api, "GET", "/prices/BTC-USD", greedy).status == 200


def test_a_key_is_taken_where_clients_put_it(api: Client, keys: ApiKeys):
    key, _ = keys.add("anywhere", [MARKET])
    front, back = key[:15], key[16:]
    assert key == f"{front}_{back}"
    for headers in (
        {"x_api_key": key},
        {"authorization": f"Bearer {key}"},
        {"apca_api_key_id": key, "apca_api_secret_key": "-"},
        {"apca_api_key_id": front, "apca_api_secret_key": back},
        {"apca_api_key_id": "me", "apca_api_secret_key": key},
    ):
        assert api.get("/prices/BTC-USD", **headers).status == 200, headers
    assert api.get("/prices/BTC-USD", authorization=f"Basic {key}").status == 401


def test_a_revoked_key_opens_nothing_any_more(api: Client, keys: ApiKeys):
    key, kept = keys.add("short", [MARKET])
    assert ask(api, "GET", "/prices/BTC-USD", key).status == 200
    assert keys.revoke(kept.id) and not keys.revoke(kept.id)
    patience = time.monotonic() + 30
    while ask(api, "GET", "/prices/BTC-USD", key).status == 200:
        assert time.monotonic() < patience
        time.sleep(0.1)


def test_a_rate_is_kept_and_told(api: Client, keys: ApiKeys):
    key, _ = keys.add("slow", [MARKET], rate="3/hour")
    answers = [ask(api, "GET", "/prices/BTC-USD", key) for _ in range(5)]
    assert [one.status for one in answers] == [200, 200, 200, 429, 429]
    assert [one.headers["ratelimit-remaining"] for one in answers[:3]] == ["2", "1", "0"]
    assert int(answers[3].headers["retry-after"]) <= 3600 and answers[3].headers["ratelimit-limit"] == "3"


def test_a_quota_is_of_the_day_and_outlives_the_server(desk: Desk, keys: ApiKeys):
    key, kept = keys.add("few", [MARKET], daily_quota=3)
    with serving(desk.resources) as first:
        assert [ask(first, "GET", "/prices/BTC-USD", key).status for _ in range(2)] == [200, 200]
    assert keys.usage(datetime.now(UTC).date())[kept.id] == 2
    with serving(desk.resources) as second:
        assert [ask(second, "GET", "/prices/BTC-USD", key).status for _ in range(2)] == [200, 429]


def test_wrong_credentials_are_not_tried_without_end(desk: Desk):
    with serving(desk.resources) as api:
        statuses = [ask(api, "GET", "/prices/BTC-USD", f"ql_{number:012}_x").status for number in range(30)]
    assert statuses[0] == 401 and statuses[-1] == 429


def test_trading_and_changes_are_in_the_audit_log_and_prices_are_not(desk: Desk, keys: ApiKeys):
    key, kept = keys.add("audited", SCOPES)
    with serving(desk.resources) as api:
        for method, path in (("GET", "/prices/BTC-USD"), ("GET", "/orders"), ("POST", "/strategies/cross_1d/halt")):
            assert ask(api, method, path, key).status == 200
        assert ask(api, "GET", "/orders", "ql_nobody_x").status == 401
    told = [(one.caller, one.method, one.path, one.status) for one in keys.audit()[-3:]]
    assert told == [
        (kept.id, "GET", "/orders", 200),
        (kept.id, "POST", "/strategies/cross_1d/halt", 200),
        ("unknown", "GET", "/orders", 401),
    ]
    halted = desk.resources.accounts.requests()[-1]
    assert (halted.action, halted.requested_by) == ("halt", f"api key {kept.id}")


def test_a_key_is_nowhere_in_the_installation(desk: Desk, keys: ApiKeys):
    key, _ = keys.add("hidden", [MARKET])
    secret = key.rpartition("_")[2].encode()
    files = [path for path in desk.chosen.data.rglob("*") if path.is_file()]
    assert files and not any(secret in path.read_bytes() for path in files)


def test_without_authentication_reading_is_allowed_and_nothing_else(tmp_path: Path):
    desk = make_desk(tmp_path, minutes=2)
    key, _ = desk.resources.api_keys.add("admin", [ADMIN])
    with serving(desk.resources) as api:
        assert api.get("/prices/BTC-USD").status == api.get("/positions").status == 200
        assert api.get("/prices/BTC-USD", apca_api_key_id="x", apca_api_secret_key="y").status == 200
        assert api.ask("POST", "/strategies/cross_1d/halt").status == 403
        assert ask(api, "POST", "/strategies/cross_1d/halt", "ql_000000000000_x").status == 401
        assert ask(api, "POST", "/strategies/cross_1d/halt", key).json["halted"] == "by_hand"
        assert ask(api, "POST", "/strategies/cross_1d/resume", key).json["halted"] is None
        assert ask(api, "POST", "/strategies/cross_1d/resume", key).status == 409
        # A page of another site that has its name point here, and one that would read an answer.
        assert api.get("/prices/BTC-USD", host="evil.example").status == 400
        assert "access-control-allow-origin" not in api.get("/prices/BTC-USD", origin="https://evil.example").headers


def test_pages_of_named_origins_may_ask(tmp_path: Path):
    desk = make_desk(tmp_path, minutes=2, api_cors="https://desk.example")
    with serving(desk.resources) as api:
        answer = api.get("/prices/BTC-USD", origin="https://desk.example")
        assert answer.headers["access-control-allow-origin"] == "https://desk.example"
        assert "access-control-allow-origin" not in api.get("/prices/BTC-USD", origin="https://other.example").headers


def test_beyond_loopback_credentials_are_needed():
    assert not Settings().api_authenticated
    assert Settings(api_host="0.0.0.0").api_authenticated
    assert Settings(api_auth="on").api_authenticated
    for wrong, says in (
        ({"api_host": "0.0.0.0", "api_auth": "off"}, "QUANTLYTIC_API_AUTH must be on"),
        ({"api_secret": "short"}, "32 characters"),
        ({"api_cert": "cert.pem"}, "go together"),
        ({"api_rate": "often"}, "api_rate"),
    ):
        with pytest.raises(ValidationError, match=says):
            Settings(**wrong)


def test_trading_is_not_for_who_may_see_the_market(api: Client, keys: ApiKeys):
    key, _ = keys.add("market only", [MARKET])
    for path in ("/orders", "/positions", "/trades/cross_1d:x/explain"):
        assert ask(api, "GET", path, key).status == 403
    assert TRADING in ask(api, "GET", "/orders", key).json["detail"]

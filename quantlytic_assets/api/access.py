"""Who asks, and what they may: a caller is found from the headers of a request, and has scopes.

Scopes: `market:read` (prices, features, signals, gaps), `trading:read` (orders, positions, accounts, explanations),
`admin` (halting and resuming strategies). Where authentication is off whoever reaches the loopback address may read,
and nobody is an admin without a key.

A credential is a key (`X-API-Key`, `Authorization: Bearer`, Alpaca's two headers) or a token of a key: a JWT (HS256)
with the key's id as `sub` and some of its scopes, which ends with the key.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from quantlytic_assets.api.problems import Problem
from quantlytic_assets.storage.api_keys import PREFIX, ApiKey, digest_of, id_of

if TYPE_CHECKING:
    from quantlytic_assets.resources import Resources

MARKET, TRADING, ADMIN = "market:read", "trading:read", "admin"
SCOPES = (MARKET, TRADING, ADMIN)
# Headers as ASGI has them: lower-case names and values, bytes.
Headers = Iterable[tuple[bytes, bytes]]
ISSUER = "quantlytic"
TOKEN_LIFE = timedelta(minutes=15)
# A key that was revoked opens nothing after so many seconds.
_READ_AGAIN = 1.0
# And unknown ones are looked for so often a second at most.
_LOOKS = 50
_CHALLENGE = {"www-authenticate": 'Bearer realm="quantlytic"'}
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Caller:
    """Who asks: a name for logs (a key's id, never the key), scopes, and the key that is behind it, if one is."""

    name: str
    scopes: frozenset[str]
    key: ApiKey | None = None

    def must(self, scope: str) -> None:
        """Raises `Problem` 403 where the caller lacks the scope."""
        if scope not in self.scopes:
            has = ", ".join(sorted(self.scopes)) or "none"
            raise Problem(403, f"This needs the scope {scope}; the credential of {self.name} has {has}.")


ANYBODY = Caller("anybody on this machine", frozenset({MARKET, TRADING}))


class Access:
    """Finds callers. All keys are read from the state database at once, once a second while they are asked with."""

    def __init__(self, resources: Resources):
        settings = resources.settings
        self._resources = resources
        self._open = not settings.api_authenticated
        self._secret = settings.api_secret.get_secret_value() if settings.api_secret else None
        self._keys: dict[str, ApiKey] = {}
        self._read = 0.0
        self._second = self._looks = 0

    def caller(self, headers: Headers) -> Caller:
        """Who sends these headers. Raises `Problem` 401 for a wrong credential, or for none where one is needed."""
        key = token = alpaca_id = alpaca_secret = None
        for name, value in headers:
            if name == b"authorization":
                kind, _, token = value.decode("latin-1").partition(" ")
                if kind.lower() != "bearer":
                    raise _refused(f"Authorization has the scheme {kind}; send Bearer and a key or token.")
            elif name == b"x-api-key":
                key = value.decode("latin-1")
            elif name == b"apca-api-key-id":
                alpaca_id = value.decode("latin-1")
            elif name == b"apca-api-secret-key":
                alpaca_secret = value.decode("latin-1")
        if alpaca_id is not None:
            return self.caller_of_key(alpaca_id, alpaca_secret)
        given = key or token
        if given is None:
            if self._open:
                return ANYBODY
            raise _refused("A credential is needed: X-API-Key or Authorization: Bearer. Make one: quantlytic keys add")
        return self.caller_of_key(given.strip())

    def caller_of_key(self, key: str, secret: str | None = None) -> Caller:
        """Whose API key or token this is, as protocols say it that send it in a message. Raises `Problem` 401.

        secret: what Alpaca's clients send as the second part; either of the two, or both together, may be the key.
        """
        for whole in (key, secret or "", f"{key}_{secret}"):
            number = id_of(whole)
            if number is not None:
                return self._caller_of(whole, number)
        if key.count(".") == 2:
            return self._caller_of_token(key)
        # A client that must have some credential works on loopback without one of ours.
        if self._open and not key.startswith(PREFIX):
            return ANYBODY
        raise _refused("The credential is no key of this installation.")

    def _caller_of(self, key: str, number: str) -> Caller:
        found = self._find(number)
        if found is None or not hmac.compare_digest(found.digest, digest_of(key)):
            raise _refused("The key is not one of this installation.")
        self._check(found)
        return Caller(found.id, found.scopes, found)

    def _caller_of_token(self, token: str) -> Caller:
        import jwt

        if self._secret is None:
            raise _refused("Tokens are not taken here: QUANTLYTIC_API_SECRET is not set. Send a key.")
        try:
            said = jwt.decode(
                token, self._secret, algorithms=["HS256"], issuer=ISSUER, options={"require": ["exp", "sub", "iss"]}
            )
        except jwt.ExpiredSignatureError:
            raise _refused("The token has expired. Make another one: quantlytic keys token") from None
        except jwt.InvalidTokenError as error:
            raise _refused(f"The token is not valid ({error}).") from None
        found = self._find(str(said["sub"]))
        if found is None:
            raise _refused("The token is of a key that is not one of this installation.")
        self._check(found)
        given = said.get("scopes")
        scopes = found.scopes & frozenset(given) if isinstance(given, list) else frozenset()
        return Caller(found.id, scopes, found)

    def _check(self, key: ApiKey) -> None:
        if not key.valid(datetime.now(UTC)):
            ended = "was revoked" if key.revoked_at else "has expired"
            raise _refused(f"The key {key.id} {ended}. Make another one: quantlytic keys add")

    def _find(self, number: str) -> ApiKey | None:
        now = time.monotonic()
        if int(now) != self._second:
            self._second, self._looks = int(now), 0
        # One that was made a moment ago is looked for at once.
        if now - self._read > _READ_AGAIN or (number not in self._keys and self._looks < _LOOKS):
            self._read = now
            self._looks += 1
            try:
                self._keys = {one.id: one for one in self._resources.api_keys.every()}
            except Exception as error:
                # Whom it knew it goes on to know; a database that is away for a moment ends no client's work.
                _LOG.error("the keys of the API can't be read: %s", error)
        return self._keys.get(number)


def token_of(key: ApiKey, scopes: Iterable[str], secret: str, now: datetime, life: timedelta = TOKEN_LIFE) -> str:
    """A token of a key with some of its scopes, valid for `life`."""
    import jwt

    said = {"iss": ISSUER, "sub": key.id, "scopes": sorted(scopes), "iat": now, "exp": now + life}
    return jwt.encode(said, secret, algorithm="HS256")


def _refused(detail: str) -> Problem:
    return Problem(401, detail, _CHALLENGE)

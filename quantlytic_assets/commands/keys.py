"""`quantlytic keys`: who may ask the API, and for what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from rich.table import Table

from quantlytic_assets.commands.inspection import print_json
from quantlytic_assets.commands.installation import UsageError
from quantlytic_assets.commands.migrating import bring_up_to_date
from quantlytic_assets.storage.api_keys import PREFIX, UnknownKey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation
    from quantlytic_assets.storage.api_keys import ApiKey, ApiKeys


def add_key(
    installation: Installation,
    out: Console,
    name: str,
    scopes: str,
    days: int | None,
    rate: str | None,
    daily: int | None,
) -> None:
    """Make a key and print it, which nobody can do again. Raises `UsageError` for scopes or a rate that are none."""
    from quantlytic_assets.api.access import SCOPES

    wanted = _scopes(scopes, SCOPES)
    if rate is not None:
        from limits import parse

        try:
            parse(rate)
        except ValueError:
            raise UsageError(f"--rate {rate} is no rate: write 100/second or 5000/minute") from None
    expires = datetime.now(UTC) + timedelta(days=days) if days else None
    key, made = _keys(installation, out).add(name, wanted, rate, daily, expires)
    out.print(key, highlight=False, soft_wrap=True, markup=False)
    until = f", until {expires:%Y-%m-%d %H:%M} UTC" if expires else ""
    out.print(
        f"This is shown once. It may {', '.join(wanted)}{until}; `quantlytic keys revoke {made.id}` ends it.",
        highlight=False,
        soft_wrap=True,
    )


def list_keys(installation: Installation, out: Console, as_json: bool) -> None:
    """Print all keys with what each asked today."""
    keys, now = _keys(installation, out), datetime.now(UTC)
    used = keys.usage(now.date())
    rows: list[dict[str, Any]] = [
        {
            "id": one.id,
            "name": one.name,
            "scopes": sorted(one.scopes),
            "state": "revoked" if one.revoked_at else "valid" if one.valid(now) else "expired",
            "created_at": one.created_at,
            "expires_at": one.expires_at,
            "rate": one.rate,
            "daily_quota": one.daily_quota,
            "requests_today": used.get(one.id, 0),
        }
        for one in keys.every()
    ]
    if as_json:
        print_json(rows)
        return
    if not rows:
        out.print("no keys; make one: quantlytic keys add NAME", highlight=False)
        return
    table = Table("id", "name", "scopes", "state", "expires", "rate", "today")
    for row in rows:
        expires = f"{row['expires_at']:%Y-%m-%d %H:%M}" if row["expires_at"] else "never"
        quota = f" of {row['daily_quota']:,}" if row["daily_quota"] else ""
        scopes, today = ", ".join(row["scopes"]), f"{row['requests_today']:,}{quota}"
        table.add_row(row["id"], row["name"], scopes, row["state"], expires, row["rate"] or "", today)
    out.print(table)


def revoke_key(installation: Installation, out: Console, key: str) -> None:
    """Revoke a key by its id. Raises `UsageError` for one that there is not."""
    number = _number(key)
    try:
        was_valid = _keys(installation, out).revoke(number)
    except UnknownKey as error:
        raise UsageError(str(error)) from None
    said = "revoked; it opens nothing from the next second on" if was_valid else "was revoked before"
    out.print(f"{number} {said}", highlight=False)


def make_token(installation: Installation, out: Console, key: str, scopes: str, minutes: int) -> None:
    """Print a token of a key. Raises `UsageError` for a key that opens nothing, or scopes that it has not."""
    from quantlytic_assets.api.access import token_of

    secret = installation.settings.api_secret
    if secret is None:
        raise UsageError(
            "tokens are signed with QUANTLYTIC_API_SECRET, which is not set; `openssl rand -hex 32` makes one"
        )
    found: ApiKey | None = next((one for one in _keys(installation, out).every() if one.id == _number(key)), None)
    now = datetime.now(UTC)
    if found is None or not found.valid(now):
        raise UsageError(f"there is no valid key {_number(key)}; `quantlytic keys list` shows all")
    wanted = _scopes(scopes, sorted(found.scopes)) if scopes else sorted(found.scopes)
    token = token_of(found, wanted, secret.get_secret_value(), now, timedelta(minutes=minutes))
    out.print(token, highlight=False, soft_wrap=True, markup=False)


def _scopes(text: str, known: Iterable[str]) -> list[str]:
    wanted = [one.strip() for one in text.split(",") if one.strip()]
    wrong = [one for one in wanted if one not in known]
    if wrong or not wanted:
        raise UsageError(f"--scopes {text}: there are {', '.join(known)}")
    return wanted


def _number(key: str) -> str:
    """The id of a key, of which people may give the whole beginning."""
    return key.removeprefix(PREFIX).split("_")[0]


def _keys(installation: Installation, out: Console) -> ApiKeys:
    bring_up_to_date(installation, out)
    return installation.resources.api_keys

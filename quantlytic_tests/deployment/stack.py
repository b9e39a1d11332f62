"""docker-compose.yml as Compose would see it: merged, and with the variables of an environment put in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from quantlytic_assets.settings import CHECKOUT

COMPOSE = CHECKOUT / "docker-compose.yml"
# ${NAME}, ${NAME:-default}, ${NAME:?complaint}; $$ stands for one $.
_VARIABLE = re.compile(r"\$\$|\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<text>[^}]*))?\}")


def variables(text: str) -> Iterator[tuple[str, str | None, str]]:
    """Name, kind (- for a default, ? for a must) and text of each variable."""
    for match in _VARIABLE.finditer(text):
        if match["name"]:
            yield match["name"], match["kind"], match["text"] or ""


def compose(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The file's content; with an environment, its variables put in. Raises `KeyError` for one that must be set."""
    text = COMPOSE.read_text()
    if environment is None:
        return yaml.safe_load(text)

    def value(match: re.Match) -> str:
        if not match["name"]:
            return "$"
        if environment.get(match["name"]):
            return environment[match["name"]]
        if match["kind"] != "-":
            raise KeyError(match["name"])
        return match["text"]

    return yaml.safe_load(_VARIABLE.sub(value, text))


def example() -> dict[str, str]:
    """The variables of .env.example that are set in it."""
    lines = (CHECKOUT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def filled() -> dict[str, str]:
    """.env.example as a user fills it in."""
    return {name: value or f"secret-{name.lower()}" for name, value in example().items()}

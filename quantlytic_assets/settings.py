"""Environment to typed settings: which profile runs, where its data lives, which universe it serves.

Nothing is opened or created here; the parts are made from these settings in `resources`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

CHECKOUT = Path(__file__).resolve().parent.parent


class SettingsError(Exception):
    """The environment holds a value that Quantlytic can't use; the message lists each, one a line."""


class Settings(BaseSettings):
    """All that the environment may set, each as `QUANTLYTIC_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="QUANTLYTIC_", env_ignore_empty=True, frozen=True, extra="ignore")

    profile: Literal["embedded"] = Field("embedded", description="embedded: no server, everything under `home`")
    universe: Path = Field(CHECKOUT / "universe.yaml", description="the file that declares datasets and strategies")
    home: Path | None = Field(None, description="data directory; default .quantlytic beside the universe file")
    port: int = Field(3000, ge=1, le=65535, description="port of the web UI on 127.0.0.1")
    backfill_chunk: int = Field(250, ge=1, description="partitions in one run of a backfill")
    claim_records: int = Field(200_000, ge=1, description="bus records in one landing claim, which bounds memory")
    duckdb_memory: str = Field("1GB", description="DuckDB's memory limit in one process")
    duckdb_threads: int = Field(2, ge=1, description="DuckDB's threads in one process")

    @property
    def data(self) -> Path:
        """The data directory, absolute."""
        chosen = self.home if self.home is not None else self.universe.absolute().parent / ".quantlytic"
        return chosen.absolute()

    def directory(self, part: str) -> Path:
        """`data/<part>`, made if it is missing. Parts: bus archive lake state dagster dbt mlflow logs reports."""
        path = self.data / part
        path.mkdir(parents=True, exist_ok=True)
        return path


def load_settings() -> Settings:
    """Settings from the environment; raises `SettingsError` naming each variable that is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"QUANTLYTIC_{'_'.join(str(part) for part in item['loc']).upper()}={item.get('input')!r}: {item['msg']}"
            for item in error.errors()
        ]
        raise SettingsError("\n".join(lines)) from None

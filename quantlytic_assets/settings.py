"""Environment to typed settings: which profile runs, where its data lives, which universe it serves.

Nothing is opened or created here; the parts are made from these settings in `resources`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from zoneinfo import available_timezones

from pydantic import AliasChoices, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

CHECKOUT = Path(__file__).resolve().parent.parent
# The models that make features, which dbt reads itself.
DBT_PROJECT = CHECKOUT / "dbt_project"
# Where the programs are that are installed with this Python: they are run from there, whatever the PATH says.
PROGRAMS = Path(sys.executable).parent
# What the files of workspaces call the code location of `definitions`.
CODE_LOCATION = "quantlytic"


class SettingsError(Exception):
    """The environment holds a value that Quantlytic can't use; the message lists each, one a line."""


class Settings(BaseSettings):
    """All that the environment may set, each as `QUANTLYTIC_<NAME>`; the object store's as AWS names them.

    AWS's own names, because boto3, obstore, MLflow and Dagster's log storage all read those by themselves.
    """

    model_config = SettingsConfigDict(
        env_prefix="QUANTLYTIC_", env_ignore_empty=True, frozen=True, extra="ignore", populate_by_name=True
    )

    profile: Literal["embedded", "services"] = Field(
        "embedded", description="embedded: no server, everything under `home`; services: Kafka, S3 and Postgres"
    )
    universe: Path = Field(CHECKOUT / "universe.yaml", description="the file that declares datasets and strategies")
    home: Path | None = Field(None, description="data directory; default .quantlytic beside the universe file")
    port: int = Field(3000, ge=1, le=65535, description="port of the web UI on 127.0.0.1")
    own_pages_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        validation_alias="QUANTLYTIC_PAGES_PORT",
        description="port of the pages with charts and reports on 127.0.0.1; left out: two after the web UI's",
    )
    pages_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s]+$",
        description="the pages as a browser reaches them, where a proxy is before them",
    )
    mlflow_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s]+$",
        description="an MLflow UI that runs anyway; left out: one is started on demand",
    )
    backfill_chunk: int = Field(250, ge=1, description="partitions in one run of a backfill")
    claim_records: int = Field(200_000, ge=1, description="bus records in one landing claim, which bounds memory")
    duckdb_memory: str = Field("1GB", description="DuckDB's memory limit in one process")
    duckdb_threads: int = Field(2, ge=1, description="DuckDB's threads in one process")
    metrics_port: int = Field(9464, ge=1, le=65535, description="port of the Prometheus metrics on 127.0.0.1")

    api_host: str = Field("127.0.0.1", description="address of the REST API; any but a loopback one needs credentials")
    own_api_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        validation_alias="QUANTLYTIC_API_PORT",
        description="port of the REST API; left out: 5000 after the web UI's, which is 8000",
    )
    api_auth: Literal["off", "on"] | None = Field(
        None,
        description="whether the API wants credentials; left out: off in the embedded profile on loopback, else on",
    )
    api_secret: SecretStr | None = Field(
        None, description="what the API's tokens are signed with, 32 characters at least; left out: keys only"
    )
    api_rate: str | None = Field(
        "100/second",
        pattern=r"^[1-9]\d*/(second|minute|hour|day)$",
        description="requests of a key, such as 100/second or 5000/minute, unless it has a limit of its own",
    )
    api_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s]+$",
        description="the API and its dashboard as a browser reaches them, where a proxy is before them",
    )
    api_connects: int = Field(300, ge=1, description="websockets that one address may open in a minute")
    api_connections: int = Field(2000, ge=1, description="websockets that are open at once in one process of the API")
    api_cors: str = Field("", description="origins whose pages may ask the API, such as https://desk.example, by comma")
    api_hosts: str = Field("", description="further names under which the API is reached, by comma")
    api_cert: Path | None = Field(None, description="certificate of the API, PEM; with it HTTPS is spoken")
    api_cert_key: Path | None = Field(None, description="private key of that certificate, PEM")

    # Several installations can share the same servers under different namespaces.
    namespace: str = Field("", pattern=r"^([a-z][a-z0-9_]{0,30})?$", description="prefix of topics, keys and databases")

    kafka: str = Field("127.0.0.1:9092", description="bootstrap servers, comma-separated host:port")
    kafka_driver: Literal["kafka-python", "confluent"] = Field(
        "kafka-python", description="client of Kafka: kafka-python, or librdkafka, several times as fast"
    )
    kafka_partitions: int = Field(3, ge=1, description="partitions of a topic that the code makes")
    kafka_replication: int = Field(1, ge=1, description="replicas of a topic that the code makes")
    kafka_bars_retention_hours: int = Field(168, ge=1, description="how long bars stay on the bus")
    kafka_ticks_retention_hours: int = Field(72, ge=1, description="how long ticks stay on the bus")
    kafka_security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_user: str | None = Field(None, description="SASL user (SCRAM-SHA-512)")
    kafka_password: SecretStr | None = None

    s3_bucket: str = Field("quantlytic", description="bucket of archive, lake data, models and logs")
    s3_endpoint: str | None = Field(
        None, validation_alias="AWS_ENDPOINT_URL", description="http://host:port of a MinIO; left out for AWS itself"
    )
    s3_region: str = Field("us-east-1", validation_alias=AliasChoices("AWS_REGION", "AWS_DEFAULT_REGION"))
    s3_access_key: SecretStr | None = Field(None, validation_alias="AWS_ACCESS_KEY_ID")
    s3_secret_key: SecretStr | None = Field(None, validation_alias="AWS_SECRET_ACCESS_KEY")

    postgres_host: str = "127.0.0.1"
    postgres_port: int = Field(5432, ge=1, le=65535)
    postgres_user: str = "quantlytic"
    postgres_password: SecretStr | None = None

    notify: SecretStr | None = Field(None, description="whom alerts go to: Apprise addresses, by comma or space")

    # Where the venues are; another address is for one of their regional branches, or for a test.
    binance_ws: str = Field("wss://stream.binance.com:9443", description="Binance's market streams")
    binance_rest: str = Field("https://data-api.binance.vision", description="Binance's public REST host")
    coinbase_ws: str = Field("wss://ws-feed.exchange.coinbase.com", description="Coinbase Exchange's feed")
    coinbase_rest: str = Field("https://api.exchange.coinbase.com", description="Coinbase Exchange's REST host")
    binance_files_url: str = Field("https://data.binance.vision", description="Binance's public files")
    yahoo_url: str = Field("https://query2.finance.yahoo.com", description="Yahoo Finance's chart endpoint")

    alpha_vantage_url: str = Field("https://www.alphavantage.co", description="Alpha Vantage's host")
    alpha_vantage_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("QUANTLYTIC_ALPHA_VANTAGE_KEY", "ALPHAVANTAGE_API_KEY")
    )
    alpha_vantage_premium: bool = Field(False, description="the key is a paid one: whole histories, intraday bars")
    twelve_data_url: str = Field("https://api.twelvedata.com", description="Twelve Data's host")
    twelve_data_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("QUANTLYTIC_TWELVE_DATA_KEY", "TWELVEDATA_API_KEY")
    )
    ibkr_host: str = Field("127.0.0.1", description="where TWS or IB Gateway listens for programs")
    ibkr_port: int = Field(4002, ge=1, le=65535, description="4002 or 4001: Gateway; 7497 or 7496: TWS; paper first")
    ibkr_client_id: int = Field(17, ge=1, description="the number that TWS knows us by; no other program may have it")

    # Where orders go: a paper session, which need not be the one that bars come from.
    ibkr_account: str | None = Field(None, description="the paper account that orders go to: DU and digits")
    ibkr_allowed_accounts: str = Field("", description="the accounts that orders may go to, by comma or space")
    ibkr_paper_host: str = Field("127.0.0.1", description="where the paper session of TWS or IB Gateway listens")
    ibkr_paper_port: int = Field(4002, ge=1, le=65535, description="its port: Gateway 4002, TWS 7497")
    ibkr_paper_client_id: int = Field(18, ge=1, description="the number that orders are sent with; it stays the same")
    ibkr_restart: str = Field(
        "23:45", pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="when TWS or IB Gateway restarts each day"
    )
    ibkr_restart_zone: str = Field("America/New_York", description="the time zone of that")

    @model_validator(mode="after")
    def _client_ids(self) -> Settings:
        """Orders and bars need connections of their own."""
        if self.ibkr_client_id == self.ibkr_paper_client_id:
            raise ValueError(
                "QUANTLYTIC_IBKR_PAPER_CLIENT_ID must differ from QUANTLYTIC_IBKR_CLIENT_ID, which bars are asked with"
            )
        if self.ibkr_restart_zone not in available_timezones():
            raise ValueError(
                f"QUANTLYTIC_IBKR_RESTART_ZONE={self.ibkr_restart_zone!r} is no time zone, such as Europe/Berlin"
            )
        return self

    @model_validator(mode="after")
    def _credentials(self) -> Settings:
        """The services profile wants credentials from the environment; there are no defaults for them."""
        if self.profile == "services":
            wanted = {
                "AWS_ACCESS_KEY_ID": self.s3_access_key,
                "AWS_SECRET_ACCESS_KEY": self.s3_secret_key,
                "QUANTLYTIC_POSTGRES_PASSWORD": self.postgres_password,
            }
            missing = [name for name, value in wanted.items() if value is None]
            if missing:
                raise ValueError(f"profile services needs {', '.join(missing)} in the environment (see .env.example)")
            if self.postgres_password and "/" in self.postgres_password.get_secret_value():
                raise ValueError("QUANTLYTIC_POSTGRES_PASSWORD must not contain a slash: Dagster can't connect with it")
        return self

    @model_validator(mode="after")
    def _api(self) -> Settings:
        """What is reached from elsewhere asks who is there; what signs tokens can't be guessed."""
        if self.api_auth == "off" and not _is_loopback(self.api_host):
            raise ValueError(
                f"QUANTLYTIC_API_HOST={self.api_host} is no loopback address, so QUANTLYTIC_API_AUTH must be on"
            )
        if self.api_secret is not None and len(self.api_secret.get_secret_value()) < 32:
            raise ValueError(
                "QUANTLYTIC_API_SECRET is too short: 32 characters at least, as `openssl rand -hex 32` gives"
            )
        if (self.api_cert is None) != (self.api_cert_key is None):
            raise ValueError("QUANTLYTIC_API_CERT and QUANTLYTIC_API_CERT_KEY go together")
        return self

    @property
    def api_authenticated(self) -> bool:
        """Whether the API answers nobody without a credential."""
        if self.api_auth is not None:
            return self.api_auth == "on"
        return self.profile != "embedded" or not _is_loopback(self.api_host)

    @property
    def api_port(self) -> int:
        """Port of the API: 5000 after the UI's, so that a second installation needs one variable alone."""
        after = self.port + 5000
        return self.own_api_port or (after if after <= 65535 else self.port - 5000)

    @property
    def dashboard(self) -> str:
        """Address of the API's dashboard as links in Dagster name it, without a slash at the end."""
        scheme = "https" if self.api_cert else "http"
        return (self.api_url or f"{scheme}://127.0.0.1:{self.api_port}").rstrip("/")

    def database(self, part: str) -> str:
        """The Postgres database of a part: dagster, lake, state or mlflow."""
        return f"{self.namespace or 'quantlytic'}_{part}"

    def postgres_url(self, part: str) -> str:
        """The part's database as SQLAlchemy names it, password included: never to be shown."""
        # Here, because an embedded installation does without.
        from sqlalchemy import URL

        url = URL.create(
            "postgresql+psycopg2",
            self.postgres_user,
            self.postgres_password.get_secret_value() if self.postgres_password else None,
            self.postgres_host,
            self.postgres_port,
            self.database(part),
        )
        return url.render_as_string(hide_password=False)

    @property
    def s3_root(self) -> str:
        """`s3://bucket`, with the namespace below it where there is one."""
        return f"s3://{self.s3_bucket}" + (f"/{self.namespace}" if self.namespace else "")

    @property
    def pages_port(self) -> int:
        """Port of the pages: two after the UI's, so that a second installation needs one variable alone."""
        return self.own_pages_port or min(self.port + 2, 65535)

    @property
    def pages(self) -> str:
        """Address of the pages as links in Dagster name it, without a slash at the end."""
        return (self.pages_url or f"http://127.0.0.1:{self.pages_port}").rstrip("/")

    @property
    def data(self) -> Path:
        """The data directory, absolute."""
        chosen = self.home if self.home is not None else self.universe.absolute().parent / ".quantlytic"
        return chosen.absolute()

    def directory(self, part: str) -> Path:
        """`data/<part>`, made if it is missing. Parts: bus archive lake state hot dagster dbt mlflow logs reports."""
        path = self.data / part
        path.mkdir(parents=True, exist_ok=True)
        return path


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def load_settings() -> Settings:
    """Settings from the environment; raises `SettingsError` naming each variable that is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError("\n".join(_mistake(item) for item in error.errors())) from None


def _mistake(item: ErrorDetails) -> str:
    """One wrong variable in a line. A secret's value is not repeated."""
    name = "_".join(str(part) for part in item["loc"])
    if not name:
        return item["msg"].removeprefix("Value error, ")
    variable = name if name.isupper() else f"QUANTLYTIC_{name.upper()}"
    given = "" if any(word in variable for word in ("PASSWORD", "SECRET", "KEY")) else f"={item.get('input')!r}"
    return f"{variable}{given}: {item['msg']}"


def revealed(secret: SecretStr | None) -> str:
    """A credential's value, which the services profile has checked to be there. It must never be shown."""
    assert secret is not None, "settings of the services profile have every credential"
    return secret.get_secret_value()

"""One bucket of an S3 store (MinIO, AWS, …), as obstore, DuckDB and boto3 each want to be told of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import duckdb
from obstore.store import S3Store

from quantlytic_assets.storage.extensions import extension_directory


@dataclass(frozen=True)
class S3Place:
    """A bucket and its credentials. `endpoint` None means AWS itself; `prefix` goes before every key."""

    bucket: str
    prefix: str
    endpoint: str | None
    region: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)

    def url(self, part: str) -> str:
        """`s3://bucket/prefix/part`."""
        return "s3://" + "/".join(piece for piece in (self.bucket, self.prefix, part) if piece)

    def store(self, part: str) -> S3Store:
        """The objects below `part`. A store that does not answer is asked again for a while before it is an error."""
        return S3Store(
            self.bucket,
            prefix="/".join(piece for piece in (self.prefix, part) if piece),
            endpoint=self.endpoint,
            region=self.region,
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
            virtual_hosted_style_request=self.endpoint is None,
            client_options={"allow_http": True, "connect_timeout": timedelta(seconds=5)},
            retry_config={
                "max_retries": 10,
                "retry_timeout": timedelta(seconds=60),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=5),
                    "base": 2,
                },
            },
        )

    def make_bucket(self) -> None:
        """Make the bucket where it does not exist. Raises boto3's errors where that is not allowed."""
        import boto3
        from botocore.exceptions import ClientError

        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
        )
        try:
            client.head_bucket(Bucket=self.bucket)
            return
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
                raise
        # AWS wants the region said for every region but this one, and rejects it for this one.
        where = {} if self.region == "us-east-1" else {"LocationConstraint": self.region}
        try:
            client.create_bucket(Bucket=self.bucket, **({"CreateBucketConfiguration": where} if where else {}))
        except client.exceptions.BucketAlreadyOwnedByYou:
            return

    def secret(self) -> dict[str, str | bool]:
        """The parameters of DuckDB's secret for this bucket."""
        given: dict[str, str | bool] = {
            "type": "s3",
            "scope": f"s3://{self.bucket}",
            "key_id": self.access_key,
            "secret": self.secret_key,
            "region": self.region,
        }
        if self.endpoint is not None:
            scheme, _, host = self.endpoint.rpartition("://")
            given |= {"endpoint": host.rstrip("/"), "url_style": "path", "use_ssl": scheme == "https"}
        return given

    def prepare(self, connection: duckdb.DuckDBPyConnection, extensions: Path) -> None:
        """Let a DuckDB connection read and write this bucket. `extensions`: where DuckDB's extensions are kept."""
        connection.execute(f"SET extension_directory = '{extension_directory(extensions, ['httpfs'])}'")
        connection.execute("LOAD httpfs")
        # A store that is being started again answers after a while; the waits double from a tenth of a second on.
        connection.execute("SET http_retries = 8")
        create_secret(connection, "archive", self.secret())


def create_secret(connection: duckdb.DuckDBPyConnection, name: str, parameters: dict[str, str | bool]) -> None:
    """Give a DuckDB connection a secret for its own lifetime. Raises without repeating any of it."""
    written = ", ".join(
        f"{key} {value}" if isinstance(value, bool) else f"{key} '{value.replace(chr(39), chr(39) * 2)}'"
        for key, value in parameters.items()
    )
    try:
        connection.execute(f"CREATE OR REPLACE TEMPORARY SECRET {name} ({written})")
    except duckdb.Error as error:
        # DuckDB's message may quote the statement.
        raise RuntimeError(f"DuckDB rejects the secret {name!r} ({type(error).__name__})") from None

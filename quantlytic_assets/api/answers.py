"""What is sent: a value or rows as JSON, msgpack or an Arrow stream, whole, with an ETag, compressed where asked for.

Rows are taken as the hot store has them. As JSON they are sent without being read.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import orjson
from fastapi import Request
from fastapi.responses import Response

from quantlytic_assets.api.problems import Problem

JSON = "application/json"
MSGPACK = "application/msgpack"
ARROW = "application/vnd.apache.arrow.stream"
_NAMES = {
    "*/*": JSON,
    "application/*": JSON,
    JSON: JSON,
    MSGPACK: MSGPACK,
    "application/x-msgpack": MSGPACK,
    "application/vnd.msgpack": MSGPACK,
    ARROW: ARROW,
}
# Smaller ones gain nothing by being compressed.
_COMPRESSED_FROM = 1400
# What is known is asked for again and found unchanged: by its ETag, whoever keeps it.
HEADERS = {"cache-control": "private, no-cache", "vary": "accept, accept-encoding, authorization"}


@dataclass(frozen=True)
class Rows:
    """An answer with rows: `head` has the members before them, `body` the rows, JSON objects joined by commas."""

    head: dict[str, Any]
    member: str
    body: bytes

    @property
    def json(self) -> bytes:
        """The whole answer as JSON."""
        start = orjson.dumps(self.head)[:-1]
        return b"".join((start, b',"', self.member.encode(), b'":[', self.body, b"]}"))


@dataclass(frozen=True)
class Reply:
    """What an answer is before it is known how it is to be sent."""

    content: Rows | Any
    headers: dict[str, str] = field(default_factory=dict)


def media_type(accept: str | None) -> str:
    """The first media type of an Accept header that answers can have. Raises `Problem` 406 where there is none."""
    if not accept:
        return JSON
    wanted = []
    for position, part in enumerate(accept.split(",")):
        name, *parameters = (one.strip().lower() for one in part.split(";"))
        weight = next((one[2:] for one in parameters if one.startswith("q=")), "1")
        try:
            quality = float(weight)
        except ValueError:
            quality = 0.0
        if name in _NAMES and quality > 0:
            wanted.append((-quality, position, _NAMES[name]))
    if not wanted:
        raise Problem(406, f"Answers are {JSON}, {MSGPACK} or, where they have rows, {ARROW}; not {accept}.")
    return min(wanted)[2]


def encoded(content: Any, media: str) -> bytes:
    """The content in a media type. Raises `Problem` 406 for Arrow of what has no rows."""
    if media == ARROW:
        if not isinstance(content, Rows):
            raise Problem(406, f"This answer has no rows to be sent as {ARROW}; take {JSON} or {MSGPACK}.")
        return _arrow(content)
    text = content.json if isinstance(content, Rows) else orjson.dumps(content)
    if media == MSGPACK:
        import msgpack

        return msgpack.packb(orjson.loads(text))
    return text


def _arrow(rows: Rows) -> bytes:
    """A stream of one table; what is before the rows is JSON in the schema's metadata, under `quantlytic`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    told = orjson.loads(b"[" + rows.body + b"]")
    table = pa.Table.from_pylist(told) if told else pa.table({"t": pa.array([], pa.string())})
    for name in ("t", "available_at", "trained_through"):
        if name in table.column_names:
            at = table.column_names.index(name)
            time = pc.cast(table[name], pa.timestamp("us", "UTC"))
            table = table.set_column(at, name, time)
    table = table.replace_schema_metadata({"quantlytic": orjson.dumps(rows.head)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def etag_of(body: bytes) -> str:
    """What tells a body from others."""
    return f'"{blake2b(body, digest_size=9).hexdigest()}"'


def matches(asked: str, etag: str) -> bool:
    """Whether an If-None-Match header names the ETag; a proxy that compresses makes it a weak one."""
    return asked == etag or any(one.strip().removeprefix("W/") in (etag, "*") for one in asked.split(","))


def compressed(body: bytes) -> bytes:
    """The body as gzip, fast rather than small."""
    return gzip.compress(body, compresslevel=1, mtime=0)


def respond(request: Request, reply: Reply) -> Response:
    """The answer to a request, as it wants it."""
    media = media_type(request.headers.get("accept"))
    body = encoded(reply.content, media)
    headers = {**HEADERS, **reply.headers, "etag": etag_of(body)}
    asked = request.headers.get("if-none-match")
    if asked and matches(asked, headers["etag"]):
        return Response(status_code=304, headers=headers)
    if len(body) >= _COMPRESSED_FROM and "gzip" in request.headers.get("accept-encoding", ""):
        body, headers["content-encoding"] = compressed(body), "gzip"
    return Response(body, headers=headers, media_type=media)

"""The vendor `binance_files`: spot bars of the zip files at data.binance.vision, one a symbol, interval and period.

They need no key, know no rate limit and hold what the REST endpoint (`binance`) serves, for years at once; a day's
file appears on the next day, a month's on the first Monday of the next month (README of binance/binance-public-data).
Files are published again where they were wrong: what is fetched later is newer, and cleaning prefers it.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import polars as pl

from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.vendors.binance import binance_name
from quantlytic_assets.vendors.binance_klines import COLUMNS, COLUMNS_SENT, kline_bars
from quantlytic_assets.vendors.http import error_of, get, open_session
from quantlytic_assets.vendors.parts import cut
from quantlytic_assets.vendors.protocol import BarRequest, Limit, Served, VendorError, VendorTraits

# So many days of a month are worth its one monthly file rather than a file each.
_DAYS_WORTH_A_MONTH = 5
# A file that is not there so long after it should be will not come: the symbol was not traded.
_SURELY_PUBLISHED = timedelta(days=2)
# No time is further from 1970, in whatever unit.
_FURTHEST = 1 << 53
# A month of 1m bars is 6 MB as text.
_LARGEST = 100_000_000
_DAY = timedelta(days=1)
# What Python's zipfile raises for bytes that are no zip, or one in a way that it does not know.
_UNZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error,
    EOFError, OSError, RuntimeError, ValueError, LookupError,
)  # fmt: skip
_FIELDS = (*COLUMNS, *(f"unused_{number}" for number in range(len(COLUMNS), COLUMNS_SENT)))


class BinanceFilesVendor:
    """See `Vendor`. `url` is the host's, scheme included; `clock` tells the time and is there for tests."""

    name = "binance_files"
    # None is published: five files a second, with their checksums, leave room for others.
    limits = (Limit(1, 10),)
    at_once = 2

    def __init__(self, url: str, clock: Callable[[], datetime] = lambda: datetime.now(UTC)):
        self._url = url.rstrip("/")
        self._clock = clock
        self._session = open_session()

    def traits(self, dataset: str) -> VendorTraits:
        """Minutes without a trade are there, and a file is asked for again only in case it is published anew."""
        return VendorTraits(omits_empty_bars=False, attempts_before_hole=2)

    def parts(self, request: BarRequest) -> list[BarRequest]:
        """See `Vendor.parts`: a file each, of a month where it is published and most of it is wanted, else of a day."""
        edges: list[datetime] = []
        month = _month_of(request.start)
        while month < request.end:
            after = _month_of(month + 31 * _DAY)
            edges.append(month)
            wanted = min(request.end, after) - max(request.start, month)
            if wanted < _DAYS_WORTH_A_MONTH * _DAY or self._clock() < _published(after) + _SURELY_PUBLISHED:
                edges += [month + number * _DAY for number in range((after - month).days)]
            month = after
        return cut(request, edges)

    def weight(self, request: BarRequest) -> int:
        """See `Vendor.weight`: a file and its checksum."""
        return 2

    def unsupported(self, request: BarRequest) -> str | None:
        """See `Vendor.unsupported`: the file of a day that is not over is not there."""
        over = _day_of(request.end - timedelta(microseconds=1)) + _DAY
        if over <= self._clock():
            return None
        return f"Binance publishes the file of a day after it: {over:%Y-%m-%d} or later"

    def fetch(self, request: BarRequest) -> Served:
        """See `Vendor.fetch`; a request is of one day, or of one month.

        A file that is not published makes an answer without bars where it should have been for two days, else a
        `VendorError` that others may do better. What does not match its checksum is not used.
        """
        first, last = _day_of(request.start), _day_of(request.end - timedelta(microseconds=1))
        if _month_of(first) != _month_of(last):
            raise VendorError("Binance has files of a day or a month, ask for less at once", retryable=False)
        name = request.name or binance_name(request.symbol)
        if first == last:
            kind, period, due = "daily", f"{first:%Y-%m-%d}", first + _DAY
        else:
            kind, period, due = "monthly", f"{first:%Y-%m}", _published(_month_of(_month_of(first) + 31 * _DAY))
        file = f"{name}-{request.interval}-{period}.zip"
        path = "/".join(quote(part, safe="") for part in ("data", "spot", kind, "klines", name, request.interval, file))
        checksum = self._file(f"{path}.CHECKSUM")
        if checksum is None:
            if self._clock() < due + _SURELY_PUBLISHED:
                raise VendorError(f"{file} is not published yet", retryable=False)
            return Served(pl.DataFrame(schema=RAW_SCHEMA))
        expected = _sha256(checksum, file)
        content = self._file(path)
        if content is None:
            raise VendorError(f"{file} is not there, though its checksum is", retryable=True)
        if hashlib.sha256(content).hexdigest() != expected:
            raise VendorError(f"{file} does not match its checksum, nothing of it is used", retryable=True)
        klines = _klines(_unzipped(content, file), file)
        return Served(kline_bars(klines, request, self._clock(), self.name))

    def _file(self, path: str) -> bytes | None:
        """The content of a file; None where there is none."""
        response = get(self._session, f"{self._url}/{path}")
        if response.status_code == 404:
            return None
        if response.status_code != 200:
            raise error_of(response)
        return response.content


def _day_of(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _month_of(time: datetime) -> datetime:
    return _day_of(time).replace(day=1)


def _published(after: datetime) -> datetime:
    """When the file of the month that ends at `after` should be there: on the first Monday, whatever the hour."""
    return after + timedelta(days=-after.weekday() % 7) + _DAY


def _sha256(checksum: bytes, file: str) -> str:
    """The hash in a line of sha256sum's."""
    found = re.match(rb"\s*([0-9a-fA-F]{64})\b", checksum)
    if found is None:
        raise VendorError(f"the checksum of {file} is none", retryable=True)
    return found[1].decode().lower()


def _unzipped(content: bytes, file: str) -> bytes:
    """The one member of a zip file."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if len(members) != 1:
                raise VendorError(f"{file} holds {len(members)} files instead of one", retryable=False)
            with archive.open(members[0]) as member:
                text = member.read(_LARGEST + 1)
    except _UNZIP_ERRORS as error:
        raise VendorError(f"{file} can't be unpacked: {type(error).__name__}", retryable=False) from None
    if len(text) > _LARGEST:
        raise VendorError(f"{file} holds more than {_LARGEST:,} bytes", retryable=False)
    return text


def _klines(text: bytes, file: str) -> pl.DataFrame:
    """The COLUMNS of a file, which may begin with their names. What is no number in them becomes null."""
    try:
        rows = pl.read_csv(
            text.strip(),
            has_header=False,
            schema=dict.fromkeys(_FIELDS, pl.String),
            quote_char=None,
            raise_if_empty=False,
        )
    except pl.exceptions.PolarsError:
        raise VendorError(f"{file} is not a table of {COLUMNS_SENT} columns", retryable=False) from None
    if rows.head(1)["open_time"].str.starts_with("open").any():
        rows = rows.slice(1)
    if rows[_FIELDS[-1]].null_count():
        raise VendorError(f"{file} is not a table of {COLUMNS_SENT} columns", retryable=False)
    opened = rows["open_time"].cast(pl.Int64, strict=False)
    if opened.null_count() or not opened.is_between(-_FURTHEST, _FURTHEST).all():
        raise VendorError(f"open_time is not always a whole number in {file}", retryable=False)
    return rows.select(opened, pl.col(COLUMNS[1:]).cast(pl.Float64, strict=False))

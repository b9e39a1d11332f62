"""Binance's public files on 127.0.0.1: made-up klines that are the same in every run, zipped, with their checksums.

Nothing of the package's own code is used to write what it says.
"""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from zlib import crc32

from quantlytic_tests.vendors.loopback import Question, Reply, serving

_SECONDS = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600, "1d": 86_400}
# Files of spot bars tell microseconds from this day on.
_MICROSECONDS = date(2025, 1, 1)
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)


def kline(symbol: str, interval: str, opened: int, version: int = 0, micro: bool = False) -> str:
    """A line of a file for the bar that opens at a second. Another `version` has another close."""
    seed = crc32(f"{symbol} {interval} {opened}".encode())
    low = 100 + seed % 1000
    count = seed % 7
    volume = count * 0.5
    close = low + 2 + version
    unit = 1_000_000 if micro else 1000
    closed = (opened + _SECONDS[interval]) * unit - 1
    prices = f"{low + 1:.8f},{low + 9:.8f},{low:.8f},{close:.8f}"
    return f"{opened * unit},{prices},{volume:.8f},{closed},{volume * (low + 2):.8f},{count},0.0,0.0,0"


def zipped(*members: tuple[str, str]) -> bytes:
    """A zip file of texts by name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in members:
            # With a date of its own: the current one would make another file, and checksum, two seconds later.
            archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


class BinanceArchive:
    """A context manager: `url` is where it is, `paths` what it was asked for, in order.

    `symbols` (Binance's names) were traded from `first` on; files are there of days and months up to `last`. `headers`:
    days whose files begin with the names of the columns; a month's does where its first day's does. `versions`: days
    that were published again, with other values. `files` takes the place of what would be made, by path; `replies`
    come before everything else.
    """

    def __init__(
        self,
        symbols: Collection[str],
        first: date,
        last: date,
        headers: Collection[date] = (),
        replies: Sequence[Reply] = (),
    ):
        self.symbols = set(symbols)
        self.first, self.last = first, last
        self.headers = set(headers)
        self.versions: dict[date, int] = {}
        self.files: dict[str, bytes | None] = {}
        self.replies = list(replies)
        self.paths: list[str] = []
        self._lock = threading.Lock()
        self._running = ExitStack()
        self.url = ""

    def __enter__(self) -> BinanceArchive:
        self.url = self._running.enter_context(serving(self._answer))
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def lines(self, symbol: str, interval: str, day: date) -> list[str]:
        """The klines of a day, as its file has them."""
        midnight = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
        opens = range(midnight, midnight + 86_400, _SECONDS[interval])
        version, micro = self.versions.get(day, 0), day >= _MICROSECONDS
        return [kline(symbol, interval, opened, version, micro) for opened in opens]

    def _answer(self, question: Question) -> Reply:
        with self._lock:
            self.paths.append(question.path)
            if self.replies:
                return self.replies.pop(0)
        path = question.path.removesuffix(".CHECKSUM")
        content = self.files.get(question.path) if question.path in self.files else self._file(path)
        if content is None:
            said = "<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>"
            return Reply(404, f'<?xml version="1.0" encoding="UTF-8"?>\n{said}', kind="application/xml")
        if question.path != path and question.path not in self.files:
            named = f"{hashlib.sha256(content).hexdigest()}  {path.rsplit('/', 1)[-1]}\n"
            return Reply(200, named, kind="binary/octet-stream")
        return Reply(200, content, kind="application/zip")

    def _file(self, path: str) -> bytes | None:
        if path in self.files:
            return self.files[path]
        words = path.strip("/").split("/")
        if len(words) != 7 or words[:2] != ["data", "spot"] or words[3] != "klines" or words[4] not in self.symbols:
            return None
        kind, symbol, interval, name = words[2], words[4], words[5], words[6]
        period = name.removeprefix(f"{symbol}-{interval}-").removesuffix(".zip")
        if kind == "daily" and len(period) == 10:
            days = [date.fromisoformat(period)]
        elif kind == "monthly" and len(period) == 7:
            begin = date.fromisoformat(f"{period}-01")
            days = [begin + timedelta(days=number) for number in range(31)]
            days = [day for day in days if day.month == begin.month]
        else:
            return None
        if days[-1] > self.last or interval not in _SECONDS:
            return None
        lines = [line for day in days if day >= self.first for line in self.lines(symbol, interval, day)]
        if not lines:
            return None
        header = [HEADER] if days[0] in self.headers else []
        return zipped((name.replace(".zip", ".csv"), "\n".join(header + lines) + "\n"))
